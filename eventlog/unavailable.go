package eventlog

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
)

// UnavailableError says that storage is away, or takes no writes for now. Nothing
// was wrong with what was asked: trying again may help. Whether something was
// written is unknown.
type UnavailableError struct {
	// Reason says why in a few words for operators. It holds no address and no
	// secret.
	Reason string
	// Err is what the driver said.
	Err error
}

// Error returns the reason and the cause.
func (e *UnavailableError) Error() string {
	if e.Err == nil {
		return e.Reason
	}
	return e.Reason + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *UnavailableError) Unwrap() error { return e.Err }

// Unavailable reports whether an error of a database, of its driver or of a file
// means that storage is away, however it is wrapped; if so, it returns err as an
// [UnavailableError], else err itself. It is the one place that decides; a program
// may use it for its own tables in the same database.
//
// These are PostgreSQL's classes 08 (connection), 53 (resources), 57P (shutdown)
// and 58 (system), and 25006 (read-only); SQLite's BUSY, LOCKED, NOMEM, READONLY,
// IOERR, FULL, CANTOPEN and PROTOCOL; a connection that broke or was never made; a
// deadline; and a disk that is full, read-only or fails.
func Unavailable(err error) (_ error, away bool) {
	if err == nil {
		return nil, false
	}
	if _, ok := errors.AsType[*UnavailableError](err); ok {
		return err, true
	}
	if reason := unavailable(err); reason != "" {
		return &UnavailableError{Reason: reason, Err: err}, true
	}
	return err, false
}

func unavailable(err error) string {
	// PostgreSQL said something, which decides, whatever else is in the chain.
	if pg, ok := errors.AsType[interface {
		error
		SQLState() string
	}](err); ok {
		return postgresReason(pg.SQLState())
	}
	if lite, ok := errors.AsType[interface {
		error
		Code() int
	}](err); ok {
		return sqliteReasons[lite.Code()&0xff]
	}
	// pgx says so of a connection that was closed before something was sent on it.
	if unsent, ok := errors.AsType[interface {
		error
		SafeToRetry() bool
	}](err); ok && unsent.SafeToRetry() {
		return broken
	}
	for cause, reason := range causes {
		if errors.Is(err, cause) {
			return reason
		}
	}
	_, network := errors.AsType[*net.OpError](err)
	_, lookup := errors.AsType[*net.DNSError](err)
	if network || lookup {
		return broken
	}
	return ""
}

const (
	noAnswer = "the database did not answer in time"
	broken   = "there is no connection to the database"
)

// causes are errors of Go's own packages.
var causes = map[error]string{
	context.DeadlineExceeded: noAnswer,
	os.ErrDeadlineExceeded:   noAnswer,
	driver.ErrBadConn:        broken,
	io.EOF:                   broken,
	io.ErrUnexpectedEOF:      broken,
	net.ErrClosed:            broken,
	syscall.ECONNRESET:       broken,
	syscall.EPIPE:            broken,
	syscall.ENOSPC:           "the disk is full",
	syscall.EDQUOT:           "the disk quota is used up",
	syscall.EROFS:            "the file system is read-only",
	syscall.EIO:              "the disk fails",
}

// postgresReason returns why an SQLSTATE means that the database is away; empty
// if it does not.
func postgresReason(state string) string {
	switch state {
	case "25006":
		return "the database is read-only: it is a standby, or default_transaction_read_only is on"
	case "53100":
		return "the database's disk is full"
	case "53200":
		return "the database is out of memory"
	case "53300":
		return "the database has no free connection: raise its max_connections, or lower database.max_connections here"
	case "57P03":
		return "the database is starting up, or takes no connections"
	}
	for prefix, reason := range map[string]string{
		"08":  broken,
		"53":  "the database is at one of its limits",
		"57P": "the database shut down, or ended the connection",
		"58":  "the database's system fails",
	} {
		if strings.HasPrefix(state, prefix) {
			return reason
		}
	}
	return ""
}

// sqliteReasons are by primary result code; see https://sqlite.org/rescode.html.
var sqliteReasons = map[int]string{
	5:  "another process keeps the database locked",                            // BUSY
	6:  "another connection keeps the database locked",                         // LOCKED
	7:  "the database is out of memory",                                        // NOMEM
	8:  "the database is read-only: check the owner and the mount of data_dir", // READONLY
	10: "the disk fails",                                                       // IOERR
	13: "the disk is full",                                                     // FULL
	14: "the database's file can't be opened: check data_dir",                  // CANTOPEN
	15: "another process keeps the database locked",                            // PROTOCOL
}

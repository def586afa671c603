package eventlog

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"syscall"
)

// UnavailableError means that storage is unreachable or temporarily refuses writes.
// The request itself was valid, so a retry may succeed. It is unknown whether
// anything was written.
type UnavailableError struct {
	// Reason is a short explanation for operators. It contains no address and no
	// secret.
	Reason string
	// Err is the driver's error.
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

// Unavailable reports whether an error of a database, a driver or a file means that
// storage is unavailable, however it is wrapped. If so, it returns err as an
// [UnavailableError], otherwise err itself. This is the only place that decides it;
// programs may use it for their own tables in the same database.
//
// The errors are PostgreSQL's classes 08 (connection), 53 (resources), 57P
// (shutdown) and 58 (system), 25006 (read-only), and 42501, 42P01 and 3F000
// (missing permissions, tables or schema, so that nothing can be read or written);
// SQLite's BUSY, LOCKED, NOMEM, READONLY, IOERR, FULL, CANTOPEN and PROTOCOL;
// failed connections; expired deadlines; and disks that are full, read-only or
// failing.
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
	// If PostgreSQL returned an error, it decides, whatever else is in the chain.
	if pg, ok := errors.AsType[interface {
		error
		SQLState() string
	}](err); ok {
		return postgresReason(pg.SQLState(), pg.Error())
	}
	if lite, ok := errors.AsType[interface {
		error
		Code() int
	}](err); ok {
		return sqliteReasons[lite.Code()&0xff]
	}
	// pgx returns this if a connection was closed before anything was sent on it.
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

// causes maps errors of the standard library to reasons.
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
	syscall.EIO:              "the disk reports an I/O error",
}

// parameter matches the name of the parameter that PostgreSQL refuses.
var parameter = regexp.MustCompile(`parameter "([A-Za-z0-9_.]+)"`)

// postgresReason returns the reason for an error of PostgreSQL, or of a pooler in
// front of it, that means the database is unavailable; empty for other errors.
func postgresReason(state, text string) string {
	for _, r := range postgresReasons {
		if !strings.HasPrefix(state, r.state) || !strings.Contains(text, r.text) {
			continue
		}
		name := "it"
		if found := parameter.FindStringSubmatch(text); found != nil {
			name = found[1]
		}
		return strings.ReplaceAll(r.reason, "PARAMETER", name)
	}
	return ""
}

// postgresReasons maps SQLSTATE prefixes and parts of messages to reasons; the
// first match applies. PARAMETER stands for a parameter's name. Messages may be
// translated, so there is a reason without a text wherever the state is sufficient.
var postgresReasons = []struct{ state, text, reason string }{
	{
		"08P01", "query_wait_timeout",
		"the pooler has no free connection: raise its default_pool_size, or lower database.max_connections here",
	},
	{
		"", "transaction blocks not allowed in statement pooling mode",
		"the pooler is in statement mode: set its pool_mode to session, or to transaction and poll_only here",
	},
	{"08", "", broken},
	{"25006", "", "the database is read-only: it is a standby, or default_transaction_read_only is on"},
	{"3F000", "", "the schema of Tidings is gone: restore it, or start Tidings again, which creates an empty one"},
	{"42P01", "", "tables of Tidings are gone: restore them; if all are gone, start Tidings again, which creates " +
		"empty ones"},
	{
		"42501", "denied to set parameter",
		"the database, the role or database_url sets PARAMETER, which this role may not change: " +
			"ALTER DATABASE … RESET PARAMETER, or ALTER ROLE … RESET PARAMETER",
	},
	{
		"42501", "",
		"the role lacks privileges on the tables of Tidings: GRANT USAGE ON SCHEMA, " +
			"and GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES and USAGE ON ALL SEQUENCES IN SCHEMA",
	},
	{
		"42704", "unrecognized configuration parameter",
		"database_url sets PARAMETER, which PostgreSQL does not know: correct or remove it",
	},
	{"53100", "", "the database's disk is full"},
	{"53200", "", "the database is out of memory"},
	{
		"53300", "too many connections for role",
		"the role has no free connection: raise its limit with ALTER ROLE … CONNECTION LIMIT, or lower " +
			"database.max_connections here",
	},
	{
		"53300", "too many connections for database",
		"the database has no free connection: raise its limit with ALTER DATABASE … CONNECTION LIMIT, " +
			"or lower database.max_connections here",
	},
	{"53300", "", "the database has no free connection: raise its max_connections, or lower " +
		"database.max_connections here"},
	{"53", "", "the database is at one of its limits"},
	{"57P03", "", "the database is starting up, or accepts no connections"},
	{"57P", "", "the database shut down, or closed the connection"},
	{"58", "", "the database reports a system error"},
}

// sqliteReasons maps primary result codes to reasons; see
// https://sqlite.org/rescode.html.
var sqliteReasons = map[int]string{
	5:  "the database is locked by another process",                            // BUSY
	6:  "the database is locked by another connection",                         // LOCKED
	7:  "the database is out of memory",                                        // NOMEM
	8:  "the database is read-only: check the owner and the mount of data_dir", // READONLY
	10: "the disk reports an I/O error",                                        // IOERR
	13: "the disk is full",                                                     // FULL
	14: "the database file can't be opened: check data_dir",                    // CANTOPEN
	15: "the database is locked by another process",                            // PROTOCOL
}

package eventlog_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidings-dev/tidings/eventlog"
)

// code is a SQLite error like those of modernc.org/sqlite.
type code int

func (c code) Error() string { return fmt.Sprint("sqlite: ", int(c)) }
func (c code) Code() int     { return int(c) }

// closed is an error like pgx's for a closed connection.
type closed struct{}

func (closed) Error() string     { return "conn closed" }
func (closed) SafeToRetry() bool { return true }

func TestUnavailable(t *testing.T) {
	state := func(s string) error { return &pgconn.PgError{Code: s} }
	for _, test := range []struct {
		err  error
		away bool
	}{
		{nil, false},
		{errors.New("anything"), false},
		{context.Canceled, false},
		{sql.ErrNoRows, false},
		{state("08006"), true},
		{state("08P01"), true},
		{state("23505"), false},
		{state("25006"), true},
		{state("25P02"), false},
		{state("40001"), false},
		{state("42501"), true},
		{state("42P01"), true},
		{state("3F000"), true},
		{state("42703"), false},
		{state("42704"), false},
		{state("53100"), true},
		{state("53200"), true},
		{state("53300"), true},
		{state("53400"), true},
		{state("57014"), false},
		{state("57P01"), true},
		{state("57P02"), true},
		{state("57P03"), true},
		{state("57P05"), true},
		{state("58030"), true},
		{state("XX000"), false},
		{errors.Join(io.EOF, state("23505")), false}, // the database's error decides
		{code(1), false},
		{code(5), true},         // BUSY
		{code(5 | 2<<8), true},  // BUSY_SNAPSHOT
		{code(6), true},         // LOCKED
		{code(8), true},         // READONLY
		{code(10 | 3<<8), true}, // IOERR_WRITE
		{code(13), true},        // FULL
		{code(14), true},        // CANTOPEN
		{code(11), false},       // CORRUPT does not pass
		{code(19), false},       // CONSTRAINT
		{driver.ErrBadConn, true},
		{closed{}, true},
		{io.ErrUnexpectedEOF, true},
		{io.EOF, true},
		{context.DeadlineExceeded, true},
		{net.ErrClosed, true},
		{&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, true},
		{&net.DNSError{Name: "db", IsNotFound: true}, true},
		{&fs.PathError{Op: "write", Err: syscall.ENOSPC}, true},
		{&fs.PathError{Op: "open", Err: syscall.ENOENT}, false},
		{&eventlog.UnavailableError{Reason: "elsewhere"}, true},
		{&pgconn.PgError{Code: "42704", Message: `unrecognized configuration parameter "foo"`}, true},
		{&pgconn.PgError{Code: "0A000", Message: "transaction blocks not allowed in statement pooling mode"}, true},
	} {
		for _, err := range []error{
			test.err, fmt.Errorf("wrapped: %w", test.err),
			errors.Join(errors.New("and"), test.err),
		} {
			if test.err == nil {
				err = nil
			}
			got, away := eventlog.Unavailable(err)
			if away != test.away || !errors.Is(got, test.err) {
				t.Errorf("%v: away = %v, error %v; want %v", err, away, got, test.away)
			}
			if reason, ok := errors.AsType[*eventlog.UnavailableError](got); ok != test.away ||
				(ok && reason.Reason == "") {
				t.Errorf("%v: returns %#v", err, got)
			}
		}
	}
}

// Where a state has several causes, the reason says what helps against each.
func TestReasons(t *testing.T) {
	for _, test := range []struct{ state, message, want string }{
		{
			"08P01", "query_wait_timeout",
			"the pooler has no free connection: raise its default_pool_size, or lower database.max_connections here",
		},
		{"08P01", "anything", "there is no connection to the database"},
		{"53300", `too many connections for role "a"`, "ALTER ROLE … CONNECTION LIMIT"},
		{"53300", `too many connections for database "a"`, "ALTER DATABASE … CONNECTION LIMIT"},
		{"53300", "sorry, too many clients already", "raise its max_connections"},
		{
			"42501", `permission denied to set parameter "session_replication_role"`,
			"ALTER DATABASE … RESET session_replication_role",
		},
		{"42501", `permission denied to set parameter "a.b_1"`, "ALTER ROLE … RESET a.b_1"},
		{"42501", "permission denied for table contexts", "GRANT"},
		{"42704", `unrecognized configuration parameter "foo"`, "database_url sets foo"},
		{"08P01", "transaction blocks not allowed in statement pooling mode", "set its pool_mode to session"},
	} {
		err, _ := eventlog.Unavailable(&pgconn.PgError{Code: test.state, Message: test.message})
		away, ok := errors.AsType[*eventlog.UnavailableError](err)
		if !ok || !strings.Contains(away.Reason, test.want) {
			t.Errorf("%s %s: %v, want %s", test.state, test.message, err, test.want)
		}
	}
}

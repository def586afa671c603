package bench

import (
	"context"
	"database/sql"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite" // registers the driver "sqlite"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/postgres"
	"github.com/tidings-dev/tidings/eventlog/sqldb"
	"github.com/tidings-dev/tidings/eventlog/sqlite"
)

// Log is an event log that appends events in a transaction of its database.
type Log interface {
	eventlog.Home
	Append(ctx context.Context, tx sqldb.Execer, events ...tidings.Event) error
	Migrate(ctx context.Context, more ...sqldb.Migrations) error
}

// Home is a log and its database.
type Home struct {
	Log
	DB     *sql.DB // for writing
	reader *sql.DB // SQLite only
}

// Open opens a database as the server does: PostgreSQL if there is a URL,
// otherwise SQLite in a file. It creates no tables.
func Open(url, file string) (*Home, error) {
	if url != "" {
		cfg, err := pgx.ParseConfig(url)
		if err != nil { // its text may contain the password
			return nil, errors.New("not a valid PostgreSQL URL")
		}
		db := stdlib.OpenDB(*cfg)
		return &Home{Log: postgres.New(db, postgres.Options{}), DB: db}, nil
	}
	dsn := "file:" + file +
		"?_txlock=immediate&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)&_pragma=busy_timeout(10000)"
	writer, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, err
	}
	writer.SetMaxOpenConns(1)
	reader, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, errors.Join(err, writer.Close())
	}
	return &Home{Log: sqlite.New(reader, writer), DB: writer, reader: reader}, nil
}

// Close closes the database.
func (h *Home) Close() error {
	if h.reader != nil {
		return errors.Join(h.reader.Close(), h.DB.Close())
	}
	return h.DB.Close()
}

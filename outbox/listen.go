package outbox

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/tidings-dev/tidings/eventlog/postgres"
)

const (
	// heartbeat is how long the connection may say nothing before it is asked whether
	// it leads anywhere, and how long the answer may take.
	heartbeat = 5 * time.Second
	// listenPause is how long after a connection broke the next one is made.
	listenPause = time.Second
)

// listen wakes the readers of the log when another process says that there is
// something new, until the context ends. Without a connection they poll.
func listen(ctx context.Context, db *sql.DB, log *postgres.Log) {
	for ctx.Err() == nil && listenOnce(ctx, db, log) {
		select {
		case <-ctx.Done():
		case <-time.After(listenPause):
		}
	}
}

// listenOnce listens until the connection breaks. It returns false if the driver is
// one that can't.
func listenOnce(ctx context.Context, db *sql.DB, log *postgres.Log) (able bool) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return true // whoever needs the database says that it is away
	}
	defer conn.Close() //nolint:errcheck // it is closed already
	able = true
	_ = conn.Raw(func(raw any) error {
		var c *stdlib.Conn
		if c, able = raw.(*stdlib.Conn); !able {
			return nil
		}
		hear(ctx, c.Conn(), log)
		_ = c.Conn().Close(context.WithoutCancel(ctx)) // nobody else shall listen on it
		return driver.ErrBadConn
	})
	return able
}

func hear(ctx context.Context, conn *pgx.Conn, log *postgres.Log) {
	beginning, stop := context.WithTimeout(ctx, heartbeat)
	defer stop()
	if _, err := conn.Exec(beginning, "LISTEN "+pgx.Identifier{log.Channel()}.Sanitize()); err != nil {
		return
	}
	log.Notified("") // something may have been missed
	for {
		waiting, cancel := context.WithTimeout(ctx, heartbeat)
		n, err := conn.WaitForNotification(waiting)
		quiet := waiting.Err() != nil && ctx.Err() == nil
		cancel()
		switch {
		case err == nil:
			log.Notified(n.Payload)
		case !quiet || !answers(ctx, conn):
			return
		}
	}
}

func answers(ctx context.Context, conn *pgx.Conn) bool {
	ctx, cancel := context.WithTimeout(ctx, heartbeat)
	defer cancel()
	return conn.Ping(ctx) == nil
}

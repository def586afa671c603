// Package listen hears, through LISTEN and NOTIFY, of what other processes do with an
// event log in PostgreSQL. Readers of the log poll as well: without it they are slower,
// and miss nothing.
package listen

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidings-dev/tidings/eventlog/postgres"
)

const (
	// heartbeat is how long the connection may say nothing before it is asked whether
	// it leads anywhere, and how long the answer may take.
	heartbeat = 5 * time.Second
	// pause is how long after a connection broke the next one is made.
	pause = time.Second
)

// Run wakes the readers of a log when another process says that there is something new,
// until the context ends. It listens on one connection at a time that connect makes,
// without an OnNotification of its own, for a lifetime at most, and closes it; a lifetime
// of 0 is no limit.
func Run(
	ctx context.Context, log *postgres.Log, lifetime time.Duration, connect func(context.Context) (*pgx.Conn, error),
) {
	for ctx.Err() == nil {
		once(ctx, log, lifetime, connect)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// once listens until the connection breaks. That the database is away is said by
// those who need it.
func once(
	ctx context.Context, log *postgres.Log, lifetime time.Duration, connect func(context.Context) (*pgx.Conn, error),
) {
	if lifetime > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, lifetime)
		defer cancel()
	}
	conn, err := connect(ctx)
	if err != nil {
		return
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // it is over anyhow
	beginning, stop := context.WithTimeout(ctx, heartbeat)
	_, err = conn.Exec(beginning, "LISTEN "+pgx.Identifier{log.Channel()}.Sanitize())
	stop()
	if err != nil {
		return
	}
	log.Notified("") // something may have been missed
	for ctx.Err() == nil {
		waiting, cancel := context.WithTimeout(ctx, heartbeat)
		n, _ := conn.WaitForNotification(waiting) // if it failed, what follows finds out why
		quiet := waiting.Err() != nil
		cancel()
		switch {
		case n != nil:
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

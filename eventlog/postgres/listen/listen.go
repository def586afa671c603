// Package listen wakes readers of an event log in PostgreSQL through LISTEN and
// NOTIFY when other processes change it. Readers also poll: without it they are
// slower but miss nothing.
package listen

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidings-dev/tidings/eventlog/postgres"
)

const (
	// heartbeat is how long the connection may be idle before it is pinged, and how
	// long the response may take.
	heartbeat = 5 * time.Second
	// pause is the delay before reconnecting.
	pause = time.Second
)

// Run wakes the readers of a log on notifications from other processes, until the
// context ends. It uses one connection at a time from connect, which must not set
// OnNotification, and replaces it after lifetime; 0 means no limit.
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

// once listens until the connection breaks. It returns no error: callers that need
// the database report an outage.
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
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // the connection is done
	beginning, stop := context.WithTimeout(ctx, heartbeat)
	_, err = conn.Exec(beginning, "LISTEN "+pgx.Identifier{log.Channel()}.Sanitize())
	stop()
	if err != nil {
		return
	}
	log.Notified("") // notifications may have been missed
	for ctx.Err() == nil {
		waiting, cancel := context.WithTimeout(ctx, heartbeat)
		n, _ := conn.WaitForNotification(waiting) // the ping below reports errors
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

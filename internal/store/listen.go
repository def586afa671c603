package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidings-dev/tidings/eventlog/postgres"
)

// listener hears what other replicas say. It has a connection of its own.
type listener struct {
	config *pgx.ConnConfig
	log    *postgres.Log
	// lifetime is the most that a connection lasts.
	lifetime time.Duration
}

// Listen wakes the readers of the log when another replica says that there is
// something new, until the context ends. While it has no connection they poll.
func (s *Store) Listen(ctx context.Context) {
	if s.listen == nil {
		return
	}
	for ctx.Err() == nil {
		s.listen.once(ctx)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// once listens until the connection breaks. That the database is away is said by
// those who need it.
func (l *listener) once(ctx context.Context) {
	if l.lifetime > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, l.lifetime)
		defer cancel()
	}
	conn, err := pgx.ConnectConfig(ctx, l.config)
	if err != nil {
		return
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // it is over anyhow
	beginning, stop := context.WithTimeout(ctx, heartbeat)
	_, err = conn.Exec(beginning, "LISTEN "+pgx.Identifier{l.log.Channel()}.Sanitize())
	stop()
	if err != nil {
		return
	}
	l.log.Notified("") // something may have been missed
	for {
		n, err := waitForNotification(ctx, conn)
		if err != nil {
			return
		}
		if n != nil {
			l.log.Notified(n.Payload)
		}
	}
}

// heartbeat is how long the connection may say nothing before it is asked whether it
// leads anywhere, and how long the answer may take.
const heartbeat = 5 * time.Second

// waitForNotification returns nil if there was none for a while.
func waitForNotification(ctx context.Context, conn *pgx.Conn) (*pgconn.Notification, error) {
	waiting, cancel := context.WithTimeout(ctx, heartbeat)
	defer cancel()
	n, err := conn.WaitForNotification(waiting)
	if err == nil || waiting.Err() == nil || ctx.Err() != nil {
		return n, err
	}
	asking, stop := context.WithTimeout(ctx, heartbeat)
	defer stop()
	return nil, conn.Ping(asking)
}

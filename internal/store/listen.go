package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

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
	if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{l.log.Channel()}.Sanitize()); err != nil {
		return
	}
	l.log.Notified("") // something may have been missed
	for {
		n, err := conn.WaitForNotification(ctx)
		if err != nil {
			return
		}
		l.log.Notified(n.Payload)
	}
}

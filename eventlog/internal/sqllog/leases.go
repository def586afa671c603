package sqllog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
)

// Join implements [eventlog.Leases].
func (t *Tables) Join(ctx context.Context, r eventlog.Replica, ttl time.Duration) error {
	return t.JoinAfter(ctx, "", r, ttl)
}

// JoinAfter runs a statement and then joins, in one transaction.
func (t *Tables) JoinAfter(ctx context.Context, statement string, r eventlog.Replica, ttl time.Duration) error {
	return t.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if statement != "" {
			if _, err := tx.ExecContext(ctx, statement); err != nil {
				return fmt.Errorf("join as a replica: %w", err)
			}
		}
		_, err := tx.ExecContext(ctx, "INSERT INTO "+t.schema+
			"tidings_replicas (id, fellows, expires_at, version, started_at, memory) VALUES ($1, $2, "+t.dialect.Now+
			" + $3, $4, $5, $6)",
			r.ID, r.Group, ttl.Microseconds(), r.Version, micros(r.Started), r.Memory)
		if err != nil {
			return fmt.Errorf("join as a replica: %w", err)
		}
		return nil
	})
}

// KeepAlive implements [eventlog.Leases].
func (t *Tables) KeepAlive(ctx context.Context, r eventlog.Replica, ttl time.Duration) (bool, error) {
	n, err := t.Exec(ctx, "UPDATE "+t.schema+"tidings_replicas SET fellows = $2, expires_at = "+
		t.dialect.Now+" + $3, memory = $4 WHERE id = $1",
		r.ID, r.Group, ttl.Microseconds(), r.Memory)
	if err != nil {
		return false, fmt.Errorf("keep replica alive: %w", err)
	}
	_, err = t.Exec(ctx, "UPDATE "+t.schema+"tidings_replicas SET expires_at = "+t.dialect.Now+
		" + $1 WHERE expires_at > "+t.dialect.Now+" + $2",
		ttl.Microseconds(), (eventlog.LongestLife * ttl).Microseconds())
	if err != nil {
		return false, fmt.Errorf("limit the expiry of other replicas: %w", err)
	}
	return n == 1, nil
}

// Leave implements [eventlog.Leases].
func (t *Tables) Leave(ctx context.Context, id string) error {
	if _, err := t.Exec(ctx, "DELETE FROM "+t.schema+"tidings_replicas WHERE id = $1", id); err != nil {
		return fmt.Errorf("leave as replica: %w", err)
	}
	return nil
}

// Replicas implements [eventlog.Leases].
func (t *Tables) Replicas(ctx context.Context) ([]eventlog.Replica, error) {
	var replicas []eventlog.Replica
	err := t.query(ctx, t.reader, "replicas", func(rows *sql.Rows) error {
		var r eventlog.Replica
		var started int64
		err := rows.Scan(&r.ID, &r.Group, &r.Version, &started, &r.Memory)
		r.Started = fromMicros(started)
		replicas = append(replicas, r)
		return err
	}, "SELECT id, fellows, version, started_at, memory FROM "+t.schema+"tidings_replicas WHERE expires_at > "+
		t.dialect.Now+" ORDER BY id")
	return replicas, err
}

// Acquire implements [eventlog.Leases]. It blocks joining, leaving and other
// acquisitions: a replica removed here can't renew itself, and one that renews
// itself is visible here.
func (t *Tables) Acquire(
	ctx context.Context, owner string, want []eventlog.Partition,
) (got []eventlog.Cursor, err error) {
	err = t.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		got = nil
		for _, statement := range []string{t.dialect.LockReplicas, "DELETE FROM " + t.schema +
			"tidings_replicas WHERE expires_at <= " + t.dialect.Now} {
			if statement == "" {
				continue
			}
			if _, err := tx.ExecContext(ctx, statement); err != nil {
				return fmt.Errorf("acquire leases: %w", err)
			}
		}
		return inBatches(len(want), func(from, to int) error {
			args := make([]any, 0, 3*(to-from)+1)
			for _, p := range want[from:to] {
				args = append(args, p.Endpoint, p.Index, p.Of)
			}
			rows, err := tx.QueryContext(ctx, typed(to-from, "endpoint text", "part bigint", "parts bigint")+`
				UPDATE `+t.schema+`tidings_cursors SET owner = `+fmt.Sprintf("CAST($%d AS text)", len(args)+1)+
				`, generation = tidings_cursors.generation + 1, epoch = `+t.currentEpoch()+`
				FROM v WHERE tidings_cursors.endpoint = v.endpoint AND tidings_cursors.part = v.part
					AND tidings_cursors.parts = v.parts
					AND tidings_cursors.former = '' AND tidings_cursors.owner NOT IN (SELECT id FROM `+
				t.schema+`tidings_replicas)
				RETURNING `+cursorColumns, append(args, owner)...)
			if err != nil {
				return fmt.Errorf("acquire leases: %w", err)
			}
			defer rows.Close()
			for rows.Next() {
				c, err := scanCursor(rows)
				if err != nil {
					return fmt.Errorf("acquire leases: %w", err)
				}
				got = append(got, c)
			}
			return rows.Err()
		})
	})
	return got, err
}

// Release implements [eventlog.Leases].
func (t *Tables) Release(ctx context.Context, leases []eventlog.Lease) error {
	return t.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		for _, l := range leases {
			_, err := tx.ExecContext(ctx,
				"UPDATE "+t.schema+"tidings_cursors SET owner = '' WHERE endpoint = $1 AND part = $2 AND parts = $3 "+
					"AND generation = $4 AND owner = $5",
				l.Endpoint, l.Index, l.Of, l.Generation, l.Owner)
			if err != nil {
				return fmt.Errorf("release leases: %w", err)
			}
		}
		return nil
	})
}

// held returns an error unless the lease is held and its epoch is the log's. It
// stays so until the end of the transaction.
func (t *Tables) held(ctx context.Context, tx *sql.Tx, l eventlog.Lease) error {
	var generation int64
	var owner, epoch string
	var same bool
	err := tx.QueryRowContext(ctx, "SELECT generation, owner, epoch, "+t.sameStart()+" FROM "+t.schema+
		"tidings_cursors WHERE endpoint = $1 AND part = $2 AND parts = $3"+t.dialect.HoldRows,
		l.Endpoint, l.Index, l.Of).Scan(&generation, &owner, &epoch, &same)
	switch {
	case errors.Is(err, sql.ErrNoRows) || (err == nil && (generation != l.Generation || owner != l.Owner)):
		return fmt.Errorf("endpoint %s: %w", l.Endpoint, eventlog.ErrLeaseLost)
	case err != nil:
		return fmt.Errorf("check lease of endpoint %s: %w", l.Endpoint, err)
	case epoch != l.Epoch || !same:
		return fmt.Errorf("endpoint %s: %w", l.Endpoint, eventlog.ErrNewEpoch)
	}
	return nil
}

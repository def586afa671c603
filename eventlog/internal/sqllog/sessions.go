package sqllog

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
)

const sessionColumns = "hash, proof, actor, user_id, role, address, since, used"

// AddSession implements [eventlog.Sessions].
func (t *Tables) AddSession(ctx context.Context, s eventlog.Session, idle, since time.Time) error {
	table := t.schema + "tidings_sessions"
	_, err := t.Exec(ctx, "DELETE FROM "+table+" WHERE used < $1 OR since < $2", micros(idle), micros(since))
	if err != nil {
		return fmt.Errorf("remove old sessions: %w", err)
	}
	_, err = t.Exec(ctx, "INSERT INTO "+table+" ("+sessionColumns+") VALUES "+Placeholders(1, 8),
		s.Key, s.Proof, s.User, s.UserID, s.Role, s.Address, micros(s.Since), micros(s.Used))
	if err != nil {
		return fmt.Errorf("add session: %w", err)
	}
	return nil
}

// SessionOf implements [eventlog.Sessions].
func (t *Tables) SessionOf(ctx context.Context, key string) (eventlog.Session, bool, error) {
	found, err := t.sessions(ctx, " WHERE hash = $1", key)
	if err != nil || len(found) == 0 {
		return eventlog.Session{}, false, err
	}
	return found[0], true, nil
}

// Sessions implements [eventlog.Sessions].
func (t *Tables) Sessions(ctx context.Context, limit int) ([]eventlog.Session, error) {
	return t.sessions(ctx, " ORDER BY used DESC, hash LIMIT $1", limit)
}

func (t *Tables) sessions(ctx context.Context, which string, args ...any) (found []eventlog.Session, err error) {
	err = t.query(ctx, t.reader, "sessions", func(rows *sql.Rows) error {
		var s eventlog.Session
		var since, used int64
		err := rows.Scan(&s.Key, &s.Proof, &s.User, &s.UserID, &s.Role, &s.Address, &since, &used)
		s.Since, s.Used = fromMicros(since), fromMicros(used)
		found = append(found, s)
		return err
	}, "SELECT "+sessionColumns+" FROM "+t.schema+"tidings_sessions"+which, args...)
	return found, err
}

// UseSession implements [eventlog.Sessions].
func (t *Tables) UseSession(ctx context.Context, key string, at time.Time) error {
	_, err := t.Exec(ctx, "UPDATE "+t.schema+"tidings_sessions SET used = $2 WHERE hash = $1 AND used < $2",
		key, micros(at))
	if err != nil {
		return fmt.Errorf("record that a session was used: %w", err)
	}
	return nil
}

// EndSession implements [eventlog.Sessions].
func (t *Tables) EndSession(ctx context.Context, key string) (bool, error) {
	n, err := t.Exec(ctx, "DELETE FROM "+t.schema+"tidings_sessions WHERE hash = $1", key)
	if err != nil {
		return false, fmt.Errorf("end session: %w", err)
	}
	return n > 0, nil
}

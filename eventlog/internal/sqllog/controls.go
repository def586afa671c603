package sqllog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
)

// Controls implements [eventlog.Controls].
func (t *Tables) Controls(ctx context.Context) (map[string]eventlog.Control, error) {
	controls := make(map[string]eventlog.Control)
	err := t.query(ctx, t.reader, "controls", func(rows *sql.Rows) error {
		var c eventlog.Control
		var since, until, parked int64
		err := rows.Scan(&c.Endpoint, &c.Disabled, &c.Fingerprint, &since, &c.By, &c.Comment, &until, &parked)
		c.Since, c.Until, c.Parked = fromMicros(since), fromMicros(until), fromMicros(parked)
		controls[c.Endpoint] = c
		return err
	}, "SELECT endpoint, disabled, fingerprint, since, actor, comment, until_at, parked_at FROM "+
		t.schema+"tidings_controls")
	return controls, err
}

// SaveControl implements [eventlog.Controls].
func (t *Tables) SaveControl(ctx context.Context, c eventlog.Control) error {
	_, err := t.Exec(ctx, `INSERT INTO `+t.schema+
		`tidings_controls (endpoint, disabled, fingerprint, since, actor, comment, until_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (endpoint) DO UPDATE SET disabled = excluded.disabled, fingerprint = excluded.fingerprint,
			actor = excluded.actor, comment = excluded.comment, until_at = excluded.until_at,
			since = CASE WHEN excluded.since > tidings_controls.since THEN excluded.since ELSE tidings_controls.since + 1 END`,
		c.Endpoint, c.Disabled, c.Fingerprint, micros(c.Since), c.By, c.Comment, micros(c.Until))
	if err != nil {
		return fmt.Errorf("save control of endpoint %s: %w", c.Endpoint, err)
	}
	return nil
}

const replayColumns = `id, endpoint, dead, from_seq, to_seq, since, until, patterns, resource, position,
	delivered, failed, reason, state, created_at, updated_at, created_by, expired,
	missed, total, attempts, skipped`

// AddReplay implements [eventlog.ReplayKeeper].
func (t *Tables) AddReplay(ctx context.Context, r eventlog.Replay) error {
	if err := r.Check(); err != nil {
		return err
	}
	err := t.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if err := t.roomForReplay(ctx, tx, r.Endpoint); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "INSERT INTO "+t.schema+"tidings_replays ("+replayColumns+
			") VALUES "+Placeholders(1, 22),
			r.ID, r.Endpoint, boolInt(r.Dead), r.From, r.To, micros(r.Since), micros(r.Until),
			strings.Join(r.Patterns, ","), r.Resource, r.Position,
			r.Delivered, r.Failed, r.Reason, string(r.State), micros(r.Created),
			micros(r.Updated), r.CreatedBy, r.Expired, boolInt(r.Missed), r.Total, r.Attempts, r.Skipped)
		return err
	})
	if err != nil {
		return fmt.Errorf("add replay: %w", err)
	}
	return nil
}

// roomForReplay returns an error if an endpoint has too many replays. It blocks
// concurrent additions for the same endpoint until the end of the transaction.
func (t *Tables) roomForReplay(ctx context.Context, tx *sql.Tx, endpoint string) error {
	var held, unfinished int
	err := tx.QueryRowContext(ctx, "SELECT 1 FROM "+t.schema+"tidings_cursors WHERE endpoint = $1 AND part = 0"+
		t.dialect.HoldRows,
		endpoint).Scan(&held)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	err = tx.QueryRowContext(ctx, "SELECT count(*) FROM "+t.schema+
		"tidings_replays WHERE endpoint = $1 AND state = 'running'",
		endpoint).Scan(&unfinished)
	if err == nil && unfinished >= eventlog.MaxReplays {
		err = eventlog.ErrManyReplays
	}
	return err
}

// SaveReplay implements [eventlog.Replays].
func (t *Tables) SaveReplay(
	ctx context.Context, l eventlog.Lease, r eventlog.Replay,
) (state eventlog.ReplayState, err error) {
	err = t.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if err := t.held(ctx, tx, l); err != nil {
			return err
		}
		err := tx.QueryRowContext(ctx,
			`UPDATE `+t.schema+
				`tidings_replays SET position = $2, delivered = $3, failed = $4, updated_at = $6, expired = $8,
				attempts = $9, skipped = $10,
				reason = CASE WHEN state = 'running' THEN $5 ELSE reason END,
				state = CASE WHEN state = 'running' THEN $7 ELSE state END
			WHERE id = $1 RETURNING state`,
			r.ID, r.Position, r.Delivered, r.Failed, r.Reason, time.Now().UnixMicro(), string(r.State),
			r.Expired, r.Attempts, r.Skipped).Scan((*string)(&state))
		if errors.Is(err, sql.ErrNoRows) {
			state, err = eventlog.ReplayCanceled, nil
		}
		if err != nil {
			return fmt.Errorf("save replay %s: %w", r.ID, err)
		}
		return nil
	})
	return state, err
}

// CancelReplay implements [eventlog.ReplayKeeper].
func (t *Tables) CancelReplay(ctx context.Context, id string) (bool, error) {
	n, err := t.Exec(ctx, "UPDATE "+t.schema+"tidings_replays SET state = 'canceled', updated_at = $2 WHERE id = $1 "+
		"AND state = 'running'",
		id, time.Now().UnixMicro())
	if err != nil {
		return false, fmt.Errorf("cancel replay %s: %w", id, err)
	}
	return n == 1, nil
}

// Replays implements [eventlog.Replays].
func (t *Tables) Replays(ctx context.Context, running bool, limit int) ([]eventlog.Replay, error) {
	where := " ORDER BY created_at DESC LIMIT $1"
	if running {
		where = ` WHERE id IN (
			SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY endpoint ORDER BY created_at, id) AS place
				FROM ` + t.schema + `tidings_replays WHERE state = 'running') waiting WHERE place <= $1)
			ORDER BY created_at, id`
	}
	return t.replays(ctx, where, limit)
}

// Replay implements [eventlog.ReplayKeeper].
func (t *Tables) Replay(ctx context.Context, id string) (eventlog.Replay, bool, error) {
	found, err := t.replays(ctx, " WHERE id = $1", id)
	return first(found), len(found) > 0, err
}

func (t *Tables) replays(ctx context.Context, where string, args ...any) ([]eventlog.Replay, error) {
	var found []eventlog.Replay
	err := t.query(ctx, t.reader, "replays", func(rows *sql.Rows) error {
		var r eventlog.Replay
		var dead, since, until, created, updated, missed int64
		var patterns string
		err := rows.Scan(&r.ID, &r.Endpoint, &dead, &r.From, &r.To, &since, &until, &patterns, &r.Resource, &r.Position,
			&r.Delivered, &r.Failed, &r.Reason, (*string)(&r.State), &created, &updated, &r.CreatedBy, &r.Expired,
			&missed, &r.Total, &r.Attempts, &r.Skipped)
		r.Missed = missed != 0
		r.Dead, r.Since, r.Until = dead != 0, fromMicros(since), fromMicros(until)
		r.Created, r.Updated = fromMicros(created), fromMicros(updated)
		if patterns != "" {
			r.Patterns = strings.Split(patterns, ",")
		}
		found = append(found, r)
		return err
	}, "SELECT "+replayColumns+" FROM "+t.schema+"tidings_replays"+where, args...)
	return found, err
}

// ExpireReplays implements [eventlog.Expirer].
func (t *Tables) ExpireReplays(ctx context.Context, before time.Time) error {
	_, err := t.Exec(ctx, "DELETE FROM "+t.schema+"tidings_replays WHERE state <> 'running' AND updated_at < $1",
		before.UnixMicro())
	if err != nil {
		return fmt.Errorf("remove old replays: %w", err)
	}
	return nil
}

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

const changeColumns = `id, action, endpoint, dead, reason, patterns, resource, comment, position, to_seq, total, done,
	state, created_at, updated_at, created_by`

// AddParkedChange implements [eventlog.ParkedChanges].
func (t *Tables) AddParkedChange(ctx context.Context, c eventlog.ParkedChange) error {
	if _, err := c.Filter(); err != nil {
		return err
	}
	err := t.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		var unfinished int
		err := tx.QueryRowContext(ctx, "SELECT count(*) FROM "+t.schema+
			"tidings_parked_changes WHERE state = 'running'").Scan(&unfinished)
		if err != nil {
			return err
		}
		if unfinished >= eventlog.MaxParkedChanges {
			return eventlog.ErrManyParkedChanges
		}
		_, err = tx.ExecContext(ctx, "INSERT INTO "+t.schema+"tidings_parked_changes ("+changeColumns+") VALUES "+
			Placeholders(1, 16),
			c.ID, string(c.Action), c.Endpoint, boolInt(c.Dead), c.Reason, strings.Join(c.Patterns, ","), c.Resource,
			c.Comment, c.Position, c.To, c.Total, c.Done, string(c.State), micros(c.Created), micros(c.Updated),
			c.CreatedBy)
		return err
	})
	if err != nil {
		return fmt.Errorf("add change of parked events: %w", err)
	}
	return nil
}

// ParkedChanges implements [eventlog.ParkedChanges].
func (t *Tables) ParkedChanges(ctx context.Context, limit int) ([]eventlog.ParkedChange, error) {
	return t.parkedChanges(ctx, " ORDER BY created_at DESC, id LIMIT $1", limit)
}

// ParkedChange implements [eventlog.ParkedChanges].
func (t *Tables) ParkedChange(ctx context.Context, id string) (eventlog.ParkedChange, bool, error) {
	found, err := t.parkedChanges(ctx, " WHERE id = $1", id)
	return first(found), len(found) > 0, err
}

func (t *Tables) parkedChanges(
	ctx context.Context, which string, args ...any,
) (found []eventlog.ParkedChange, err error) {
	err = t.query(ctx, t.reader, "changes of parked events", func(rows *sql.Rows) error {
		c, err := scanChange(rows)
		found = append(found, c)
		return err
	}, "SELECT "+changeColumns+" FROM "+t.schema+"tidings_parked_changes"+which, args...)
	return found, err
}

func scanChange(row interface{ Scan(...any) error }) (c eventlog.ParkedChange, err error) {
	var dead, created, updated int64
	var patterns string
	err = row.Scan(&c.ID, (*string)(&c.Action), &c.Endpoint, &dead, &c.Reason, &patterns, &c.Resource, &c.Comment,
		&c.Position, &c.To, &c.Total, &c.Done, (*string)(&c.State), &created, &updated, &c.CreatedBy)
	c.Dead, c.Created, c.Updated = dead != 0, fromMicros(created), fromMicros(updated)
	if patterns != "" {
		c.Patterns = strings.Split(patterns, ",")
	}
	return c, err
}

// TakeParkedChange implements [eventlog.ParkedChanges].
func (t *Tables) TakeParkedChange(ctx context.Context, owner string) (c eventlog.ParkedChange, found bool, err error) {
	free := " AND state = 'running' AND (owner = $1 OR held_until < " + t.dialect.Now + ")"
	table := t.schema + "tidings_parked_changes"
	// Most of the time there is none, which needs no transaction.
	running, err := t.parkedChanges(ctx, " WHERE state = 'running' ORDER BY created_at, id LIMIT 1")
	if err != nil || len(running) == 0 {
		return c, false, err
	}
	err = t.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		c, err = scanChange(tx.QueryRowContext(ctx, "UPDATE "+table+" SET owner = $1, held_until = "+t.dialect.Now+
			" + $2 WHERE id = (SELECT id FROM "+table+" WHERE TRUE"+free+" ORDER BY created_at, id LIMIT 1)"+free+
			" RETURNING "+changeColumns, owner, eventlog.ParkedChangeHold.Microseconds()))
		if found = err == nil; errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	if err != nil {
		return c, false, fmt.Errorf("take change of parked events: %w", err)
	}
	return c, found, nil
}

// SaveParkedChange implements [eventlog.ParkedChanges].
func (t *Tables) SaveParkedChange(ctx context.Context, owner string, c eventlog.ParkedChange) (bool, error) {
	n, err := t.Exec(ctx, "UPDATE "+t.schema+`tidings_parked_changes SET position = $3, done = $4, updated_at = $5,
			state = CASE WHEN state = 'running' THEN $6 ELSE state END, held_until = `+t.dialect.Now+` + $7
		WHERE id = $1 AND owner = $2`,
		c.ID, owner, c.Position, c.Done, time.Now().UnixMicro(), string(c.State),
		eventlog.ParkedChangeHold.Microseconds())
	if err != nil || n == 0 {
		return false, err
	}
	saved, found, err := t.ParkedChange(ctx, c.ID)
	return found && saved.State == eventlog.ReplayRunning, err
}

// CancelParkedChange implements [eventlog.ParkedChanges].
func (t *Tables) CancelParkedChange(ctx context.Context, id string) (bool, error) {
	n, err := t.Exec(ctx, "UPDATE "+t.schema+`tidings_parked_changes SET state = 'canceled', updated_at = $2
		WHERE id = $1 AND state = 'running'`, id, time.Now().UnixMicro())
	if err != nil {
		return false, fmt.Errorf("cancel change of parked events %s: %w", id, err)
	}
	return n == 1, nil
}

// ExpireParkedChanges implements [eventlog.ParkedChanges].
func (t *Tables) ExpireParkedChanges(ctx context.Context, before time.Time) error {
	_, err := t.Exec(ctx, "DELETE FROM "+t.schema+"tidings_parked_changes WHERE state <> 'running' AND updated_at < $1",
		before.UnixMicro())
	if err != nil {
		return fmt.Errorf("remove old changes of parked events: %w", err)
	}
	return nil
}

package sqllog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// Rename implements [eventlog.Cursors].
func (t *Tables) Rename(ctx context.Context, from, to string) (renamed bool, err error) {
	if _, err := t.forgetOrphans(ctx); err != nil { // clears leftovers of the new name
		return false, err
	}
	for moving := true; moving; {
		for more := true; more; { // from an earlier rename
			if more, err = t.MoveParked(ctx); err != nil {
				return false, err
			}
		}
		if renamed, moving, err = t.rename(ctx, from, to); err != nil {
			return false, fmt.Errorf("rename endpoint %s to %s: %w", from, to, err)
		}
	}
	return renamed, nil
}

// rename renames an endpoint unless another rename is in progress whose parked
// events are still moving and would be left behind.
func (t *Tables) rename(ctx context.Context, from, to string) (renamed, moving bool, err error) {
	err = t.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if t.dialect.LockReplicas != "" {
			if _, err := tx.ExecContext(ctx, t.dialect.LockReplicas); err != nil {
				return err
			}
		}
		err := tx.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM "+t.schema+
			"tidings_cursors WHERE former <> '')").Scan(&moving)
		if err != nil || moving {
			return err
		}
		result, err := tx.ExecContext(ctx, `UPDATE `+t.schema+`tidings_cursors
			SET endpoint = $2, former = $1, removed_at = 0, generation = generation + 1
			WHERE endpoint = $1 AND NOT EXISTS (SELECT 1 FROM `+t.schema+`tidings_cursors WHERE endpoint = $2)`, from,
			to)
		if err != nil {
			return err
		}
		n, err := result.RowsAffected()
		if renamed = n > 0; err != nil || !renamed {
			return err
		}
		for _, statement := range []string{
			"DELETE FROM " + t.schema + "tidings_states WHERE endpoint = $2 AND endpoint <> $1",
			"DELETE FROM " + t.schema + "tidings_series WHERE endpoint = $2 AND endpoint <> $1",
			"UPDATE " + t.schema + "tidings_states SET endpoint = $2 WHERE endpoint = $1",
			"UPDATE " + t.schema + "tidings_series SET endpoint = $2 WHERE endpoint = $1",
			"UPDATE " + t.schema + "tidings_actions SET endpoint = $2 WHERE endpoint = $1",
			"DELETE FROM " + t.schema + "tidings_gaps WHERE endpoint = $2 AND endpoint <> $1",
			"UPDATE " + t.schema + "tidings_gaps SET endpoint = $2 WHERE endpoint = $1",
			"UPDATE " + t.schema + "tidings_controls SET endpoint = $2 WHERE endpoint = $1",
			"UPDATE " + t.schema + "tidings_replays SET endpoint = $2 WHERE endpoint = $1",
			"UPDATE " + t.schema + "tidings_parked_changes SET endpoint = $2 WHERE endpoint = $1",
		} {
			if _, err := tx.ExecContext(ctx, statement, from, to); err != nil {
				return err
			}
		}
		return nil
	})
	return renamed, moving, err
}

// MoveParked implements [eventlog.Cursors].
func (t *Tables) MoveParked(ctx context.Context) (more bool, err error) {
	err = t.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		var to, from string
		err := tx.QueryRowContext(ctx, "SELECT endpoint, former FROM "+t.schema+
			"tidings_cursors WHERE former <> '' LIMIT 1").
			Scan(&to, &from)
		if errors.Is(err, sql.ErrNoRows) {
			more = false
			return nil
		}
		if err != nil {
			return err
		}
		more = true
		_, err = tx.ExecContext(ctx, `UPDATE `+t.schema+`tidings_retries SET endpoint = $2 WHERE (endpoint, seq) IN (
			SELECT endpoint, seq FROM `+t.schema+`tidings_retries WHERE endpoint = $1 ORDER BY seq LIMIT $3)`, from, to,
			removeBatch)
		if err == nil {
			// Another replica may be moving some concurrently.
			_, err = tx.ExecContext(ctx, `UPDATE `+t.schema+`tidings_cursors SET former = ''
				WHERE endpoint = $2 AND former = $1
				AND NOT EXISTS (SELECT 1 FROM `+t.schema+`tidings_retries WHERE endpoint = $1)`, from, to)
		}
		if err == nil {
			_, err = tx.ExecContext(ctx, "DELETE FROM "+t.schema+
				"tidings_parked WHERE endpoint = $1 AND live = 0 AND dead = 0",
				from)
		}
		return err
	})
	if err != nil {
		return false, fmt.Errorf("move parked events of a renamed endpoint: %w", err)
	}
	return more, nil
}

package sqllog

import (
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/sqldb"
)

// forgetLimit is how many keys one statement deletes.
const forgetLimit = 1000

// publication is a row of the table of keys.
type publication struct{ key, fingerprint, event string }

// PublishWith writes events in one transaction through a log's Append, except those
// whose keys are known. See [eventlog.Publisher].
func (t *Tables) PublishWith(
	ctx context.Context, events []eventlog.Publication,
	appendTo func(ctx context.Context, tx sqldb.Execer, events ...tidings.Event) error,
) (ids []string, err error) {
	keyed, err := identify(events)
	if err != nil {
		return nil, fmt.Errorf("publish: %w", err)
	}
	var fresh []tidings.Event
	err = t.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		known, err := t.claim(ctx, tx, keyed)
		if err != nil {
			return err
		}
		ids = make([]string, len(events))
		for i, p := range events {
			if ids[i] = p.Event.ID; p.Key == "" || known[digest(p.Key)].event == p.Event.ID {
				fresh = append(fresh, p.Event)
				continue
			}
			first := known[digest(p.Key)]
			if first.fingerprint != digest(p.Fingerprint) {
				return fmt.Errorf("event %d: %w", i, eventlog.ErrKeyReused)
			}
			ids[i] = first.event
		}
		return appendTo(ctx, tx, fresh...)
	})
	if err != nil {
		return nil, fmt.Errorf("publish: %w", err)
	}
	t.Committed(fresh...)
	return ids, nil
}

// identify sets missing ids and returns the publications with keys, sorted by key.
// All transactions claim keys in this order, so they cannot deadlock.
func identify(events []eventlog.Publication) (keyed []publication, err error) {
	for i := range events {
		p := &events[i]
		if p.Event.ID == "" {
			id, err := uuid.NewV7()
			if err != nil {
				return nil, fmt.Errorf("make event id: %w", err)
			}
			p.Event.ID = id.String()
		}
		if p.Key != "" {
			keyed = append(keyed, publication{digest(p.Key), digest(p.Fingerprint), p.Event.ID})
		}
	}
	slices.SortStableFunc(keyed, func(a, b publication) int { return cmp.Compare(a.key, b.key) })
	return slices.CompactFunc(keyed, func(a, b publication) bool { return a.key == b.key }), nil
}

// claim inserts the new keys and returns the stored rows of all of them.
func (t *Tables) claim(ctx context.Context, tx *sql.Tx, keyed []publication) (map[string]publication, error) {
	known := make(map[string]publication, len(keyed))
	if len(keyed) == 0 {
		return known, nil
	}
	table := t.schema + "tidings_publications"
	err := inBatches(len(keyed), func(from, to int) error {
		batch := keyed[from:to]
		var rows, keys []any
		for _, p := range batch {
			rows = append(rows, p.key, p.fingerprint, p.event)
			keys = append(keys, p.key)
		}
		values := strings.ReplaceAll(Placeholders(len(batch), 3), ")", ","+t.dialect.Now+")")
		// This waits for keys claimed by uncommitted transactions. Keys that have
		// expired but have not been removed are taken over.
		_, err := tx.ExecContext(ctx, "INSERT INTO "+table+" AS known (key, fingerprint, event_id, at) VALUES "+values+
			" ON CONFLICT (key) DO UPDATE SET fingerprint = excluded.fingerprint, event_id = excluded.event_id,"+
			" at = excluded.at WHERE known.at < "+t.expiredKey(), rows...)
		if err != nil {
			return fmt.Errorf("record idempotency keys: %w", err)
		}
		return scanAll(ctx, tx, func(rows *sql.Rows) error {
			var p publication
			err := rows.Scan(&p.key, &p.fingerprint, &p.event)
			known[p.key] = p
			return err
		}, "SELECT key, fingerprint, event_id FROM "+table+" WHERE key IN "+Placeholders(1, len(keys)), keys...)
	})
	return known, err
}

// expiredKey is an expression: keys recorded before this time may be used again.
func (t *Tables) expiredKey() string {
	return t.dialect.Now + " - " + strconv.FormatInt(eventlog.PublicationLife.Microseconds(), 10)
}

// ExpirePublications implements [eventlog.Publisher].
func (t *Tables) ExpirePublications(ctx context.Context) error {
	table := t.schema + "tidings_publications"
	for {
		n, err := t.Exec(ctx, "DELETE FROM "+table+" WHERE key IN (SELECT key FROM "+table+" WHERE at < "+
			t.expiredKey()+" ORDER BY at LIMIT $1)", forgetLimit)
		if err != nil {
			return fmt.Errorf("remove old idempotency keys: %w", err)
		}
		if n < forgetLimit {
			return nil
		}
	}
}

func scanAll(ctx context.Context, tx *sql.Tx, scan func(*sql.Rows) error, query string, args ...any) error {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

package sqllog

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/sqldb"
)

// EventColumns are the columns of an event, without its position.
const EventColumns = `id, resource_type, action, resource_id, resource_url, user_id, at, resource_version, ` +
	`owner_id, trace`

const eventColumnCount = 10

// InsertEvents writes events into a table with the event columns. It sets the id of
// an event without one to a UUIDv7, in place. column, if not empty, is an
// additional column, and value its expression. last is the result of the last statement;
// nil without events.
func InsertEvents(
	ctx context.Context, tx sqldb.Execer, table, column, value string, events []tidings.Event,
) (last sql.Result, err error) {
	columns := EventColumns
	if column != "" {
		columns, value = columns+", "+column, ","+value
	}
	for len(events) > 0 {
		// Few different statements, which stay prepared, insert any number.
		n := 1 << (bits.Len(uint(min(len(events), batchRows))) - 1)
		args := make([]any, 0, n*eventColumnCount)
		for i := range events[:n] {
			e := &events[i]
			if e.ID == "" {
				id, err := uuid.NewV7()
				if err != nil {
					return nil, fmt.Errorf("make event id: %w", err)
				}
				e.ID = id.String()
			}
			args = append(args, eventArgs(e)...)
		}
		values := strings.ReplaceAll(Placeholders(n, eventColumnCount), ")", value+")")
		query := "INSERT INTO " + table + " (" + columns + ") VALUES " + values
		if last, err = tx.ExecContext(ctx, query, args...); err != nil {
			return nil, fmt.Errorf("append %s: %w", events[0].Name(), err)
		}
		events = events[n:]
	}
	return last, nil
}

func eventArgs(e *tidings.Event) []any {
	return []any{
		e.ID, string(e.Type), string(e.Action), e.ResourceID, e.ResourceURL,
		e.UserID, e.Time.UnixMicro(), e.ResourceVersion, e.OwnerID, e.Trace,
	}
}

// eventTargets returns scan targets for the event columns, and a function that sets
// the fields of e that are not scanned directly.
func eventTargets(e *tidings.Event) (targets []any, finish func()) {
	at := new(int64)
	return []any{
		&e.ID, (*string)(&e.Type), (*string)(&e.Action), &e.ResourceID, &e.ResourceURL,
		&e.UserID, at, &e.ResourceVersion, &e.OwnerID, &e.Trace,
	}, func() { e.Time = time.UnixMicro(*at).UTC() }
}

// EventColumnsOrEmpty are the position and the columns of an event "e", empty if it is NULL.
var EventColumnsOrEmpty = func() string {
	columns := []string{"coalesce(e.seq, 0) AS seq"}
	for c := range strings.SplitSeq(EventColumns, ", ") {
		empty := "''"
		if c == "at" || c == "resource_version" {
			empty = "0"
		}
		columns = append(columns, "coalesce(e."+c+", "+empty+")")
	}
	return strings.Join(columns, ", ")
}()

// ScanEvent scans a row of other columns, the position and the columns of an event.
func ScanEvent(rows *sql.Rows, others ...any) (e tidings.Event, err error) {
	targets, finish := eventTargets(&e)
	err = rows.Scan(slices.Concat(others, []any{&e.Sequence}, targets)...)
	finish()
	return e, err
}

// Read implements [eventlog.Reader].
func (t *Tables) Read(ctx context.Context, after int64, limit int) ([]tidings.Event, error) {
	return t.readEvents(ctx, fmt.Sprintf("log after %d", after), "seq > $1 ORDER BY seq"+limited(limit), after)
}

func (t *Tables) readEvents(ctx context.Context, what, where string, args ...any) ([]tidings.Event, error) {
	var events []tidings.Event
	err := t.query(ctx, t.reader, what, func(rows *sql.Rows) error {
		e, err := ScanEvent(rows)
		events = append(events, e)
		return err
	}, "SELECT seq, "+EventColumns+" FROM "+t.schema+"tidings_events WHERE "+where, args...)
	return events, err
}

// limited returns a LIMIT clause. The number is no parameter, so that PostgreSQL knows it
// even for a plan that serves all parameters.
func limited(rows int) string { return " LIMIT " + strconv.Itoa(rows) }

// OldestOr returns the position of the oldest event, or one more than head if there
// is none.
func (t *Tables) OldestOr(ctx context.Context, head int64) (int64, error) {
	oldest, err := t.Number(ctx, "SELECT min(seq) FROM "+t.schema+"tidings_events")
	if oldest == 0 {
		oldest = head + 1
	}
	return oldest, err
}

// Number returns the number selected by a statement; 0 if there is none.
func (t *Tables) Number(ctx context.Context, query string, args ...any) (int64, error) {
	var n sql.NullInt64
	err := t.Row(ctx, []any{&n}, query, args...)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("read log: %w", err)
	}
	return n.Int64, nil
}

// Row scans one row into targets. The error is [sql.ErrNoRows] if there is none.
func (t *Tables) Row(ctx context.Context, targets []any, query string, args ...any) error {
	return t.on(ctx, t.reader, func(ctx context.Context, conn *sql.Conn) error {
		return conn.QueryRowContext(ctx, query, args...).Scan(targets...)
	})
}

// SequenceAt implements [eventlog.Reader].
func (t *Tables) SequenceAt(ctx context.Context, at time.Time) (int64, error) {
	return t.FirstSince(ctx, at.Add(-eventlog.TimeSlack))
}

// FirstSince returns the position of the first event created at a time or later, or
// one more than that of the last event, assuming that their times are in order. It
// is a binary search that reads single rows and needs no index on times.
func (t *Tables) FirstSince(ctx context.Context, at time.Time) (int64, error) {
	low, err := t.Number(ctx, "SELECT coalesce(min(seq), 1) FROM "+t.schema+"tidings_events")
	if err != nil {
		return 0, err
	}
	high, err := t.Number(ctx, "SELECT coalesce(max(seq), 0) + 1 FROM "+t.schema+"tidings_events")
	for err == nil && low < high {
		middle := low + (high-low)/2
		var us int64
		us, err = t.Number(ctx, "SELECT at FROM "+t.schema+"tidings_events WHERE seq >= $1 ORDER BY seq LIMIT 1",
			middle)
		if us >= at.UnixMicro() {
			high = middle
		} else {
			low = middle + 1
		}
	}
	return low, err
}

// Find implements [eventlog.Finder].
func (t *Tables) Find(ctx context.Context, id string) (tidings.Event, bool, error) {
	found, err := t.readEvents(Slow(ctx), "event "+id, "id = $1 LIMIT 1", id)
	return first(found), len(found) > 0, err
}

// Following implements [eventlog.Finder]. Positions have no gaps, apart from what has
// expired, so nearly all events are found by their own. A query for each next position joins
// the log with itself, and PostgreSQL reads all of it.
func (t *Tables) Following(ctx context.Context, positions []int64) ([]tidings.Event, error) {
	wanted := slices.Compact(slices.Sorted(slices.Values(positions)))
	next := make([]string, len(wanted))
	for i, p := range wanted {
		next[i] = strconv.FormatInt(p+1, 10)
	}
	const what = "log after several positions"
	there, err := t.readEvents(ctx, what, "seq "+t.dialect.Among+" ORDER BY seq", strings.Join(next, ","))
	var following []tidings.Event
	for _, p := range wanted {
		if n := len(following); err != nil || n > 0 && following[n-1].Sequence > p {
			continue
		}
		at := slices.IndexFunc(there, func(e tidings.Event) bool { return e.Sequence > p })
		if there = there[max(at, 0):]; at >= 0 && there[0].Sequence == p+1 {
			following = append(following, there[0])
			continue
		}
		var events []tidings.Event
		events, err = t.Read(ctx, p, 1)
		following = append(following, events...)
		if len(events) == 0 {
			break
		}
	}
	return following, err
}

// Search implements [eventlog.Finder].
func (t *Tables) Search(ctx context.Context, f eventlog.EventFilter, limit int) ([]tidings.Event, error) {
	var c conditions
	c.add(true, "seq >= $%d", f.From)
	c.add(true, "seq <= $%d", f.To)
	c.addEvents(f)
	return t.readEvents(Slow(ctx), fmt.Sprintf("log from %d to %d", f.From, f.To),
		strings.Join(c.texts, " AND ")+" ORDER BY seq DESC"+limited(limit), c.args...)
}

// addEvents adds the conditions of a filter but its range.
func (c *conditions) addEvents(f eventlog.EventFilter) {
	c.add(!f.Since.IsZero(), "at >= $%d", f.Since.UnixMicro())
	c.add(!f.Until.IsZero(), "at < $%d", f.Until.UnixMicro())
	c.addResource(f.Resource)
	c.addPatterns(f.Patterns)
	c.addPatterns(f.Wanted)
}

// Count implements [eventlog.Finder]. It counts each range on its own: of a join with the
// ranges, PostgreSQL expects so many events that it may read the whole log.
func (t *Tables) Count(
	ctx context.Context, f eventlog.EventFilter, ranges []eventlog.Range,
) (total eventlog.Count, err error) {
	var filled []eventlog.Range
	err = inBatches(len(ranges), func(from, to int) error {
		var c conditions
		for _, r := range ranges[from:to] {
			c.args = append(c.args, r.From, r.To)
		}
		c.texts = append(c.texts, "seq >= first", "seq <= last")
		c.addEvents(f)
		return t.query(Slow(ctx), t.reader, "numbers of events", func(rows *sql.Rows) error {
			var r eventlog.Range
			var n int64
			if err := rows.Scan(&r.From, &r.To, &n); err != nil || n == 0 {
				return err
			}
			total.Events += n
			filled = append(filled, r)
			return nil
		}, typed(to-from, "first bigint", "last bigint")+"SELECT first, last, (SELECT count(*) FROM "+t.schema+
			"tidings_events"+c.where()+") FROM v", c.args...)
	})
	if err != nil || len(filled) == 0 {
		return eventlog.Count{}, err
	}
	slices.SortFunc(filled, func(a, b eventlog.Range) int { return cmp.Compare(a.From, b.From) })
	end := func(r eventlog.Range, order string) (int64, error) {
		var c conditions
		c.add(true, "seq >= $%d", r.From)
		c.add(true, "seq <= $%d", r.To)
		c.addEvents(f)
		return t.Number(Slow(ctx), "SELECT seq FROM "+t.schema+"tidings_events"+c.where()+" ORDER BY seq "+order+
			" LIMIT 1", c.args...)
	}
	if total.First, err = end(filled[0], "ASC"); err == nil {
		total.Last, err = end(filled[len(filled)-1], "DESC")
	}
	return total, err
}

func first[T any](found []T) (one T) {
	if len(found) > 0 {
		one = found[0]
	}
	return one
}

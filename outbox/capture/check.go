package capture

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tidings-dev/tidings"
)

// Kind is the kind of a [Finding].
type Kind string

// The kinds of findings. [Repair] fixes those marked as mended.
const (
	// Functions are missing or of an earlier version. Mended.
	Functions Kind = "functions"
	// NotAttached is a configured table that was never attached.
	NotAttached Kind = "not_attached"
	// NotConfigured is an attached table that is not configured.
	NotConfigured Kind = "not_configured"
	// Configured is a table whose configuration differs from what was attached.
	Configured Kind = "configured"
	// Missing is a table that no longer exists.
	Missing Kind = "missing"
	// Renamed is a table that was renamed; its changes still make events.
	Renamed Kind = "renamed"
	// Replaced is a table that was dropped and created again, or restored. Mended, with
	// a gap.
	Replaced Kind = "replaced"
	// Trigger is a missing trigger. Mended, with a gap.
	Trigger Kind = "trigger"
	// Disabled is a disabled trigger. [Attach] enables it, with a gap.
	Disabled Kind = "disabled"
	// Altered is a trigger that was disabled and enabled again, or changed otherwise.
	// Mended, with a gap.
	Altered Kind = "altered"
	// Function is a function that no longer fits its table. Mended.
	Function Kind = "function"
	// Partition is a new partition whose TRUNCATE makes no events yet. Mended, with a
	// gap if it was truncated meanwhile.
	Partition Kind = "partition"
	// Inherited is a table that inherits from a configured one: its rows make no events.
	Inherited Kind = "inherited"
	// Columns were renamed or dropped; changes still make events, by column number, or
	// without those that are gone. Mended if they are a primary key that was not
	// configured explicitly.
	Columns Kind = "columns"
	// Drift was detected by a trigger, which has been slow since then. Mended.
	Drift Kind = "drift"
)

// Finding is a difference between the configuration and the database.
type Finding struct {
	Table string // with its schema, quoted where SQL needs it; empty for the functions
	Kind  Kind
	What  string
	// Mended means that [Repair] fixed it.
	Mended bool
}

// Silent reports whether changes may make no events until it is mended.
func (f Finding) Silent() bool {
	return slices.Contains([]Kind{NotAttached, Missing, Replaced, Trigger, Disabled, Partition, Inherited}, f.Kind)
}

// Concerns reports whether the finding applies to a table or its parts, or to all
// tables.
func (f Finding) Concerns(t Table) bool { return f.Table == "" || t.includes(f.Table) }

// Concerns reports whether the gap is one of a table or its parts.
func (g Gap) Concerns(t Table) bool { return t.includes(g.Table) }

// includes reports whether a name is that of the table or of a part.
func (t Table) includes(name string) bool {
	name, err := quoteTable(name)
	if err != nil {
		return false
	}
	if own, _ := quoteTable(t.Name); own == name {
		return true
	}
	return slices.ContainsFunc(t.Parts, func(p Part) bool {
		part, _ := quoteTable(p.Name)
		return part == name
	})
}

// String formats the finding for a log.
func (f Finding) String() string {
	text := string(f.Kind) + ": " + f.What
	if f.Table != "" {
		text = "table " + f.Table + ": " + text
	}
	if f.Mended {
		text += " (mended)"
	}
	return text
}

// attached is a row of tidings_sources.
type attached struct {
	id       int
	relation string
	part     string
	spec     string
	xid      int64     // older transactions had ended when it was read
	at       time.Time // when it was read
}

// Check returns the differences between tables and the database; none if it is as
// [Attach] would leave it. It changes nothing.
func Check(ctx context.Context, db *sql.DB, tables []Table, o Options) ([]Finding, error) {
	found, _, err := check(ctx, db, tables, o)
	if err != nil {
		return nil, fmt.Errorf("check triggers: %w", err)
	}
	return found, nil
}

func check(ctx context.Context, db *sql.DB, tables []Table, o Options) (found []Finding, rows []attached, err error) {
	wanted, err := sources(tables)
	if err != nil {
		return nil, nil, err
	}
	n, err := installedVersion(ctx, db, o.schema())
	if err != nil {
		return nil, nil, err
	}
	if n < version {
		found = append(found, Finding{Kind: Functions, What: fmt.Sprintf(
			"the functions are of version %d instead of %d", n, version)})
	}
	if n == 0 {
		for _, s := range wanted {
			found = append(found, Finding{Table: s.name, Kind: NotAttached, What: "run attach"})
		}
		return found, nil, nil
	}
	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return nil, nil, err
	}
	defer tx.Rollback() //nolint:errcheck // it writes nothing
	rows, err = list(ctx, tx, o.schema())
	if err != nil {
		return nil, nil, err
	}
	configured, err := compare(ctx, tx, o.schema(), wanted, rows)
	if err != nil {
		return nil, nil, err
	}
	found = append(found, configured...)
	for _, row := range rows {
		faults, err := faults(ctx, tx, o.schema(), row)
		if err != nil {
			return nil, nil, err
		}
		found = append(found, faults...)
	}
	return found, rows, nil
}

func list(ctx context.Context, db querier, schema string) ([]attached, error) {
	rows, err := db.QueryContext(ctx, `SELECT id, relation, part, spec::text,
		pg_snapshot_xmin(pg_current_snapshot())::text::bigint, statement_timestamp() FROM `+quote(schema)+
		".tidings_sources WHERE NOT detached ORDER BY relation, part")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []attached
	for rows.Next() {
		var a attached
		if err := rows.Scan(&a.id, &a.relation, &a.part, &a.spec, &a.xid, &a.at); err != nil {
			return nil, err
		}
		all = append(all, a)
	}
	return all, rows.Err()
}

// compare returns the differences between the configuration and what is attached.
func compare(ctx context.Context, db querier, schema string, wanted []source, rows []attached) ([]Finding, error) {
	var found []Finding
	used := make(map[int]bool)
	for _, s := range wanted {
		var id sql.NullInt64
		var name, why string
		var same, exists bool
		err := db.QueryRowContext(ctx, "SELECT id, name, coalesce(same, false), there, coalesce(why, '') FROM "+
			quote(schema)+".capture_find($1, $2::jsonb)", s.relation, s.spec).Scan(&id, &name, &same, &exists, &why)
		switch {
		case err != nil:
			return nil, err
		case id.Valid:
			used[int(id.Int64)] = true
			if !same {
				found = append(found, Finding{
					Table: name, Kind: Configured,
					What: "its configuration differs from what was attached; run attach, or restart the " +
						"relay if the configuration is newer than it",
				})
			}
		case exists && why != "":
			found = append(found, Finding{Table: name, Kind: NotAttached, What: why})
		case exists:
			found = append(found, Finding{Table: name, Kind: NotAttached, What: "run attach"})
		default:
			found = append(found, Finding{Table: name, Kind: NotAttached, What: "there is no such table"})
		}
	}
	for _, row := range rows {
		if !used[row.id] {
			found = append(found, Finding{Table: row.relation, Kind: NotConfigured, What: "it is attached but not " +
				"configured; run detach, or configure it"})
		}
	}
	return found, nil
}

func faults(ctx context.Context, db querier, schema string, row attached) ([]Finding, error) {
	rows, err := db.QueryContext(ctx, "SELECT f.kind, f.what FROM "+quote(schema)+".tidings_sources s, "+quote(schema)+
		".capture_faults(s) f WHERE s.id = $1", row.id)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var found []Finding
	for rows.Next() {
		f := Finding{Table: row.relation}
		if err := rows.Scan(&f.Kind, &f.What); err != nil {
			return nil, err
		}
		found = append(found, f)
	}
	return found, rows.Err()
}

// mends lists the kinds that Repair fixes by attaching again.
var mends = []Kind{Replaced, Trigger, Altered, Partition, Function, Drift, Columns}

// Repair is like [Check] and fixes what a migration of the application, or a
// restore, broke: missing triggers and functions that do not fit. Changes made
// while triggers were missing, or disabled for a while, made no events: [Gaps] lists
// these periods, and rows written since the triggers were last seen in place are
// reported again, as far as that is quick. Tables that are configured differently, disabled or missing are left to an
// operator. A locked table is left to the next call. Call it at start and every
// minute; several processes may do so.
func Repair(ctx context.Context, db *sql.DB, tables []Table, o Options) ([]Finding, error) {
	found, err := repair(ctx, db, tables, o)
	if err != nil {
		return found, fmt.Errorf("repair triggers: %w", err)
	}
	return found, nil
}

func repair(ctx context.Context, db *sql.DB, tables []Table, o Options) ([]Finding, error) {
	found, rows, err := check(ctx, db, tables, o)
	if err != nil {
		return found, err
	}
	for i := range found {
		if found[i].Kind == Functions {
			if err := newWaiter(db, o).install(ctx, tables); err != nil {
				return found, err
			}
			found[i].Mended = true
		}
	}
	for _, row := range rows {
		kinds := make(map[Kind]bool)
		for _, f := range found {
			if f.Table == row.relation {
				kinds[f.Kind] = true
			}
		}
		ours := func(k Kind) bool { return kinds[k] }
		switch {
		case slices.ContainsFunc(mends, ours) && !kinds[Missing] && !kinds[Renamed]:
			if err := mendRow(ctx, db, o.schema(), row, found); err != nil {
				return found, err
			}
		case !kinds[Trigger] && !kinds[Altered] && !kinds[Partition] && !kinds[Replaced] && !kinds[Disabled] &&
			!kinds[Missing]:
			if err := seen(ctx, db, o.schema(), row); err != nil {
				return found, err
			}
		}
	}
	return found, nil
}

// mendRow attaches a table again, and records in found what that mended.
func mendRow(ctx context.Context, db *sql.DB, schema string, row attached, found []Finding) error {
	failed := mend(ctx, db, schema, source{relation: row.relation, name: row.relation, spec: row.spec})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	left, err := faults(ctx, db, schema, row)
	if err != nil {
		return err
	}
	reason := ""
	if failed != nil {
		reason = failed.Error()
	}
	if hasCode(failed, lockNotAvailable) {
		reason = "it is locked by " + lockedBy(ctx, db, schema, row.relation)
	}
	for i, f := range found {
		if f.Table != row.relation || !slices.Contains(mends, f.Kind) {
			continue
		}
		found[i].Mended = failed == nil && !slices.Contains(left, f)
		if failed != nil {
			found[i].What += "; not mended: " + reason
		}
	}
	return nil
}

// mend attaches a table again, in one attempt; the next call retries. Columns that are
// gone are ignored.
func mend(ctx context.Context, db *sql.DB, schema string, s source) error {
	s.spec = `{"lenient": true, ` + strings.TrimPrefix(s.spec, "{")
	err := attachOnce(ctx, db, schema, s, true)
	if hasCode(err, queryCanceled) { // there is more to recover than may hold up writers
		err = attachOnce(ctx, db, schema, s, false)
	}
	return err
}

// seen records that the triggers of a table were in place when row was read.
func seen(ctx context.Context, db *sql.DB, schema string, row attached) error {
	return transact(ctx, db, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "SELECT "+quote(schema)+".capture_seen($1, $2, $3)", row.id, row.xid, row.at)
		return err
	})
}

// Gap is a period in which changes of a table made no events.
type Gap struct {
	Table        string // as in [Finding]
	Since, Until time.Time
	Reason       string
	// Recovered is the number of events made afterwards for rows written in the
	// gap. Deleted rows are not among them: which they were cannot be known.
	Recovered int64
}

// String describes the gap.
func (g Gap) String() string {
	return fmt.Sprintf("table %s: from %s to %s changes may have made no events (%s); rows written meanwhile were "+
		"reported again (events: %d); rows deleted meanwhile are unknown: compare all resources if that matters",
		g.Table, g.Since.UTC().Format(time.RFC3339), g.Until.UTC().Format(time.RFC3339), g.Reason, g.Recovered)
}

// Gaps returns the gaps that ended after a time, newest first, at most 1,000.
func Gaps(ctx context.Context, db *sql.DB, o Options, after time.Time) ([]Gap, error) {
	rows, err := db.QueryContext(ctx, "SELECT relation, since, until, reason, recovered FROM "+quote(o.schema())+
		".tidings_capture_gaps WHERE until > $1 ORDER BY id DESC LIMIT 1000", after)
	if err != nil {
		return nil, fmt.Errorf("read gaps: %w", err)
	}
	defer rows.Close()
	var gaps []Gap
	for rows.Next() {
		var g Gap
		if err := rows.Scan(&g.Table, &g.Since, &g.Until, &g.Reason, &g.Recovered); err != nil {
			return nil, fmt.Errorf("read gaps: %w", err)
		}
		gaps = append(gaps, g)
	}
	return gaps, rows.Err()
}

// Recent says how many of the newest events are of a type, and when the last one was made.
type Recent struct {
	Events int64
	Last   time.Time
}

// recentLimit is how many of the newest events [RecentByType] reads, so that its cost does
// not grow with the log.
const recentLimit = 10_000

// RecentByType counts the events since a time by type. If there are more than 10,000, it
// counts only the newest and complete is false. A type without a time of its last event has
// none among the newest 10,000.
func RecentByType(
	ctx context.Context, db *sql.DB, o Options, since time.Time,
) (counts map[tidings.ResourceType]Recent, complete bool, err error) {
	rows, err := db.QueryContext(ctx, "WITH newest AS MATERIALIZED (SELECT resource_type, at FROM "+quote(o.schema())+
		".tidings_events ORDER BY seq DESC LIMIT $1) SELECT resource_type, count(*) FILTER (WHERE at >= $2), max(at), "+
		"(SELECT count(*) FROM newest WHERE at >= $2) FROM newest GROUP BY 1", recentLimit, since.UnixMicro())
	if err != nil {
		return nil, false, fmt.Errorf("count recent events: %w", err)
	}
	defer rows.Close()
	counts, complete = make(map[tidings.ResourceType]Recent), true
	for rows.Next() {
		var name string
		var last, all int64
		var r Recent
		if err := rows.Scan(&name, &r.Events, &last, &all); err != nil {
			return nil, false, fmt.Errorf("count recent events: %w", err)
		}
		r.Last = time.UnixMicro(last)
		counts[tidings.ResourceType(name)], complete = r, all < recentLimit
	}
	return counts, complete, rows.Err()
}

package capture

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"
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
	// Missing is a table that does not exist any more.
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
	// Function is a function that no longer fits its table. Mended.
	Function Kind = "function"
	// Columns were renamed or dropped; changes still make events, by column number.
	// Mended if they are a primary key that was not configured explicitly.
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

// Concerns reports whether the finding applies to a table, or to all of them.
func (f Finding) Concerns(t Table) bool {
	found, err := quoteTable(f.Table)
	name, _ := quoteTable(t.Name)
	return f.Table == "" || err == nil && found == name
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
	rows, err := db.QueryContext(ctx, "SELECT id, relation, part, spec::text FROM "+quote(schema)+
		".tidings_sources WHERE NOT detached ORDER BY relation, part")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []attached
	for rows.Next() {
		var a attached
		if err := rows.Scan(&a.id, &a.relation, &a.part, &a.spec); err != nil {
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
		var name string
		var same, exists bool
		err := db.QueryRowContext(ctx, "SELECT id, name, coalesce(same, false), there FROM "+quote(schema)+
			".capture_find($1, $2::jsonb)", s.relation, s.spec).Scan(&id, &name, &same, &exists)
		switch {
		case err != nil:
			return nil, err
		case id.Valid:
			used[int(id.Int64)] = true
			if !same {
				found = append(found, Finding{
					Table: name, Kind: Configured,
					What: "it is configured in another way " +
						"than it was attached; run attach",
				})
			}
		case exists:
			found = append(found, Finding{Table: name, Kind: NotAttached, What: "run attach"})
		default:
			found = append(found, Finding{Table: name, Kind: NotAttached, What: "there is no such table"})
		}
	}
	for _, row := range rows {
		if !used[row.id] {
			found = append(found, Finding{Table: row.relation, Kind: NotConfigured, What: "it is attached and not " +
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
var mends = []Kind{Replaced, Trigger, Function, Drift, Columns}

// Repair is like [Check] and fixes what a migration of the application, or a
// restore, broke: missing triggers and functions that do not fit. Changes made
// while triggers were missing made no events: [Gaps] lists these periods, and rows
// written since the triggers were last seen are reported again, as far as that is
// quick. Tables that are configured differently, disabled or missing are left to an
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
			if err := install(ctx, db, tables, o); err != nil {
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
			s := source{relation: row.relation, name: row.relation, spec: row.spec}
			failed := mend(ctx, db, o.schema(), s)
			if ctx.Err() != nil {
				return found, ctx.Err()
			}
			told := kinds[Columns] && hasCode(failed, invalidParameter) // the finding contains the reason
			for i, f := range found {
				if f.Table == row.relation && slices.Contains(mends, f.Kind) {
					found[i].Mended = failed == nil
					if failed != nil && !told {
						found[i].What += "; not mended: " + failed.Error()
					}
				}
			}
		case !kinds[Trigger] && !kinds[Replaced] && !kinds[Disabled] && !kinds[Missing]:
			if err := seen(ctx, db, o.schema(), row); err != nil {
				return found, err
			}
		}
	}
	return found, nil
}

// mend attaches a table again, in one attempt; the next call retries.
func mend(ctx context.Context, db *sql.DB, schema string, s source) error {
	err := attachOnce(ctx, db, schema, s, true)
	if hasCode(err, queryCanceled) { // there is more to recover than may hold up writers
		err = attachOnce(ctx, db, schema, s, false)
	}
	return err
}

// seen records that the triggers of a table are in place.
func seen(ctx context.Context, db *sql.DB, schema string, row attached) error {
	return transact(ctx, db, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "SELECT "+quote(schema)+".capture_seen($1)", row.id)
		return err
	})
}

// Gap is a period in which changes of a table made no events.
type Gap struct {
	Table        string // as in [Finding]
	Since, Until time.Time
	Reason       string
	// Recovered is the number of events made afterwards for rows written in the
	// gap. Deleted rows are not among them.
	Recovered int64
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

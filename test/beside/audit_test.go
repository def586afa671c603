package beside

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings"
)

// table is a table of the application.
type table struct{ name, kind, key string }

// audit records each change of the application's tables with triggers that are
// independent of Tidings' triggers.
func (w *world) audit(tables []table) {
	w.Helper()
	w.exec(`CREATE SCHEMA audit;
		CREATE TABLE audit.changes (n bigserial, tx bigint, resource text, action text, who text);
		CREATE FUNCTION audit.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
		BEGIN
			IF TG_OP = 'UPDATE' AND OLD IS NOT DISTINCT FROM NEW THEN
				RETURN NULL;
			END IF;
			INSERT INTO audit.changes (tx, resource, action, who) VALUES (txid_current(),
				TG_ARGV[0] || ' ' || (to_jsonb(CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END) ->> TG_ARGV[1]),
				CASE TG_OP WHEN 'INSERT' THEN 'created' WHEN 'UPDATE' THEN 'updated' ELSE 'deleted' END,
				coalesce(current_setting('tidings.user_id', true), ''));
			RETURN NULL;
		END $$`)
	for _, t := range tables {
		w.exec(fmt.Sprintf(`CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON %s
			FOR EACH ROW EXECUTE FUNCTION audit.note('%s', '%s')`, t.name, t.kind, t.key))
	}
}

// changes returns from the audit what happened to each resource, in order, and by whom.
// Several changes of a row in one transaction count as one.
func (w *world) changes() map[string][]string {
	w.Helper()
	rows, err := w.db.QueryContext(w.Context(), "SELECT tx, resource, action, who FROM audit.changes ORDER BY n")
	if err != nil {
		w.Fatal(err)
	}
	defer rows.Close()
	changes, latest := make(map[string][]string), make(map[string]int64)
	for rows.Next() {
		var tx int64
		var resource, action, who string
		if err := rows.Scan(&tx, &resource, &action, &who); err != nil {
			w.Fatal(err)
		}
		list := changes[resource]
		if latest[resource] == tx && !strings.HasPrefix(list[len(list)-1], "deleted") {
			switch {
			case action == "updated":
				continue
			case action == "deleted" && strings.HasPrefix(list[len(list)-1], "updated"):
				list = list[:len(list)-1]
			}
		}
		latest[resource] = tx
		changes[resource] = append(list, action+" by "+who)
	}
	if err := rows.Err(); err != nil {
		w.Fatal(err)
	}
	return changes
}

// exact waits for all changes in the audit. The receiver must get each change once, and
// the changes of a resource in order.
func (w *world) exact() []tidings.Event {
	w.Helper()
	want, n := w.changes(), 0
	for _, list := range want {
		n += len(list)
	}
	events := w.all(n)
	got, version := make(map[string][]string), make(map[string]int64)
	for _, e := range events {
		resource := string(e.Type) + " " + e.ResourceID
		got[resource] = append(got[resource], string(e.Action)+" by "+e.UserID)
		if e.ResourceVersion <= version[resource] {
			w.Errorf("%s: version %d after %d", resource, e.ResourceVersion, version[resource])
		}
		version[resource] = e.ResourceVersion
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		w.Errorf("%d events arrived, want %d; want (-), got (+):\n%.5000s", len(events), n, diff)
	}
	return events
}

// rows checks that a table has exactly the rows that were created and not deleted.
func (w *world) rows(t table, events []tidings.Event) (n int) {
	w.Helper()
	there := make(map[string]bool)
	for _, e := range events {
		switch {
		case string(e.Type) != t.kind:
		case e.Action == "deleted":
			delete(there, e.ResourceID)
		default:
			there[e.ResourceID] = true
		}
	}
	var ids []string
	rows, err := w.db.QueryContext(w.Context(), "SELECT "+t.key+"::text FROM "+t.name)
	if err != nil {
		w.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			w.Fatal(err)
		}
		ids = append(ids, id)
	}
	slices.Sort(ids)
	if diff := gocmp.Diff(ids, slices.Sorted(maps.Keys(there))); diff != "" || rows.Err() != nil {
		w.Errorf("%s: %v; rows (-), events (+):\n%.2000s", t.name, rows.Err(), diff)
	}
	return len(ids)
}

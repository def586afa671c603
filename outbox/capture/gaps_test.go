package capture_test

import (
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/outbox/capture"
)

// gaps returns the descriptions of all gaps, newest first.
func (a *app) gaps() string {
	a.t.Helper()
	all, err := capture.Gaps(a.t.Context(), a.db, a.o, time.Time{})
	if err != nil {
		a.t.Fatal(err)
	}
	var text []string
	for _, g := range all {
		text = append(text, g.String())
	}
	return strings.Join(text, "\n")
}

// What cannot be known about a time without triggers is recorded.
func TestDeletesInAGap(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.exec("CREATE TABLE public.t (id int PRIMARY KEY, v int)")
	table := capture.Table{Name: "t", Type: "thing"}
	a.attach(table)
	a.exec("INSERT INTO public.t SELECT n, n FROM generate_series(1, 3) n")
	a.repair(table)
	a.told()
	a.exec("DROP TRIGGER _tidings_1 ON public.t", "DELETE FROM public.t WHERE id = 1",
		"UPDATE public.t SET v = 7 WHERE id = 2")
	a.repair(table)
	if told := a.told(); !strings.Contains(told, "updated 2") || strings.Contains(told, "deleted") {
		t.Errorf("told %s", told)
	}
	for _, want := range []string{"table public.t: ", "(trigger)", "deleted meanwhile are unknown", "(events: "} {
		if got := a.gaps(); !strings.Contains(got, want) {
			t.Errorf("gaps: %s; want %s", got, want)
		}
	}
}

// A partition gets its trigger for TRUNCATE at the next check: until then, its parent's
// covers its rows, and a TRUNCATE of the partition alone is a gap.
func TestTruncateOfANewPartition(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.exec("CREATE TABLE public.t (id int PRIMARY KEY, v int) PARTITION BY RANGE (id)",
		"CREATE TABLE public.old PARTITION OF public.t FOR VALUES FROM (0) TO (10)")
	table := capture.Table{Name: "t", Type: "thing"}
	a.attach(table)
	a.exec("CREATE TABLE public.deep PARTITION OF public.t FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (id)",
		"CREATE TABLE public.leaf PARTITION OF public.deep FOR VALUES FROM (10) TO (15)",
		"CREATE TABLE public.new PARTITION OF public.t FOR VALUES FROM (20) TO (30)",
		"INSERT INTO public.t VALUES (1, 1), (21, 1)")
	a.told()
	a.exec("TRUNCATE public.t")
	a.wantSorted("TRUNCATE of all", "deleted 1, deleted 21")
	if found := a.repair(table); !strings.Contains(found, "partition: ") || strings.Count(found, "mended") !=
		strings.Count(found, "partition: ") {
		t.Errorf("Repair: %s", found)
	}
	a.exec("INSERT INTO public.t VALUES (1, 1), (11, 1), (21, 1)")
	a.told()
	a.exec("TRUNCATE public.deep", "TRUNCATE public.t")
	a.wantSorted("TRUNCATE of all", "deleted 1, deleted 11, deleted 21")

	known := a.gaps()
	a.exec("CREATE TABLE public.quiet PARTITION OF public.t FOR VALUES FROM (30) TO (40)")
	a.repair(table)
	a.told()
	if now := a.gaps(); now != known {
		t.Errorf("a partition that was not truncated is a gap: %s", now)
	}
	a.exec("CREATE TABLE public.last PARTITION OF public.t FOR VALUES FROM (40) TO (50)",
		"INSERT INTO public.t VALUES (41, 1)")
	a.told()
	a.exec("TRUNCATE public.last")
	a.wantTold("TRUNCATE of a new partition", "")
	a.repair(table)
	const want = "TRUNCATE, or a rewrite, of a new partition: public.last"
	if now := strings.TrimSuffix(a.gaps(), known); !strings.Contains(now, want) {
		t.Errorf("gaps: %s", now)
	}
	a.exec("INSERT INTO public.t VALUES (42, 1)", "TRUNCATE public.last")
	a.wantTold("later", "created 42, deleted 42")
}

// Row triggers are not inherited: tables that inherit are found, unless they have
// triggers of their own.
func TestInheritingTables(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.exec("CREATE TABLE public.t (id int PRIMARY KEY, v int)", "CREATE TABLE public.child (PRIMARY KEY (id)) "+
		"INHERITS (public.t)")
	table := capture.Table{Name: "t", Type: "thing"}
	a.attach(table)
	const want = "table public.t: inherited: the table public.child inherits from it"
	if found := a.findings(table); !strings.HasPrefix(found, want) {
		t.Errorf("Check: %s", found)
	}
	child := capture.Table{Name: "child", Type: "thing"}
	a.attach(table, child)
	if found := a.findings(table, child); found != "" {
		t.Errorf("Check: %s", found)
	}
	a.exec("INSERT INTO public.child VALUES (1, 1)", "UPDATE public.t SET v = 2")
	a.wantTold("of a child", "created 1, updated 1")
}

// A trigger that was disabled and enabled again between two looks leaves a gap, whoever
// looks next and whatever happened to it otherwise.
func TestDisabledBetweenTwoLooks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what       string
		statements []string
		told, gap  string
	}{
		{"table", []string{
			"ALTER TABLE public.t DISABLE TRIGGER USER", "UPDATE public.t SET v = 2 WHERE id = 1",
			"DELETE FROM public.t WHERE id = 2", "ALTER TABLE public.t ENABLE TRIGGER USER",
		}, "updated 1", "altered"},
		{"in one transaction", []string{
			"BEGIN; ALTER TABLE public.t DISABLE TRIGGER USER; UPDATE public.t SET v = 2 WHERE id = 1;" +
				"ALTER TABLE public.t ENABLE TRIGGER USER; COMMIT",
		}, "updated 1", "altered"},
		{"partition", []string{
			"ALTER TABLE public.leaf DISABLE TRIGGER USER", "UPDATE public.leaf SET v = 2 WHERE id = 1",
			"ALTER TABLE public.leaf ENABLE TRIGGER USER",
		}, "updated 1", "altered"},
		{"new partition", []string{
			"CREATE TABLE public.new PARTITION OF public.t FOR VALUES FROM (100) TO (200)", "look",
			"ALTER TABLE public.new DISABLE TRIGGER USER", "INSERT INTO public.new VALUES (101, 1)",
			"ALTER TABLE public.new ENABLE TRIGGER USER",
		}, "updated 101", "altered"},
		{"dropped and made again", []string{
			"DROP TRIGGER _tidings_1 ON public.t", "UPDATE public.t SET v = 2 WHERE id = 1",
			"CREATE TRIGGER _tidings_1 AFTER INSERT OR UPDATE OR DELETE ON public.t FOR EACH ROW " +
				"EXECUTE FUNCTION tidings.capture_1()",
		}, "updated 1", "altered"},
		{"seen while it was disabled", []string{
			"ALTER TABLE public.t DISABLE TRIGGER USER", "UPDATE public.t SET v = 2 WHERE id = 1", "look",
			"ALTER TABLE public.t ENABLE TRIGGER USER",
		}, "updated 1", "altered"},
		{"nothing that matters", []string{
			"VACUUM FREEZE pg_trigger", "VACUUM FULL pg_trigger", "REINDEX TABLE pg_trigger",
			"CLUSTER pg_trigger USING pg_trigger_oid_index", "ALTER TABLE public.t ENABLE TRIGGER USER",
			"ALTER TABLE public.t ALTER v TYPE bigint", "ALTER TABLE public.t ADD w int", "look", "VACUUM FULL public.t",
			"CREATE TABLE public.new PARTITION OF public.t FOR VALUES FROM (100) TO (200)", "look",
			"ALTER TABLE public.t DETACH PARTITION public.leaf",
			"ALTER TABLE public.t ATTACH PARTITION public.leaf FOR VALUES FROM (0) TO (100)",
			"DROP TABLE public.new", "look", "attach", "detach", "attach",
		}, "", ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			a := newApp(t)
			a.exec("CREATE TABLE public.t (id int PRIMARY KEY, v int) PARTITION BY RANGE (id)",
				"CREATE TABLE public.leaf PARTITION OF public.t FOR VALUES FROM (0) TO (100)")
			table := capture.Table{Name: "t", Type: "thing"}
			a.attach(table)
			a.exec("INSERT INTO public.t VALUES (1, 1), (2, 1), (3, 1)")
			a.repair(table)
			a.told()
			for _, statement := range c.statements {
				switch statement {
				case "look":
					a.repair(table)
				case "attach":
					a.attach(table)
				case "detach":
					a.detach()
				default:
					a.exec(statement)
				}
			}
			a.wantTold("without the trigger", "")
			found := a.repair(table)
			if altered := strings.Contains(found, "altered: "); altered != (c.gap != "") {
				t.Errorf("Repair: %s", found)
			}
			// A transaction elsewhere on the server makes it tell more than it must.
			if told := a.told(); !strings.Contains(told, c.told) || c.gap == "" && told != "" {
				t.Errorf("afterwards told %s; want %s", told, c.told)
			}
			if found := a.repair(table); found != "" {
				t.Errorf("a second Repair: %s", found)
			}
			gaps, err := capture.Gaps(t.Context(), a.db, a.o, time.Time{})
			if err != nil || c.gap == "" && len(gaps) > 0 || c.gap != "" && (len(gaps) != 1 || gaps[0].Reason != c.gap ||
				gaps[0].Recovered == 0) {
				t.Errorf("gaps %+v, %v", gaps, err)
			}
			a.exec("UPDATE public.t SET v = 7 WHERE id = 3")
			a.wantTold("at last", "updated 3")
		})
	}
}

// Recent events are counted by type: those since a time, of the newest 10,000.
func TestRecentByType(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.exec("CREATE TABLE public.t (id int PRIMARY KEY)", "CREATE TABLE public.l (id int PRIMARY KEY)")
	a.attach(capture.Table{Name: "t", Type: "order"}, capture.Table{Name: "l", Type: "line"})
	begin := time.Now().Add(-time.Hour)
	a.exec("INSERT INTO public.t SELECT generate_series(1, 20)")
	a.told()
	check := func(since time.Time, complete bool, orders, lines int64) {
		t.Helper()
		counts, all, err := capture.RecentByType(t.Context(), a.db, a.o, since)
		if err != nil || all != complete || counts["order"].Events != orders || counts["line"].Events != lines ||
			counts["order"].Last.IsZero() || counts["line"].Last.IsZero() != (lines == 0) {
			t.Errorf("%v, complete %v, %v; want %d orders and %d lines", counts, all, err, orders, lines)
		}
	}
	check(begin, true, 20, 0)
	middle := time.Now()
	a.exec("INSERT INTO public.l SELECT generate_series(1, 9995)")
	a.told()
	check(begin, false, 5, 9995)
	check(middle, true, 0, 9995)
}

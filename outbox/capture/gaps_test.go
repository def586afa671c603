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

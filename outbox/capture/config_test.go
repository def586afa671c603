package capture_test

import (
	"crypto/sha256"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/outbox/capture"
	"github.com/tidings-dev/tidings/vocabulary"
)

// The version of the functions is raised with each change to their files.
func TestVersion(t *testing.T) {
	t.Parallel()
	sum := sha256.New()
	for _, name := range []string{"functions", "triggers", "attach", "emit"} {
		text, err := os.ReadFile("sql/" + name + ".sql")
		if err != nil {
			t.Fatal(err)
		}
		sum.Write(text)
	}
	const version, want = 4, "bd7934724fdda821"
	if got := fmt.Sprintf("%x", sum.Sum(nil))[:16]; got != want || capture.Version != version {
		t.Errorf("the files in sql have the sum %s: raise the version in sql.go and update the sum here", got)
	}
}

// A row that starts to meet the conditions is created, and one that stops is deleted.
func TestWhere(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.exec("CREATE TABLE public.posts (id int PRIMARY KEY, state text, deleted_at timestamptz, title text, size int)")
	a.attach(capture.Table{
		Name: "posts", Type: "post", Where: []string{"deleted_at is null", "state = 'published'", "size != 0"},
		Ignore:   []string{"title"},
		Truncate: capture.TruncateRefuse,
	})
	for _, c := range []struct{ statement, want string }{
		{"INSERT INTO public.posts VALUES (1, 'draft', NULL, 't', 1), (2, 'published', NULL, 't', NULL), (3, " +
			"'published', now(), 't', 1), (4, 'published', NULL, 't', 0)", "created 2"},
		{"UPDATE public.posts SET state = 'published' WHERE id = 1", "created 1"},
		{"UPDATE public.posts SET size = 2 WHERE id = 1", "updated 1"},
		{"UPDATE public.posts SET title = 'x'", ""},
		{"UPDATE public.posts SET deleted_at = now() WHERE id = 1", "deleted 1"},
		{"UPDATE public.posts SET size = 5 WHERE id = 1", ""},
		{"UPDATE public.posts SET id = 10, deleted_at = NULL WHERE id = 3", "created 10"},
		{"UPDATE public.posts SET id = 11 WHERE id = 10", "created 11, deleted 10"},
		{"DELETE FROM public.posts WHERE id IN (1, 2)", "deleted 2"},
	} {
		a.exec(c.statement)
		a.wantSorted(c.statement, c.want)
	}
	_, err := a.db.Exec("TRUNCATE public.posts")
	if err == nil || !strings.Contains(err.Error(), "tidings: TRUNCATE of public.posts is refused") {
		t.Errorf("TRUNCATE: %v", err)
	}
}

// Changes of parts update the resource that they belong to, both resources if they move,
// and none that does not exist.
func TestParts(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.exec("CREATE TABLE public.orders (tenant text, id int, owner text, open boolean, PRIMARY KEY (tenant, id))",
		`CREATE TABLE public.lines (id int PRIMARY KEY, t text, o int, note text, seen int, FOREIGN KEY (o, t) `+
			`REFERENCES public.orders (id, tenant) ON DELETE CASCADE)`)
	table := capture.Table{
		Name: "public.orders", Type: "order", URL: "/{tenant}/{id}", User: "owner", Where: []string{
			"open = true",
			"owner != 50%s",
		},
		Parts: []capture.Part{{Name: "public.lines", Ignore: []string{"seen"}}},
	}
	a.attach(table)
	a.exec("INSERT INTO public.orders VALUES ('x', 1, 'ann', true), ('x', 2, 'bob', true), ('x', 3, 'eve', false)")
	a.wantTold("orders", "created x:1@ann, created x:2@bob")
	for _, c := range []struct{ statement, want string }{
		{"INSERT INTO public.lines VALUES (1, 'x', 1, 'a'), (2, 'x', 1, 'b'), (3, 'x', 2, 'c'), (4, 'x', 3, " +
			"'d'), (5, NULL, 1, 'e')", "updated x:1@ann, updated x:2@bob"},
		{"UPDATE public.lines SET note = 'z' WHERE id = 1", "updated x:1@ann"},
		{"UPDATE public.lines SET seen = 1, note = note", ""},
		{"UPDATE public.lines SET o = 2 WHERE id = 1", "updated x:1@ann, updated x:2@bob"},
		{"UPDATE public.lines SET t = NULL WHERE id = 1", "updated x:2@bob"},
		{"DELETE FROM public.lines WHERE id = 3", "updated x:2@bob"},
		{"DELETE FROM public.orders WHERE id = 1", "deleted x:1@ann"},
		{"UPDATE public.orders SET open = true WHERE id = 3", "created x:3@eve"},
		{"TRUNCATE public.lines", "updated x:3"},
	} {
		a.exec(c.statement)
		events := a.events()
		var all []string
		for _, e := range events {
			all = append(all, strings.TrimSuffix(fmt.Sprintf("%s %s@%s", e.Action, e.ResourceID, e.UserID), "@"))
			if e.UserID != "" && e.ResourceURL != "/x/"+e.ResourceID[2:] {
				t.Errorf("URL %s", e.ResourceURL)
			}
		}
		if diff := gocmp.Diff(c.want, strings.Join(all, ", ")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.statement, diff)
		}
	}
	a.exec("INSERT INTO public.lines VALUES (6, 'x', 3, 'f')", "DROP TABLE public.orders CASCADE",
		"UPDATE public.lines SET note = 'y'")
	a.wantTold("the parent is gone", "updated x:3@eve, updated x:3")
}

func TestActionsAndUser(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.exec("CREATE TABLE public.settings (id int PRIMARY KEY, v int)", "CREATE TABLE public.marks (id int PRIMARY KEY)")
	tables := []capture.Table{
		{Name: "settings", Type: "settings", Actions: []tidings.Action{tidings.Updated}, User: "setting:request.sub"},
		{Name: "marks", Type: "mark", Actions: []tidings.Action{tidings.Created}},
	}
	a.o.Types = vocabulary.Types{"mark": {"seen"}}
	a.attach(tables...)
	a.inTx("SET LOCAL request.sub = 'ann'", "INSERT INTO public.settings VALUES (1, 1)")
	a.wantTold("insert", "updated 1@ann")
	a.exec("UPDATE public.settings SET v = 2", "UPDATE public.settings SET id = 2", "DELETE FROM public.settings")
	a.wantTold("update, changed key and delete", "updated 1, updated 2")
	a.exec("INSERT INTO public.marks VALUES (1)", "UPDATE public.marks SET id = 2", "DELETE FROM public.marks",
		"SELECT tidings.emit('mark', 'seen', '2')")
	a.wantTold("created only", "created 1, created 2, seen 2")
	if types := capture.Types(tables); !types.Has("mark", "created") || types.Has("mark", "deleted") ||
		types.Has("settings", "created") {
		t.Errorf("types %v", types)
	}
}

func TestTableErrors(t *testing.T) {
	t.Parallel()
	for want, table := range map[string]capture.Table{
		"expected SCHEMA.TABLE":                    {Name: "a.b.c", Type: "x"},
		"a quote is not closed":                    {Name: `public."a`, Type: "x"},
		"resource type \"X\"":                      {Name: "a", Type: "X"},
		"set either watch or ignore":               {Name: "a", Type: "x", Watch: []string{"a"}, Ignore: []string{"b"}},
		"truncate \"no\": expected":                {Name: "a", Type: "x", Truncate: "no"},
		"action \"paid\": expected":                {Name: "a", Type: "x", Actions: []tidings.Action{"paid"}},
		"expected the name of a column":            {Name: "a", Type: "x", URL: "/{id"},
		"expected a URL":                           {Name: "a", Type: "x", URL: "/a b"},
		`where "a like b": expected "COLUMN = VAL`: {Name: "a", Type: "x", Where: []string{"a like b"}},
		`user "setting:role": expected`:            {Name: "a", Type: "x", User: "setting:role"},
		"part b.c.d":                               {Name: "a", Type: "x", Parts: []capture.Part{{Name: "b.c.d"}}},
	} {
		if err := table.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %s", err, want)
		}
	}
}

// Errors that only the database can detect say what there is.
func TestAttachErrors(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.role("poor")
	a.exec(makeOrders, "CREATE TABLE public.nokey (a int, b int)", "CREATE VIEW public.view AS SELECT 1 AS id",
		`CREATE TABLE public."Camel" (id int PRIMARY KEY)`,
		"GRANT CREATE ON DATABASE "+a.query("SELECT current_database()")+" TO poor")
	a.attach()
	for want, table := range map[string]capture.Table{
		"there is no such table":                            {Name: "public.order", Type: "x"},
		"it has no primary key":                             {Name: "nokey", Type: "x"},
		"it is neither an ordinary nor a partitioned table": {Name: "view", Type: "x"},
		`there is no column stat whose`:                     {Name: "orders", Type: "x", Watch: []string{"stat"}},
		"it has id, status, total":                          {Name: "orders", Type: "x", URL: "/{number}"},
		"no foreign key refers to the key of orders": {
			Name: "orders", Type: "x",
			Parts: []capture.Part{{Name: "nokey"}},
		},
		"the key of orders has 1 columns": {
			Name: "orders", Type: "x",
			Parts: []capture.Part{{Name: "nokey", Key: []string{"a", "b"}}},
		},
		"no such table ":                        {Name: "camel", Type: "x"},
		"it is in the schema of Tidings itself": {Name: "tidings.tidings_outbox", Type: "x"},
	} {
		err := capture.Attach(t.Context(), a.db, []capture.Table{table}, a.o)
		if err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), "public.orders", "orders")+" ", want) {
			t.Errorf("%v; want %s", err, want)
		}
	}
	a.attach(capture.Table{Name: "Camel", Type: "x"})
	// Several processes attach concurrently.
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if err := capture.Attach(t.Context(), openDB(t, a.url), []capture.Table{orders}, a.o); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	a.exec("INSERT INTO public.orders (id) VALUES (1)")
	a.wantTold("attached by four", "created 1")
	if err := capture.Attach(t.Context(), a.db, []capture.Table{orders, orders}, a.o); err == nil ||
		!strings.Contains(err.Error(), "duplicate table") {
		t.Error(err)
	}
}

package capture_test

import (
	"fmt"
	"testing"

	"github.com/tidings-dev/tidings/outbox/capture"
)

// BenchmarkTrigger measures the CPU time that PostgreSQL takes for a write of one row,
// without a trigger, with one that inserts into a table and does nothing else, and with
// ours; and for 100,000 rows in one statement.
func BenchmarkTrigger(b *testing.B) {
	a := newApp(b)
	a.attach()
	a.db.SetMaxOpenConns(1) // the session whose CPU time is measured
	a.exec(`CREATE FUNCTION public.plain() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			INSERT INTO tidings.tidings_outbox (id, resource_type, action, resource_id, resource_url, user_id, at,
				resource_version)
			VALUES (gen_random_uuid()::text, 'order', 'updated', new.id::text, '/order/' || new.id, '', 1, 1);
			RETURN NULL;
		END $$`,
		`CREATE PROCEDURE public.writes(name text, first int, rows int) LANGUAGE plpgsql AS $$ BEGIN
			FOR n IN first..first + rows - 1 LOOP
				EXECUTE format('INSERT INTO public.%I (id, status, total, note) 
					VALUES ($1, ''new'', 1, ''a note'')', name) USING n;
			END LOOP;
			FOR n IN first..first + rows - 1 LOOP
				EXECUTE format('UPDATE public.%I SET status = ''paid'', updated_at = clock_timestamp()
					WHERE id = $1', name) USING n;
			END LOOP;
		END $$`)
	without := 0.0
	for _, c := range []struct {
		name  string
		table capture.Table
	}{
		{name: "without"},
		{name: "plain"},
		{name: "watch", table: capture.Table{Watch: []string{"status", "total"}, User: "created_by"}},
		{name: "ignore", table: capture.Table{Ignore: []string{"updated_at"}, User: "created_by"}},
		{name: "all", table: capture.Table{}},
	} {
		a.exec(fmt.Sprintf(`CREATE TABLE public.%s (id int PRIMARY KEY, status text, total numeric, note text,
			created_by uuid,
			updated_at timestamptz DEFAULT now())`, c.name))
		switch c.name {
		case "without":
		case "plain":
			a.exec("CREATE TRIGGER plain AFTER INSERT OR UPDATE ON public.plain FOR EACH ROW EXECUTE FUNCTION " +
				"public.plain()")
		default:
			c.table.Name, c.table.Type = "public."+c.name, "order"
			a.attach(c.table)
		}
		const rows = 500 // few enough for at least one undisturbed round
		a.exec(fmt.Sprintf("CALL public.writes('%s', 1, 500)", c.name))
		best := 0.0
		for round := range 40 {
			begun := a.cpu()
			a.exec(fmt.Sprintf("CALL public.writes('%s', %d, %d)", c.name, 1000+round*rows, rows))
			if took := (a.cpu() - begun) / (2 * rows); best == 0 || took < best {
				best = took
			}
		}
		begun := a.cpu()
		a.exec(fmt.Sprintf("INSERT INTO public.%s (id, status) SELECT n, 'a' FROM generate_series(1000001, "+
			"1100000) n", c.name))
		bulk := (a.cpu() - begun) / 1e6
		if c.name == "without" {
			without = best
			b.ReportMetric(best, "µs/write")
			b.ReportMetric(bulk, "s/100k-rows")
			continue
		}
		b.ReportMetric(best-without, "µs-more-"+c.name)
		b.ReportMetric(bulk, "s/100k-"+c.name)
	}
	b.ReportMetric(0, "ns/op")
}

// cpu returns the CPU time that the session has used, in microseconds.
func (a *app) cpu() float64 {
	a.t.Helper()
	var us float64
	err := a.db.QueryRow("SELECT split_part(pg_read_file('/proc/self/schedstat'), ' ', 1)::float8 / 1000").Scan(&us)
	if err != nil {
		a.t.Fatal(err)
	}
	return us
}

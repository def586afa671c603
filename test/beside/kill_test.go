package beside

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/internal/testtool"
)

// killed runs writers while it kills the relay several times, and returns when both are
// done.
func (w *world) killed(writers int, write func(db *sql.DB, writer int) error) {
	w.Helper()
	db, err := sql.Open("pgx", w.app)
	if err != nil {
		w.Fatal(err)
	}
	defer db.Close()
	ctx, stop := context.WithCancel(w.Context())
	defer stop()
	var all sync.WaitGroup
	for n := range writers {
		all.Go(func() {
			for ctx.Err() == nil {
				if err := write(db, n); err != nil {
					w.Error(err)
					return
				}
				<-time.After(50 * time.Millisecond)
			}
		})
	}
	for range 5 {
		n := w.unique()
		w.wait(func() bool { return len(w.ids) > n }) // kill it while it delivers
		<-time.After(time.Duration(rand.IntN(200)) * time.Millisecond)
		w.kill()
	}
	stop()
	all.Wait()
}

// unique returns the number of distinct events that have arrived.
func (w *world) unique() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.ids)
}

// wants waits for the events of all committed changes and checks that nothing else
// arrives, with the actions of each resource in order. Events that were in flight when
// the relay was killed may arrive again.
func (w *world) wants(want map[string]string) {
	w.Helper()
	n := 0
	for _, actions := range want {
		n += len(strings.Fields(actions))
	}
	w.wait(func() bool { return len(w.ids) >= n })
	got, versions, seen := make(map[string]string), make(map[string]int64), make(map[string]bool)
	for _, e := range w.all(n) {
		if seen[e.ID] {
			continue
		}
		seen[e.ID] = true
		resource := e.Resource()
		got[resource] = strings.TrimSpace(got[resource] + " " + string(e.Action))
		if e.ResourceVersion <= versions[resource] {
			w.Errorf("%s: version %d after %d", resource, e.ResourceVersion, versions[resource])
		}
		versions[resource] = e.ResourceVersion
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		w.Errorf("of %d changes, want (-), got (+):\n%.5000s", n, diff)
	}
	w.Logf("%d changes arrived in %d webhooks", n, len(w.arrived))
}

// Sixteen writers change five rows, with savepoints and rollbacks, while the relay is
// killed.
func TestWritersWhileKilled(t *testing.T) {
	testtool.InAll(t)
	w := newWorld(t)
	w.exec("CREATE TABLE app.hits (id int PRIMARY KEY, n int NOT NULL DEFAULT 0); " +
		"INSERT INTO app.hits SELECT generate_series(0, 4); GRANT ALL ON app.hits TO " + role)
	w.relay(map[string]any{
		"types":   map[string]any{last: nil},
		"sources": map[string]any{"tables": map[string]any{"app.hits": map[string]any{"type": "hit"}}},
	})
	var changes [5]atomic.Int64
	w.killed(16, func(db *sql.DB, _ int) error {
		tx, err := db.Begin()
		if err != nil {
			return err
		}
		defer tx.Rollback()
		row, changed := rand.IntN(5), false
		for _, savepoint := range []bool{false, true} {
			if rand.IntN(2) == 0 {
				continue
			}
			update := fmt.Sprintf("UPDATE app.hits SET n = n + 1 WHERE id = %d", row)
			if savepoint && rand.IntN(2) == 0 {
				update = "SAVEPOINT s; " + update + "; ROLLBACK TO s"
			} else {
				changed = true
			}
			if _, err := tx.Exec(update); err != nil {
				return err
			}
		}
		if rand.IntN(4) == 0 {
			return tx.Rollback()
		}
		if err := tx.Commit(); err != nil {
			return err
		}
		if changed {
			changes[row].Add(1)
		}
		return nil
	})
	want := make(map[string]string)
	for row := range changes {
		want[fmt.Sprintf("hit/%d", row)] = strings.TrimSpace(strings.Repeat("updated ", int(changes[row].Load())))
	}
	w.wants(want)
}

// An Agent Stack server is in use while the relay is killed.
func TestAgentStackWhileKilled(t *testing.T) {
	testtool.InAll(t)
	for _, version := range []string{"2026-03", "2026-05"} {
		t.Run(version, func(t *testing.T) {
			w := newWorld(t)
			tables, err := os.ReadFile("../../outbox/capture/testdata/agentstack-" + version + ".sql")
			if err != nil {
				t.Fatal(err)
			}
			w.exec(string(tables))
			w.exec("GRANT ALL ON ALL TABLES IN SCHEMA public TO " + role)
			w.relay(map[string]any{"types": map[string]any{last: nil}, "preset": "agent_stack"})
			var mu sync.Mutex
			var count int
			want := make(map[string]string)
			w.killed(4, func(db *sql.DB, _ int) error {
				mu.Lock()
				count++
				u := newUsage(count)
				mu.Unlock()
				for _, statements := range u.transactions {
					if _, err := db.Exec("BEGIN; " + statements + "; COMMIT"); err != nil {
						return fmt.Errorf("%s: %w", statements, err)
					}
				}
				mu.Lock()
				defer mu.Unlock()
				maps.Copy(want, u.want)
				return nil
			})
			w.wants(want)
		})
	}
}

// usage is a user's transactions on an Agent Stack server and their events.
type usage struct {
	transactions []string
	want         map[string]string
}

func newUsage(n int) usage {
	id := func(kind int) string { return fmt.Sprintf("00000000-0000-4000-8000-%04d%08d", kind, n) }
	user, context, file, never := id(1), id(2), id(3), id(4)
	insertContext := "INSERT INTO public.contexts (id, created_at, updated_at, last_active_at, created_by, metadata) " +
		"VALUES ('%s', now(), now(), now(), '" + user + "', '{}')"
	return usage{
		transactions: []string{
			fmt.Sprintf("INSERT INTO public.users (id, email, created_at) VALUES ('%s', '%d@x', now())", user, n),
			fmt.Sprintf(insertContext, context),
			fmt.Sprintf(insertContext, never) + "; ROLLBACK; BEGIN",
			fmt.Sprintf("INSERT INTO public.context_history (id, context_id, created_at, data) VALUES "+
				"('%s', '%s', now(), '{}')", id(5), context),
			fmt.Sprintf("UPDATE public.contexts SET last_active_at = clock_timestamp() WHERE id = '%s'", context),
			fmt.Sprintf("INSERT INTO public.files (id, filename, content_type, file_size_bytes, created_by, file_type, "+
				"context_id, created_at) VALUES ('%s', 'a', 'text/plain', 0, '%s', 'user_upload', '%s', now())",
				file, user, context),
			fmt.Sprintf("UPDATE public.files SET file_size_bytes = 10 WHERE id = '%s'", file),
			fmt.Sprintf("DELETE FROM public.contexts WHERE id = '%s'", context),
		},
		want: map[string]string{
			"user/" + user:       "created",
			"context/" + context: "created updated deleted",
			"file/" + file:       "created deleted",
		},
	}
}

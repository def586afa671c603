package operator_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/operator"
	"github.com/tidings-dev/tidings/outbox"
)

// heldChange is the id of a change that another process works on.
const heldChange = "00000000-0000-4000-8000-000000000001"

// schema returns the prefix of the names of tables.
func (w *world) schema() string {
	if _, err := w.db.ExecContext(w.Context(), "SELECT 1 FROM tidings_events"); err != nil {
		return "tidings."
	}
	return ""
}

// addChange adds a discard of dead letters of books that another process has begun and
// holds until a time in microseconds.
func (w *world) addChange(id, reason, patterns string, held, done, total int64) {
	w.Helper()
	_, err := w.db.ExecContext(w.Context(), `INSERT INTO `+w.schema()+`tidings_parked_changes (id, action, endpoint,
		dead, reason, patterns, resource, comment, position, to_seq, total, done, state, created_at, updated_at,
		created_by, owner, held_until)
		VALUES ($1, 'discard', 'books', 1, $2, $3, '', 'old', 0, 1000000, $4, $5, 'running', 1, 1, 'ada', 'another', $6)`,
		id, reason, patterns, total, done, held)
	if err != nil {
		w.Fatal(err)
	}
}

// 10,000 dead letters are discarded in the background. The process also finishes what
// another left unfinished, and leaves alone what another works on.
func TestManyParkedChanged(t *testing.T) {
	both(t, func(w *world) {
		const many, others = 10_000, 3000
		events := make([]outbox.Event, others+many)
		for i := range events {
			events[i] = invoice(fmt.Sprint(i))
		}
		w.tell(events...)
		if head, err := w.hooks.Log().Advance(w.Context()); head != others+many || err != nil {
			t.Fatal(head, err)
		}
		schema := w.schema()
		_, err := w.db.ExecContext(w.Context(), `INSERT INTO `+schema+`tidings_retries (endpoint, seq, id, resource_type,
			action, resource_id, resource_url, user_id, at, resource_version, attempts, first_at, next_at, dead_at, reason)
			SELECT 'books', seq, id, resource_type, action, resource_id, resource_url, user_id, at, resource_version,
				1, at, 0, at, CASE WHEN seq <= 3000 THEN 'http_422' ELSE 'http_400' END FROM `+schema+`tidings_events`)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"books", "warehouse"} { // nothing else happens
			if _, err := w.service.Pause(w.Context(), name, operator.NewPause{}); err != nil {
				t.Fatal(err)
			}
		}
		w.run()
		dead := func() int64 {
			e, err := w.service.Endpoint(w.Context(), "books")
			if err != nil {
				t.Fatal(err)
			}
			return e.Dead
		}
		w.waitFor("dead letters", func() bool { return dead() == others+many })
		const (
			left  = "00000000-0000-4000-8000-000000000002"
			later = "00000000-0000-4000-8000-000000000003"
			none  = "00000000-0000-4000-8000-000000000004"
		)
		w.addChange(heldChange, "", "", 1<<62, 0, many)
		w.addChange(left, "http_422", "invoice.*", 1, 1000, 4000)
		w.addChange(later, "", "invoice~paid", 1, 0, many)

		discard := func(more string) answer {
			return w.request(w.Context(), "ann manager", "POST", "/webhooks/parked/discard",
				`{"endpoint": "books", "reason": "http_400", "types": ["invoice.paid"], "comment": "sent by hand"`+more+`}`)
		}
		if a := discard(`, "dry_run": true`); a.status != 200 || !strings.Contains(a.text, `"count":10000`) {
			t.Fatalf("dry run: %d %s", a.status, a.text)
		}
		if a := discard(`, "count": 9000`); a.status != 409 || !strings.Contains(a.text, "there are now 10000, not 9000") {
			t.Fatalf("another number: %d %s", a.status, a.text)
		}
		begun := decode[operator.ParkedDone](w, discard(`, "count": 10000`))
		if begun.Count != many || begun.Change == nil || begun.Change.Total != many || begun.Change.CreatedBy != "ann" {
			t.Fatalf("begun: %+v", begun)
		}
		change := func(id string) operator.ParkedChange {
			return decode[operator.ParkedChange](w, w.get("/webhooks/parked/changes/"+id))
		}
		w.waitFor("the end", func() bool {
			return change(begun.Change.ID).State == "done" && change(left).State == "done"
		})
		for id, want := range map[string][3]any{
			left: {"done", int64(4000), int64(4000)}, later: {"canceled", int64(0), int64(many)},
			heldChange: {"running", int64(0), int64(many)}, begun.Change.ID: {"done", int64(many), int64(many)},
		} {
			if c := change(id); [3]any{c.State, c.Done, c.Total} != want {
				t.Errorf("change %s: %+v, want %v", id, c, want)
			}
		}
		if n := dead(); n != 0 {
			t.Errorf("%d dead letters are left", n)
		}
		w.waitFor("a record of each", func() bool {
			page, err := w.service.Attempts(w.Context(), operator.Filter{Endpoint: "books", Limit: 1})
			return err == nil && len(page.Items) == 1
		})
		for _, text := range []string{"invoice-0", "invoice-12999"} {
			a := w.get("/webhooks/events/" + text)
			if want := `"fate":"discarded"`; !strings.Contains(a.text, want) {
				t.Errorf("event %s: %s", text, a.text)
			}
		}

		end := func(id string) answer {
			return w.request(w.Context(), "ann manager", "POST", "/webhooks/parked/changes/"+id+"/cancel", "")
		}
		if c := decode[operator.ParkedChange](w, end(heldChange)); c.State != "canceled" {
			t.Errorf("canceled: %+v", c)
		}
		for id, want := range map[string]int{heldChange: 409, none: 404} {
			if a := end(id); a.status != want {
				t.Errorf("cancel %s: %d %s, want %d", id, a.status, a.text, want)
			}
		}
		actions := w.get("/webhooks/actions?endpoint=books").text
		for _, want := range []string{
			`"by":"ann","action":"discard","endpoint":"books","subject":"10000 parked events","comment":"sent by hand"`,
			`"by":"ann","action":"cancel","endpoint":"books","subject":"discard of 10000 parked events"`,
		} {
			if !strings.Contains(actions, want) {
				t.Errorf("actions have no %s: %s", want, actions)
			}
		}
		if page := w.see("op manager", "parked").text; !strings.Contains(page, "<small>10,000 of 10,000</small>") {
			t.Error("the page of parked events does not show the discard")
		}
	})
}

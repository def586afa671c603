package operator_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/operator"
	"github.com/tidings-dev/tidings/outbox"
)

func TestExplain(t *testing.T) {
	both(t, func(w *world) {
		w.run()
		w.tell(order("1", "bob"), invoice("1"))
		w.settled(2, "warehouse", "books", "tenant")
		w.waitFor("the attempts are kept", func() bool {
			return strings.Contains(w.get("/webhooks/attempts?event=invoice-1&endpoint=books").text, `"http_400"`)
		})
		for _, test := range []struct{ event, endpoint, fate, because string }{
			{"order-1", "warehouse", "delivered", "attempt 1"},
			{"1", "warehouse", "delivered", "attempt 1"}, // by its position
			{"order-1", "books", "delivered", "attempt 1"},
			{"order-1", "down", "not_matched", "none of its patterns matches order.created"},
			{"order-1", "tenant", "delivered", "attempt 1"},
			{"invoice-1", "down", "waiting", "it waits in the log, 1 position after the cursor"},
			{"invoice-1", "books", "dead", "attempt 1 was the last and failed with http_400"},
			{"invoice-1", "tenant", "not_matched", "its filter refuses the event"},
		} {
			x := decode[operator.Explanation](w, w.get("/webhooks/events/"+test.event))
			at := slices.IndexFunc(x.Endpoints, func(e operator.Explained) bool { return e.Endpoint == test.endpoint })
			if at < 0 || x.Endpoints[at].Fate != test.fate || !strings.Contains(x.Endpoints[at].Because, test.because) {
				t := x.Endpoints
				w.Errorf("%s for %s: %+v, want %s: %s", test.event, test.endpoint, t, test.fate, test.because)
			}
		}
		w.tell(order("2", "ann"))
		if _, err := w.service.Pause(w.Context(), "warehouse", operator.NewPause{}); err != nil {
			w.Fatal(err)
		}
		if e := decode[operator.Endpoint](w, w.get("/webhooks/endpoints/warehouse")); e.State != "disabled" ||
			e.Reason != "paused" || strings.Contains(e.URL, "hidden") {
			w.Errorf("a paused endpoint: %+v", e)
		}
	})
}

func TestFilters(t *testing.T) {
	both(t, func(w *world) {
		w.run()
		w.tell(order("1", "ann"), order("2", "bob"), invoice("1"), invoice("2"))
		w.settled(4, "warehouse", "books", "tenant")
		now := time.Now()
		at := func(d time.Duration) string { return now.Add(d).UTC().Format(time.RFC3339) }
		ids := func(target string) string {
			w.Helper()
			var all []string
			for _, e := range decode[operator.Page[operator.Event]](w, w.get("/webhooks/events"+target)).Items {
				all = append(all, e.ID)
			}
			return strings.Join(all, " ")
		}
		for query, want := range map[string]string{
			"":                                   "invoice-2 invoice-1 order-2 order-1",
			"?types=order.*":                     "order-2 order-1",
			"?types=*.paid,order.deleted":        "invoice-2 invoice-1",
			"?resource=1":                        "invoice-1 order-1",
			"?resource=invoice/1":                "invoice-1",
			"?since=" + at(-time.Hour):           "invoice-2 invoice-1 order-2 order-1",
			"?since=" + at(30*time.Second):       "",
			"?until=" + at(-time.Hour):           "",
			"?types=order.*&limit=1":             "order-2",
			"?before=3":                          "order-2 order-1",
			"?before=3&types=invoice.*&limit=10": "",
		} {
			if got := ids(query); got != want {
				w.Errorf("%q: %s, want %s", query, got, want)
			}
		}
		attempts := func(target string) int {
			w.Helper()
			return len(decode[operator.Page[operator.Attempt]](w, w.get("/webhooks/attempts"+target)).Items)
		}
		for query, want := range map[string]int{
			"?endpoint=warehouse": 4, "?endpoint=warehouse&types=order.*": 2,
			"?endpoint=books": 4, "?endpoint=tenant": 1,
			"?endpoint=books&outcome=failures": 2, "?endpoint=warehouse&outcome=failures": 0,
			"?event=order-2&outcome=delivered": 3, "?event=invoice-1&endpoint=books&outcome=refused": 1,
		} {
			w.waitFor(fmt.Sprintf("%d attempts of %s", want, query), func() bool { return attempts(query) == want })
		}
	})
}

// Requests that can match nothing are refused with a problem document that names
// the field.
func TestRefusals(t *testing.T) {
	both(t, func(w *world) {
		w.tell(order("1", "ann"))
		for _, test := range []struct {
			method, target, body string
			status               int
			says                 string
		}{
			{"GET", "/webhooks/events?typs=order.*", "", 422, "unknown parameter"},
			{"GET", "/webhooks/events?types=ordr.*", "", 422, "did you mean"},
			{"GET", "/webhooks/events?types=order.*,", "", 422, "empty pattern"},
			{"GET", "/webhooks/events?resource=ordr/1", "", 422, `"location":"resource"`},
			{"GET", "/webhooks/events?since=2999-01-01T00:00:00Z", "", 422, "is in the future"},
			{"GET", "/webhooks/events?before=9", "", 422, "the log ends at"},
			{"GET", "/webhooks/events?limit=0", "", 422, "limit"},
			{"GET", "/webhooks/events/none", "", 404, "the log has no event none"},
			{"GET", "/webhooks/endpoints/warehose", "", 404, `did you mean \"warehouse\"`},
			{"GET", "/webhooks/attempts?endpoint=none", "", 422, `"location":"endpoint"`},
			{"GET", "/webhooks/parked?after=x", "", 422, "expected the value of next from a page"},
			{"GET", "/events?after=x", "", 422, "expected the value of next from a response"},
			{"GET", "/events?after=9", "", 410, `"after":"1`},
			{"GET", "/events?wait=61s", "", 422, "must be at most 60s"},
			{"POST", "/webhooks/replays", `{"endpoint":"none","all":true}`, 422, `"location":"endpoint"`},
			{"POST", "/webhooks/replays", `{"endpoint":"books","events":["ordr.*"]}`, 422, "did you mean"},
			{"POST", "/webhooks/replays", `{"endpoint":`, 400, "the body is not valid JSON"},
			{"POST", "/webhooks/replays", `{"endpoint":"books","every":true}`, 422, "body.every"},
			{"POST", "/webhooks/parked/discard", `{"endpoint":"books","comment":"c"}`, 422, "or set all"},
			{
				"POST", "/webhooks/parked/discard", `{"endpoint":"books","event":"7","dead":true,"comment":"c"}`,
				404, "no dead letter 7",
			},
			{"POST", "/webhooks/replays/0195c1f0-0000-7000-8000-000000000000/cancel", "", 404, "there is no replay"},
			{"POST", "/webhooks/events", "", 405, "allowed methods: GET"},
			{"GET", "/webhooks", "", 404, "see " + path + "/openapi.json"},
		} {
			a := w.request(w.Context(), "op manager", test.method, test.target, test.body)
			if a.status != test.status || !strings.Contains(a.text, test.says) ||
				a.header.Get("Content-Type") != "application/problem+json" {
				w.Errorf("%s %s: %d %s, want %d %s", test.method, test.target, a.status, a.text, test.status, test.says)
			}
		}
	})
}

func TestPermissions(t *testing.T) {
	both(t, func(w *world) {
		w.run()
		w.tell(order("1", "ann"))
		w.settled(1, "warehouse")
		for _, test := range []struct {
			method, target, body           string
			reader, viewer, manager, other int
		}{
			{"GET", "/events", "", 200, 200, 200, 403},
			{"GET", "/webhooks/endpoints", "", 403, 200, 200, 403},
			{"GET", "/webhooks/endpoints/warehouse", "", 403, 200, 200, 403},
			{"GET", "/webhooks/events", "", 403, 200, 200, 403},
			{"GET", "/webhooks/events/1", "", 403, 200, 200, 403},
			{"GET", "/webhooks/attempts", "", 403, 200, 200, 403},
			{"GET", "/webhooks/parked", "", 403, 200, 200, 403},
			{"GET", "/webhooks/replays", "", 403, 200, 200, 403},
			{"POST", "/webhooks/endpoints/warehouse/pause", "", 403, 403, 200, 403},
			{"POST", "/webhooks/endpoints/warehouse/resume", "", 403, 403, 200, 403},
			{"POST", "/webhooks/endpoints/warehouse/enable", "", 403, 403, 200, 403},
			{"POST", "/webhooks/endpoints/warehouse/test", "", 403, 403, 200, 403},
			{
				"POST", "/webhooks/parked/discard", `{"endpoint":"warehouse","all":true,"comment":"c"}`, 403, 403, 200,
				403,
			},
			{"POST", "/webhooks/replays", `{"endpoint":"warehouse","all":true}`, 403, 403, 201, 403},
		} {
			for who, want := range map[string]int{
				"ann nobody": test.other, "ann reader": test.reader, "ann viewer": test.viewer,
				"ann manager": test.manager,
				"":            401,
			} {
				a := w.request(w.Context(), who, test.method, test.target, test.body)
				if a.status != want || strings.Contains(a.text, "secret") {
					w.Errorf("%q %s %s: %d %s, want %d", who, test.method, test.target, a.status, a.text, want)
				}
			}
		}
	})
}

func TestPaging(t *testing.T) {
	both(t, func(w *world) {
		w.run()
		const told = 7
		for i := range told {
			w.tell(order(fmt.Sprint(i), "ann"), invoice(fmt.Sprint(i)))
		}
		w.settled(2*told, "warehouse", "books")
		for _, test := range []struct {
			list, by string
			next     func(text string) (items int, next string)
		}{
			{"/webhooks/events?types=invoice.*&", "before", page[operator.Event](w)},
			{"/webhooks/attempts?endpoint=books&outcome=failures&", "before", page[operator.Attempt](w)},
			{"/webhooks/parked?dead=true&", "after", func(text string) (int, string) {
				p := decode[operator.ParkedPage](w, answer{200, nil, text})
				return len(p.Items), p.Next
			}},
		} {
			w.waitFor(test.list+" has all", func() bool {
				n, _ := test.next(w.get(test.list + "limit=100").text)
				return n == told
			})
			for _, limit := range []int{1, 2, told} {
				total, query := 0, fmt.Sprintf("%slimit=%d", test.list, limit)
				for next, pages := "", 0; pages == 0 || next != ""; pages++ {
					if pages > told {
						w.Fatalf("%s does not end", query)
					}
					target := query
					if next != "" {
						target += "&" + test.by + "=" + next
					}
					var n int
					if n, next = test.next(w.get(target).text); n > limit {
						w.Errorf("%s: %d items", target, n)
					}
					total += n
				}
				if total != told {
					w.Errorf("%s: %d in all, want %d", query, total, told)
				}
			}
		}
	})
}

func page[T any](w *world) func(string) (int, string) {
	return func(text string) (int, string) {
		p := decode[operator.Page[T]](w, answer{200, nil, text})
		if p.Next == 0 {
			return len(p.Items), ""
		}
		return len(p.Items), fmt.Sprint(p.Next)
	}
}

// The feed shows only what its reader may read, and resumes at its cursor.
func TestFeed(t *testing.T) {
	both(t, func(w *world) {
		w.run()
		w.tell(order("1", "ann"), order("2", "bob"), invoice("1"))
		w.settled(3, "warehouse")
		for _, test := range []struct{ who, query, want string }{
			{"ann reader", "", "order-1"},
			{"bob reader", "", "order-2"},
			{"ann viewer", "", "order-1 order-2 invoice-1"},
			{"ann viewer", "?types=invoice.*", "invoice-1"},
			{"ann viewer", "?after=1", "order-2 invoice-1"},
			{"ann viewer", "?limit=2", "order-1 order-2"},
			{"ann viewer", "?after=3&wait=50ms", ""},
		} {
			var got []string
			feed := decode[struct{ Items []operator.Event }](w,
				w.request(w.Context(), test.who, "GET", "/events"+test.query, ""))
			for _, e := range feed.Items {
				got = append(got, e.ID)
			}
			if strings.Join(got, " ") != test.want {
				w.Errorf("%s %s: %v, want %s", test.who, test.query, got, test.want)
			}
		}
		ctx, stop := context.WithCancel(w.Context())
		lines := &watched{ResponseRecorder: httptest.NewRecorder(), until: "id: 2-", seen: stop}
		r := httptest.NewRequestWithContext(ctx, "GET", path+"/events", nil)
		r.Header.Set("Who", "bob reader")
		r.Header.Set("Accept", "text/event-stream")
		w.handler.ServeHTTP(lines, r)
		if got := lines.Body.String(); !strings.Contains(got, "event: order.created\ndata: {") ||
			strings.Contains(got, "order-1") {
			w.Errorf("stream:\n%s", got)
		}
	})
}

// watched is a response that signals when it contains a string.
type watched struct {
	*httptest.ResponseRecorder
	until string
	seen  func()
}

// Write implements [http.ResponseWriter].
func (w *watched) Write(b []byte) (int, error) {
	if strings.Contains(string(b), w.until) {
		w.seen()
	}
	return w.ResponseRecorder.Write(b)
}

// A handler reports what is missing, and is never open to everyone.
func TestHandlerWithout(t *testing.T) {
	both(t, func(w *world) {
		defer func() {
			if p := fmt.Sprint(recover()); !strings.Contains(p, "authorize is nil") {
				w.Errorf("without authorize: %s", p)
			}
		}()
		operator.Handler(w.hooks, nil, operator.Options{})
	})
	hooks, err := outbox.Open(t.Context(), outbox.SQLiteFile(t.TempDir()+"/shop.db"),
		outbox.Options{Types: outbox.Types{"order": nil}})
	if err != nil {
		t.Fatal(err)
	}
	defer hooks.Close()
	w := &world{T: t, hooks: hooks, handler: operator.Handler(hooks, authorize, operator.Options{Path: path})}
	for target, status := range map[string]int{"/webhooks/endpoints": 409, "/events": 409, "/openapi.json": 200} {
		if a := w.get(target); a.status != status {
			t.Errorf("without endpoints, %s: %d %s", target, a.status, a.text)
		}
	}
	if _, err := operator.New(hooks, operator.Options{}).Endpoints(t.Context()); err == nil {
		t.Error("endpoints of an outbox without any")
	}
}

// Pause, test, replay and discard do what they say.
func TestActions(t *testing.T) {
	both(t, func(w *world) {
		w.run()
		w.tell(order("1", "ann"), invoice("1"), invoice("2"))
		w.settled(3, "books", "warehouse")
		do := func(target, body string) answer {
			w.Helper()
			return w.request(w.Context(), "op manager", "POST", target, body)
		}
		tried := decode[operator.Tried](w, do("/webhooks/endpoints/warehouse/test", ""))
		if tried.Status != http.StatusNoContent || tried.Outcome != tidings.Delivered.String() {
			w.Errorf("tried: %+v", tried)
		}
		replay := decode[operator.Replay](w, do("/webhooks/replays", `{"endpoint":"warehouse","resource":"invoice/2"}`))
		w.waitFor("the replay", func() bool {
			r := decode[operator.Replay](w, w.get("/webhooks/replays/"+replay.ID))
			return r.State == "done" && r.Delivered == 1 && r.CreatedBy == "op"
		})
		body := `{"endpoint":"books","event":"invoice-1","comment":"sent by hand"}`
		if d := decode[operator.ParkedDone](w, do("/webhooks/parked/discard", body)); d.Count != 1 {
			w.Errorf("discarded %+v", d)
		}
		if n := w.hooks.Removed().Discarded; n != 1 {
			w.Errorf("%d are counted as discarded", n)
		}
		decode[operator.Endpoint](w, do("/webhooks/endpoints/warehouse/pause", ""))
		if e := decode[operator.Endpoint](w, do("/webhooks/endpoints/warehouse/resume", "")); e.State != "healthy" {
			w.Errorf("resumed: %+v", e)
		}
	})
}

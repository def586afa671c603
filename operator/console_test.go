package operator_test

import (
	"context"
	"encoding/base64"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/console"
	"github.com/tidings-dev/tidings/operator"
	"github.com/tidings-dev/tidings/outbox"
)

var update = flag.Bool("update", false, "rewrite the expected pages")

// consolePages are the pages of the console, with their file names.
var consolePages = map[string]string{
	"overview": "", "overview-by-name": "?sort=name", "overview-week": "?range=7d",
	"endpoint": "endpoints/books", "endpoint-down": "endpoints/down", "endpoint-filter": "endpoints/tenant",
	"pause": "endpoints/books/pause", "test": "endpoints/books/test",
	"events": "events", "events-filtered": "events?types=invoice.*&since=2h",
	"events-none":  "events?resource=order/none",
	"events-wrong": "events?types=shop.*&since=yesterday", "event": "events/invoice-7",
	"event-delivered": "events/order-1",
	"attempts":        "attempts", "attempts-failures": "attempts?outcome=failures&endpoint=books",
	"attempts-wrong": "attempts?endpoint=book&outcome=late",
	"parked":         "parked", "parked-all": "parked?endpoint=books&all=1",
	"parked-none":  "parked?endpoint=books&reason=http_500",
	"parked-retry": "parked/retry?endpoint=books", "parked-discard": "parked/discard?endpoint=books&dead=true",
	"parked-cancel": "parked/changes/" + heldChange + "/cancel",
	"replays":       "replays", "replays-plan": "replays?endpoint=books&what=dead&plan=1",
	"replays-wrong": "replays?endpoint=&what=all&plan=1", "status": "status",
	"missing": "events/none", "no-page": "nothing/here",
}

// see requests a page as a browser does.
func (w *world) see(who, page string) answer {
	w.Helper()
	return w.request(w.Context(), who, "GET", "/console/"+page, "", "Accept", "text/html")
}

// post sends a form as a browser does.
func (w *world) post(who, page string, form url.Values) answer {
	w.Helper()
	return w.request(w.Context(), who, "POST", "/console/"+page, form.Encode(), "Sec-Fetch-Site", "same-origin",
		"Content-Type", "application/x-www-form-urlencoded")
}

// sick makes a world where an invoice is a dead letter, an endpoint is down, and another
// process discards many dead letters.
func (w *world) sick() {
	w.Helper()
	w.addChange(heldChange, "http_410", "", 1<<62, 1200, 5000)
	w.run()
	w.tell(order("1", "bob"), order("2", "eve"), invoice("7"))
	w.settled(3, "warehouse", "books", "tenant")
	w.waitFor("down", func() bool {
		e, err := w.service.Endpoint(w.Context(), "down")
		return err == nil && e.State == "down"
	})
	w.waitFor("history", func() bool {
		for _, name := range []string{"warehouse", "books", "tenant", "down"} {
			page, err := w.service.Attempts(w.Context(), operator.Filter{Endpoint: name, Limit: 10})
			if want := map[string]int{"warehouse": 3, "books": 3, "tenant": 1, "down": 1}[name]; err != nil ||
				len(page.Items) < want {
				return false
			}
		}
		return true
	})
}

// varying are the parts of pages that differ from run to run.
var varying = []struct {
	pattern *regexp.Regexp
	instead string
}{
	{regexp.MustCompile(`<time [^>]*>[^<]*</time>`), "<time>…</time>"},
	{regexp.MustCompile(`<svg viewBox="0 0 (600|1000|144|112)[^>]*>.*?</svg>`), "<svg>…</svg>"},
	{regexp.MustCompile(`<svg class="(timing|spark)".*?</svg>`), "<svg>…</svg>"},
	{
		regexp.MustCompile(`[0-9,]+ delivered, [0-9,]+ attempts? failed|latest: p50 [^<]*|nothing was sent|\d+ at most`),
		"SUM",
	},
	{regexp.MustCompile(`<div class="y">.*?</div>`), `<div class="y">…</div>`},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "127.0.0.1:PORT"},
	{regexp.MustCompile(`\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b`), "UUID"},
	{regexp.MustCompile(`assets/(\w+)\.[0-9a-f]{12}\.`), "assets/$1.HASH."},
	{regexp.MustCompile(`\b\d+(\.\d+)? (ms|s|min)\b`), "DURATION"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]+Z`), "TIME"},
	{regexp.MustCompile(`\b\d+\.\d\b`), "RATE"},
	{regexp.MustCompile(`[\w.-]+/\d+/[0-9A-Z]{12}`), "REPLICA"},
	{regexp.MustCompile(`<dd>[0-9A-Z]{26}</dd>`), "<dd>EPOCH</dd>"},
	{regexp.MustCompile(`version [0-9,]{9,}|<td class="n">[0-9,]{15,}`), "VERSION"},
	{regexp.MustCompile(`\d+ of \d+<small>requests`), "N of M<small>requests"},
	{regexp.MustCompile(`\d+ MiB</td>`), "N MiB</td>"},
	{regexp.MustCompile(`(Timestamp|Resource-Version): \d+`), "$1: N"},
	{regexp.MustCompile(`\d+( of \d+)? in use by this process`), "N in use by this process"},
	{regexp.MustCompile(`Body, \d+ bytes`), "Body, N bytes"},
	{regexp.MustCompile(`(?m)^<p class="hint">It takes about DURATION\. </p>$`), ""}, // if there is a rate yet
	{regexp.MustCompile(`data-at="\d+ [^"]*"`), `data-at="KEY"`},
	// Probes continue meanwhile.
	{regexp.MustCompile(`\bprobing\b`), "down"},
	{regexp.MustCompile(`(?m)the endpoint is down \(<code>connect</code>\).*$`), "DOWN"},
}

var (
	attemptLine  = regexp.MustCompile(`^<tr[^>]*><th scope="row" class="nw"><time>.*/console/events/`)
	attemptCount = regexp.MustCompile(`<span>\d+ of \d+</span>`)
	probeLine    = regexp.MustCompile(`(?m)^<tr.*<td class="n c3">probe</td>.*</tr>\n`)
)

// steady replaces what differs from run to run. Concurrent requests end in any
// order, so that rows of attempts are sorted; probes, of which there is any number, are
// left out.
func steady(page string) string {
	for _, v := range varying {
		page = v.pattern.ReplaceAllString(page, v.instead)
	}
	lines := strings.Split(page, "\n")
	for i, j := 0, 0; i < len(lines); i, j = j+1, j+1 {
		for j < len(lines) && attemptLine.MatchString(lines[j]) {
			j++
		}
		slices.Sort(lines[i:min(j, len(lines))])
	}
	page = strings.Join(lines, "\n")
	probes := len(probeLine.FindAllString(page, -1))
	page = attemptCount.ReplaceAllStringFunc(page, func(text string) string {
		var n int
		if _, err := fmt.Sscanf(text, "<span>%d of", &n); err != nil {
			return text
		}
		return fmt.Sprintf("<span>%d of %d</span>", n-probes, n-probes)
	})
	return probeLine.ReplaceAllString(page, "")
}

// Every page matches its golden file. "go test ./operator -run Console -update" rewrites
// the files; review the difference.
func TestConsolePages(t *testing.T) {
	w := newWorld(t, outbox.SQLiteFile(filepath.Join(t.TempDir(), "shop.db")), nil)
	w.sick()
	for name, page := range consolePages {
		w.looksAsBefore(name, w.see("op manager", page))
	}
	w.looksAsBefore("overview-viewer", w.see("x viewer", ""))
	w.looksAsBefore("parked-viewer", w.see("x viewer", "parked"))
	w.looksAsBefore("unknown-parameter", w.see("op manager", "status?verbose=1"))
	done := w.post("ann manager", "endpoints/tenant/pause", url.Values{"comment": {"certificate change"}})
	// What is sent by hand waits, too, and the page of an event says why its button is off.
	paused := w.see("op manager", "events/order-1")
	w.looksAsBefore("event-paused", paused)
	if want := `aria-disabled="true" aria-describedby="off-2">Send again</button><small id="off-2">paused: ` +
		`resume it first</small>`; !strings.Contains(paused.text, want) {
		t.Errorf("the page of an event lacks %s", want)
	}
	note, _, _ := strings.Cut(done.header.Get("Set-Cookie"), ";")
	w.looksAsBefore("action-done",
		w.request(w.Context(), "ann manager", "GET", "/console/endpoints/tenant/resume", "", "Cookie", note))
}

// looksAsBefore compares a page with its file.
func (w *world) looksAsBefore(name string, a answer) {
	w.Helper()
	got := steady(a.text)
	file := filepath.Join("testdata", "console", name+".html")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			w.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		w.Fatal(err)
	}
	if got != string(want) {
		w.Errorf("page %s differs from %s:\n%s", name, file, difference(string(want), got))
	}
}

// An endpoint that was down a moment ago is back, and the overview says so for a minute.
func TestConsoleBack(t *testing.T) {
	var well atomic.Bool
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !well.Load() {
			panic(http.ErrAbortHandler) // closes the connection
		}
		if body, err := io.ReadAll(r.Body); err == nil && strings.Contains(string(body), "invoice") {
			w.WriteHeader(http.StatusUnprocessableEntity)
		}
	}))
	t.Cleanup(receiver.Close)
	w := worldOf(t, outbox.SQLiteFile(filepath.Join(t.TempDir(), "shop.db")), nil,
		[]tidings.Endpoint{{Name: "billing", URL: receiver.URL}})
	w.run()
	w.tell(order("1", "bob"))
	const line = `billing</a> is back</strong> after `
	w.waitFor("the outage", func() bool { return strings.Contains(w.see("op manager", "").text, "billing needs you") })
	if strings.Contains(w.see("op manager", "").text, line) {
		t.Error("it is back while it is down")
	}
	well.Store(true)
	w.waitFor("the line", func() bool { return strings.Contains(w.see("op manager", "").text, line) })
	// One that refuses events needs somebody, and is not back.
	w.tell(order("2", "bob"), invoice("1"), order("3", "bob"), order("4", "bob"), order("5", "bob"))
	w.waitFor("the refusal", func() bool {
		e, err := w.service.Endpoint(w.Context(), "billing")
		return err == nil && e.Dead == 1
	})
	if strings.Contains(w.see("op manager", "").text, line) {
		t.Error("it is back while it refuses events")
	}
}

// Without an endpoint, the overview says how to add one.
func TestConsoleWelcomePage(t *testing.T) {
	w := worldOf(t, outbox.SQLiteFile(filepath.Join(t.TempDir(), "shop.db")), nil, []tidings.Endpoint{})
	w.handler = operator.Handler(w.hooks, authorize, operator.Options{
		Path: path, Logger: slog.New(slog.DiscardHandler),
		Config: func() *operator.ConfigStatus { return &operator.ConfigStatus{Files: []string{"/etc/shop.yaml"}} },
	})
	w.looksAsBefore("welcome", w.see("op manager", ""))
}

// difference shows the first lines that differ.
func difference(want, got string) string {
	a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("line %d\nwant %s\ngot  %s", i+1, a[i], b[i])
		}
	}
	return fmt.Sprintf("%d lines instead of %d", len(b), len(a))
}

var inline = regexp.MustCompile(`(?i)<[^>]*\s(style|on\w+)\s*=|<style|<script(?:[^>]*\ssrc=)?[^>]*>[^<]|javascript:`)

// No page has an inline script, style or handler, loads anything from elsewhere, or is
// kept by caches; each has one heading, and stays small.
func TestConsolePolicy(t *testing.T) {
	w := newWorld(t, outbox.SQLiteFile(filepath.Join(t.TempDir(), "shop.db")), nil)
	w.sick()
	elsewhere := regexp.MustCompile(`(?:src|action|formaction|hx-get)="([^"]*)"|<link [^>]*href="([^"]*)"`)
	for name, page := range consolePages {
		got := w.see("op manager", page)
		if found := inline.FindString(got.text); found != "" {
			t.Errorf("%s has %q", name, found)
		}
		for _, m := range elsewhere.FindAllStringSubmatch(got.text, -1) {
			if to := m[1] + m[2]; !strings.HasPrefix(to, path+"/console/") {
				t.Errorf("%s refers to %q", name, to)
			}
		}
		if n := strings.Count(got.text, "<h1"); n != 1 {
			t.Errorf("%s has %d headings", name, n)
		}
		if csp := got.header.Get("Content-Security-Policy"); csp != console.Policy {
			t.Errorf("%s: policy %q", name, csp)
		}
		if got.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s may be cached", name)
		}
		if len(got.text) > 60_000 {
			t.Errorf("%s is %d bytes", name, len(got.text))
		}
	}
}

// What each role may see and do: links and buttons say why not, and the server refuses.
func TestConsoleRoles(t *testing.T) {
	w := newWorld(t, outbox.SQLiteFile(filepath.Join(t.TempDir(), "shop.db")), nil)
	w.sick()
	for who, want := range map[string]int{
		"": http.StatusUnauthorized, "x nobody": http.StatusForbidden, "x reader": http.StatusForbidden,
		"x viewer": http.StatusOK, "x manager": http.StatusOK,
	} {
		for name, page := range consolePages {
			got := w.see(who, page)
			if allowed := got.status < 400 || got.status == 404 || got.status == 422; want == 200 != allowed ||
				want != 200 && got.status != want {
				t.Errorf("%q, %s: %d", who, name, got.status)
			}
		}
	}
	look := w.see("x viewer", "endpoints/books").text
	if !strings.Contains(look, `aria-disabled="true" aria-describedby="ro"`) || !strings.Contains(look, `id="ro"`) ||
		strings.Contains(look, `method="post"`) {
		t.Errorf("a viewer's page: %s", look)
	}
	for act, form := range map[string]url.Values{
		"endpoints/books/test": nil, "endpoints/books/pause": {"comment": {"why"}}, "endpoints/books/resume": nil,
		"endpoints/down/enable": nil, "parked/retry": {"endpoint": {"books"}, "count": {"9"}},
		"parked/discard": {"endpoint": {"books"}, "count": {"9"}, "comment": {"old"}},
		"parked/changes/" + heldChange + "/cancel": nil,
		"replays": {"endpoint": {"warehouse"}, "event": {"order-1"}},
	} {
		for who, want := range map[string]int{
			"": http.StatusUnauthorized, "x nobody": http.StatusForbidden, "x reader": http.StatusForbidden,
			"x viewer": http.StatusForbidden, "x manager": http.StatusSeeOther,
		} {
			if got := w.post(who, act, form); got.status != want {
				t.Errorf("%q, POST %s: %d, want %d", who, act, got.status, want)
			}
		}
		cross := w.request(w.Context(), "x manager", "POST", "/console/"+act, form.Encode(), "Sec-Fetch-Site",
			"cross-site", "Content-Type", "application/x-www-form-urlencoded")
		if cross.status != http.StatusForbidden {
			t.Errorf("POST %s from another site: %d", act, cross.status)
		}
	}
}

// Whatever a resource, a receiver or a visitor puts into a field is shown as text.
func TestConsoleHostile(t *testing.T) {
	const evil = `"><script>alert(1)</script><img src=x onerror=alert(1)>` + "\u202e'"
	long := strings.Repeat("x", 64<<10)
	w := newWorld(t, outbox.SQLiteFile(filepath.Join(t.TempDir(), "shop.db")), nil)
	w.run()
	for i, id := range []string{evil, long[:200]} {
		e := outbox.Event{
			Type: "order", Action: "created", ID: id, URL: "/orders/" + url.PathEscape(id),
			EventID: fmt.Sprintf("e%d", i),
			UserID:  evil,
		}
		w.tell(e)
	}
	w.settled(2, "warehouse")
	q := url.QueryEscape
	for _, page := range []string{
		"", "events", "events/e0", "events/1", "attempts", "endpoints/warehouse", "events?resource=" + q("order/"+evil),
		"events?types=" + q(evil), "events?since=" + q(evil), "attempts?endpoint=" + q(evil),
		"attempts?outcome=" + q(evil),
		"parked?reason=" + q(evil), "parked?" + q(evil) + "=1", "replays?plan=1&endpoint=" +
			q(evil), "find?q=" + q(evil),
		"endpoints/" + url.PathEscape(evil), "events/" + url.PathEscape(evil), "nothing/" + url.PathEscape(evil),
		"events?resource=" + long[:8000], "events?since=" + long[:8000], "parked/retry?event=" + q("1-"+evil),
		"endpoints/warehouse/" + url.PathEscape(evil),
	} {
		got := w.see("op manager", page)
		if got.status >= 500 || strings.Contains(got.text, "<script>") || strings.Contains(got.text, "<img") {
			t.Errorf("%.80q: %d %.2000s", page, got.status, got.text)
		}
		if len(got.text) > 100_000 {
			t.Errorf("%.80q: %d bytes", page, len(got.text))
		}
	}
	got := w.post("op manager", "endpoints/warehouse/pause", url.Values{"comment": {evil}})
	if got.status != http.StatusSeeOther {
		t.Errorf("pause: %d %s", got.status, got.text)
	}
	if text := w.see("op manager", "endpoints/warehouse").text; strings.Contains(text, "<img") {
		t.Errorf("the comment: %s", text)
	}
}

// note returns the message that a form was answered with.
func (a answer) note(t *testing.T) string {
	t.Helper()
	c, err := http.ParseSetCookie(a.header.Get("Set-Cookie"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := base64.RawURLEncoding.DecodeString(c.Value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Whoever acts on what somebody else has just dealt with is told who it was, and the rest
// is done.
func TestConsoleOvertaken(t *testing.T) {
	w := newWorld(t, outbox.SQLiteFile(filepath.Join(t.TempDir(), "shop.db")), nil)
	w.sick()
	w.tell(order("3", "bob"), invoice("8"))
	w.settled(5, "books")
	overtaken := func(page string, form url.Values, wants ...string) {
		t.Helper()
		got := w.post("op manager", page, form)
		if got.status != http.StatusSeeOther {
			t.Fatalf("%s: %d %s", page, got.status, got.text)
		}
		for _, want := range wants {
			if note := got.note(t); !strings.Contains(note, want) {
				t.Errorf("%s: %s lacks %q", page, note, want)
			}
		}
	}
	old := []string{"old"}
	w.post("ann manager", "parked/discard", url.Values{"event": {"3-books"}, "comment": old})
	overtaken("parked/discard", url.Values{"event": {"3-books", "5-books"}, "comment": old}, "1 event discarded.",
		"1 more is no longer parked.")
	w.post("ann manager", "endpoints/books/test", nil)
	for _, form := range []url.Values{
		{"event": {"5-books"}},
		{"endpoint": {"books"}, "count": {"1"}},
		{"endpoint": {"books"}, "dead": {"true"}, "count": {"1"}},
	} {
		overtaken("parked/retry", form, "Not done: none of the selection is still parked.")
	}
	w.tell(order("4", "bob"), invoice("9"))
	w.settled(7, "books")
	w.post("ann manager", "parked/discard",
		url.Values{"endpoint": {"books"}, "dead": {"true"}, "count": {"1"}, "comment": old})
	overtaken("parked/retry", url.Values{"endpoint": {"books"}, "count": {"1"}}, "ann discarded 1 parked event of books ")
	w.post("ann manager", "endpoints/tenant/pause", nil)
	overtaken("endpoints/tenant/pause", url.Values{"seen": {"healthy since"}}, "Not done: ann paused tenant ")
}

// Assets are named by their content, and small.
func TestConsoleAssets(t *testing.T) {
	w := newWorld(t, outbox.SQLiteFile(filepath.Join(t.TempDir(), "shop.db")), nil)
	page := w.see("op manager", "").text
	found := regexp.MustCompile(path+`/console/assets/([^"]+)`).FindAllStringSubmatch(page, -1)
	if len(found) != 4 {
		t.Errorf("%d assets", len(found))
	}
	for _, m := range found {
		got := w.see("", "assets/"+m[1])
		if got.status != 200 || !strings.Contains(got.header.Get("Cache-Control"), "immutable") {
			t.Errorf("%s: %d %v", m[1], got.status, got.header)
		}
		for name, limit := range map[string]int{"console.css": 25 << 10, "console.js": 5 << 10} {
			stem, ext, _ := strings.Cut(name, ".")
			if strings.HasPrefix(m[1], stem+".") && strings.HasSuffix(m[1], ext) && len(got.text) > limit {
				t.Errorf("%s is %d bytes", name, len(got.text))
			}
		}
	}
	if got := w.see("", "assets/console.js"); got.status != 404 {
		t.Errorf("an asset without its hash: %d", got.status)
	}
}

// Faults of the server itself are problems, too, and the status has the details.
func TestConsoleServerProblems(t *testing.T) {
	w := newWorld(t, outbox.SQLiteFile(filepath.Join(t.TempDir(), "shop.db")), nil)
	w.handler = operator.Handler(w.hooks, authorize, operator.Options{
		Path: path, Logger: slog.New(slog.DiscardHandler),
		Config: func() *operator.ConfigStatus {
			return &operator.ConfigStatus{
				Files:  []string{"/etc/shop.yaml"},
				Broken: []operator.ConfigProblem{{File: "/etc/team.yaml", Message: "is a named pipe"}},
				Since:  "2026-01-02T03:04:05Z", LastTry: &operator.ConfigTry{
					At: "2026-01-03T03:04:05Z", NeedsRestart: []string{"listen"}, LeftOut: 7,
					Diff: []operator.ConfigChange{
						{Key: "webhook.retention", Change: "changed", Before: "7d", After: "3d"},
						{Endpoint: "billing", Key: "timeout", Change: "changed", Before: "15s", After: "<20s>"},
						{Endpoint: "billing", Key: "retry", Change: "changed", Problem: "unknown key <shedule>"},
						{Endpoint: "reports", Change: "added"},
						{Endpoint: "reports", Key: "url", Change: "added", Before: "default", After: "https://example.com"},
						{Endpoint: "old", Change: "removed"},
					},
					Errors: []operator.ConfigProblem{{File: "/etc/shop.yaml", Line: 41, Column: 9, Message: "unknown key <shedule>"}},
				},
			}
		},
		Written: func(string) *operator.Written {
			return &operator.Written{Place: "/etc/shop.yaml:<18>", Settings: []operator.Setting{
				{Key: "headers.x-key", Value: "set", Secret: true, Origin: "/etc/shop.yaml:20, from file /etc/key"},
				{Key: "http.tls_config.ca_file", Value: "/etc/ca.pem", Origin: "Helm value webhook.endpoints[0].http"},
			}}
		},
		Activity: func(context.Context) (operator.Activity, error) {
			return operator.Activity{
				Events: map[string]int64{"order": 8120}, Last: map[string]time.Time{"order": time.Now()},
			}, nil
		},
		Sources: func() []operator.SourceStatus {
			return []operator.SourceStatus{
				{
					Table: "public.orders", Type: "order", State: "attached", Ignore: []string{"<seen>", "views"},
					Parts: []operator.Part{{Table: "public.positions", Watch: []string{"amount"}}},
				},
				{Table: "public.invoices", Type: "invoice", State: "drifted", Detail: "the column <total> is new"},
				{Table: "public.lines", Type: "order", State: "attached", LastGap: &operator.SourceGap{
					Since: "2026-01-02T03:04:05Z", Until: "2026-01-02T03:05:05Z", Reason: "trigger <x>",
				}},
			}
		},
	})
	for page, wants := range map[string][]string{
		"": {
			"3 things need you", "/etc/team.yaml: is a named pipe", "/etc/shop.yaml:41:9: unknown key &lt;shedule&gt;",
			"Public.invoices: the column &lt;total&gt; is new.",
		},
		"status": {
			"4 things to look at", "<code>/etc/shop.yaml:41:9</code> unknown key &lt;shedule&gt;",
			"<code>/etc/team.yaml</code> is a named pipe",
			"<code>listen</code>",
			`<td class="c3">all but &lt;seen&gt;, views; of public.positions: only amount</td>`,
			`<td class="n">8,120+</td>`, `<td class="n">0+</td>`, "Only the newest 10,000 events are counted.",
			"<code>public.orders</code>", `data-state="drift">drifted</span><small>the column &lt;total&gt; is new</small>`,
			"SQLite 3.", "<summary>What would have changed</summary>",
			"<del>- webhook.retention: 7d</del>\n<ins>&#43; webhook.retention: 3d</ins>\n  billing:\n" +
				"<del>-   timeout: 15s</del>\n<ins>&#43;   timeout: &lt;20s&gt;</ins>\n" +
				"<ins>&#43;   retry ← unknown key &lt;shedule&gt;</ins>\n" +
				"<ins>&#43; reports: new endpoint</ins>\n<ins>&#43;   url: https://example.com</ins>\n" +
				"<del>- old</del>\n  and 7 more",
		},
		"endpoints/books": {
			"<p><code>/etc/shop.yaml:&lt;18&gt;</code>, read <time",
			`<dt>max_in_flight</dt><dd>16 <span class="soft">default</span>`,
			`<dt>headers.x-key</dt><dd><span class="mask">••••••••</span> <span class="soft">/etc/shop.yaml:20, from file ` +
				`/etc/key</span>`,
			`<dt>http.tls_config.ca_file</dt><dd>/etc/ca.pem <span class="soft">Helm value webhook.endpoints[0].http</span>`,
			"<strong>Table public.invoices: drifted.</strong> the column &lt;total&gt; is new",
			"<strong>Table public.lines: attached.</strong> From <time", "changes may have made no events: trigger &lt;x&gt;.",
		},
	} {
		a := w.see("op manager", page)
		name := map[string]string{"": "overview", "status": "status", "endpoints/books": "endpoint"}[page]
		w.looksAsBefore("troubled-"+name, a)
		got := a.text
		for _, want := range wants {
			if !strings.Contains(got, want) {
				t.Errorf("page %q lacks %q:\n%s", page, want, got)
			}
		}
	}
	// Endpoints show the tables whose events they want.
	if got := w.see("op manager", "endpoints/down").text; strings.Contains(got, "public.lines") {
		t.Errorf("an endpoint for invoices has a table of orders:\n%s", got)
	}
	for name, want := range map[string]string{
		"down": `"sources":[{"table":"public.invoices","type":"invoice","state":"drifted","detail":"the column <total> is new"}]`,
		"books": `{"table":"public.lines","type":"order","state":"attached","last_gap":{"since":"2026-01-02T03:04:05Z",` +
			`"until":"2026-01-02T03:05:05Z","reason":"trigger <x>"}}]`,
	} {
		got := w.request(w.Context(), "x viewer", "GET", "/webhooks/endpoints/"+name, "")
		if !strings.Contains(got.text, want) {
			t.Errorf("%s lacks %s: %s", name, want, got.text)
		}
	}
}

// The overview has the problems that the API has, in their order.
func TestConsoleSameProblems(t *testing.T) {
	w := newWorld(t, outbox.SQLiteFile(filepath.Join(t.TempDir(), "shop.db")), nil)
	w.sick()
	if _, err := w.service.Pause(w.Context(), "tenant", operator.NewPause{}); err != nil {
		t.Fatal(err)
	}
	problems, err := w.service.Problems(w.Context())
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for _, p := range problems.Items {
		want = append(want, p.Endpoint)
	}
	found := regexp.MustCompile(`<article class="problem \w+" aria-labelledby="p-([^"]+)"`)
	for _, m := range found.FindAllStringSubmatch(w.see("op manager", "").text, -1) {
		got = append(got, m[1])
	}
	if !slices.Equal(got, want) || len(got) != 3 {
		t.Errorf("the overview has problems of %v, the API of %v", got, want)
	}
}

package receivers_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/relay"
	"github.com/tidings-dev/tidings/sender"
)

// The code in docs/receiving.md is that of the receivers that are tested, and its
// examples of webhooks are those of the schemas.
func TestDocumentShowsTheTestedFiles(t *testing.T) {
	document := page(t)
	from := regexp.MustCompile("(?s)<!-- from (\\S+) -->\n```[a-z]+\n(.*?)\n```")
	blocks := from.FindAllStringSubmatch(document, -1)
	if n := strings.Count(document, "```python") + strings.Count(document, "```go"); n != len(blocks) || n == 0 {
		t.Errorf("%d blocks of code, of which %d name a file", n, len(blocks))
	}
	for _, b := range blocks {
		file, err := os.ReadFile(filepath.Join("../..", b[1]))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(file), b[2]) {
			t.Errorf("this is not in %s:\n%s", b[1], b[2])
		}
	}
	shown := regexp.MustCompile("(?s)```json\n(.*?)\n```").FindAllStringSubmatch(document, -1)
	for i, format := range tidings.Formats() {
		var schema struct{ Examples []any }
		file, err := os.ReadFile("../../internal/httpapi/testdata/schemas_" + string(format) + ".json")
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(file, &schema); err != nil {
			t.Fatal(err)
		}
		var example any
		if err := json.Unmarshal([]byte(shown[i][1]), &example); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(schema.Examples[0], example); diff != "" {
			t.Errorf("%s (-schema +document):\n%s", format, diff)
		}
	}
}

// page returns docs/receiving.md.
func page(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/receiving.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// table returns the cells of the document's table whose first column has that title.
func table(t *testing.T, title string) (rows [][]string) {
	t.Helper()
	_, rest, _ := strings.Cut(page(t), "\n| "+title+" |")
	lines := strings.Split(rest, "\n")
	for _, line := range lines[min(2, len(lines)):] { // after the titles and the dashes
		if !strings.HasPrefix(line, "|") {
			break
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows = append(rows, cells)
	}
	if len(rows) == 0 {
		t.Fatalf("no table of %s", title)
	}
	return rows
}

// quotedNames returns the first column of a table without backquotes, in order.
func quotedNames(rows [][]string) (names []string) {
	for _, row := range rows {
		names = append(names, strings.Trim(row[0], "`"))
	}
	return slices.Sorted(slices.Values(names))
}

// arrived sends an attempt as the relay does, and returns what arrives.
func arrived(t *testing.T, e tidings.Endpoint, a tidings.Attempt, status int) (webhook, tidings.Outcome) {
	t.Helper()
	got := make(chan webhook, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // the test sees what is missing
		arrived := webhook{map[string]string{}, string(body)}
		for name := range r.Header {
			arrived.Headers[strings.ToLower(name)] = r.Header.Get(name)
		}
		got <- arrived
		w.WriteHeader(status)
	}))
	defer server.Close()
	e.Name, e.URL = "documented", server.URL
	s, err := sender.New(e, http.DefaultClient, sender.Options{})
	if err != nil {
		t.Fatal(err)
	}
	outcome := s.Send(t.Context(), a)
	return <-got, outcome
}

func anEvent() tidings.Event {
	return tidings.Event{
		ID: "01a215ad-0cc8-7765-8084-0218e85ffac9", Sequence: 3, Type: "order", Action: tidings.Updated, ResourceID: "7",
		ResourceURL: "/orders/7", Time: time.Date(2026, 3, 26, 12, 0, 0, 123456000, time.UTC), ResourceVersion: 2,
		Trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	}
}

// The document lists the members of the body that the relay sends, and how long each may be.
func TestDocumentedMembers(t *testing.T) {
	rows := table(t, "member")
	got, _ := arrived(t, tidings.Endpoint{}, tidings.Attempt{Event: anEvent(), Number: 1}, http.StatusNoContent)
	var body map[string]any
	if err := json.Unmarshal([]byte(got.Body), &body); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(body)), quotedNames(rows)); diff != "" {
		t.Errorf("members (-sent +documented):\n%s", diff)
	}
	limits := regexp.MustCompile(`^(?:([0-9]+)–|at most )([0-9,]+)(?: bytes)?$`)
	filled := func(n int) string { return strings.Repeat("x", n) }
	set := map[string]func(e *tidings.Event, n int){
		"event": func(e *tidings.Event, n int) { // type and action share what the dot leaves
			e.Type, e.Action = tidings.ResourceType(filled((n-1)/2)), tidings.Action(filled(n-1-(n-1)/2))
		},
		"resource_type": func(e *tidings.Event, n int) { e.Type = tidings.ResourceType(filled(n)) },
		"resource_id":   func(e *tidings.Event, n int) { e.ResourceID = filled(n) },
		"resource_url":  func(e *tidings.Event, n int) { e.ResourceURL = strings.Repeat("/", n) },
		"user_id":       func(e *tidings.Event, n int) { e.UserID = filled(n) },
	}
	for _, row := range rows {
		name, limit := strings.Trim(row[0], "`"), limits.FindStringSubmatch(row[2])
		if limit == nil {
			t.Errorf("%s: length %q", name, row[2])
			continue
		}
		least, _ := strconv.Atoi("0" + limit[1]) // digits
		most, _ := strconv.Atoi(strings.ReplaceAll(limit[2], ",", ""))
		if name == "timestamp" {
			longest, shortest := anEvent(), anEvent()
			shortest.Time = shortest.Time.Truncate(time.Second)
			if l, s := longest.Time.Format(tidings.TimeLayout), shortest.Time.Format(tidings.TimeLayout); len(l) != most ||
				len(s) != least {
				t.Errorf("timestamps %s and %s: documented are %s", l, s, row[2])
			}
			continue
		}
		for n, valid := range map[int]bool{least - 1: least < 1, least: true, most: true, most + 1: false} {
			e := anEvent()
			if set[name](&e, max(n, 0)); (e.Check() == nil) != valid {
				t.Errorf("%s of %d bytes: %v, documented are %s", name, n, e.Check(), row[2])
			}
		}
	}
}

// No body is longer than the document says.
func TestDocumentedSize(t *testing.T) {
	limit := regexp.MustCompile(`none has more than ([0-9]+) KiB`).FindStringSubmatch(page(t))
	if limit == nil {
		t.Fatal("the document does not say how long a body may be")
	}
	most, _ := strconv.Atoi(limit[1]) // digits
	for _, character := range []string{"x", `"`, "<", "\u2028"} {
		filled := func(n int) string { return strings.Repeat(character, n/len(character)) }
		e := anEvent()
		e.Type, e.Action = tidings.ResourceType(strings.Repeat("x", 63)), tidings.Action(strings.Repeat("x", 63))
		e.ResourceID, e.ResourceURL, e.UserID = filled(512), "/"+filled(2047), filled(512)
		if err := e.Check(); err != nil {
			t.Fatal(err)
		}
		for _, format := range tidings.Formats() {
			got, _ := arrived(t, tidings.Endpoint{Format: format}, tidings.Attempt{Event: e}, http.StatusNoContent)
			if len(got.Body) > most<<10 || len(got.Body) < 1<<10 {
				t.Errorf("%s: %d bytes, the document says at most %d KiB", format, len(got.Body), most)
			}
		}
	}
}

// The document lists every header of a webhook that HTTP itself does not need, and no other.
func TestDocumentedHeaders(t *testing.T) {
	e := tidings.Endpoint{Secrets: []string{secret}}
	got, _ := arrived(t, e, tidings.Attempt{Event: anEvent(), Number: 1, Replay: true}, http.StatusNoContent)
	for _, name := range []string{"accept-encoding", "content-length", "content-type", "user-agent"} {
		delete(got.Headers, name)
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(got.Headers)), quotedNames(table(t, "header"))); diff != "" {
		t.Errorf("headers (-sent +documented):\n%s", diff)
	}
	for _, format := range tidings.Formats() {
		got, _ := arrived(t, tidings.Endpoint{Format: format}, tidings.Attempt{Event: anEvent()}, http.StatusNoContent)
		_, section, _ := strings.Cut(page(t), "\n### "+string(format)+"\n")
		section, _, _ = strings.Cut(section, "\n### ")
		if !strings.Contains(section, "`Content-Type: "+got.Headers["content-type"]+"`") {
			t.Errorf("%s: content type %s is not documented", format, got.Headers["content-type"])
		}
	}
}

// Each answer means what the document says.
func TestDocumentedAnswers(t *testing.T) {
	// What happens begins with one of these; the longest decides.
	verdicts := map[string]tidings.Verdict{
		"delivered": tidings.Delivered, "failed": tidings.Failed, "failed; redirects": tidings.Refused,
		"failed; if nothing else succeeds": tidings.Unauthorized, "the endpoint is disabled": tidings.Gone,
		"if others get through, the event is a dead letter": tidings.Rejected, "a pause": tidings.Throttled,
	}
	documented := make(map[string]tidings.Verdict) // of 404 or 4xx
	for _, row := range table(t, "answer") {
		begins := ""
		for text := range verdicts {
			if strings.HasPrefix(row[1], text) && len(text) > len(begins) {
				begins = text
			}
		}
		if begins == "" {
			t.Errorf("%s: what happens then? %s", row[0], row[1])
		}
		for _, status := range regexp.MustCompile(`[0-9][0-9x]{2}`).FindAllString(row[0], -1) {
			documented[status] = verdicts[begins]
		}
	}
	for status := 200; status < 600; status++ {
		want, found := documented[strconv.Itoa(status)]
		if !found {
			want, found = documented[strconv.Itoa(status/100)+"xx"]
		}
		_, o := arrived(t, tidings.Endpoint{}, tidings.Attempt{Event: anEvent(), Number: 1}, status)
		if !found || o.Verdict != want {
			t.Errorf("%d is taken as %s, the document says %s", status, o.Verdict, want)
		}
	}

	var delays []string
	for _, d := range relay.DefaultDelays() {
		switch {
		case d < time.Minute:
			delays = append(delays, fmt.Sprintf("%d s", d/time.Second))
		case d < time.Hour:
			delays = append(delays, fmt.Sprintf("%d min", d/time.Minute))
		default:
			delays = append(delays, fmt.Sprintf("%d h", d/time.Hour))
		}
	}
	schedule := strings.Join(delays[:len(delays)-1], ", ") + " and " + delays[len(delays)-1]
	if text := strings.Join(strings.Fields(page(t)), " "); !strings.Contains(text, "retried after "+schedule) {
		t.Errorf("the document does not say that events are retried after %s", schedule)
	}
}

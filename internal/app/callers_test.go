package app_test

import (
	"bufio"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/app"
	"github.com/tidings-dev/tidings/internal/auth"
	"github.com/tidings-dev/tidings/internal/testdb"
)

// stream is an open event stream.
type stream struct {
	*world
	lines *bufio.Scanner
	close func() error
}

func (w *world) stream(as, query string) *stream {
	w.Helper()
	response := w.openStream(as, query)
	if response.StatusCode != http.StatusOK {
		w.Fatalf("stream of %s: %d", as, response.StatusCode)
	}
	return &stream{w, bufio.NewScanner(response.Body), response.Body.Close}
}

// openStream opens an event stream, which ends with the test or when its body is closed.
func (w *world) openStream(as, query string) *http.Response {
	w.Helper()
	r, err := http.NewRequestWithContext(w.Context(), http.MethodGet, w.url+"/api/v1/events"+query, nil)
	if err != nil {
		w.Fatal(err)
	}
	if as != "" {
		r.Header.Set("Authorization", "Bearer "+as)
	}
	r.Header.Set("Accept", "text/event-stream")
	response, err := w.client.Do(r)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { response.Body.Close() })
	return response
}

// until reads the stream up to a text or, if it is empty, to the end.
func (s *stream) until(text string) string {
	s.Helper()
	timeout := time.AfterFunc(testTimeout, func() {
		s.Errorf("the stream does not reach %q", text)
		_ = s.close()
	})
	defer timeout.Stop()
	var got strings.Builder
	for s.lines.Scan() {
		fmt.Fprintln(&got, s.lines.Text())
		if text != "" && strings.Contains(s.lines.Text(), text) {
			return got.String()
		}
	}
	if text != "" {
		s.Fatalf("the stream ended before %q: %v\n%s", text, s.lines.Err(), got.String())
	}
	return got.String()
}

// taken returns the number of taken places of a limit.
func (w *world) taken(limit string) int {
	w.Helper()
	text := w.request("", "GET", "/metrics", nil, nil).text
	_, after, found := strings.Cut(text, fmt.Sprintf("tidings_limit_taken{limit=%q} ", limit))
	value, _, _ := strings.Cut(after, "\n")
	n, err := strconv.ParseFloat(value, 64)
	if !found || err != nil {
		w.Fatalf("no metric of the limit %s: %v\n%s", limit, err, text)
	}
	return int(n)
}

func (w *world) untilTaken(limit string, want int) {
	w.Helper()
	for deadline := time.Now().Add(testTimeout); w.taken(limit) != want; {
		if time.Now().After(deadline) {
			w.Fatalf("%s: %d taken, want %d", limit, w.taken(limit), want)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// noKeepAlive sets a keep-alive interval longer than any test.
func noKeepAlive(_ *world, o *app.Options) { o.KeepAlive = time.Hour }

// Permissions of waiting callers are checked again when an event happens: a changed user
// or a removed token takes effect at once.
func TestWaitingCallersAreCheckedAgain(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		w := newWorldWith(t, settings, option(noKeepAlive), option(reloads))
		leaver, bob := w.user("leaver"), w.user("bob")
		w.user("developer")
		w.user("ann")
		w.mark()
		head := int64(w.call("admin", "GET", "/events", nil).body["head"].(float64))
		from := fmt.Sprintf("?after=%d", head)
		// wait starts a long poll, and returns a channel with its answer.
		wait := func(as string) func() answer {
			answered := make(chan answer, 1)
			go func() { answered <- w.try(as, "GET", "/events"+from+"&types=file.*&wait=15s", nil) }()
			w.untilTaken("event_streams", 3) // with two streams
			return func() answer { return <-answered }
		}
		build := func() string {
			return w.call("developer", "POST", "/provider_builds", object{"location": "https://github.com/a/b"}).id()
		}

		demoted := w.stream("leaver", from)
		first := build()
		demoted.until(first)
		w.call("admin", "PATCH", "/users/"+leaver, object{"role": "user"})
		second := build()
		provider := w.call("developer", "POST", "/providers", object{"location": w.agent.url}).id()
		if got := demoted.until(provider); strings.Contains(got, second) {
			t.Errorf("a demoted developer sees a build:\n%s", got)
		}

		deleted, waiting := w.stream("bob", from), wait("bob")
		deleted.until(provider)
		w.call("admin", "DELETE", "/users/"+bob, nil)
		if got := deleted.until(""); !strings.Contains(got, `"status":401`) {
			t.Errorf("end of a deleted user's stream:\n%s", got)
		}
		w.wants(waiting(), 401)
		if a := w.call("admin", "GET", "/users?email=bob", nil); strings.Contains(a.text, "bob@") {
			t.Errorf("waiting for events recreated a user: %s", a.text)
		}

		removed, waiting := w.stream("ann", from), wait("ann")
		removed.until(provider)
		w.revoke("ann")
		if got := removed.until(""); !strings.Contains(got, `"status":401`) {
			t.Errorf("end of the stream with a removed token:\n%s", got)
		}
		w.wants(waiting(), 401)
	})
}

// revoke takes a user's token out of the configuration.
func (w *world) revoke(user string) {
	w.Helper()
	tokens := w.settings["auth"].(map[string]any)
	tokens["tokens"] = slices.DeleteFunc(tokens["tokens"].([]any), func(token any) bool {
		return token.(map[string]any)["sha256"] == auth.Hash(user)
	})
	w.configure()
	w.call("admin", "POST", "/webhooks/reload", nil)
}

// Callers are remembered for a moment, but one who was demoted, deleted or whose token was
// revoked has lost what they had at once at the replica that did it, and within a second at
// the others. A stream that begins meanwhile does not outlast that.
func TestRevokedAccessEndsAtEveryReplica(t *testing.T) {
	t.Parallel()
	settings := map[string]any{"database_url": testdb.Postgres(t)}
	one := newWorldWith(t, settings, option(noKeepAlive), option(reloads))
	other := newWorldWith(t, settings, option(noKeepAlive), option(reloads))
	// ends checks that requests at the other replica are answered as they should be since
	// a time: those that begin a second later at the latest.
	ends := func(what string, since time.Time, as, path string, want func(answer) bool) {
		t.Helper()
		if a := one.try(as, "GET", path, nil); !want(a) {
			t.Errorf("%s, at once at the same replica: %d %s", what, a.status, a.text)
		}
		for {
			begun := time.Now()
			a := other.try(as, "GET", path, nil)
			switch late := begun.Sub(since) > time.Second; {
			case want(a):
				return
			case late:
				t.Errorf("%s, %v later at the other replica: %d %s", what, begun.Sub(since), a.status, a.text)
				return
			}
			<-time.After(10 * time.Millisecond)
		}
	}
	status := func(want int) func(answer) bool { return func(a answer) bool { return a.status == want } }
	both := func(as, path string) {
		t.Helper()
		for _, w := range []*world{one, other} {
			w.wants(w.call(as, "GET", path, nil), 200)
		}
	}

	leaver := one.user("leaver")
	one.user("developer")
	head := other.call("admin", "GET", "/events", nil).body["head"].(float64)
	both("leaver", "/provider_builds")
	one.call("admin", "PATCH", "/users/"+leaver, object{"role": "user"})
	since := time.Now()
	page := fmt.Sprintf("/events?after=%.0f&types=user.updated&wait=1s", head)
	change := other.until("admin", "GET", page, nil, has(leaver))
	stream := other.stream("leaver", "?after="+change.body["next"].(string)) // its event is not among those to come
	build := one.call("developer", "POST", "/provider_builds", object{"location": "https://github.com/a/b"}).id()
	provider := one.call("developer", "POST", "/providers", object{"location": one.agent.url}).id()
	if got := stream.until(provider); strings.Contains(got, build) {
		t.Errorf("a stream that begins after the demotion contains a build:\n%s", got)
	}
	ends("demoted", since, "leaver", "/provider_builds", status(403))
	one.call("admin", "PATCH", "/users/"+leaver, object{"role": "developer"})
	ends("promoted", time.Now(), "leaver", "/provider_builds", status(200))

	bob := one.user("bob")
	both("bob", "/users/me")
	one.call("admin", "DELETE", "/users/"+bob, nil)
	ends("deleted", time.Now(), "bob", "/users/me", func(a answer) bool { return a.status == 200 && a.id() != bob })

	both("ann", "/users/me")
	for _, w := range []*world{one, other} {
		w.revoke("ann")
		w.wants(w.try("ann", "GET", "/users/me", nil), 401)
	}
}

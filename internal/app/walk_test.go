package app_test

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"mime"
	"net"
	"net/http"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/app"
	"github.com/tidings-dev/tidings/internal/auth"
	"github.com/tidings-dev/tidings/internal/testtool"
)

var (
	walkSeed = flag.Uint64("walk.seed", 1, "seed of TestWalk's random requests; 0 means a random seed")
	walkTime = flag.Duration("walk.time", 0, "how long TestWalk runs, instead of a number of requests")
)

const (
	// maxRefusal is the maximum size in bytes of an answer to a refused request.
	maxRefusal = 64 << 10
	auditor    = "auditor"
)

// TestWalk makes random requests for all operations of the OpenAPI document by all kinds
// of callers: valid, nearly valid and hostile ones. The server must not fail, must answer
// as documented, and must create exactly one event per change. A failure shows the
// request; the seed reproduces it.
func TestWalk(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		w := newWalk(t, settings)
		for w.step = 1; !w.done() && w.failures < 20; w.step++ {
			w.Rand = rand.New(rand.NewPCG(w.seed, uint64(w.step)))
			w.walk()
		}
		t.Logf("%d requests, %d of them succeeded; %d events", w.step-1, w.succeeded, w.sequence)
		if t.Failed() {
			t.Logf("to reproduce: go test ./internal/app -run '%s$' -walk.seed=%d", t.Name(), w.seed)
		}
	})
}

// walk is a random walk through the API.
type walk struct {
	*world
	*rand.Rand
	document *document
	calls    []call
	pools    map[string]*owned // by caller
	users    map[string]string // ids by caller
	seed     uint64
	begun    time.Time
	step     int

	versions            map[string]int64 // of resources, by id, from events; -1 if deleted
	sequence            int64            // of the last event
	newest              string           // time of the last event
	succeeded, failures int
	failed              map[string]bool // reported failures
}

func newWalk(t *testing.T, settings map[string]any) *walk {
	t.Helper()
	tokens := []any{object{"sha256": auth.Hash(auditor), "user": "auditor@example.com", "role": "admin"}}
	for user, role := range roles {
		tokens = append(tokens, object{"sha256": auth.Hash(user), "user": user + "@example.com", "role": role})
	}
	settings["auth"] = object{"tokens": tokens}
	settings["limits"] = object{"providers": 1_000_000, "model_providers": 1_000_000, "connectors": 1_000_000}
	quiet := func(w *world, o *app.Options) {
		o.Logger = slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelError}))
	}
	w := &walk{
		world: newWorldWith(t, settings, option(reloads), option(quiet),
			object{"name": "away", "url": "http://127.0.0.1:1"}),
		seed: *walkSeed, begun: time.Now(), versions: make(map[string]int64), failed: make(map[string]bool),
		pools: make(map[string]*owned), users: make(map[string]string),
	}
	for w.seed == 0 {
		w.seed = rand.Uint64()
	}
	t.Logf("seed %d", w.seed)
	w.document, w.calls = w.world.document(), w.world.calls()
	developers := map[string]string{"ann": "developer", "bob": "leaver", "developer": "developer", "admin": "admin"}
	for who, developer := range developers {
		w.pools[who] = &owned{world: w.world, who: who, developer: developer, ids: map[string]string{}}
	}
	for _, who := range append(walkers, "leaver", "developer", auditor) {
		w.users[who] = w.user(who)
	}
	w.versions[w.call(auditor, "GET", "/configurations/system", nil).id()] = 1 // created before the first event
	w.learn(sent{}, w.events())
	return w
}

// walkers are the callers who make requests, besides strangers.
var walkers = []string{"ann", "bob", "developer", "admin"}

func (w *walk) done() bool {
	if *walkTime > 0 {
		return time.Since(w.begun) > *walkTime
	}
	return w.step > testtool.Rounds(600)
}

// walk makes one request and checks its effects.
func (w *walk) walk() {
	w.Helper()
	made := w.made
	s := w.request()
	if w.made != made { // created resources for the request
		w.learn(s, w.events())
	}
	a, err := w.send(s)
	if err != nil {
		if !s.hurry && !s.overlong() {
			w.complain(s, a, "no answer: %v", err)
		}
		if s.method != http.MethodGet {
			w.learn(s, w.events())
		}
		return
	}
	w.check(s, a)
	if log := w.log.String(); strings.Contains(log, "panic") || strings.Contains(log, "request failed") {
		w.complain(s, a, "the log:\n%s", log)
		w.log.clear()
	}
	w.account(s, a)
}

// complain reports a failure, once per kind.
func (w *walk) complain(s sent, a answer, format string, args ...any) {
	w.Helper()
	about := fmt.Sprintf("%s, %d, %s", s.id, a.status, format)
	if w.failed[about] {
		return
	}
	w.failed[about] = true
	w.failures++
	w.Errorf("step %d, %s: %s\nsent as %q: %.3000q\n%d %v %.1000q",
		w.step, s.id, fmt.Sprintf(format, args...), s.as, s.text, a.status, a.header, a.text)
}

// send makes a request on a new connection.
func (w *walk) send(s sent) (a answer, err error) {
	conn, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
	if err != nil {
		return a, err
	}
	defer conn.Close()
	timeout := testTimeout
	if s.hurry {
		timeout = 50 * time.Millisecond
	}
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return a, err
	}
	written := make(chan struct{})
	go func() { // the server may answer before it has read all
		defer close(written)
		_, _ = io.WriteString(conn, s.text)
		if s.cut {
			_ = conn.(*net.TCPConn).CloseWrite() // only then, since otherwise the server would cancel the request
		}
	}()
	reader := bufio.NewReader(conn)
	r, err := http.ReadResponse(reader, &http.Request{Method: s.method})
	if err == nil && r.StatusCode == http.StatusContinue {
		r, err = http.ReadResponse(reader, &http.Request{Method: s.method})
	}
	if err != nil {
		return a, err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	a = answer{status: r.StatusCode, header: r.Header, text: string(text)}
	_ = json.Unmarshal(text, &a.body) // fails unless the body is an object
	if s.hurry {
		err = nil
	}
	conn.Close()
	<-written
	return a, err
}

// check compares an answer with the OpenAPI document.
func (w *walk) check(s sent, a answer) {
	w.Helper()
	kind, _, _ := mime.ParseMediaType(a.header.Get("Content-Type"))
	malformed := kind == "text/plain" && strings.HasPrefix(a.text, fmt.Sprint(a.status))
	if malformed || a.status == http.StatusExpectationFailed {
		return // net/http refused the request
	}
	if at, _, _ := strings.Cut(s.target, "?"); a.status == http.StatusTemporaryRedirect && path.Clean(at) != at {
		return // a redirect to the path without empty segments and dots
	}
	declared, ok := s.responses[fmt.Sprint(a.status)]
	switch {
	case s.astray:
	case !ok:
		w.complain(s, a, "the document does not say that this may be the status")
	case kind == "" && (len(declared.Content) == 0 || a.text == ""):
	case declared.Content[kind] == nil && declared.Content["*/*"] == nil:
		w.complain(s, a, "the document does not say that this may be the content type")
	}
	if a.status >= 500 && !slices.Contains([]int{http.StatusBadGateway, http.StatusGatewayTimeout}, a.status) {
		w.complain(s, a, "the server failed")
	}
	if a.status >= 400 && len(a.text) > maxRefusal {
		w.complain(s, a, "the answer has %d bytes", len(a.text))
	}
	if a.status >= 400 && s.method != http.MethodHead && a.body["status"] != float64(a.status) {
		w.complain(s, a, "the answer is no problem document")
	}
	if kind == "application/json" && s.method != http.MethodHead && !s.hurry && !json.Valid([]byte(a.text)) {
		w.complain(s, a, "the answer is not JSON")
	}
	if a.status < 400 {
		w.succeeded++
	}
}

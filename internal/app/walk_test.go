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
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/tidings-dev/tidings/internal/app"
	"github.com/tidings-dev/tidings/internal/auth"
)

var (
	walkSeed = flag.Uint64("walk.seed", 1, "where the random requests of TestWalk begin; 0 means anywhere")
	walkTime = flag.Duration("walk.time", 0, "how long TestWalk goes on, instead of a number of requests")
)

const (
	walkSteps = 800
	// maxRefusal is the most that an answer to a refused request may have, in bytes.
	maxRefusal = 64 << 10
	auditor    = "auditor"
)

// TestWalk makes random requests for all operations of the OpenAPI document by all
// kinds of callers: valid ones, nearly valid ones, and hostile ones. Whatever is
// sent, the server does not fail, says what the document says that it may, tells of
// every change once, and of nothing else. A failure names what was sent; the seed
// makes the same requests again.
func TestWalk(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		w := newWalk(t, settings)
		for w.step = 1; !w.done() && w.failures < 20; w.step++ {
			w.Rand = rand.New(rand.NewPCG(w.seed, uint64(w.step)))
			w.walk()
		}
		t.Logf("%d requests, %d of them succeeded; %d events", w.step-1, w.succeeded, w.sequence)
		if t.Failed() {
			t.Logf("again: go test ./internal/app -run '%s$' -walk.seed=%d", t.Name(), w.seed)
		}
	})
}

// walk is a walk through the API.
type walk struct {
	*world
	*rand.Rand
	document *document
	calls    []call
	pools    map[string]*owned // by caller
	users    map[string]string // the ids of callers
	seed     uint64
	begun    time.Time
	step     int

	versions            map[string]int64 // of resources, by id, as events tell; -1 for deleted ones
	sequence            int64            // of the last event
	newest              string           // its time
	succeeded, failures int
	failed              map[string]bool // what was reported
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
		world: newWorldWith(t, settings, option(reloads), option(quiet), object{"name": "away", "url": "http://127.0.0.1:1"}),
		seed:  *walkSeed, begun: time.Now(), versions: make(map[string]int64), failed: make(map[string]bool),
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
	w.versions[w.call(auditor, "GET", "/configurations/system", nil).id()] = 1 // it was there before the first event
	w.learn(sent{}, w.events())
	return w
}

// walkers are who makes requests, besides strangers.
var walkers = []string{"ann", "bob", "developer", "admin"}

func (w *walk) done() bool {
	if *walkTime > 0 {
		return time.Since(w.begun) > *walkTime
	}
	return w.step > walkSteps
}

// walk makes one request and looks at what comes of it.
func (w *walk) walk() {
	w.Helper()
	made := w.made
	s := w.request()
	if w.made != made { // the resources that it names
		w.learn(s, w.events())
	}
	a, err := w.send(s)
	if err != nil {
		if !s.hurry {
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

// complain reports what is wrong, once for each kind of it.
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

// send makes a request on a connection of its own.
func (w *walk) send(s sent) (a answer, err error) {
	conn, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
	if err != nil {
		return a, err
	}
	defer conn.Close()
	patience := patience
	if s.hurry {
		patience = 50 * time.Millisecond
	}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return a, err
	}
	written := make(chan struct{})
	go func() { // the server may answer before it has read all
		defer close(written)
		_, _ = io.WriteString(conn, s.text)
		if s.cut {
			_ = conn.(*net.TCPConn).CloseWrite() // otherwise it would mean that nobody waits for an answer
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
	_ = json.Unmarshal(text, &a.body) // not everything is an object
	if s.hurry {
		err = nil
	}
	conn.Close()
	<-written
	return a, err
}

// check compares an answer with what the document says.
func (w *walk) check(s sent, a answer) {
	w.Helper()
	kind, _, _ := mime.ParseMediaType(a.header.Get("Content-Type"))
	if kind == "text/plain" && strings.HasPrefix(a.text, fmt.Sprint(a.status)) || a.status == http.StatusExpectationFailed {
		return // net/http refuses what is not HTTP
	}
	if at, _, _ := strings.Cut(s.target, "?"); a.status == http.StatusTemporaryRedirect && path.Clean(at) != at {
		return // to the path without empty segments and dots
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

// numbered is an ETag that is a version.
var numbered = regexp.MustCompile(`^"(\d+)"$`)

// account compares the events since the request before with what was answered.
func (w *walk) account(s sent, a answer) {
	w.Helper()
	if s.method != http.MethodGet {
		events := w.events()
		w.learn(s, events)
		for _, e := range events {
			if a.status >= 400 {
				w.complain(s, a, "an event without a change: %v", e)
			}
			by := any(w.users[s.as])
			if e["event"] == "provider_build.updated" {
				by = a.body["created_by"] // builds are reported by programs
			}
			if e["user_id"] != by {
				w.complain(s, a, "an event of somebody else: %v", e)
			}
		}
	}
	id, _ := a.body["id"].(string)
	if version := numbered.FindStringSubmatch(a.header.Get("ETag")); version != nil && a.status < 300 && id != "" {
		if known := strconv.FormatInt(w.versions[id], 10); known != version[1] {
			w.complain(s, a, "version %s; the events say %s", version[1], known)
		}
	}
	if s.method == http.MethodGet || a.status >= 300 {
		return
	}
	w.verify(s, a)
	collection, _, _ := strings.Cut(s.path[1:], "/")
	switch {
	case s.method == http.MethodDelete && slices.Contains([]string{"users", "providers", "model_providers"}, collection):
		for _, pool := range w.pools {
			clear(pool.ids)
		}
	case s.method == http.MethodDelete, w.Float64() < 0.1: // another state of them
		clear(s.draw.ids)
	}
}

// verify reads what was written: its version is that of its last event.
func (w *walk) verify(s sent, a answer) {
	w.Helper()
	segments := strings.Split(strings.TrimPrefix(s.target, "/api/v1/"), "/")
	read := "/" + segments[0] + "/"
	switch collection, _, _ := strings.Cut(s.path[1:], "/"); {
	case collection == "configurations":
		read += "system"
	case collection == "variables":
		read = "/users/me"
	case pathKinds[collection] == "":
		return
	case strings.Contains(s.path, "{id}"):
		id, _, _ := strings.Cut(segments[1], "?")
		read += id
	case a.status == http.StatusCreated:
		read = "/" + collection + "/" + a.id()
	default: // nothing was kept
		return
	}
	got := w.try(s.as, "GET", read, nil)
	id, err := url.PathUnescape(path.Base(read))
	if parsed, err := uuid.Parse(id); err == nil {
		id = parsed.String()
	}
	if got.status == http.StatusOK {
		id = got.id()
	}
	switch known := w.versions[id]; {
	case got.status == http.StatusOK && got.header.Get("ETag") == fmt.Sprintf(`"%d"`, known):
	case got.status == http.StatusNotFound && known == -1:
	default:
		w.complain(s, a, "%s is %d %s; the events say version %d (%v)", read, got.status, got.header.Get("ETag"), known, err)
	}
}

// learn takes in events: the versions of a resource follow each other.
func (w *walk) learn(s sent, events []object) {
	w.Helper()
	for _, e := range events {
		id, version := e["resource_id"].(string), int64(e["resource_version"].(float64))
		known := w.versions[id]
		switch _, action, _ := strings.Cut(e["event"].(string), "."); {
		case action == "created" && known == 0 && version == 1, action == "updated" && known > 0 && version == known+1:
			w.versions[id] = version
		case action == "deleted" && known > 0:
			w.versions[id] = -1
		default:
			w.complain(s, answer{}, "the event does not follow version %d: %v", known, e)
			w.versions[id] = version
		}
	}
}

// events are those since it was asked last.
func (w *walk) events() (list []object) {
	w.Helper()
	query := url.Values{"limit": {"200"}}
	if w.newest != "" {
		query.Set("since", w.newest)
	}
	for _, item := range items(w.call(auditor, "GET", "/webhooks/events?"+query.Encode(), nil)) {
		if int64(item["sequence"].(float64)) > w.sequence {
			list = append(list, item)
		}
	}
	slices.Reverse(list)
	if len(list) > 0 {
		last := list[len(list)-1]
		w.sequence, w.newest = int64(last["sequence"].(float64)), last["timestamp"].(string)
	}
	return list
}

package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/tidings-dev/tidings/internal/app"
	"github.com/tidings-dev/tidings/internal/auth"
	"github.com/tidings-dev/tidings/internal/config"
	"github.com/tidings-dev/tidings/internal/testdb"
	"github.com/tidings-dev/tidings/internal/testtool"
)

// databases runs a test on SQLite and on PostgreSQL.
func databases(t *testing.T, test func(t *testing.T, settings map[string]any)) {
	t.Parallel()
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		test(t, map[string]any{})
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		test(t, map[string]any{"database_url": testdb.Postgres(t)})
	})
}

// roles are the roles of a world's users, each with a token named after the user.
var roles = map[string]string{
	"admin": "admin", "developer": "developer", "leaver": "developer", "ann": "user", "bob": "user", "newcomer": "user",
	"newcomer2": "user", "sentinel": "user", "demoted": "developer", "promoted": "user", "removed": "user",
	"reader": "reader",
}

// world is a running server with a receiver of its webhooks and an agent.
type world struct {
	*testing.T
	url string
	// settings is the configuration, which is written to file.
	settings map[string]any
	relay    bool // the server is tidings relay
	file     string
	agent    *agent
	client   *http.Client
	log      *syncBuffer
	stop     func() error
	made     int // resources created by [owned.id]

	mu       sync.Mutex
	arrived  map[int64]arrival // by position in the log
	answered chan struct{}     // receives after each arrival
	marked   int64
	begun    time.Time
}

type arrival struct {
	header http.Header
	body   []byte
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func (s *syncBuffer) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.b.Reset()
}

const webhookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// newWorld starts a server. settings override its configuration; nil removes a
// setting.
func newWorld(t *testing.T, settings map[string]any) *world {
	t.Helper()
	return newWorldWith(t, settings)
}

// option changes how a world's server is started.
type option func(w *world, o *app.Options)

// reloads enables reloads of the server's file.
func reloads(w *world, o *app.Options) {
	o.Load = func(inForce *config.Config) (config.Config, error) {
		return config.Load(config.Input{Files: []string{w.file}, Relay: w.relay, Before: inForce})
	}
}

// newWorldWith is newWorld with additional endpoints, and options.
func newWorldWith(t *testing.T, settings map[string]any, more ...any) *world {
	t.Helper()
	w := &world{
		T: t, client: http.DefaultClient, log: new(syncBuffer), arrived: make(map[int64]arrival),
		answered: make(chan struct{}, 1), begun: time.Now(),
	}
	receiver := httptest.NewServer(http.HandlerFunc(w.receive))
	t.Cleanup(receiver.Close)
	w.agent = newAgent(t)
	var options []option
	endpoints := []any{map[string]any{"name": "receiver", "url": receiver.URL, "secret": webhookSecret}}
	for _, m := range more {
		if o, ok := m.(option); ok {
			options = append(options, o)
		} else {
			endpoints = append(endpoints, m)
		}
	}
	tokens := []any{}
	for user, role := range roles {
		tokens = append(tokens, map[string]any{"sha256": auth.Hash(user), "user": user + "@example.com", "role": role})
	}
	all := map[string]any{
		"listen": "127.0.0.1:0", "data_dir": t.TempDir(),
		"encryption_key": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
		"auth":           map[string]any{"tokens": tokens}, "providers": map[string]any{"check_interval": "1h"},
		"shutdown_timeout": "5s", "types": map[string]any{"published": []any{"told"}},
		"webhook": map[string]any{"endpoints": endpoints},
		"egress":  map[string]any{"user_urls": map[string]any{"allow_networks": []any{"127.0.0.0/8"}}}, // the agent's network
		"log":     map[string]any{"level": "debug"},
	}
	maps.Copy(all, settings)
	maps.DeleteFunc(all, func(_ string, value any) bool { return value == nil })
	limits := map[string]any{"requests_per_second": 1e6, "burst": 1_000_000} // tests are faster than users
	if given, ok := settings["limits"].(map[string]any); ok {
		maps.Copy(limits, given)
	}
	all["limits"] = limits
	w.settings = all
	w.start(options...)
	return w
}

// configure writes the configuration.
func (w *world) configure() {
	w.Helper()
	text, err := json.Marshal(w.settings)
	if err != nil {
		w.Fatal(err)
	}
	if err := os.WriteFile(w.file, text, 0o600); err != nil {
		w.Fatal(err)
	}
}

func (w *world) start(options ...option) {
	w.Helper()
	w.file = filepath.Join(w.TempDir(), "tidings.yaml")
	w.configure()
	cfg, err := config.Load(config.Input{Files: []string{w.file}, Relay: w.relay})
	if err != nil {
		w.Fatal(err)
	}
	logger := slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	o := app.Options{Logger: logger, Version: "test"}
	for _, option := range options {
		option(w, &o)
	}
	server, err := app.New(w.Context(), cfg, o)
	if err != nil {
		w.Fatal(err)
	}
	w.url = "http://" + server.Addr()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	w.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	w.Cleanup(func() {
		if err := w.stop(); err != nil {
			w.Errorf("stop: %v", err)
		}
		if w.Failed() {
			w.Logf("log:\n%s", w.log)
		}
	})
}

func (w *world) receive(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	position, err2 := strconv.ParseInt(r.Header.Get("tidings-sequence"), 10, 64)
	if err != nil || err2 != nil {
		rw.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.mu.Lock()
	w.arrived[position] = arrival{r.Header, body}
	w.mu.Unlock()
	select {
	case w.answered <- struct{}{}:
	default:
	}
}

// answer is the server's response.
type answer struct {
	status int
	header http.Header
	closes bool // whether the server closes the connection
	text   string
	body   map[string]any
}

// id returns the id of the resource in the answer or its Location header.
func (a answer) id() string {
	if location := a.header.Get("Location"); location != "" {
		return path.Base(location)
	}
	return fmt.Sprint(a.body["id"])
}

// card returns an agent card with what A2A requires.
func card(name string) map[string]any {
	return map[string]any{
		"name": name, "description": "Says it again.", "version": "1.0.0", "url": "http://echo",
		"protocolVersion": "0.3.0",
		"capabilities":    map[string]any{}, "defaultInputModes": []string{"text"},
		"defaultOutputModes": []string{"text"}, "skills": []any{},
	}
}

// testTimeout limits how long a test waits for an answer or a delivery.
var testTimeout = testtool.Allow(20 * time.Second)

func (w *world) request(as, method, path string, body io.Reader, header map[string]string) answer {
	w.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, w.url+path, body)
	if err != nil {
		w.Fatal(err)
	}
	if as != "" {
		r.Header.Set("Authorization", "Bearer "+as)
	}
	for name, value := range header {
		r.Header.Set(name, value)
	}
	response, err := w.client.Do(r)
	if err != nil {
		w.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		w.Fatal(err)
	}
	a := answer{status: response.StatusCode, header: response.Header, closes: response.Close, text: string(text)}
	_ = json.Unmarshal(text, &a.body) // fails unless the body is an object
	if err := keepsContract(method, path, a); err != nil && !w.relay {
		w.Errorf("%s %s: %d %.1000s: does not match the OpenAPI document: %v", method, path, a.status, a.text, err)
	}
	return a
}

// try makes a request with a JSON body.
func (w *world) try(as, method, path string, body any, header ...string) answer {
	w.Helper()
	var reader io.Reader
	headers := map[string]string{}
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			w.Fatal(err)
		}
		reader, headers["Content-Type"] = bytes.NewReader(text), "application/json"
	}
	for i := 0; i < len(header); i += 2 {
		headers[header[i]] = header[i+1]
	}
	return w.request(as, method, "/api/v1"+path, reader, headers)
}

// call makes a request that must succeed.
func (w *world) call(as, method, path string, body any) answer {
	w.Helper()
	a := w.try(as, method, path, body)
	if a.status >= 300 {
		w.Fatalf("%s %s as %s: %d %s", method, path, as, a.status, a.text)
	}
	return a
}

func (w *world) tryUpload(as, query, name, contentType string, content io.Reader) answer {
	w.Helper()
	var b bytes.Buffer
	form := multipart.NewWriter(&b)
	part, err := form.CreatePart(textproto.MIMEHeader{
		"Content-Disposition": {fmt.Sprintf(`form-data; name="file"; filename=%q`, name)},
		"Content-Type":        {contentType},
	})
	if err == nil {
		_, err = io.Copy(part, content)
	}
	if err != nil || form.Close() != nil {
		w.Fatal(err)
	}
	return w.request(as, http.MethodPost, "/api/v1/files"+query, &b,
		map[string]string{"Content-Type": form.FormDataContentType()})
}

func (w *world) upload(as, query string) answer {
	w.Helper()
	a := w.tryUpload(as, query, "notes.md", "text/markdown", strings.NewReader("# Notes"))
	if a.status != http.StatusCreated {
		w.Fatalf("upload: %d %s", a.status, a.text)
	}
	return a
}

func (w *world) user(name string) string {
	w.Helper()
	return w.call(name, "GET", "/users/me", nil).id()
}

// since waits for all deliveries since [world.mark], and returns them in the order of
// the log.
func (w *world) since() []arrival {
	w.Helper()
	from := w.marked
	to := w.mark()
	var arrivals []arrival
	w.mu.Lock()
	defer w.mu.Unlock()
	for position := from + 1; position < to; position++ {
		arrivals = append(arrivals, w.arrived[position])
	}
	return arrivals
}

// mark waits until all previous changes are delivered: it makes a change and waits for
// its webhook and all before it.
func (w *world) mark() int64 {
	w.Helper()
	id := w.call("sentinel", "POST", "/contexts", map[string]any{}).id()
	deadline := time.After(testTimeout)
	for {
		if position := w.delivered(id); position > 0 {
			w.marked = position
			return position
		}
		select {
		case <-w.answered:
		case <-deadline:
			w.Fatalf("not all webhooks arrived; log:\n%s", w.log)
		}
	}
}

// delivered returns the position of an event of a resource, if all before it arrived.
func (w *world) delivered(id string) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	for position := w.marked + 1; ; position++ {
		a, ok := w.arrived[position]
		if !ok {
			return 0
		}
		if bytes.Contains(a.body, []byte(id)) {
			return position
		}
	}
}

// agent is a server that is an A2A agent, a model provider and an MCP server.
type agent struct {
	url string
	// away makes it answer every request with 503.
	away  atomic.Bool
	asked atomic.Int32
	// keys are the API keys of the requests.
	mu   sync.Mutex
	keys []string
}

func newAgent(t *testing.T) *agent {
	a := new(agent)
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/.well-known/agent-card.json") {
			http.NotFound(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(card("Echo"))
	})
	models := func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		a.keys = append(a.keys, r.Header.Get("Authorization"))
		a.mu.Unlock()
		if r.Header.Get("Authorization") == "Bearer wrong-key" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, `{"data":[{"id":"gpt-4o"},{"id":"text-embedding-3"}]}`)
	}
	mux.HandleFunc("/v1/models", models)
	mux.HandleFunc("/{tenant}/v1/models", models)
	server := mcp.NewServer(&mcp.Implementation{Name: "tools", Version: "1"}, nil)
	handler := mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, nil)
	mux.Handle("/mcp", handler)
	mux.HandleFunc("/locked", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.asked.Add(1)
		if a.away.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	a.url = s.URL
	return a
}

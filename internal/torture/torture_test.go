package torture_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/testtool"
	"github.com/tidings-dev/tidings/internal/torture"
	"github.com/tidings-dev/tidings/receive"
)

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// handledIDs is what an observation URL shows.
type handledIDs struct {
	mu  sync.Mutex
	ids []string
}

func (h *handledIDs) add(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ids = append(h.ids, id)
}

func (h *handledIDs) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	_ = json.NewEncoder(w).Encode(map[string][]string{"handled": h.ids})
}

func serve(t *testing.T, receiver http.Handler, handled *handledIDs) torture.Options {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("/webhook", receiver)
	mux.Handle("/handled", handled)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return torture.Options{
		URL: server.URL + "/webhook", Observe: server.URL + "/handled", Secret: secret,
		AnswerWithin: testtool.Allow(time.Second),
	}
}

// outcomes runs the cases and returns those with an outcome other than pass.
func outcomes(t *testing.T, o torture.Options) map[string]torture.Result {
	t.Helper()
	other, n := make(map[string]torture.Result), 0
	err := torture.Run(t.Context(), o, func(r torture.Result) {
		if n++; r.Outcome != torture.Pass {
			other[r.Case] = r
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if n == 0 || len(o.Only) == 0 && n != len(torture.Cases()) {
		t.Errorf("%d cases ran", n)
	}
	return other
}

func TestGoodReceiverPasses(t *testing.T) {
	t.Parallel()
	verifier, err := receive.NewVerifier(secret)
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range tidings.Formats() {
		t.Run(string(format), func(t *testing.T) {
			t.Parallel()
			handled, latest := &handledIDs{}, receive.NewLatest(10_000)
			handle := func(_ context.Context, e tidings.Event) error {
				if latest.Newer(e) {
					handled.add(e.ID)
				}
				return nil
			}
			var receiver http.Handler = receive.NewHandler(verifier, handle)
			if format != tidings.Thin {
				receiver = enveloped{verifier, receive.New(verifier, handle, receive.Options{})}
			}
			o := serve(t, receiver, handled)
			o.Format = format
			for name, r := range outcomes(t, o) {
				t.Errorf("%s: %s: %s", name, r.Outcome, r.Finding)
			}
			o.Observe, o.Only = "", []string{"order", "keep-alive"}
			unseen := outcomes(t, o)
			for _, c := range torture.Cases() {
				if c.Group == "order" && unseen[c.Name].Outcome != torture.Unseen {
					t.Errorf("without an observation URL, %s: %+v", c.Name, unseen[c.Name])
				}
			}
			for name, r := range unseen {
				if r.Group != "order" {
					t.Errorf("without an observation URL, %s: %+v", name, r)
				}
			}
		})
	}
}

// enveloped reads the formats whose members are in an envelope.
type enveloped struct {
	verifier *receive.Verifier
	handler  *receive.Handler
}

func (x enveloped) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 2<<20))
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if x.verifier.Verify(r.Header, body) != nil {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	var m struct {
		Type      string
		Timestamp time.Time // standard
		Time      time.Time // cloudevents
		Data      struct {
			ID       string
			Kind     tidings.ResourceType `json:"resource_type"`
			Resource string               `json:"resource_id"`
			Version  int64                `json:"resource_version"`
			Sequence int64
		}
	}
	if json.Unmarshal(body, &m) != nil || m.Data.ID == "" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	_, action, _ := strings.Cut(m.Type, ".")
	e := tidings.Event{
		ID: m.Data.ID, Type: m.Data.Kind, Action: tidings.Action(action), ResourceID: m.Data.Resource,
		ResourceVersion: m.Data.Version, Sequence: m.Data.Sequence, Time: m.Timestamp,
	}
	if e.Time.IsZero() {
		e.Time = m.Time
	}
	if e.Name() != tidings.PingEvent {
		if _, err := x.handler.Handle(r.Context(), e); err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

// A receiver with one fault fails the cases for that fault, and no other.
func TestEachFaultFailsItsCase(t *testing.T) {
	testtool.InAll(t)
	faults := confusions()
	found := make(map[string]bool)
	for _, c := range faults {
		for _, name := range c.found {
			found[name] = true
		}
	}
	for _, c := range torture.Cases() {
		if !found[c.Name] || c.Name == "no-info-headers" {
			faults[c.Name] = confusion{found: []string{c.Name}}
		}
	}
	for fault, c := range faults {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			handled := &handledIDs{}
			found := outcomes(t, serve(t, newFaulty(fault, handled), handled))
			for _, name := range c.found {
				if r, ok := found[name]; !ok || r.Outcome != torture.Fail || r.Finding == "" || r.Advice == "" {
					t.Errorf("%s did not find the fault: %+v", name, r)
				}
				delete(found, name)
			}
			for name, r := range found {
				if r.Group != "load" || !c.load {
					t.Errorf("%s failed as well: %s", name, r.Finding)
				}
			}
		})
	}
}

// A finding says in plain words why there was no answer.
func TestFindingsWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	for want, receiver := range map[string]http.HandlerFunc{
		"it did not answer within 100ms": func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		},
		"it closed the connection without an answer": func(http.ResponseWriter, *http.Request) {
			panic(http.ErrAbortHandler)
		},
	} {
		var reached atomic.Bool
		o := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if reached.Swap(true) { // the first request checks that there is a receiver
				receiver(w, r)
			}
		}), &handledIDs{})
		o.Timeout, o.Only = 100*time.Millisecond, []string{"valid", "http-1.0"}
		found := outcomes(t, o)
		for _, name := range o.Only {
			if got := found[name].Finding; got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
	}
}

func TestWrongOptions(t *testing.T) {
	good := torture.Options{URL: "http://127.0.0.1:1/", Secret: secret}
	for name, tt := range map[string]struct {
		change func(o *torture.Options)
		want   string
	}{
		"unknown case":   {func(o *torture.Options) { o.Only = []string{"x"} }, `no case or group "x"`},
		"secret":         {func(o *torture.Options) { o.Secret = "x" }, "whsec_"},
		"url":            {func(o *torture.Options) { o.URL = "ftp://a" }, "the receiver's URL"},
		"observe":        {func(o *torture.Options) { o.Observe = "x" }, "the observation URL"},
		"format":         {func(o *torture.Options) { o.Format = "xml" }, "format"},
		"nobody listens": {func(*torture.Options) {}, "is it running"},
	} {
		o := good
		tt.change(&o)
		err := torture.Run(t.Context(), o, func(torture.Result) {})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
	}
}

func TestCasesAreNamedOnce(t *testing.T) {
	var names []string
	for _, c := range torture.Cases() {
		names = append(names, c.Name)
		if c.About == "" {
			t.Errorf("%s lacks a description", c.Name)
		}
	}
	slices.Sort(names)
	if n := len(names); n != len(slices.Compact(names)) {
		t.Errorf("a name occurs twice in %v", names)
	}
}

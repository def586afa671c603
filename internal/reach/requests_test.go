package reach_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidings-dev/tidings"
)

// Every header that Tidings would send can be configured, in any
// capitalization.
func TestConfiguredHeadersWin(t *testing.T) {
	var got http.Header
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.Header }))
	defer server.Close()
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	a := attempt()
	a.Replay, a.Trace = true, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	send := func(endpoint object) http.Header {
		endpoint["url"], endpoint["secret"] = server.URL, secret
		if o := newSender(t, endpoint).Send(t.Context(), a); o.Verdict != tidings.Delivered {
			t.Fatalf("%v %s %s", o.Verdict, o.Reason, o.Detail)
		}
		return got
	}
	sent := send(object{})
	if got := sent.Get("User-Agent"); got != "Tidings/test" {
		t.Errorf("User-Agent = %q", got)
	}
	for name := range sent {
		if name == "Content-Length" || name == "Accept-Encoding" { // those of HTTP itself
			continue
		}
		for _, spelling := range []string{name, strings.ToLower(name), strings.ToUpper(name)} {
			if got := send(object{"headers": object{spelling: "mine"}})[name]; len(got) != 1 || got[0] != "mine" {
				t.Errorf("headers: %s = %q", spelling, got)
			}
			if name == "User-Agent" || name == "Content-Type" {
				continue // Prometheus refuses them there
			}
			header := object{spelling: object{"values": []any{"mine"}}}
			if got := send(object{"http": object{"http_headers": header}})[name]; len(got) != 1 || got[0] != "mine" {
				t.Errorf("http_headers: %s = %q", spelling, got)
			}
		}
	}
	if len(sent) < 10 {
		t.Errorf("only %d headers were tried: %v", len(sent), sent)
	}
}

// A token is fetched once and used until it expires or is rejected; while the
// token endpoint hangs, no attempt waits longer than its time limit.
func TestOAuth2Tokens(t *testing.T) {
	var tokens, hanging atomic.Int64
	var refuse atomic.Bool
	hang := make(chan struct{})
	var agent atomic.Value
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if hanging.Load() > 0 {
			select {
			case <-hang:
			case <-r.Context().Done():
			}
			return
		}
		agent.Store(r.UserAgent())
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"access_token":"token-%d","token_type":"Bearer","expires_in":3600}`, tokens.Add(1))
	}))
	defer endpoint.Close()
	defer close(hang)
	var with atomic.Value
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		with.Store(r.Header.Get("Authorization"))
		if refuse.Load() {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer server.Close()
	secret := filepath.Join(t.TempDir(), "secret")
	rotate := func(text string) {
		if err := os.WriteFile(secret, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rotate("a")
	const timeout = time.Second
	s := newSender(t, object{
		"url": server.URL, "timeout": timeout.String(), "headers": object{"user-agent": "mine"},
		"http": object{"oauth2": object{"client_id": "me", "client_secret_file": secret, "token_url": endpoint.URL}},
	})
	want := func(verdict tidings.Verdict, authorization string) {
		t.Helper()
		if o := s.Send(t.Context(), attempt()); o.Verdict != verdict || with.Load() != authorization {
			t.Fatalf("%v %s with %v, want %v with %q", o.Verdict, o.Detail, with.Load(), verdict, authorization)
		}
	}
	want(tidings.Delivered, "Bearer token-1")
	want(tidings.Delivered, "Bearer token-1")
	if agent.Load() != "mine" {
		t.Errorf("the token endpoint saw %v", agent.Load())
	}
	rotate("b")
	want(tidings.Delivered, "Bearer token-2")
	refuse.Store(true)
	want(tidings.Unauthorized, "Bearer token-2")
	refuse.Store(false)
	want(tidings.Delivered, "Bearer token-3")

	rotate("c")
	hanging.Store(1)
	var sending sync.WaitGroup
	for range 8 {
		sending.Go(func() {
			o := s.Send(t.Context(), attempt())
			if o.Reason != tidings.ReasonCredentials || o.Duration > timeout+5*time.Second {
				t.Errorf("%v %s %s after %v", o.Verdict, o.Reason, o.Detail, o.Duration)
			}
		})
	}
	sending.Wait()
	hanging.Store(0)
	// A token may have been issued in the meantime to an attempt that had already timed out.
	before := tokens.Load()
	o := s.Send(t.Context(), attempt())
	if got := fmt.Sprint(with.Load()); o.Verdict != tidings.Delivered || tokens.Load() == before ||
		got != fmt.Sprintf("Bearer token-%d", tokens.Load()) {
		t.Errorf("%v %s with %v, want a new token", o.Verdict, o.Detail, got)
	}
}

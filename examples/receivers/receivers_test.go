// Package receivers_test runs the receivers of every language against the
// conformance test and a real server.
package receivers_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/cli"
	"github.com/tidings-dev/tidings/internal/testtool"
	"github.com/tidings-dev/tidings/internal/torture"
)

const (
	secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	other  = "whsec_c29tZWJvZHkgZWxzZSdzIHNlY3JldCBrZXkh"
)

// languages are the commands that run each receiver on an address.
var languages = map[string]func(t *testing.T, address string) []string{
	"python": func(t *testing.T, _ string) []string { return []string{testtool.Path(t, "python3"), "receiver.py"} },
	"node":   func(t *testing.T, _ string) []string { return []string{testtool.Path(t, "node"), "receiver.mjs"} },
	"ruby": func(t *testing.T, _ string) []string {
		ruby := testtool.Path(t, "ruby")
		if exec.Command(ruby, "-e", `require "webrick"`).Run() != nil {
			testtool.Missing(t, "ruby-webrick")
		}
		return []string{ruby, "receiver.rb"}
	},
	"java": func(t *testing.T, _ string) []string {
		testtool.Path(t, "javac")
		return []string{testtool.Path(t, "java"), "Receiver.java"}
	},
	"csharp": func(t *testing.T, _ string) []string {
		compiler, mono := testtool.Path(t, "mcs"), testtool.Path(t, "mono") // Debian has no .NET
		program := filepath.Join(t.TempDir(), "receiver.exe")
		out, err := exec.Command(compiler, "-warnaserror", "-out:"+program,
			"-r:System.Net.Http,System.Runtime.Serialization,System.Xml,System.Xml.Linq", "Receiver.cs").CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return []string{mono, program}
	},
	"php": func(t *testing.T, address string) []string {
		php := testtool.Path(t, "php")
		if out, _ := exec.Command(php, "-m").Output(); !strings.Contains(string(out), "pdo_sqlite") {
			testtool.Missing(t, "php-sqlite3")
		}
		return []string{php, "-S", address, "receiver.php"}
	},
	"go": func(t *testing.T, _ string) []string {
		program := filepath.Join(t.TempDir(), "receiver")
		if out, err := exec.Command("go", "build", "-o", program, "./go").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return []string{program}
	},
}

// receiver is a program that receives webhooks.
type receiver struct {
	address string
	command []string
	env     []string
	process *exec.Cmd
	ended   chan struct{}
}

func newReceiver(t *testing.T, language string) *receiver {
	t.Helper()
	address := testtool.FreeAddress(t)
	return &receiver{address: address, command: languages[language](t, address), env: append(os.Environ(),
		"LISTEN="+address, "WEBHOOK_SECRET="+secret, "OBSERVE=1", "STATE="+filepath.Join(t.TempDir(), "state"),
		"PHP_CLI_SERVER_WORKERS=8",
	)}
}

// start runs the receiver until stop, or until the test ends.
func (r *receiver) start(t *testing.T) {
	t.Helper()
	r.launch(t)
	waitFor(t, "the receiver", func() error {
		_, err := r.handled()
		return err
	})
}

// startsAtAll is like start, but reports false if the receiver ends by itself.
func (r *receiver) startsAtAll(t *testing.T) (started bool) {
	t.Helper()
	r.launch(t)
	waitFor(t, "the receiver", func() error {
		select {
		case <-r.ended:
			return nil
		default:
		}
		_, err := r.handled()
		started = err == nil
		return err
	})
	return started
}

func (r *receiver) launch(t *testing.T) {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), r.command[0], r.command[1:]...)
	cmd.Env = r.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // PHP has workers
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // it is killed
	}()
	r.process, r.ended = cmd, ended
	t.Cleanup(func() {
		r.stop()
		if t.Failed() {
			lines := strings.Split(out.String(), "\n")
			t.Log(strings.Join(lines[max(0, len(lines)-20):], "\n"))
		}
	})
}

func (r *receiver) stop() {
	if r.process == nil {
		return
	}
	_ = syscall.Kill(-r.process.Process.Pid, syscall.SIGKILL)
	<-r.ended
	r.process = nil
}

func (r *receiver) url(path string) string { return "http://" + r.address + path }

// handled returns the ids of the webhooks that it acted on.
func (r *receiver) handled() ([]string, error) {
	response, err := http.Get(r.url("/handled"))
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var page struct{ Handled []string }
	return page.Handled, json.NewDecoder(response.Body).Decode(&page)
}

func TestReceiversPassTheConformanceTest(t *testing.T) {
	testtool.InAll(t)
	for language := range languages {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			r := newReceiver(t, language)
			r.start(t)
			err := torture.Run(t.Context(), torture.Options{
				URL: r.url("/webhook"), Observe: r.url("/handled"), Secret: secret,
				AnswerWithin: testtool.Allow(5 * time.Second), Timeout: testtool.Allow(30 * time.Second),
			}, func(result torture.Result) {
				if result.Outcome != torture.Pass {
					t.Errorf("%s: %s: %s", result.Case, result.Outcome, result.Finding)
				}
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// Without a usable secret a receiver accepts nothing, not even what is signed with an
// empty key. With two secrets it accepts both; spaces around them make no empty ones.
func TestReceiversNeedASecret(t *testing.T) {
	testtool.InAll(t)
	forged := func(r *receiver) int {
		stamp := strconv.FormatInt(time.Now().Unix(), 10)
		mac := hmac.New(sha256.New, nil)
		fmt.Fprintf(mac, "forged.%s.%s", stamp, thin)
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url("/webhook"), strings.NewReader(thin))
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range map[string]string{
			"Content-Type": "application/json", "Webhook-Id": "forged", "Webhook-Timestamp": stamp,
			"Webhook-Signature": "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)),
		} {
			request.Header.Set(name, value)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return 0
		}
		response.Body.Close()
		return response.StatusCode
	}
	for language := range languages {
		t.Run(language, func(t *testing.T) {
			r := newReceiver(t, language)
			for _, wrong := range []string{"", "whsec_"} {
				r.env = append(r.env, "WEBHOOK_SECRET="+wrong)
				if !r.startsAtAll(t) {
					continue
				}
				if status := forged(r); status < http.StatusBadRequest {
					t.Errorf("with the secret %q, it accepts a forgery: %d", wrong, status)
				}
				r.stop()
			}
			r.env = append(r.env, "WEBHOOK_SECRET=  "+other+"  "+secret+" ")
			r.start(t)
			if status := forged(r); status != http.StatusUnauthorized {
				t.Errorf("with spaces around its secrets, it answers a forgery with %d", status)
			}
			for name, signedWith := range map[string]string{"first": other, "second": secret} {
				err := torture.Run(t.Context(), torture.Options{
					URL: r.url("/webhook"), Secret: signedWith, Only: []string{"valid"}, Timeout: testtool.Allow(30 * time.Second),
				}, func(result torture.Result) {
					if result.Outcome != torture.Pass {
						t.Errorf("with the %s of two secrets: %s", name, result.Finding)
					}
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
}

const thin = `{"event":"order.updated","resource_type":"order","resource_id":"1","resource_url":"/orders/1",` +
	`"user_id":null,"timestamp":"2026-03-26T12:00:00Z"}`

// A receiver that was down reads what it missed, and acts on it once although
// the server then delivers it, too.
func TestReceiversCatchUp(t *testing.T) {
	testtool.InAll(t)
	for language := range languages {
		t.Run(language, func(t *testing.T) {
			r := newReceiver(t, language)
			s := serve(t, r.url("/webhook"))
			r.env = append(r.env, "TIDINGS_URL="+s.url, "TIDINGS_TOKEN="+s.token)
			r.start(t)
			ids := s.change(t, 3)
			r.expect(t, ids)

			s.request(t, http.MethodPost, "/webhooks/endpoints/receiver/pause", "")
			r.stop()
			missed := s.change(t, 5)
			r.start(t)
			if language == "php" { // which needs a command to catch up
				cmd := exec.CommandContext(t.Context(), r.command[0], "receiver.php", "catch-up")
				cmd.Env = r.env
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				missed = append(ids, missed...) // its memory of them is in the database
			}
			r.expect(t, missed)

			s.request(t, http.MethodPost, "/webhooks/endpoints/receiver/resume", "")
			r.expect(t, append(missed, s.change(t, 1)...))
		})
	}
}

// expect waits until the receiver acted on these webhooks, once on each.
func (r *receiver) expect(t *testing.T, ids []string) {
	t.Helper()
	ids = slices.Sorted(slices.Values(ids))
	waitFor(t, "the webhooks", func() error {
		got, err := r.handled()
		if slices.Sort(got); err == nil && !slices.Equal(got, ids) {
			err = fmt.Errorf("it acted on %q, want %q", got, ids)
		}
		return err
	})
}

// server is a real one.
type server struct {
	url, token string
	changes    int
}

func serve(t *testing.T, endpoint string) *server {
	t.Helper()
	folder := t.TempDir()
	file := filepath.Join(folder, "tidings.yaml")
	config := fmt.Sprintf("webhook: {endpoints: [{name: receiver, url: %q, secret: %q}]}\n", endpoint, secret)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	address := testtool.FreeAddress(t)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	cmd := cli.Command()
	cmd.SetArgs([]string{"serve", "--config", file, "--listen", address, "--data-dir", filepath.Join(folder, "data")})
	cmd.SetErr(io.Discard)
	ended := make(chan error, 1)
	go func() { ended <- cmd.ExecuteContext(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	s := &server{url: "http://" + address}
	waitFor(t, "the server", func() error {
		response, err := http.Get(s.url + "/readyz")
		if err == nil {
			response.Body.Close()
			if response.StatusCode != http.StatusOK {
				err = fmt.Errorf("it answered %s", response.Status)
			}
		}
		return err
	})
	token, err := os.ReadFile(filepath.Join(folder, "data", "admin-token"))
	if err != nil {
		t.Fatal(err)
	}
	s.token = strings.TrimSpace(string(token))
	return s
}

func (s *server) request(t *testing.T, method, path, body string) []byte {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.url+"/api/v1"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+s.token)
	r.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode > 299 {
		t.Fatalf("%s %s: %s %s %v", method, path, response.Status, text, err)
	}
	return text
}

// change creates contexts and returns the ids of the webhooks about what has
// changed since the last call.
func (s *server) change(t *testing.T, n int) (ids []string) {
	t.Helper()
	for range n {
		s.request(t, http.MethodPost, "/contexts", "{}")
	}
	want := s.changes + n
	if s.changes == 0 {
		want++ // the user who made the first one
	}
	var page struct{ Items []struct{ ID string } }
	waitFor(t, "the feed", func() error { // a moment after the change
		if err := json.Unmarshal(s.request(t, http.MethodGet, "/events?limit=1000", ""), &page); err != nil {
			return err
		}
		if len(page.Items) != want {
			return fmt.Errorf("it has %d events, want %d", len(page.Items), want)
		}
		return nil
	})
	for _, e := range page.Items[s.changes:] {
		ids = append(ids, e.ID)
	}
	s.changes = len(page.Items)
	return ids
}

func waitFor(t *testing.T, what string, check func() error) {
	t.Helper()
	for deadline := time.Now().Add(testtool.Allow(30 * time.Second)); ; <-time.After(20 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

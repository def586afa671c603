//go:build unix

package app_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tidings-dev/tidings/internal/datadir"
	"github.com/tidings-dev/tidings/internal/testtool"
)

// reload changes the configuration and reloads it.
func (w *world) reload(change func(settings map[string]any)) answer {
	w.Helper()
	before := w.settings
	w.settings = clone(before).(map[string]any)
	change(w.settings)
	w.configure()
	w.settings = before
	return w.try("admin", "POST", "/webhooks/reload", nil)
}

// clone returns a deep copy of mappings and lists.
func clone(value any) any {
	switch value := value.(type) {
	case map[string]any:
		out := make(map[string]any, len(value))
		for key, item := range value {
			out[key] = clone(item)
		}
		return out
	case []any:
		out := make([]any, len(value))
		for i, item := range value {
			out[i] = clone(item)
		}
		return out
	}
	return value
}

// A named pipe instead of a file is a configuration error in every setting, and does not
// block reloads.
func TestReloadOfNamedPipes(t *testing.T) {
	t.Parallel()
	w := newWorldWith(t, nil, option(reloads))
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	endpoint := func(settings map[string]any) map[string]any {
		return settings["webhook"].(map[string]any)["endpoints"].([]any)[0].(map[string]any)
	}
	for name, change := range map[string]func(settings map[string]any){
		"secret":  func(s map[string]any) { endpoint(s)["secret"] = object{"file": pipe} },
		"secrets": func(s map[string]any) { endpoint(s)["secrets"] = []any{object{"file": pipe}} },
		"header":  func(s map[string]any) { endpoint(s)["headers"] = object{"X-Key": object{"file": pipe}} },
		"credentials": func(s map[string]any) {
			endpoint(s)["http"] = object{"authorization": object{"credentials_file": pipe}}
		},
		"password": func(s map[string]any) {
			endpoint(s)["http"] = object{"basic_auth": object{"username": "a", "password_file": pipe}}
		},
		"authority": func(s map[string]any) { endpoint(s)["http"] = object{"tls_config": object{"ca_file": pipe}} },
		"client secret": func(s map[string]any) {
			endpoint(s)["http"] = object{"oauth2": object{
				"client_id": "a", "client_secret_file": pipe,
				"token_url": "http://127.0.0.1:1",
			}}
		},
		"authority of the token endpoint": func(s map[string]any) {
			endpoint(s)["http"] = object{"oauth2": object{
				"client_id": "a", "client_secret": "b", "token_url": "https://127.0.0.1:1",
				"tls_config": object{"ca_file": pipe},
			}}
		},
		"token": func(s map[string]any) {
			auth := s["auth"].(map[string]any)
			auth["tokens"] = append(auth["tokens"].([]any),
				object{"token": object{"file": pipe}, "user": "new@example.com", "role": "user"})
		},
	} {
		if a := w.reload(change); a.status != 422 || !strings.Contains(a.text, "is a named pipe; name a regular file") {
			t.Errorf("%s: %d %s", name, a.status, a.text)
		}
	}
	if err := errors.Join(os.Remove(w.file), syscall.Mkfifo(w.file, 0o600)); err != nil {
		t.Fatal(err)
	}
	w.wants(w.try("admin", "POST", "/webhooks/reload", nil), 422, "is a named pipe; name a regular file")
	if err := os.Remove(w.file); err != nil {
		t.Fatal(err)
	}
	w.wants(w.reload(func(map[string]any) {}), 200)
}

// A named pipe that replaces a file does not keep the watcher from seeing later changes.
func TestWatcherSkipsNamedPipes(t *testing.T) {
	testtool.InAll(t)
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(webhookSecret), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWorldWith(t, nil, option(reloads),
		object{"name": "other", "url": "http://127.0.0.1:1", "secret": object{"file": secret}})
	endpoints := w.settings["webhook"].(map[string]any)["endpoints"].([]any)
	appears := func(name string) {
		endpoints[0] = object{"name": name, "url": "http://127.0.0.1:1"}
		w.configure()
		w.until("admin", "GET", "/webhooks/endpoints", nil, has(`"`+name+`"`))
	}
	appears("early") // the watcher is running
	for _, file := range []string{secret, w.file} {
		if err := errors.Join(os.Remove(file), syscall.Mkfifo(file, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	w.until("admin", "GET", "/webhooks/endpoints", nil, func(answer) bool { // until the watcher has seen the pipe
		return strings.Contains(w.log.String(), "is a named pipe")
	})
	if err := os.Remove(w.file); err != nil {
		t.Fatal(err)
	}
	endpoints[1] = object{"name": "other", "url": "http://127.0.0.1:1"}
	appears("late")
}

// A reload uses the running values of settings that need a restart.
func TestReloadKeepsSettingsThatNeedARestart(t *testing.T) {
	t.Parallel()
	w := newWorldWith(t, map[string]any{"auth": nil}, option(reloads))
	token, err := os.ReadFile(filepath.Join(w.settings["data_dir"].(string), datadir.AdminToken))
	if err != nil {
		t.Fatal(err)
	}
	admin := strings.TrimSpace(string(token))
	other := t.TempDir()
	for range 2 {
		w.settings["data_dir"], w.settings["files"] = other, object{"max_size": "1KiB"}
		w.configure()
		w.log.clear()
		w.wants(w.try(admin, "POST", "/webhooks/reload", nil), 200)
		w.wants(w.try(admin, "GET", "/webhooks/endpoints", nil), 200)
		if text := w.log.String(); !strings.Contains(text, "data_dir") || !strings.Contains(text, "files.max_size") {
			t.Errorf("the log does not name the settings that need a restart: %s", text)
		}
	}
	if made, err := os.ReadDir(other); err != nil || len(made) > 0 {
		t.Errorf("the reload created %v in the other directory, %v", made, err)
	}
}

// An empty file does not remove all endpoints; {} does.
func TestReloadOfAnEmptyFile(t *testing.T) {
	t.Parallel()
	w := newWorldWith(t, map[string]any{"auth": nil}, option(reloads))
	token, err := os.ReadFile(filepath.Join(w.settings["data_dir"].(string), datadir.AdminToken))
	if err != nil {
		t.Fatal(err)
	}
	admin := strings.TrimSpace(string(token))
	for _, tt := range []struct {
		text            string
		status, present int
	}{{"", 422, 1}, {"# soon\n", 422, 1}, {"---\n", 422, 1}, {"{}", 200, 0}} {
		if err := os.WriteFile(w.file, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		a := w.try(admin, "POST", "/webhooks/reload", nil)
		if a.status != tt.status || tt.status == 422 &&
			!strings.Contains(a.text, "is empty; write {} to remove every setting") {
			t.Errorf("%q: %d %s", tt.text, a.status, a.text)
		}
		present := 0
		for _, e := range items(w.call(admin, "GET", "/webhooks/endpoints", nil)) {
			if fmt.Sprint(e["configured"]) == "true" {
				present++
			}
		}
		if present != tt.present {
			t.Errorf("%q: %d endpoints are configured, want %d", tt.text, present, tt.present)
		}
	}
}

// A change that is reverted right after a reload is noticed, although the files then are
// what the watcher saw before.
func TestWatcherNoticesARevertedChange(t *testing.T) {
	t.Parallel()
	w := newWorldWith(t, nil, option(reloads), object{"name": "drip", "url": "http://127.0.0.1:1"})
	before, err := os.ReadFile(w.file)
	if err != nil {
		t.Fatal(err)
	}
	w.wants(w.reload(func(s map[string]any) {
		s["webhook"].(map[string]any)["endpoints"].([]any)[1].(map[string]any)["name"] = "drip2"
	}), 200, "drip2")
	if err := os.WriteFile(w.file, before, 0o600); err != nil {
		t.Fatal(err)
	}
	w.until("admin", "GET", "/webhooks/endpoints/drip", nil, has(`"configured":true`))
}

// A broken endpoint file holds back no other change, and everything that an operator looks
// at says so until it is mended.
func TestReloadWithABrokenEndpointFile(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	file := func(name string) string { return filepath.Join(folder, name+".yaml") }
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(file(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w := newWorldWith(t, nil, option(reloads))
	mended := func(a answer) bool { return a.status == 200 && !strings.Contains(a.text, "broken") }
	webhook := w.settings["webhook"].(map[string]any)
	webhook["endpoint_files"] = []any{folder + "/*.yaml"}
	write("good", "- {name: first, url: 'http://127.0.0.1:1'}\n")
	write("bad", "- {name: kept, url: 'http://127.0.0.1:1'}\n")
	w.configure()
	w.wants(w.try("admin", "POST", "/webhooks/reload", nil), 200)
	w.until("reader", "GET", "/webhooks/problems", nil, mended)

	write("good", "- {name: second, url: 'http://127.0.0.1:1'}\n")
	if err := errors.Join(os.Remove(file("bad")), syscall.Mkfifo(file("bad"), 0o600)); err != nil {
		t.Fatal(err)
	}
	write("new", "- {name: kept, url: 'http://127.0.0.1:1'}\n")
	w.log.clear()
	pipe := "bad.yaml: read " + file("bad") + ": is a named pipe; name a regular file; " +
		"its last good version stays in effect"
	taken := `new.yaml:1:10: webhook.endpoints[3].name: webhook.endpoints[1] is also named \"kept\"; ` +
		"names must be unique; the file is skipped, since it has no good version yet"
	w.wants(w.try("admin", "POST", "/webhooks/reload", nil), 200, pipe, taken)
	w.wants(w.try("admin", "GET", "/webhooks/endpoints/second", nil), 200, `"configured":true`)
	w.wants(w.try("admin", "GET", "/webhooks/endpoints/kept", nil), 200, `"configured":true`)
	w.wants(w.try("reader", "GET", "/webhooks/problems", nil), 200, pipe, `"reason":"broken file"`, `"since":"2`)
	w.wants(w.try("reader", "GET", "/webhooks/status", nil), 200, "is a named pipe", "is also named", `"broken_since":"2`)
	w.logged("an endpoint file is broken", "named pipe")

	write("other", "- {name: third, url: 'http://127.0.0.1:1'}\n")
	if err := os.Remove(file("bad")); err != nil {
		t.Fatal(err)
	}
	w.wants(w.try("admin", "POST", "/webhooks/reload", nil), 200)
	w.until("reader", "GET", "/webhooks/problems", nil, mended)
	w.until("reader", "GET", "/webhooks/status", nil, mended)
}

// A refused reload lists every problem with its place.
func TestRefusedReloadListsItsProblems(t *testing.T) {
	t.Parallel()
	w := newWorldWith(t, nil, option(reloads))
	if err := os.WriteFile(w.file, []byte("listen: [here]\nwebhook: {endpoints: [{url: 'http://a', nosuchthing: 1}]}\n"),
		0o600); err != nil {
		t.Fatal(err)
	}
	a := w.try("admin", "POST", "/webhooks/reload", nil)
	w.wants(a, 422, "the configuration is invalid; the previous one stays in effect",
		fmt.Sprintf(`{"message":"listen: expected a string","location":"%s:1:9"}`, w.file),
		fmt.Sprintf(`"location":"%s:2:41"}`, w.file), "unknown key; valid keys are")
}

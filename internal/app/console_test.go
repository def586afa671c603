package app_test

import (
	"bytes"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/internal/auth"
	"github.com/tidings-dev/tidings/internal/testdb"
)

// visitor is a browser.
type visitor struct {
	*world
	client *http.Client
	header http.Header
	text   string // of the last answer
}

func (w *world) visitor() *visitor {
	jar, err := cookiejar.New(nil)
	if err != nil {
		w.Fatal(err)
	}
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &visitor{world: w, client: &http.Client{Jar: jar, CheckRedirect: stay}, header: http.Header{}}
}

// send opens a page, or submits a form if it is not nil.
func (v *visitor) send(path string, form url.Values) *http.Response {
	v.Helper()
	method, body := http.MethodGet, ""
	if form != nil {
		method, body = http.MethodPost, form.Encode()
	}
	r, err := http.NewRequestWithContext(v.Context(), method, v.url+path, strings.NewReader(body))
	if err != nil {
		v.Fatal(err)
	}
	r.Header = v.header.Clone()
	r.Header.Set("Accept", "text/html")
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	response, err := v.client.Do(r)
	if err != nil {
		v.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		v.Fatal(err)
	}
	v.text = string(text)
	return response
}

func (v *visitor) signIn(token string) {
	v.Helper()
	v.expect("/console/sign-in", url.Values{"token": {token}}, 303, "/console/")
}

// expect checks the status of a page or form, and where it redirects to.
func (v *visitor) expect(path string, form url.Values, status int, to string) *http.Response {
	v.Helper()
	got := v.send(path, form)
	if got.StatusCode != status || got.Header.Get("Location") != to {
		v.Errorf("%s: %d to %q, want %d to %q", path, got.StatusCode, got.Header.Get("Location"), status, to)
	}
	return got
}

var hashedName = regexp.MustCompile(`assets/(\w+(?:-\w+)?)\.[0-9a-f]{12}\.`)

// looksAsBefore compares the page with its file.
func (v *visitor) looksAsBefore(name string) {
	v.Helper()
	got, file := hashedName.ReplaceAllString(v.text, "assets/$1.HASH."), filepath.Join("testdata", name+".html")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			v.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		v.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		v.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

// A token starts a session, which ends when the token is removed.
func TestConsoleSignIn(t *testing.T) {
	t.Parallel()
	w := newWorldWith(t, map[string]any{}, option(reloads))
	v := w.visitor()
	v.expect("/", nil, 303, "/console/")
	v.expect("/console", nil, 301, "/console/")
	v.expect("/console/events?types=provider.*", nil, 303,
		"/console/sign-in?to=%2Fconsole%2Fevents%3Ftypes%3Dprovider.%2A")
	v.expect("/console/sign-in", nil, 200, "")
	for token, status := range map[string]int{"": 401, "unknown": 401, "ann": 403} { // ann's role has no access
		v.expect("/console/sign-in", url.Values{"token": {token}}, status, "")
	}
	for _, to := range []string{"//evil.example/console/", "https://evil.example", "/api/v1/users", `/console/\evil`} {
		got := w.visitor().send("/console/sign-in", url.Values{"token": {"admin"}, "to": {to}})
		if at := got.Header.Get("Location"); at != "/console/" {
			t.Errorf("signing in with to=%q redirects to %q", to, at)
		}
	}
	in := v.expect("/console/sign-in", url.Values{"token": {" admin\n"}, "to": {"/console/events"}}, 303,
		"/console/events")
	cookie := in.Cookies()[0]
	if !cookie.HttpOnly || cookie.SameSite != http.SameSiteStrictMode || cookie.Secure || cookie.Name != "tidings" ||
		strings.Contains(cookie.Value, "admin") {
		t.Errorf("cookie %v", cookie)
	}
	tls := w.visitor()
	tls.header.Set("X-Forwarded-Proto", "https")
	secure := tls.send("/console/sign-in", url.Values{"token": {"admin"}}).Cookies()[0]
	if !secure.Secure || secure.Name != "__Host-tidings" || secure.Path != "/" {
		t.Errorf("cookie behind TLS %v", secure)
	}
	for _, page := range []string{"", "endpoints/receiver", "events", "attempts", "status"} {
		v.expect("/console/"+page, nil, 200, "")
	}
	v.expect("/api/v1/providers", nil, 401, "") // the cookie is valid only for the console
	v.expect("/console/reload", url.Values{}, 303, "/console/status")

	other := w.visitor()
	other.expect("/console/sign-in", url.Values{"token": {"admin"}}, 303, "/console/")
	other.expect("/console/sign-out", url.Values{}, 303, "/console/sign-in")
	other.expect("/console/status", nil, 303, "/console/sign-in?to=%2Fconsole%2Fstatus")

	// The session ends when its token is removed.
	w.settings["auth"] = map[string]any{"tokens": []any{
		map[string]any{"sha256": auth.Hash("next"), "user": "admin@example.com", "role": "admin"},
	}}
	w.configure()
	v.expect("/console/reload", url.Values{}, 303, "/console/status")
	v.expect("/console/", nil, 303, "/console/sign-in?to=%2Fconsole%2F")
	v.expect("/console/sign-in?to=%2Fconsole%2Fevents", nil, 200, "")
	v.looksAsBefore("session-over")
	other.expect("/console/sign-in", nil, 200, "")
	other.looksAsBefore("sign-in") // whoever signed out knows it
	other.expect("/console/sign-in", url.Values{"token": {"admin"}}, 401, "")
	other.looksAsBefore("sign-in-refused")

	guesser := w.visitor()
	status := 0
	for range 40 {
		if status = guesser.send("/console/sign-in", url.Values{"token": {"guess"}}).StatusCode; status == 429 {
			break
		}
	}
	if status != 429 {
		t.Errorf("the last guess: %d", status)
	}
	// Whoever has a token signs in from the same address, as behind one proxy.
	w.visitor().expect("/console/sign-in", url.Values{"token": {"next"}}, 303, "/console/")
}

// Only a trusted proxy can name the user.
func TestConsoleTrustedHeader(t *testing.T) {
	t.Parallel()
	trusted := func(network string) *world {
		return newWorld(t, map[string]any{"console": map[string]any{"trusted_header": map[string]any{
			"name": "X-Forwarded-User", "networks": []any{network},
			"roles": map[string]any{"sam@example.com": "admin", "li@example.com": "operator", "*": "reader"},
		}}})
	}
	w := trusted("127.0.0.0/8")
	for user, want := range map[string]struct{ pause, reload int }{
		"sam@example.com": {303, 303}, "li@example.com": {303, 403}, "eve@example.com": {403, 403},
	} {
		v := w.visitor()
		v.header.Set("X-Forwarded-User", user)
		v.expect("/console/", nil, 200, "")
		if got := v.send("/console/endpoints/receiver/pause", url.Values{}).StatusCode; got != want.pause {
			t.Errorf("pause as %s: %d, want %d", user, got, want.pause)
		}
		if got := v.send("/console/reload", url.Values{}).StatusCode; got != want.reload {
			t.Errorf("reload as %s: %d, want %d", user, got, want.reload)
		}
		// The proxy signs people in, so that another token would not help.
		v.expect("/console/", nil, 200, "")
		if strings.Contains(v.text, "token") || strings.Contains(v.text, "Ask an admin.") != (want.pause == 403) {
			t.Errorf("%s is told how to sign in again, or not told that a reader can't act", user)
		}
	}
	stranger := trusted("10.0.0.0/8").visitor()
	stranger.header.Set("X-Forwarded-User", "sam@example.com")
	stranger.expect("/console/", nil, 303, "/console/sign-in?to=%2Fconsole%2F")
}

// A session is valid on every replica and after a restart, and ends everywhere at once.
// The database contains neither its cookie nor its token.
func TestConsoleSessionIsShared(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		token := "token-of-somebody-0123456789"
		settings = maps.Clone(settings)
		_, shared := settings["database_url"]
		if !shared {
			settings["data_dir"] = t.TempDir()
		}
		settings["auth"] = map[string]any{"tokens": []any{
			map[string]any{"token": token, "user": "sam@example.com", "role": "admin"},
		}}
		w := newWorldWith(t, settings, option(reloads))
		v := w.visitor()
		in := v.expect("/console/sign-in", url.Values{"token": {token}}, 303, "/console/")
		if !shared {
			w.halt()
		}
		other := newWorldWith(t, settings, option(reloads))
		elsewhere := &visitor{world: other, client: v.client, header: v.header}
		elsewhere.expect("/console/status", nil, 200, "")
		err := filepath.WalkDir(w.settings["data_dir"].(string), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			content, err := os.ReadFile(path)
			for _, secret := range []string{token, in.Cookies()[0].Value} {
				if bytes.Contains(content, []byte(secret)) {
					t.Errorf("%s contains a secret", path)
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		elsewhere.expect("/console/sign-out", url.Values{}, 303, "/console/sign-in")
		v.client.Jar.SetCookies(&url.URL{Scheme: "http", Host: "127.0.0.1"}, in.Cookies())
		elsewhere.expect("/console/", nil, 303, "/console/sign-in?to=%2Fconsole%2F")
	})
}

// The status says what a configuration that was refused would have changed, without
// secrets, and afterwards what the next one did change.
func TestConsoleRefusedChanges(t *testing.T) {
	t.Parallel()
	w := newWorldWith(t, map[string]any{}, option(reloads))
	v := w.visitor()
	v.signIn("admin")
	const other = "whsec_b3RoZXIxb3RoZXIxb3RoZXIxb3RoZXIx"
	endpoint := w.settings["webhook"].(map[string]any)["endpoints"].([]any)[0].(map[string]any)
	endpoint["timeout"], endpoint["secret"] = "9s", other
	endpoint["retry"] = object{"shedule": []any{"5s"}}
	w.configure()
	w.wants(w.try("admin", "POST", "/webhooks/reload", nil), 422, "did you mean")
	shows := func(wants ...string) {
		t.Helper()
		v.expect("/console/status", nil, 200, "")
		for _, want := range wants {
			if !strings.Contains(v.text, want) {
				t.Errorf("the status lacks %q:\n%s", want, v.text)
			}
		}
		if strings.Contains(v.text, other) || strings.Contains(v.text, webhookSecret) {
			t.Errorf("the status has a secret:\n%s", v.text)
		}
	}
	changes := "  receiver:\n<del>-   secret: set</del>\n<ins>&#43;   secret: set (another)</ins>\n" +
		"<del>-   timeout: 15s</del>\n<ins>&#43;   timeout: 9s</ins>"
	shows("What would have changed", changes+"\n<ins>&#43;   retry ← unknown key")
	w.wants(w.try("admin", "GET", "/webhooks/status", nil), 200, `{"endpoint":"receiver","key":"timeout",`+
		`"change":"changed","before":"15s","after":"9s"}`)
	delete(endpoint, "retry")
	w.configure()
	w.wants(w.try("admin", "POST", "/webhooks/reload", nil), 200)
	shows("What changed", changes)
	if strings.Contains(v.text, "What would have changed") {
		t.Errorf("the status still has what was refused:\n%s", v.text)
	}
}

// A session ends twelve hours after its last use, and seven days after its beginning
// however much it is used. Use renews it.
func TestConsoleSessionLimits(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		settings = inFolder(t, settings)
		w := newWorld(t, settings)
		db, schema := database(t, settings)
		age := func(since, used time.Duration) {
			t.Helper()
			_, err := db.ExecContext(t.Context(), "UPDATE "+schema+"tidings_sessions SET since = since - $1, used = used - $2",
				since.Microseconds(), used.Microseconds())
			if err != nil {
				t.Fatal(err)
			}
		}
		for _, test := range []struct {
			name        string
			since, used time.Duration
			ended       bool
		}{
			{"idle for less", 12 * time.Hour, 12*time.Hour - time.Minute, false},
			{"idle", 13 * time.Hour, 12*time.Hour + time.Minute, true},
			{"not old enough", 7*24*time.Hour - time.Hour, time.Minute, false},
			{"old", 7*24*time.Hour + time.Minute, time.Minute, true},
		} {
			if _, err := db.ExecContext(t.Context(), "DELETE FROM "+schema+"tidings_sessions"); err != nil {
				t.Fatal(err)
			}
			v := w.visitor()
			v.signIn("admin")
			age(test.since, test.used)
			if got := v.send("/console/status", nil).StatusCode; test.ended != (got == 303) {
				t.Errorf("%s: %d", test.name, got)
			}
			if test.name == "idle for less" {
				age(0, 11*time.Hour)
				v.expect("/console/status", nil, 200, "") // the use above counts
			}
			if test.ended { // and it is not listed to others
				other := w.visitor()
				other.signIn("admin")
				if other.expect("/console/status", nil, 200, ""); strings.Count(other.text, "/end\"") != 1 {
					t.Errorf("%s: the status lists it:\n%s", test.name, other.text)
				}
			}
		}
	})
}

// While the database is away every page says so and nobody is signed out; afterwards
// people continue where they were.
func TestConsoleWithoutDatabase(t *testing.T) {
	t.Parallel()
	server := testdb.OwnServer(t)
	at, err := server.Create("console")
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, map[string]any{"database_url": at, "console": object{"trusted_header": object{
		"name": "X-Forwarded-User", "networks": []any{"127.0.0.0/8"}, "roles": object{"*": "operator"},
	}}})
	v, proxied := w.visitor(), w.visitor()
	v.signIn("admin")
	proxied.header.Set("X-Forwarded-User", "sam@example.com")
	proxied.expect("/console/", nil, 200, "")
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	away := func(v *visitor, path string, form url.Values) {
		t.Helper()
		got := v.expect(path, form, 503, "")
		if got.Header.Get("Retry-After") == "" || !strings.Contains(v.text, "The database does not answer") {
			t.Errorf("%s: %v\n%s", path, got.Header, v.text)
		}
	}
	for _, page := range []string{"", "endpoints/receiver", "events", "attempts", "parked", "replays", "status"} {
		away(v, "/console/"+page, nil)
		away(proxied, "/console/"+page, nil)
	}
	away(v, "/console/endpoints/receiver/pause", url.Values{})
	away(proxied, "/console/endpoints/receiver/pause", url.Values{})
	stranger := w.visitor()
	stranger.expect("/console/sign-in", nil, 200, "")
	if stranger.expect("/console/sign-in", url.Values{"token": {"admin"}}, 503, ""); !strings.Contains(stranger.text,
		"Nobody can sign in at the moment") {
		t.Errorf("signing in: %s", stranger.text)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	w.becomes("the database answers", func() bool { return v.send("/console/", nil).StatusCode == 200 })
	proxied.expect("/console/endpoints/receiver/pause", url.Values{}, 303, "/console/endpoints/receiver")
}

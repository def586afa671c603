package browser

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

const (
	adminToken    = "admin-0123456789abcdef"
	operatorToken = "operator-0123456789abcdef"
	readerToken   = "reader-0123456789abcdef"
	shopToken     = "shop-0123456789abcdef"
)

// night is a server with three endpoints: one is paused, and one rejects invoices until
// it is repaired.
type night struct {
	*testing.T
	url      string
	repaired atomic.Bool
	got      atomic.Int64
}

func newNight(t *testing.T) *night {
	t.Helper()
	n := &night{T: t}
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.URL.Path == "/search" && bytes.Contains(body, []byte("invoice")) && !n.repaired.Load() {
			http.Error(w, `{"detail":"unknown type: <script>alert(1)</script>"}`, http.StatusUnprocessableEntity)
			return
		}
		n.got.Add(1)
	}))
	t.Cleanup(receiver.Close)
	n.url, _ = newServer(t, fmt.Sprintf(`
    - {name: audit, url: "%s/audit"}
    - {name: crm, url: "%s/crm"}
    - {name: search, url: "%s/search"}
`, receiver.URL, receiver.URL, receiver.URL))
	n.post(adminToken, "/api/v1/webhooks/endpoints/crm/pause", `{"comment": "migration, back on Monday"}`)
	for i := range 60 { // few invoices among many orders, so that the endpoint is not down
		n.post(shopToken, "/api/v1/events", fmt.Sprintf(`{"event": "order.created", "resource_id": "%d"}`, i))
		if i%10 == 5 {
			n.post(shopToken, "/api/v1/events", fmt.Sprintf(`{"event": "invoice.created", "resource_id": "%d"}`, i))
		}
	}
	return n
}

// newServer starts a relay with some endpoints, and returns its URL and its file.
func newServer(t *testing.T, endpoints string) (url, file string) {
	t.Helper()
	binary := os.Getenv("TIDINGS")
	if binary == "" {
		t.Skip("TIDINGS, the path of the binary, is not set; run the tests in folder test")
	}
	folder := t.TempDir()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	file = filepath.Join(folder, "tidings.yaml")
	text := fmt.Sprintf(`listen: %s
data_dir: %s
types: {order: [created], invoice: [created]}
auth:
  tokens:
    - {token: %s, user: sam@example.com, role: admin}
    - {token: %s, user: li@example.com, role: operator}
    - {token: %s, user: ann@example.com, role: reader}
    - {token: %s, user: shop, role: publisher}
webhook:
  endpoints:%s`, address, folder, adminToken, operatorToken, readerToken, shopToken, endpoints)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	server := exec.CommandContext(ctx, binary, "relay", "--config", file)
	server.Cancel = func() error { return server.Process.Signal(os.Interrupt) }
	var log bytes.Buffer
	server.Stderr = &log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		_ = server.Wait()
		if t.Failed() {
			t.Logf("the server's log:\n%s", log.String())
		}
	})
	url = "http://" + address
	for deadline := time.Now().Add(within); ; {
		if r, err := http.Get(url + "/readyz"); err == nil {
			r.Body.Close()
			if r.StatusCode == http.StatusOK {
				return url, file
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("the server did not start: %s", log.String())
		}
		<-time.After(50 * time.Millisecond)
	}
}

func (n *night) post(token, path, body string) {
	n.Helper()
	r, err := http.NewRequest(http.MethodPost, n.url+path, strings.NewReader(body))
	if err != nil {
		n.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		n.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode >= 300 {
		text, _ := io.ReadAll(response.Body)
		n.Fatalf("%s: %s %s", path, response.Status, text)
	}
}

// seesProblems waits until the overview shows both problems.
func (n *night) seesProblems(b *tab) {
	n.Helper()
	b.open("/console/")
	for range 100 {
		if eval[bool](b, "document.body.innerText.includes('Show 6 parked')") {
			break
		}
		<-time.After(100 * time.Millisecond)
		b.open("/console/")
	}
	b.sees("2 endpoints need you")
	b.sees("Show 6 parked")
	b.sees("migration, back on Monday")
}

// An operator signs in, resolves both problems and signs out, using the mouse.
func TestNight(t *testing.T) {
	n := newNight(t)
	b := newTab(t, n.url)
	b.open("/console/parked") // redirects to the sign-in and back
	b.sees("Paste an API token")
	b.do(chromedp.SendKeys(chromedp.ID("token"), adminToken+"\r"))
	b.sees("Dead")
	n.seesProblems(b)
	b.click(".problem", "Resume")
	b.until("a dialog", "document.querySelector('dialog[open]')")
	b.click("dialog[open]", "Resume crm")
	b.sees("crm is resumed.")
	b.click(".problem", "Show 6 parked")
	b.sees("By reason")
	b.sees("<script>alert(1)</script>")
	b.click(".chosen", "Choose all 6 that match")
	b.click(".chosen", "Retry 6")
	b.sees("Retry 6 parked events now?")
	n.repaired.Store(true) // from now on they also succeed on their own when due
	b.click(".alone", "Retry 6 parked events")
	b.sees("will be tried now.")
	b.open("/console/")
	b.sees("All 3 endpoints are healthy") // the page refreshes itself
	if got := n.got.Load(); got != 3*66 {
		t.Errorf("%d webhooks arrived, want %d", got, 3*66)
	}
	b.open("/console/endpoints/search")
	b.click(".do", "Test now")
	b.sees("webhook.ping to search answered 200")
	b.click(".do", "Pause")
	b.do(chromedp.SendKeys(chromedp.CSS("dialog[open] textarea"), "lunch"))
	b.click("dialog[open]", "Pause search")
	b.sees("sam@example.com paused it: “lunch”")
	b.open("/console/status")
	b.sees("lunch")
	b.click(".who", "sam")
	b.click(".who", "Sign out")
	b.sees("Paste an API token")
}

// The keyboard suffices to resume an endpoint and find an event.
func TestKeyboard(t *testing.T) {
	n := newNight(t)
	b := newTab(t, n.url)
	b.signIn(adminToken)
	n.seesProblems(b)
	press := func(keys string) { b.do(chromedp.KeyEvent(keys)) }
	focus := func(text string) {
		for range 60 {
			press(kb.Tab)
			if eval[bool](b, fmt.Sprintf("document.activeElement.textContent.trim().startsWith(%q)", text)) {
				return
			}
		}
		t.Fatalf("Tab does not reach %s", text)
	}
	focus("Resume")
	press(kb.Enter)
	b.until("a dialog", "document.querySelector('dialog[open]')")
	press(kb.Escape)
	b.until("the focus is back", "document.activeElement.textContent.startsWith('Resume')")
	press(kb.Enter)
	focus("Resume crm")
	press(kb.Enter)
	b.sees("crm is resumed.")
	b.open("/console/events")
	press("j")
	press("j")
	press("k")
	b.until("a row has the focus", "document.activeElement.closest('tbody tr')")
	press(kb.Enter)
	b.sees("What became of it")
	press("/")
	b.until("find has the focus", "document.activeElement.id === 'q'")
	b.do(chromedp.Evaluate[chromedp.Void]("void (document.activeElement.value = '')")) // the driver also types "/"
	press("audit\r")
	b.sees("Effective configuration")
	press("?")
	b.sees("next, previous row")
}

// Every page and action works without JavaScript.
func TestWithoutScript(t *testing.T) {
	n := newNight(t)
	b := newTab(t, n.url)
	b.withoutScript()
	b.open("/console/sign-in")
	b.do(chromedp.SendKeys(chromedp.ID("token"), adminToken+"\r"))
	b.sees("All endpoints")
	for page, want := range map[string]string{
		"events": "Newest first", "attempts": "Outcome", "parked": "Parked", "replays": "New replay", "status": "Replicas",
		"endpoints/crm": "Effective configuration", "events/1": "What became of it",
	} {
		b.open("/console/" + page)
		b.sees(want)
	}
	b.open("/console/endpoints/crm/resume")
	b.click(".alone", "Resume crm")
	b.sees("crm is resumed.")
}

// A reader sees everything but can change nothing, and the page says why.
func TestReader(t *testing.T) {
	n := newNight(t)
	b := newTab(t, n.url)
	b.signIn(readerToken)
	n.seesProblems(b)
	b.sees("Your role is reader, which is read-only. Ask an admin, or sign in with another token.")
	if n := eval[int](b, "document.querySelectorAll('.problem form, dialog:not(#keys)').length"); n != 0 {
		t.Errorf("%d forms, want 0", n)
	}
	status := eval[int](b, `(() => { const r = new XMLHttpRequest(); r.open('POST', `+
		`'/console/endpoints/crm/resume', false);`+
		` r.send(); return r.status })()`)
	if status != http.StatusForbidden {
		t.Errorf("resume by a reader: status %d", status)
	}
}

// axe returns axe-core's script.
func axe(t *testing.T) string {
	t.Helper()
	script, err := os.ReadFile(os.Getenv("AXE"))
	if err != nil {
		t.Skip("AXE, the path of axe-core's script, is not set")
	}
	return string(script)
}

// accessible checks the page that is open: axe-core finds no problems, and nothing scrolls
// horizontally.
func (b *tab) accessible(page, axe string, widths ...int64) {
	b.Helper()
	// The rules of a sheet that failed to load can't be read.
	const styled = "(() => { try { return [...document.styleSheets].some(s => s.cssRules.length) } " +
		"catch { return false } })()"
	if !eval[bool](b, styled) { // contrasts and widths would mean nothing
		b.Fatalf("%s: no style sheet was loaded", page)
	}
	for _, width := range widths {
		b.size(width)
		if wide := eval[int64](b, "document.documentElement.scrollWidth"); wide > width {
			b.Errorf("%s scrolls horizontally: %d pixels wide in a window of %d", page, wide, width)
		}
		if width == 320 {
			continue
		}
		for _, scheme := range []string{"light", "dark"} {
			b.scheme(scheme)
			b.do(chromedp.Evaluate[chromedp.Void](axe))
			b.do(chromedp.Evaluate[chromedp.Void](`window.found = null;` +
				`axe.run().then(r => { window.found = r.violations })`))
			b.until("axe has run", "window.found")
			for _, v := range eval[[]string](b, "window.found.map(v => v.id + ': ' + v.help + ' ' + v.nodes.slice(0, 3)"+
				".map(n => n.html.slice(0, 200)).join(' | '))") {
				b.Errorf("%s at %d, %s: %s", page, width, scheme, v)
			}
		}
	}
}

// axe-core finds no accessibility problems, and no page scrolls horizontally.
func TestAccessible(t *testing.T) {
	n, axe := newNight(t), axe(t)
	b := newTab(t, n.url)
	check := func(page string) { b.accessible(page, axe, 320, 360, 900, 1440) }
	b.open("/console/sign-in")
	check("sign-in")
	b.signIn(adminToken)
	n.seesProblems(b)
	for _, page := range []string{
		"", "endpoints/crm", "endpoints/search", "events", "events/2", "attempts", "attempts?endpoint=none", "parked",
		"parked?endpoint=search&all=1", "parked/discard?endpoint=search", "replays?endpoint=audit&what=missed&plan=1",
		"status", "events/none", "endpoints/crm/resume", "../api/v1/docs#pauseEndpoint",
	} {
		b.open("/console/" + page)
		check(page)
	}
	if file := os.Getenv("PICTURE"); file != "" {
		b.scheme("light")
		b.size(1280)
		b.open("/console/?range=1h")
		b.picture(file)
	}
}

// assetName is the name of an asset in a golden page.
var assetName = regexp.MustCompile(`^(\w+(?:-\w+)?)\.HASH\.(\w+)$`)

// The same holds for the golden pages, which show what a night does not have: the welcome,
// a broken configuration, drift, several replicas, changes of parked events.
func TestGoldenPagesAccessible(t *testing.T) {
	axe := axe(t)
	var golden []string
	for _, folder := range []string{"operator/testdata/console", "internal/app/testdata"} {
		found, err := filepath.Glob("../../" + folder + "/*.html")
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %d golden pages, %v", folder, len(found), err)
		}
		golden = append(golden, found...)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		file := "../../" + strings.TrimPrefix(r.URL.Path, "/")
		if m := assetName.FindStringSubmatch(path.Base(r.URL.Path)); m != nil {
			file = "../../internal/console/assets/" + m[1] + "." + m[2]
			if m[2] == "js" { // the page must stay as it is
				file = ""
			}
		}
		http.ServeFile(w, r, file)
	}))
	t.Cleanup(server.Close)
	b := newTab(t, server.URL)
	for _, file := range golden {
		b.open(strings.TrimPrefix(file, "../.."))
		// Notes and dialogs that wait for their time are part of the page.
		b.do(chromedp.Evaluate[chromedp.Void](`document.querySelectorAll('main [hidden]').forEach(e => e.hidden = false)`))
		b.accessible(filepath.Base(file), axe, 360, 1440)
	}
}

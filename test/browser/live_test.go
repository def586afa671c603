package browser

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// link is a way to a server that can be cut.
type link struct {
	listener net.Listener
	to       string
	mu       sync.Mutex
	cut      bool
	open     map[net.Conn]bool
}

// newLink returns a link to a server, and its URL.
func newLink(t *testing.T, server string) (l *link, url string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l = &link{listener: listener, to: strings.TrimPrefix(server, "http://"), open: make(map[net.Conn]bool)}
	t.Cleanup(func() {
		listener.Close()
		l.set(true)
	})
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go l.carry(conn)
		}
	}()
	return l, "http://" + listener.Addr().String()
}

// carry copies bytes in both directions.
func (l *link) carry(browser net.Conn) {
	server, err := net.Dial("tcp", l.to)
	if err != nil {
		browser.Close()
		return
	}
	l.mu.Lock()
	l.open[browser], l.open[server] = true, true
	cut := l.cut
	l.mu.Unlock()
	end := func() {
		browser.Close()
		server.Close()
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.open, browser)
		delete(l.open, server)
	}
	if cut {
		end()
		return
	}
	go func() {
		defer end()
		_, _ = io.Copy(server, browser) // until one of them ends
	}()
	defer end()
	_, _ = io.Copy(browser, server)
}

// set cuts or restores the link.
func (l *link) set(cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = cut
	for conn := range l.open {
		if cut {
			conn.Close()
		}
	}
}

func (n *night) tell(id string) {
	n.Helper()
	n.post(shopToken, "/api/v1/events", fmt.Sprintf(`{"event": "order.created", "resource_id": %q}`, id))
}

// The event stream breaks: the page stays, says since when the server has not answered, and
// blocks actions. When the stream is back, the page is live again.
func TestStreamBreaks(t *testing.T) {
	n := newNight(t)
	way, url := newLink(t, n.url)
	b := newTab(t, url)
	b.signIn(adminToken)
	b.open("/console/events")
	n.tell("before")
	b.sees("order/before")
	way.set(true)
	b.until("the page says that nobody answers", "!document.querySelector('#away').hidden")
	b.sees("The server has not answered since")
	b.sees("order/before")
	const off = "[...document.querySelectorAll('form[method=post] button')].every(b => b.ariaDisabled === %s)"
	b.until("actions are off", fmt.Sprintf(off, "'true'"))
	n.tell("meanwhile")
	way.set(false)
	b.until("the page is live again", "document.querySelector('#away').hidden")
	b.sees("order/meanwhile")
	b.until("actions are on", fmt.Sprintf(off, "null"))
	n.tell("after")
	b.sees("order/after")
}

// A list stays as it is while somebody reads it, and says how many rows are new.
func TestTail(t *testing.T) {
	n := newNight(t)
	b := newTab(t, n.url)
	b.signIn(readerToken)
	for _, page := range []string{"events", "attempts?endpoint=audit"} {
		b.open("/console/" + page)
		b.sees("new ones appear here")
		b.press("j")
		b.until("a row has the focus", "document.activeElement.closest('tbody tr')")
		top := eval[string](b, "document.querySelector('tr[data-at]').dataset.at")
		for i := range 3 {
			n.tell(fmt.Sprintf("%.4s-%d", page, i))
		}
		b.sees("3 more while you read")
		if at := eval[string](b, "document.querySelector('tr[data-at]').dataset.at"); at != top {
			t.Errorf("%s: the list moved from %s to %s", page, top, at)
		}
		b.click(".live", "3 more")
		b.sees(fmt.Sprintf("order/%.4s-2", page))
		b.until("nothing more", "document.querySelector('#more').hidden")
		b.do(chromedp.Evaluate[chromedp.Void]("window.scrollTo(0, 400)"))
		n.tell(fmt.Sprintf("%.4s-more", page))
		b.sees("1 more while you read")
		b.do(chromedp.Evaluate[chromedp.Void]("window.scrollTo(0, 0)")) // nobody reads it now
		b.sees(fmt.Sprintf("order/%.4s-more", page))
	}
	b.open("/console/events")
	b.sees("new ones appear here")
	var many []string
	for i := range 300 {
		many = append(many, fmt.Sprintf(`{"event": "order.created", "resource_id": "many-%d"}`, i))
	}
	n.post(shopToken, "/api/v1/events", "["+strings.Join(many, ",")+"]")
	b.sees("order/many-299")
	b.sees("260 more arrived in between")
}

// A session ends elsewhere: the page says so, and what was typed stays and can be submitted
// after signing in again.
func TestSessionEnds(t *testing.T) {
	n := newNight(t)
	b, admin := newTab(t, n.url), newTab(t, n.url)
	b.signIn(operatorToken)
	admin.signIn(adminToken)
	b.open("/console/endpoints/audit")
	b.click(".do", "Pause")
	b.do(chromedp.SendKeys(chromedp.CSS("dialog[open] textarea"), "new certificate"))
	admin.open("/console/status")
	admin.click("tr:has(th):not(:has(.soft))", "End")
	admin.sees("The session has ended.")
	b.until("the page says that the session has ended", "!document.querySelector('#ended').hidden")
	b.do(chromedp.Evaluate[chromedp.Void](fmt.Sprintf( // as in another tab
		`void fetch('/console/sign-in', {method: 'POST', body: new URLSearchParams({token: %q})})`, operatorToken)))
	b.until("the page has the session", "document.querySelector('#ended').hidden")
	b.click("dialog[open]", "Pause audit")
	b.sees("li@example.com paused it: “new certificate”")
}

// Of two operators who do the same, the second is told what the first did.
func TestTwoOperators(t *testing.T) {
	n := newNight(t)
	sam, li := newTab(t, n.url), newTab(t, n.url)
	sam.signIn(adminToken)
	li.signIn(operatorToken)
	n.seesProblems(sam)
	sam.open("/console/endpoints/audit")
	sam.click(".do", "Pause")
	sam.until("a dialog", "document.querySelector('dialog[open]')")
	li.open("/console/endpoints/audit")
	li.click(".do", "Pause")
	li.do(chromedp.SendKeys(chromedp.CSS("dialog[open] textarea"), "mine"))
	li.click("dialog[open]", "Pause audit")
	li.sees("audit is paused.")
	sam.click("dialog[open]", "Pause audit")
	sam.sees("Not done: li@example.com paused audit")
	sam.sees("li@example.com paused it: “mine”")
	sam.click(".do", "Resume")
	sam.click("dialog[open]", "Resume audit")
	sam.sees("audit is resumed.")

	sam.open("/console/parked?endpoint=search&all=1")
	sam.click(".chosen", "Retry 6")
	sam.sees("Retry 6 parked events now?")
	li.open("/console/parked/discard?endpoint=search")
	li.sees("Discard 6 parked events?")
	li.do(chromedp.SendKeys(chromedp.CSS(".alone textarea"), "test data"))
	li.click(".alone", "Discard 6 parked events")
	li.sees("6 events discarded.")
	sam.click(".alone", "Retry 6 parked events")
	sam.sees("Not done: none of the selection is still parked.")
	sam.sees("li@example.com discarded 6 parked events of search")
}

// While a proxy answers 502, the page tries again after 1, 2, 4, 8 and then 15 seconds.
func TestStreamIsRefused(t *testing.T) {
	n := newNight(t)
	to, err := url.Parse(n.url)
	if err != nil {
		t.Fatal(err)
	}
	var refuse atomic.Bool
	pass := httputil.NewSingleHostReverseProxy(to)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if refuse.Load() && r.URL.Path != "/console/sign-in" {
			http.Error(w, "no server", http.StatusBadGateway)
			return
		}
		pass.ServeHTTP(w, r)
	}))
	t.Cleanup(proxy.CloseClientConnections)
	b := newTab(t, proxy.URL)
	b.signIn(adminToken)
	// Waits of a second and more are noted, and end at once.
	_, err = chromedp.Call(b.ctx, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{
		Source: `const wait = window.setTimeout; window.waits = []
			window.setTimeout = (f, ms, ...rest) => { if (ms >= 1000) waits.push(ms); return wait(f, ms >= 1000 ? 9 : ms, ...rest) }`,
	})
	if err != nil {
		t.Fatal(err)
	}
	b.open("/console/events")
	b.sees("Newest first")
	refuse.Store(true)
	proxy.CloseClientConnections()
	b.sees("The server has not answered since")
	b.until("seven tries", "waits.length >= 7")
	if got := fmt.Sprint(eval[[]int](b, "waits.slice(0, 7)")); got != "[1000 2000 4000 8000 15000 15000 15000]" {
		t.Errorf("the page waited %s milliseconds", got)
	}
	refuse.Store(false)
	b.until("the page is live again", "document.querySelector('#away').hidden")
	n.tell("after")
	b.sees("order/after")
}

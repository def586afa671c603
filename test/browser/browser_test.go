// Package browser tests the console in Chromium. It is a separate module, so that
// programs that embed Tidings don't depend on browser automation.
package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

// tab is a browser tab with its own cookies.
type tab struct {
	*testing.T
	ctx  context.Context
	base string
}

// newTab opens a browser.
func newTab(t *testing.T, base string) *tab {
	t.Helper()
	chromium := os.Getenv("CHROMIUM")
	if chromium == "" {
		chromium = "chromium"
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.ExecPath(chromium))
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	b := &tab{t, ctx, base}
	// The browser lives as long as the context of the first action.
	if err := chromedp.Do(ctx, chromedp.Navigate("about:blank")); err != nil {
		t.Fatal(err)
	}
	return b
}

// within is the time limit for one browser action.
const within = 30 * time.Second

func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, within)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.Fatal(err)
	}
}

func (b *tab) open(path string) {
	b.Helper()
	b.do(chromedp.Navigate(b.base + path))
}

// eval evaluates a JavaScript expression and decodes its value.
func eval[T any](b *tab, expression string) (value T) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, within)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string]("JSON.stringify("+expression+")"))
	if err == nil {
		err = json.Unmarshal([]byte(text), &value)
	}
	if err != nil {
		b.Fatalf("%.200s: %v", expression, err)
	}
	return value
}

// click clicks a button or link by its text within elements that match a selector.
func (b *tab) click(within, text string) {
	b.Helper()
	path := fmt.Sprintf(`[...document.querySelectorAll(%q)].flatMap(e => [...e.querySelectorAll('a,button,summary')])`+
		`.find(e => e.textContent.trim().startsWith(%q) && e.getClientRects().length)`, within, text)
	b.until(within+" has "+text, "!!"+path)
	b.do(chromedp.Click(chromedp.JSPath(path)))
}

// until waits until an expression is true.
func (b *tab) until(what, expression string) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, within)
	defer cancel()
	for {
		// Evaluation fails while a page is being replaced.
		if done, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("!!("+expression+")")); err == nil && done {
			return
		}
		select {
		case <-ctx.Done():
			b.Fatalf("timeout waiting until %s; the page shows %q", what,
				eval[string](b, "document.querySelector('main').innerText.slice(0, 600)"))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// sees waits until the page shows a text and its scripts have started.
func (b *tab) sees(text string) {
	b.Helper()
	b.until("the page shows "+text, fmt.Sprintf(
		"document.readyState === 'complete' && document.body.innerText.includes(%q)", text))
}

// press types keys.
func (b *tab) press(keys string) {
	b.Helper()
	b.do(chromedp.KeyEvent(keys))
}

func (b *tab) size(width int64) {
	b.Helper()
	b.do(chromedp.EmulateViewport(width, 900))
}

func (b *tab) scheme(name string) {
	b.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}},
	})
	if err != nil {
		b.Fatal(err)
	}
}

func (b *tab) withoutScript() {
	b.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetScriptExecutionDisabled,
		emulation.SetScriptExecutionDisabledParams{Value: true})
	if err != nil {
		b.Fatal(err)
	}
}

func (b *tab) cookie(name, value string) {
	b.Helper()
	_, err := chromedp.Call(b.ctx, network.SetCookie, network.SetCookieParams{Name: name, Value: value, URL: b.base + "/"})
	if err != nil {
		b.Fatal(err)
	}
}

func (b *tab) signIn(token string) {
	b.Helper()
	b.open("/console/sign-in")
	b.do(chromedp.SendKeys(chromedp.ID("token"), token+"\r"))
	b.until("signed in", "document.querySelector('.tabs')")
}

func (b *tab) picture(file string) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, within)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err == nil {
		err = os.WriteFile(file, png, 0o644)
	}
	if err != nil {
		b.Fatal(err)
	}
}

// TestPictures takes screenshots of pages for development: PICTURES lists paths below
// /console/, BASE is the server's URL, TOKEN a token, and FOLDER the output folder.
func TestPictures(t *testing.T) {
	if os.Getenv("PICTURES") == "" {
		t.Skip("PICTURES is not set")
	}
	b := newTab(t, os.Getenv("BASE"))
	b.signIn(os.Getenv("TOKEN"))
	for path := range strings.FieldsSeq(os.Getenv("PICTURES")) {
		for _, width := range []int64{1440, 360} {
			scheme := os.Getenv("SCHEME")
			b.scheme(scheme)
			b.size(width)
			b.open("/console/" + strings.TrimPrefix(path, "_"))
			b.until("loaded", "document.readyState === 'complete'")
			if n := eval[int64](b, "document.documentElement.scrollWidth"); n > width {
				t.Errorf("%s is %d pixels wide in a window of %d", path, n, width)
			}
			name := strings.NewReplacer("/", "-", "?", "-", "=", "-", "&", "-").Replace(path)
			b.picture(fmt.Sprintf("%s/%s-%d%s.png", os.Getenv("FOLDER"), name, width, scheme))
		}
	}
}

package browser

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// 10,000 events are parked. The page stays small, one click chooses all of them, and one
// confirmation is asked for. A replay and a retry of as many events show their progress,
// also after the page is reloaded, until they are cancelled.
func TestManyParked(t *testing.T) {
	var mended atomic.Bool
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		switch {
		case r.URL.Path == "/late":
			<-time.After(20 * time.Millisecond)
		case err != nil || bytes.Contains(body, []byte("invoice")) && !mended.Load():
			http.Error(w, "unknown type", http.StatusUnprocessableEntity)
		}
	}))
	t.Cleanup(receiver.Close)
	endpoint := fmt.Sprintf("\n    - {name: search, url: %q, retry: {schedule: [1h], max_attempts: 20}}\n", receiver.URL)
	n := &night{T: t}
	var file string
	n.url, file = newServer(t, endpoint)
	for i := range 20 { // of each resource the first one fails, and the others wait behind it
		var events []string
		for j := range 500 {
			events = append(events, fmt.Sprintf(`{"event": "invoice.created", "resource_id": "%d"}`, j%50))
		}
		n.post(shopToken, "/api/v1/events", "["+strings.Join(events, ",")+"]")
		n.tell(fmt.Sprint(i))
	}
	b := newTab(t, n.url)
	b.signIn(adminToken)
	for range 100 {
		n.tell("others get through")
		b.open("/console/parked?endpoint=search")
		if eval[bool](b, "document.body.innerText.includes('10,000 wait for the next attempt')") {
			break
		}
		<-time.After(500 * time.Millisecond)
	}
	b.sees("10,000 wait for the next attempt")
	small := func() {
		t.Helper()
		const size = "performance.getEntriesByType('navigation')[0].decodedBodySize"
		if n := eval[int](b, size); n == 0 || n > 100_000 {
			t.Errorf("%s has %d bytes", eval[string](b, "location.href"), n)
		}
	}
	small()

	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	late := fmt.Sprintf("    - {name: late, url: %q, max_in_flight: 4}\n", receiver.URL+"/late")
	if err := os.WriteFile(file, append(text, late...), 0o600); err != nil {
		t.Fatal(err)
	}
	n.post(adminToken, "/api/v1/webhooks/reload", "")
	b.open("/console/replays?endpoint=late&what=all&types=invoice.*&plan=1")
	small()
	b.click(".side", "Send 10,000 events")
	b.sees("The replay to late has begun.")
	const sent = `Number((document.querySelector('#list').innerText.match(/([0-9,]+) of 10,000/) || ['', '0'])[1]` +
		`.replace(',', ''))`
	b.until("the replay makes progress", sent+" > 0")
	b.open("/console/replays")
	before := eval[int](b, sent)
	b.until("the replay continues", fmt.Sprintf("document.querySelector('progress') && %s > %d", sent, before))
	b.click("#list", "Cancel")
	b.click("dialog[open]", "Cancel the replay")
	b.sees("The replay to late is cancelled.")
	if done := eval[int](b, sent); done < before || done == 10_000 {
		t.Errorf("%d were sent, %d before", done, before)
	}

	// A retry may end before the browser gets to cancel it. Then there is another.
	const newest = "document.querySelector('#changes tbody tr')"
	const cancel = "[..." + newest + ".querySelectorAll('button')].find(e => e.textContent.trim().startsWith('Cancel'))"
	cancelled := func() bool {
		b.open("/console/parked?endpoint=search")
		b.click(".chosen", "Choose all 10,000 that match")
		b.sees("All 10,000 that match are chosen.")
		small()
		b.click(".chosen", "Retry 10,000")
		b.sees("Retry 10,000 parked events now?")
		b.click(".alone", "Retry 10,000 parked events")
		b.sees("The retry of 10,000 events has begun.")
		b.open("/console/parked?endpoint=search&all=1") // the retry shows there, too
		b.until("the retry makes progress", "/[1-9][0-9,]* of 10,000/.test("+newest+".innerText)")
		if !eval[bool](b, "(b => !!b && !b.click())("+cancel+")") {
			return false
		}
		b.click("dialog[open]", "Cancel the retry")
		b.until("the answer", "/The retry for search is cancelled|already/.test(document.body.innerText)")
		return eval[bool](b, "document.body.innerText.includes('The retry for search is cancelled.')")
	}
	for try := 1; !cancelled(); try++ {
		if try == 20 {
			t.Fatal("each of 20 retries ended before it was cancelled")
		}
	}
	b.sees("cancelled")
	small()

	b.open("/console/parked?endpoint=search&all=1")
	b.click(".chosen", "Retry 10,000")
	mended.Store(true)
	b.click(".alone", "Retry 10,000 parked events")
	b.sees("The retry of 10,000 events has begun.")
	b.until("the retry ends", "document.querySelector('#changes').innerText.includes('10,000 of 10,000')")
	for range 100 {
		b.open("/console/parked")
		if eval[bool](b, "!document.body.innerText.includes('10,000 wait')") {
			return
		}
		<-time.After(500 * time.Millisecond)
	}
	t.Error("nothing was delivered")
}

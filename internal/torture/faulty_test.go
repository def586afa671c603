package torture_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/testtool"
	"github.com/tidings-dev/tidings/receive"
)

// faulty is a receiver with one fault: a confusion, or one named after the case that finds it.
type faulty struct {
	fault    string
	handled  *handledIDs
	key      []byte
	serial   sync.Mutex
	inFlight atomic.Int64
	total    atomic.Int64
	upset    atomic.Bool

	mu     sync.Mutex
	seen   map[string]bool
	newest map[string]tidings.Event
	acted  []tidings.Event
}

// confusion is a wrong rule by which a receiver ignores an event because of another
// one, on which it acted before.
type confusion struct {
	ignores func(e, other tidings.Event) bool
	found   []string // the cases that find it
	// load is set if webhooks that come at once may show it as well.
	load bool
}

func confusions() map[string]confusion {
	same := func(e, other tidings.Event) bool { return e.Resource() == other.Resource() }
	lower := func(e, other tidings.Event) bool { return e.ResourceVersion < other.ResourceVersion }
	earlier := func(e, other tidings.Event) bool { return e.Time.Before(other.Time) }
	both := func(a, b func(e, other tidings.Event) bool) func(e, other tidings.Event) bool {
		return func(e, other tidings.Event) bool { return a(e, other) && b(e, other) }
	}
	sameVersion := func(e, other tidings.Event) bool { return e.ResourceVersion == other.ResourceVersion }
	sameTime := func(e, other tidings.Event) bool { return e.Time.Equal(other.Time) }
	behind := func(e, other tidings.Event) bool { return e.Sequence < other.Sequence }
	aged := func(e, _ tidings.Event) bool { return time.Since(e.Time) > 5*time.Minute }
	sameID := func(e, other tidings.Event) bool { return e.ResourceID == other.ResourceID }
	return map[string]confusion{
		"a version identifies an event":            {sameVersion, []string{"same-version", "version-restarts"}, false},
		"resource and version identify an event":   {both(same, sameVersion), []string{"version-restarts"}, false},
		"a timestamp identifies an event":          {sameTime, []string{"same-time"}, false},
		"resource and timestamp identify an event": {both(same, sameTime), []string{"same-time"}, false},
		"a lower version is stale":                 {both(same, lower), []string{"version-restarts"}, false},
		"an earlier timestamp is stale":            {both(same, earlier), []string{"clock-behind"}, false},
		"the newest version of all": {
			lower, []string{"no-info-headers", "version-restarts", "others-newer", "same-id"}, true,
		},
		"the newest timestamp of all": {earlier, []string{"clock-behind", "others-newer", "same-id", "old-event"}, true},
		"the highest sequence of all": {behind, []string{"no-info-headers", "others-newer", "same-id"}, true},
		"the newest of all":           {both(lower, earlier), []string{"others-newer", "same-id"}, true},
		"the newest of an id":         {both(sameID, both(lower, earlier)), []string{"same-id"}, false},
		"old changes are refused":     {aged, []string{"old-event"}, false},
	}
}

func newFaulty(fault string, handled *handledIDs) *faulty {
	key, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	return &faulty{
		fault: fault, handled: handled, key: key,
		seen: make(map[string]bool), newest: make(map[string]tidings.Event),
	}
}

func (f *faulty) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	busy := f.inFlight.Add(1)
	defer f.inFlight.Add(-1)
	switch {
	case f.fault == "slow-body":
		f.serial.Lock()
		defer f.serial.Unlock()
	case f.fault == "100-at-once" && busy > 20:
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	case f.fault == "100-at-once":
		<-time.After(50 * time.Millisecond)
	case f.fault == "answer-time" && busy == 1 && f.total.Add(1)%8 == 0:
		<-time.After(testtool.Allow(1200 * time.Millisecond))
	case f.fault == "http-1.0" && r.ProtoMinor == 0:
		w.WriteHeader(http.StatusHTTPVersionNotSupported)
		return
	case f.upset.Swap(false):
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		f.upset.Store(f.fault == "closed-connection")
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	status := f.receive(r.Header, body)
	if status == http.StatusUnauthorized && f.fault == "keep-alive" {
		leaveBody(w)
		return
	}
	w.WriteHeader(status)
}

// leaveBody answers 401 and takes what follows on the connection for the next request.
func leaveBody(w http.ResponseWriter) {
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	fmt.Fprint(c, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
	if _, err := http.ReadRequest(rw.Reader); err == nil {
		fmt.Fprint(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
	}
}

func (f *faulty) receive(h http.Header, body []byte) int {
	if f.fault == "header-twice" && (len(h["Webhook-Id"]) > 1 || len(h["Webhook-Signature"]) > 1) {
		return http.StatusInternalServerError
	}
	if status := f.verify(h, body); status != 0 {
		return status
	}
	switch {
	case f.fault == "empty-body" && len(body) == 0, f.fault == "big-body" && len(body) > 1<<20:
		return http.StatusInternalServerError
	case f.fault == "not-json" && len(body) > 0 && !json.Valid(body):
		return http.StatusNoContent
	case f.fault == "no-info-headers" && h.Get("Tidings-Sequence") == "":
		return http.StatusBadRequest
	}
	e, err := receive.Decode(h, body)
	if f.fault == "extra-member" && err == nil {
		err = new(tidings.Event).UnmarshalJSON(body)
	}
	switch {
	case err != nil && f.fault == "other-format" && json.Valid(body):
		return http.StatusNoContent
	case err != nil, f.fault == "unknown-type" && e.Type == "unheard_of":
		return http.StatusBadRequest
	case e.Name() == tidings.PingEvent && f.fault != "ping":
		return http.StatusNoContent
	}
	return f.handle(e)
}

func (f *faulty) handle(e tidings.Event) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.seen[e.ID] {
		if f.fault == "duplicate" {
			return http.StatusConflict
		}
		return http.StatusNoContent
	}
	if f.fault == "duplicate-at-once" {
		f.mu.Unlock() // so that others pass the check in the meantime
		<-time.After(20 * time.Millisecond)
		f.mu.Lock()
	}
	f.seen[e.ID] = true
	newest := f.newest[e.Resource()]
	if e.ResourceVersion != 0 && e.ResourceVersion < newest.ResourceVersion && e.Time.Before(newest.Time) &&
		(f.fault != "older-version" || newest.Action == tidings.Deleted) {
		return http.StatusNoContent
	}
	if c, ok := confusions()[f.fault]; ok && slices.ContainsFunc(f.acted, func(other tidings.Event) bool {
		return c.ignores(e, other)
	}) {
		return http.StatusNoContent
	}
	f.newest[e.Resource()] = e
	f.acted = append(f.acted, e)
	if f.fault == "late-update" && e.Action == tidings.Deleted {
		delete(f.newest, e.Resource())
	}
	f.handled.add(e.ID)
	return http.StatusNoContent
}

// verify returns 0 if the webhook is authentic.
func (f *faulty) verify(h http.Header, body []byte) int {
	id, stamp, signatures := h.Get("Webhook-Id"), h.Get("Webhook-Timestamp"), h.Get("Webhook-Signature")
	if f.fault == "unsigned" && signatures == "" {
		return 0
	}
	if f.fault != "timestamp-not-a-number" || stamp != "soon" {
		if status := f.checkTimestamp(stamp); status != 0 {
			return status
		}
	}
	switch f.fault {
	case "valid":
		var rewritten bytes.Buffer // as JavaScript does it
		if json.Compact(&rewritten, body) == nil {
			body = rewritten.Bytes()
		}
	case "wrong-id":
		id = strings.TrimSuffix(id, "-other")
	case "tampered-body":
		if bytes.Contains(body, []byte("torture.deleted")) && f.match(id, stamp, signatures,
			bytes.ReplaceAll(body, []byte("deleted"), []byte("updated"))) {
			return 0
		}
	}
	if !f.match(id, stamp, signatures, body) {
		return http.StatusUnauthorized
	}
	if f.fault == "timestamp-not-a-number" && stamp == "soon" {
		return http.StatusInternalServerError
	}
	return 0
}

func (f *faulty) checkTimestamp(stamp string) int {
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	age := time.Since(time.Unix(seconds, 0))
	if err != nil || age > 5*time.Minute && f.fault != "old-timestamp" ||
		age < -5*time.Minute && f.fault != "future-timestamp" {
		return http.StatusUnauthorized
	}
	return 0
}

func (f *faulty) match(id, stamp, signatures string, body []byte) bool {
	mac := hmac.New(sha256.New, f.key)
	fmt.Fprintf(mac, "%s.%s.%s", id, stamp, body)
	want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	entries := strings.Fields(signatures)
	if f.fault == "two-signatures" {
		entries = entries[:min(1, len(entries))]
	}
	for _, entry := range entries {
		if f.fault == "wrong-signature" && strings.HasPrefix(want, entry) {
			return true
		}
		if f.fault == "unknown-version" {
			entry = strings.Replace(entry, "v9,", "v1,", 1)
		}
		if hmac.Equal([]byte(entry), []byte(want)) {
			return true
		}
	}
	return false
}

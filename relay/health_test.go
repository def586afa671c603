package relay

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings"
)

// answers are outcomes by short name.
var answers = map[string]tidings.Outcome{
	"ok":      {Verdict: tidings.Delivered, Status: 200},
	"500":     {Verdict: tidings.Failed, Reason: "http_500", Status: 500},
	"404":     {Verdict: tidings.Refused, Reason: "http_404", Status: 404},
	"301":     {Verdict: tidings.Refused, Reason: "redirect", Status: 301},
	"415":     {Verdict: tidings.Rejected, Reason: "http_415", Status: 415},
	"403":     {Verdict: tidings.Unauthorized, Reason: "http_403", Status: 403},
	"429":     {Verdict: tidings.Throttled, Reason: "http_429", Status: 429},
	"429 30s": {Verdict: tidings.Throttled, Reason: "http_429", Status: 429, RetryAfter: 30 * time.Second},
	"timeout": {Verdict: tidings.Failed, Reason: tidings.ReasonTimeout},
	"dns":     {Verdict: tidings.Unreachable, Reason: tidings.ReasonDNS},
	"gone":    {Verdict: tidings.Gone, Reason: "http_410", Status: 410},
}

// whose maps what a failure is attributed to to a short name.
var whose = map[fault]string{faultNone: "-", faultEndpoint: "endpoint", faultEvent: "event", faultUnclear: "doubt"}

// A history is a string: "a:500" is a request for resource a that is answered with
// 500; "a" sends one, and "a=500" answers it, so that others may come in between.
// "wait 30s" lets time pass. After "->" is whose fault it was.
func TestWhoseFaultItIs(t *testing.T) {
	for name, tt := range map[string]struct {
		history string
		state   State
		reason  string
	}{
		"an event that fails while others get through is at fault": {
			"a, b:ok -> -, a=500 -> event", Healthy, "",
		},
		"the same for every status": {
			"a, b, c, d, e:ok -> -, a=403 -> event, b=301 -> event, c=415 -> event, d=timeout -> event", Healthy, "",
		},
		"unclear until another event gets through": {
			"b, a:500 -> doubt, b=ok -> -, a:500 -> event", Healthy, "",
		},
		"five failures in a row are the endpoint's": {
			"z, a:404 -> doubt, b:404 -> doubt, c:404 -> doubt, d:404 -> doubt, e:404 -> endpoint",
			Down, "refuses: http_404",
		},
		"a refused probe does not end an outage": {
			"z, a:415 -> doubt, b:415 -> doubt, c:415 -> doubt, d:415 -> doubt, e:415 -> endpoint, wait 1s, f:415 " +
				"-> endpoint", Down, "refuses: http_415",
		},
		"a failure to connect is the endpoint's immediately": {
			"b, c:ok -> -, a:dns -> endpoint", Down, "dns",
		},
		"a quiet endpoint is probed before it is down": {
			"a:500 -> endpoint", Probing, "http_500",
		},
		"and is down if the probes fail": {
			"a:500 -> endpoint, wait 1m, a:500 -> endpoint, wait 1m, a:500 -> endpoint, wait 1m, a:500 -> endpoint, " +
				"wait 1m, a:500 -> endpoint",
			Down, "http_500",
		},
		"the outcome of an earlier request is no evidence": {
			"x, y, a:500 -> doubt, b:500 -> doubt, c:500 -> doubt, d:500 -> doubt, e:500 -> endpoint, x=ok -> -, " +
				"y=500 -> endpoint", Down, "http_500",
		},
		"after an outage, the next failure of an event is its own": {
			"z, a:500 -> doubt, b:500 -> doubt, c:500 -> doubt, d:500 -> doubt, e:500 -> endpoint, wait 1s, f:ok -> " +
				"-, a:500 -> event", Ramping, "http_500",
		},
		"a pause that the receiver asked for": {
			"z, b:ok -> -, a:429 30s -> endpoint", Throttled, "http_429",
		},
		"an event that is repeatedly refused for load while others get through": {
			"z, a:429 -> endpoint, wait 1s, b:ok -> -, a:429 -> endpoint, wait 1s, b:ok -> -, a:429 -> endpoint, " +
				"wait 1s, b:ok -> -, a:429 -> event", Healthy, "",
		},
		"410 is final": {
			"a:gone -> endpoint, b:ok -> -", Disabled, "http_410",
		},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			h := newHealth(newPace(16, 0, Learned{}), now)
			trials, flying := make(map[string]*trial), make(map[string]bool)
			send := func(resource string) {
				if h.limit(now, false) == 0 && h.state != Disabled {
					t.Fatalf("%s can't be sent while %s", resource, h.state)
				}
				if trials[resource] == nil {
					trials[resource] = new(trial)
				}
				h.send(trials[resource], now)
				flying[resource] = true
			}
			for step := range strings.SplitSeq(tt.history, ", ") {
				step, want, _ := strings.Cut(step, " -> ")
				if text, ok := strings.CutPrefix(step, "wait "); ok {
					d, err := time.ParseDuration(text)
					if err != nil {
						t.Fatal(err)
					}
					now = now.Add(d)
					continue
				}
				resource, answer, both := strings.Cut(step, ":")
				if both || !strings.Contains(step, "=") {
					send(resource)
				} else {
					resource, answer, _ = strings.Cut(step, "=")
				}
				if answer == "" {
					continue
				}
				delete(flying, resource)
				o, known := answers[answer]
				if !known {
					t.Fatalf("no such answer: %q", answer)
				}
				if got := whose[h.observe(o, resource, trials[resource], len(flying) == 0, now)]; got != want {
					t.Errorf("%s: fault of %s, want %s", step, got, want)
				}
			}
			if h.state != tt.state || h.reason != tt.reason {
				t.Errorf("%s %q, want %s %q", h.state, h.reason, tt.state, tt.reason)
			}
		})
	}
}

// Pauses between probes grow to a minute, are drawn from half to all of that, and
// start over after a success.
func TestProbes(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	h := newHealth(newPace(16, 0, Learned{}), now)
	probe := func(answer string) time.Duration {
		var tr trial
		h.send(&tr, now)
		h.observe(answers[answer], "r"+strconv.Itoa(int(h.successes)), &tr, true, now)
		pause := h.resume.Sub(now)
		now = h.resume
		h.limit(now, false)
		return pause
	}
	whole, random := time.Second, false
	for range 10 {
		pause := probe("500")
		if pause < whole/2 || pause > whole {
			t.Errorf("pause of %v, want %v to %v", pause, whole/2, whole)
		}
		random = random || pause != whole && pause != whole/2
		whole = min(2*whole, time.Minute)
	}
	if !random {
		t.Error("pauses are not random")
	}
	probe("ok")
	if pause := probe("500"); pause > time.Second {
		t.Errorf("pause of %v after a success, want the first", pause)
	}
}

// bucket is a receiver like nginx with limit_req, nodelay.
type bucket struct {
	rate, burst, level float64
	at                 time.Time
}

func (b *bucket) takes(now time.Time) bool {
	b.level = max(b.level-now.Sub(b.at).Seconds()*b.rate, 0)
	b.at = now
	if b.level > b.burst {
		return false
	}
	b.level++
	return true
}

// An endpoint gets most of what a rate-limiting receiver allows, and has few
// requests refused.
func TestPaceFollowsARateLimit(t *testing.T) {
	for _, rate := range []float64{2, 5, 50, 500} {
		t.Run(fmt.Sprint(rate), func(t *testing.T) {
			now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			h := newHealth(newPace(16, 0, Learned{}), now)
			b := &bucket{rate: rate, burst: 5, at: now}
			delivered, refused := 0, 0
			for end := now.Add(time.Minute); now.Before(end); {
				if h.limit(now, false) == 0 {
					now, _ = h.wake()
					continue
				}
				if at := h.ready(); at.After(now) {
					now = at
					continue
				}
				var tr trial
				h.send(&tr, now)
				now = now.Add(time.Millisecond) // one after another
				o := answers["ok"]
				if !b.takes(now) {
					o = answers["429"]
					refused++
				} else {
					delivered++
				}
				o.Duration = time.Millisecond
				h.observe(o, strconv.Itoa(delivered), &tr, false, now)
			}
			allowed := rate * 60
			if share := float64(delivered) / allowed; share < 0.8 {
				t.Errorf("%d delivered of %v allowed: %.2f, want at least 0.8", delivered, allowed, share)
			}
			if refused > 40+delivered/25 {
				t.Errorf("%d of %d refused", refused, delivered+refused)
			}
			t.Logf("%d delivered, %d refused, rate %.1f, ceiling %.1f", delivered, refused, h.Rate, h.Ceiling)
		})
	}
}

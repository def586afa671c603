package relay_test

import (
	"bytes"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/eventlogtest"
	"github.com/tidings-dev/tidings/relay"
)

// The log describes an outage from its first failure to the first delivery, and nothing
// else.
func TestLogOfAnOutage(t *testing.T) {
	notFound := tidings.Outcome{
		Verdict: tidings.Refused, Reason: "http_404", Status: 404, Response: []byte("no such hook"),
	}
	const began = `WARN delivery failed; the endpoint is probed, its events wait in the log outcome=X ` +
		`event=provider.updated position=P`
	for name, test := range map[string]struct {
		answer func(at time.Duration) tidings.Outcome
		story  func(pause, resume func())
		want   []string
	}{
		"it refuses everything for more than a minute": {
			answer: func(at time.Duration) tidings.Outcome {
				if at < 80*time.Second {
					return notFound
				}
				return delivered
			},
			story: func(_, _ func()) { time.Sleep(4 * time.Minute) },
			want: []string{
				strings.Replace(began, "X", "refuses: http_404", 1) + ` answer=no such hook`,
				`WARN endpoint is down, its events wait in the log outcome=refuses: http_404 ` +
					`event=provider.updated position=P answer=no such hook`,
				`WARN endpoint is still down outcome=refuses: http_404 for=TIME`,
				`INFO endpoint is back after=TIME`,
			},
		},
		"it is paused while it is down": {
			answer: func(at time.Duration) tidings.Outcome {
				if at < 3*time.Minute {
					return unreachable
				}
				return delivered
			},
			story: func(pause, resume func()) {
				time.Sleep(30 * time.Second)
				pause()
				time.Sleep(time.Minute)
				resume() // nothing was delivered, so it is not back
				time.Sleep(30 * time.Second)
				pause()
				time.Sleep(2 * time.Minute)
				resume()
				time.Sleep(time.Minute)
			},
			want: []string{
				`WARN endpoint is down, its events wait in the log outcome=connect event=provider.updated position=P`,
				`WARN endpoint is paused by an operator, its events wait in the log`,
				`WARN endpoint is down, its events wait in the log outcome=connect event=provider.updated position=P`,
				`WARN endpoint is paused by an operator, its events wait in the log`,
				`INFO endpoint is back after=4m`,
			},
		},
		"one request fails": {
			answer: func(at time.Duration) tidings.Outcome {
				if at < time.Second {
					return failed
				}
				return delivered
			},
			story: func(_, _ func()) { time.Sleep(4 * time.Minute) },
			want:  []string{strings.Replace(began, "X", "http_500", 1), `INFO endpoint is back after=TIME`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log, began := eventlogtest.NewMemory(), time.Now()
				r := &receiver{answer: func(tidings.Attempt) tidings.Outcome { return test.answer(time.Since(began)) }}
				var lines bytes.Buffer
				stop := start(t, log, relay.Options{Logger: slog.New(slog.NewTextHandler(&lines, nil))}, endpoint("a", r))
				control := func(reason string) func() {
					return func() {
						c := eventlog.Control{Endpoint: "a", Disabled: reason, Since: time.Now()}
						if err := log.SaveControl(t.Context(), c); err != nil {
							t.Error(err)
						}
						_ = log.Nudge(t.Context())
					}
				}
				log.Append(event(1, 1))
				test.story(control(relay.PausedReason), control(""))
				stop()
				if diff := cmp.Diff(test.want, told(lines.String())); diff != "" {
					t.Errorf("log (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// told returns the log lines without what differs from run to run.
func told(text string) []string {
	for _, r := range []struct{ what, as string }{
		{`time=\S+ level=(\S+) msg=`, "$1 "},
		{` endpoint=a| webhook_id=\S+| resource=\S+| attempt=\d+| cursor=\d+| partition=\S+`, ""},
		{`position=\d+`, "position=P"},
		{`(for|after)=[12]m\d+s`, "$1=TIME"}, // probes are up to a minute apart
		{`(for|after)=(\d+m)\d+s`, "$1=$2"},
		{`(for|after)=\d+s`, "$1=TIME"},
		{`"`, ""},
	} {
		text = regexp.MustCompile(r.what).ReplaceAllString(text, r.as)
	}
	return slices.Compact(strings.Split(strings.TrimSpace(text), "\n"))
}

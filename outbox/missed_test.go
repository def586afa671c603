package outbox

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
)

// However often events expire, one line a minute reports it for each endpoint, with all that
// it missed since the previous line, and one at the end.
func TestMissedEventsAreToldOnceAMinute(t *testing.T) {
	var out bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&out, nil))
	m, now := newMissedLog(), time.Unix(0, 0)
	configured := map[string]bool{"a": true}
	for i := range int64(150) { // seconds
		m.add(eventlog.Gap{Endpoint: "a", From: 2*i + 1, To: 2*i + 2})
		if i == 0 {
			m.add(eventlog.Gap{Endpoint: "removed", From: 7, To: 7})
		}
		m.flush(logger, configured, now.Add(time.Duration(i)*time.Second), false)
	}
	m.flush(logger, configured, now.Add(150*time.Second), true)
	m.flush(logger, configured, now.Add(151*time.Second), true)
	var got []string
	for line := range strings.Lines(out.String()) {
		_, line, _ = strings.Cut(strings.TrimSpace(line), "level=")
		level, _, _ := strings.Cut(line, " ")
		_, rest, _ := strings.Cut(line, "endpoint=")
		got = append(got, level+" "+rest)
	}
	want := []string{
		"ERROR a from=1 to=2 at_most=2", "WARN removed from=7 to=7 at_most=1", "ERROR a from=3 to=122 at_most=120",
		"ERROR a from=123 to=242 at_most=120", "ERROR a from=243 to=300 at_most=58",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the log has %q, want %q", got, want)
	}
}

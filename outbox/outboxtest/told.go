package outboxtest

import (
	"cmp"
	"fmt"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/outbox"
)

// readLimit is how many events one read returns.
const readLimit = 1000

// Events returns the events told in committed transactions, in log order.
func Events(tb testing.TB, db outbox.Database) []tidings.Event {
	tb.Helper()
	ctx := tb.Context()
	hooks, err := outbox.Open(ctx, db, outbox.Options{Types: outbox.Types{"any": nil}})
	if err != nil {
		tb.Fatal(err)
	}
	defer hooks.Close() //nolint:errcheck // only read from
	log := hooks.Log()
	if _, err := log.Advance(ctx); err != nil {
		tb.Fatal(err)
	}
	var all []tidings.Event
	for last := int64(0); ; last = all[len(all)-1].Sequence {
		events, err := log.Read(ctx, last, readLimit)
		if err != nil {
			tb.Fatal(err)
		}
		if all = append(all, events...); len(events) < readLimit {
			return all
		}
	}
}

// Told fails the test unless exactly these events were told, in this order. Zero
// fields of a wanted event are not compared. It returns the actual events.
func Told(tb testing.TB, db outbox.Database, want ...outbox.Event) []tidings.Event {
	tb.Helper()
	told := Events(tb, db)
	ok := len(told) == len(want)
	for i := 0; ok && i < len(want); i++ {
		ok = fits(told[i], want[i])
	}
	if !ok {
		tb.Errorf("told:\n%swant:\n%s", list(told), list(wanted(want)))
	}
	return told
}

func wanted(want []outbox.Event) []tidings.Event {
	all := make([]tidings.Event, len(want))
	for i, e := range want {
		all[i] = tidings.Event{
			ID: e.EventID, Type: e.Type, Action: e.Action, ResourceID: e.ID, ResourceURL: e.URL,
			UserID: e.UserID, OwnerID: e.OwnerID,
			Time: e.Time, ResourceVersion: e.Version, Trace: e.Trace,
		}
	}
	return all
}

// list formats events one per line, without unset fields.
func list(events []tidings.Event) string {
	var b strings.Builder
	for _, e := range events {
		fmt.Fprintf(&b, "\t%s %s", e.Name(), e.ResourceID)
		for _, part := range []struct{ name, value string }{
			{"url", e.ResourceURL}, {"user", e.UserID}, {"owner", e.OwnerID}, {"id", e.ID}, {"trace", e.Trace},
		} {
			if part.value != "" {
				fmt.Fprintf(&b, " %s=%s", part.name, part.value)
			}
		}
		if !e.Time.IsZero() {
			fmt.Fprintf(&b, " time=%s", e.Time.Format(tidings.TimeLayout))
		}
		if e.ResourceVersion != 0 {
			fmt.Fprintf(&b, " version=%d", e.ResourceVersion)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// fits reports whether an event matches the set fields of want.
func fits(e tidings.Event, want outbox.Event) bool {
	return cmp.Or(want.Type, e.Type) == e.Type && cmp.Or(want.Action, e.Action) == e.Action &&
		cmp.Or(want.ID, e.ResourceID) == e.ResourceID &&
		cmp.Or(want.URL, e.ResourceURL) == e.ResourceURL && cmp.Or(want.UserID, e.UserID) == e.UserID &&
		cmp.Or(want.OwnerID, e.OwnerID) == e.OwnerID && (want.Time.IsZero() || want.Time.Equal(e.Time)) &&
		cmp.Or(want.Version, e.ResourceVersion) == e.ResourceVersion && cmp.Or(want.EventID, e.ID) == e.ID &&
		cmp.Or(want.Trace, e.Trace) == e.Trace
}

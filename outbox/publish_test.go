package outbox_test

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/outbox"
	"github.com/tidings-dev/tidings/outbox/outboxtest"
)

func keyed(id, key string) outbox.Publication {
	return outbox.Publication{Event: ordered(id), Key: key}
}

func TestPublish(t *testing.T) {
	t.Parallel()
	shops(t, func(t *testing.T, s shop) {
		hooks := open(t, s.database, outbox.Options{})
		first, err := hooks.Publish(t.Context(), keyed("1", "a"), keyed("2", ""), keyed("3", "b"), keyed("1", "a"))
		if err != nil {
			t.Fatal(err)
		}
		if first[0] != first[3] || first[0] == first[1] || first[0] == first[2] {
			t.Errorf("ids = %v; want the first and the last to be the same, and no others", first)
		}
		again, err := hooks.Publish(t.Context(), keyed("3", "b"), keyed("4", "c"), keyed("1", "a"), keyed("2", ""))
		if err != nil {
			t.Fatal(err)
		}
		if again[0] != first[2] || again[2] != first[0] || slices.Contains(first, again[1]) ||
			slices.Contains(first, again[3]) {
			t.Errorf("ids = %v after %v; want the ids of the keys again", again, first)
		}
		_, err = hooks.Publish(t.Context(), keyed("5", "d"), keyed("2", "a"))
		if !errors.Is(err, eventlog.ErrKeyReused) {
			t.Errorf("another event with a key = %v, want ErrKeyReused", err)
		}
		bad := keyed("6", "")
		bad.Action = "Paid!"
		if _, err := hooks.Publish(t.Context(), keyed("5", "d"), bad); err == nil {
			t.Error("an event that receivers can't read was published")
		}
		if _, err := hooks.Publish(t.Context(), make([]outbox.Publication, outbox.MaxPublish+1)...); err == nil {
			t.Error("more than MaxPublish events were published")
		}
		if told := ids(outboxtest.Events(t, s.database)); told != "1 2 3 4 2" {
			t.Errorf("events of %s; want 1 2 3 4 2", told)
		}
	})
}

// Concurrent publications whose keys are in different orders.
func TestPublishAtTheSameTime(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, s shop) {
		hooks := open(t, s.database, outbox.Options{})
		const publishers, events = 8, 20
		got := make([][]string, publishers)
		var all sync.WaitGroup
		for i := range publishers {
			all.Go(func() {
				var batch []outbox.Publication
				for j := range events {
					id := strconv.Itoa((j*7 + i) % events)
					batch = append(batch, keyed(id, "key "+id))
				}
				ids, err := hooks.Publish(t.Context(), batch...)
				if err != nil {
					t.Error(err)
					return
				}
				got[i] = make([]string, events)
				for j, p := range batch {
					n, _ := strconv.Atoi(p.ID)
					got[i][n] = ids[j]
				}
			})
		}
		all.Wait()
		for i := range got {
			if fmt.Sprint(got[i]) != fmt.Sprint(got[0]) {
				t.Errorf("publisher %d got %v, another %v", i, got[i], got[0])
			}
		}
		if n := len(outboxtest.Events(t, s.database)); n != events {
			t.Errorf("%d events, want %d", n, events)
		}
	})
}

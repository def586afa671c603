package relay_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog/eventlogtest"
	"github.com/tidings-dev/tidings/relay"
)

// What this process commits is not read from the log again.
func TestManyEndpointsTakeWhatIsCommitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		receivers := make([]*receiver, 1000)
		endpoints := make([]relay.Endpoint, len(receivers))
		for i := range receivers {
			receivers[i] = &receiver{}
			endpoints[i] = endpoint(fmt.Sprint("e", i), receivers[i])
		}
		stop := start(t, log, relay.Options{}, endpoints...)
		before := log.Reads()
		for i := range 10 {
			log.Append(event(i, 0))
			synctest.Wait()
		}
		if n := log.Reads() - before; n > 0 {
			t.Errorf("%d reads of the log for 10 events that this process has committed", n)
		}
		for i, r := range receivers {
			if len(r.got()) != 10 {
				t.Fatalf("endpoint %d got %d of 10", i, len(r.got()))
			}
		}
		stop()
	})
}

// moody is a log whose reader takes only some of what is committed, as when other
// transactions were committed in between.
type moody struct{ *eventlogtest.Memory }

func (m moody) OnCommitted(take func([]tidings.Event) bool) {
	m.Memory.OnCommitted(func(events []tidings.Event) bool { return rand.IntN(2) == 0 && take(events) })
}

func TestEventsThatAreTakenOrRead(t *testing.T) {
	const writers, versions = 8, 500
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		r := &receiver{}
		stop := start(t, moody{log}, relay.Options{}, endpoint("a", r))
		var all sync.WaitGroup
		for w := range writers {
			all.Go(func() {
				for v := range versions {
					log.Append(event(w, v))
				}
			})
		}
		all.Wait()
		time.Sleep(time.Minute)
		stop()
		if n := len(r.tries()); n != writers*versions {
			t.Errorf("%d requests for %d events", n, writers*versions)
		}
		expectOrder(t, r.got())
	})
}

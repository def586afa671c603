package relay_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog/eventlogtest"
	"github.com/tidings-dev/tidings/relay"
)

func manyEndpoints(n int) []relay.Endpoint {
	endpoints := make([]relay.Endpoint, n)
	for i := range endpoints {
		endpoints[i] = endpoint(fmt.Sprint("e", i), nil)
	}
	return endpoints
}

func TestReplicasShareEndpointsEvenly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{Memory: eventlogtest.NewMemory()}
		r := &receiver{}
		first := c.start(t, r, manyEndpoints(10)...)
		time.Sleep(time.Second)
		if n := first.relay.Held(); n != 10 {
			t.Fatalf("on its own it holds %d of 10", n)
		}
		second := c.start(t, r, manyEndpoints(10)...)
		third := c.start(t, r, manyEndpoints(10)...)
		time.Sleep(10 * time.Second)
		for i, p := range []*process{first, second, third} {
			if n := p.relay.Held(); n < 3 || n > 4 {
				t.Errorf("replica %d of three holds %d of 10", i, n)
			}
		}
		second.exit()
		time.Sleep(100 * time.Millisecond)
		if n := first.relay.Held() + third.relay.Held(); n != 10 {
			t.Errorf("%d of 10 are held right after a replica has left", n)
		}
		third.kill()
		time.Sleep(15 * time.Second)
		if n := first.relay.Held(); n != 10 {
			t.Errorf("%d of 10 are held 15 s after a kill", n)
		}
		for i := range 5 {
			c.append(event(i, 0))
		}
		time.Sleep(time.Second)
		if n := len(r.got()); n != 50 {
			t.Errorf("%d delivered to 10 endpoints, want 50", n)
		}
		first.exit()
	})
}

// A process that is suspended for a minute can't move a cursor when it resumes,
// and delivers nothing except requests that were in flight.
func TestStoppedProcessHasLostItsLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{Memory: eventlogtest.NewMemory()}
		old, now := &receiver{delay: 10 * time.Millisecond}, &receiver{}
		first := c.start(t, old, endpoint("a", nil))
		time.Sleep(time.Second)
		for i := range 100 {
			c.append(event(i%10, i/10))
		}
		time.Sleep(25 * time.Millisecond)
		first.stop()
		before := len(old.tries())
		second := c.start(t, now, endpoint("a", nil))
		time.Sleep(time.Minute)
		if n := second.relay.Held(); n != 1 {
			t.Fatal("the other replica has not taken over")
		}
		if got := cursor(t, c.Memory, "a"); got != 100 {
			t.Errorf("cursor = %d, want 100", got)
		}
		for i := range 10 {
			c.append(event(i, 10))
		}
		first.goOn()
		time.Sleep(time.Minute)
		if n := len(old.tries()) - before; n > 4 {
			t.Errorf("%d requests after it resumed, more than were in flight", n)
		}
		if got := cursor(t, c.Memory, "a"); got != 110 {
			t.Errorf("cursor = %d, want 110", got)
		}
		expectOrder(t, firstDeliveries(append(old.got(), now.got()...)))
		first.exit()
		second.exit()
	})
}

// A replica that can't reach the database stops delivering before others begin.
func TestCutOffReplicaStopsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{Memory: eventlogtest.NewMemory()}
		r := &receiver{delay: 500 * time.Millisecond}
		first := c.start(t, r, endpoint("a", nil))
		time.Sleep(time.Second)
		first.set(&first.cut, true)
		for i := range 1000 {
			c.append(event(i, 0))
		}
		time.Sleep(11 * time.Second)
		before := len(r.tries())
		time.Sleep(time.Minute)
		if n := len(r.tries()) - before; n != 0 {
			t.Errorf("%d requests without a lease", n)
		}
		first.set(&first.cut, false)
		time.Sleep(10 * time.Minute)
		if n := len(firstDeliveries(r.got())); n != 1000 {
			t.Errorf("%d delivered once it is back, want 1000", n)
		}
		first.exit()
	})
}

// firstDeliveries drops repeated deliveries.
func firstDeliveries(ids []string) (first []string) {
	seen := make(map[string]bool)
	for _, id := range ids {
		if !seen[id] {
			seen[id] = true
			first = append(first, id)
		}
	}
	return first
}

// More partitions deliver all events, each once, and each resource's in order.
func TestPartitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{Memory: eventlogtest.NewMemory()}
		r := &receiver{delay: time.Millisecond}
		whole, parts := endpoint("a", nil), endpoint("a", nil)
		parts.Partitions = 4
		first := c.start(t, r, whole)
		time.Sleep(time.Second)
		for i := range 200 {
			c.append(event(i%20, i/20))
		}
		time.Sleep(10 * time.Millisecond)
		first.exit()
		second, third := c.start(t, r, parts), c.start(t, r, parts)
		time.Sleep(15 * time.Second)
		if a, b := second.relay.Held(), third.relay.Held(); a != 2 || b != 2 {
			t.Errorf("two replicas hold %d and %d of 4 partitions", a, b)
		}
		for i := range 200 {
			c.append(event(i%20, 10+i/20))
		}
		time.Sleep(time.Minute)
		ids := r.got()
		if len(ids) != 400 {
			t.Errorf("%d delivered, want 400 and no duplicate: no process was killed", len(ids))
		}
		expectOrder(t, firstDeliveries(ids))
		second.exit()
		third.exit()
	})
}

// Changing the number of partitions, in either direction, causes no duplicates.
func TestPartitionsChangeWithoutDuplicates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		r := &receiver{delay: 20 * time.Millisecond}
		slow := func(a tidings.Attempt) tidings.Outcome {
			if a.Event.ID == "evt-3-0" && len(r.got()) < 700 {
				return unreachable // it holds up its partition
			}
			return delivered
		}
		r.answer = slow
		n := 0
		for _, partitions := range []int{4, 1, 7, 2} {
			e := endpoint("a", r)
			e.MaxInFlight, e.Partitions = 16, partitions
			stop := start(t, log, relay.Options{}, e)
			for range 500 {
				log.Append(event(n, 0))
				n++
			}
			time.Sleep(5 * time.Second)
			stop()
		}
		e := endpoint("a", r)
		stop := start(t, log, relay.Options{}, e)
		time.Sleep(time.Hour)
		stop()
		if got := r.got(); len(got) != n {
			t.Errorf("%d delivered, want %d, each once", len(got), n)
		}
		t.Logf("%d delivered over 4, 1, 7, 2 and 1 partitions, each once", n)
	})
}

// A replica learns at once that another has divided an endpoint differently: what it still
// delivered under its lost lease would be sent again.
func TestOthersLearnOfADivision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{Memory: eventlogtest.NewMemory()}
		r := &receiver{}
		divided := func(partitions int) relay.Endpoint {
			e := endpoint("a", r)
			e.Partitions, e.Fingerprint = partitions, fmt.Sprint(partitions)
			return e
		}
		first, second := c.start(t, r, divided(2)), c.start(t, r, divided(2))
		time.Sleep(10 * time.Second)
		if first.relay.Held() != 1 || second.relay.Held() != 1 {
			t.Fatalf("they hold %d and %d, want one each", first.relay.Held(), second.relay.Held())
		}
		if err := first.relay.Update(t.Context(), []relay.Endpoint{divided(1)}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		for i := range 20 {
			c.append(event(i, 0))
		}
		time.Sleep(10 * time.Second)
		if n := len(r.tries()); n != 20 {
			t.Errorf("%d requests for 20 events", n)
		}
		first.exit()
		second.exit()
	})
}

// A process that was killed before the database's clock was set back by hours keeps its
// endpoints no longer than any other.
func TestClockSetBackAfterAKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, r := &cluster{Memory: eventlogtest.NewMemory()}, &receiver{}
		killed := c.start(t, r, manyEndpoints(4)...)
		c.start(t, r, manyEndpoints(4)...)
		time.Sleep(time.Minute)
		killed.kill()
		c.Jump(-5 * time.Hour)
		time.Sleep(20 * time.Second)
		c.append(event(1, 0))
		time.Sleep(time.Second)
		if n := len(r.got()); n != 4 {
			t.Errorf("%d delivered, want 4", n)
		}
	})
}

// A caller that asks for new events waits no longer than its own deadline for another caller
// that gets no answer from the database.
func TestRefreshIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{Memory: eventlogtest.NewMemory()}
		p := c.start(t, &receiver{}, endpoint("a", nil))
		time.Sleep(time.Second)
		p.set(&p.silent, true)
		time.Sleep(1500 * time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begun := time.Now()
		if err := p.relay.Refresh(ctx); err == nil || time.Since(begun) > time.Second {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
		p.set(&p.silent, false)
	})
}

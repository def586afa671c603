package relay_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/eventlogtest"
	"github.com/tidings-dev/tidings/relay"
)

// slowToPark is a log whose transactions take a while.
type slowToPark struct {
	*eventlogtest.Memory
	now, most, calls atomic.Int64
}

func (s *slowToPark) Park(ctx context.Context, all ...eventlog.Parking) (map[eventlog.Lease]error, error) {
	s.calls.Add(1)
	if now := s.now.Add(1); now > s.most.Load() {
		s.most.Store(now)
	}
	defer s.now.Add(-1)
	time.Sleep(50 * time.Millisecond)
	return s.Memory.Park(ctx, all...)
}

// Parking for many endpoints takes one connection, and hardly longer than for one.
func TestParkingIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const endpoints, bad = 150, 10
		log := &slowToPark{Memory: eventlogtest.NewMemory()}
		var all []relay.Endpoint
		for n := range endpoints {
			all = append(all, endpoint(fmt.Sprint("e", n), &receiver{answer: func(a tidings.Attempt) tidings.Outcome {
				if a.Number == 1 && a.Event.ID == "evt-1-0" {
					return refused
				}
				return delivered
			}}))
		}
		ctx, stop := context.WithCancel(t.Context())
		r, err := relay.New(ctx, log, all, relay.Options{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		synctest.Wait()
		log.Append(event(1, 0), event(2, 0))
		for version := range bad { // those behind the one that failed
			time.Sleep(100 * time.Millisecond)
			log.Append(event(1, version+1), event(2, version+1))
		}
		time.Sleep(200 * time.Millisecond)
		if n := log.RetryRows(); n != endpoints*(bad+1) {
			t.Errorf("%d rows parked, want %d", n, endpoints*(bad+1))
		}
		t.Logf("%d rows of %d endpoints in %d transactions, %d at once", endpoints*(bad+1), endpoints, log.calls.Load(),
			log.most.Load())
		if calls := log.calls.Load(); calls > 4*(bad+1) || log.most.Load() > 1 {
			t.Errorf("%d transactions, %d at once", calls, log.most.Load())
		}
		time.Sleep(time.Minute)
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n := log.RetryRows(); n != 0 {
			t.Errorf("%d rows left", n)
		}
	})
}

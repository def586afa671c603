package relay_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/eventlogtest"
	"github.com/tidings-dev/tidings/relay"
)

// A failover can lose what was written about events although it loses no event: the
// consumer that wrote it begins anew from what the database still has. One that lost
// nothing changes nothing.
func TestFailoverThatLosesWhatWasParked(t *testing.T) {
	const sick, slow = "evt-0-0", "evt-19-0"
	tests := map[string]struct {
		answer   tidings.Outcome
		sickTime time.Duration // how long the event fails
		backup   time.Duration // when the standby stops to follow
		failover time.Duration
		dead     bool
		want     int // requests for the event
	}{
		"an event that failed":       {failed, time.Minute, time.Second, 10 * time.Second, false, 3},
		"one that was given up":      {rejected, time.Hour, time.Second, 10 * time.Second, true, 2},
		"one that was delivered":     {failed, time.Minute, 10 * time.Second, 5 * time.Minute, false, 3},
		"nothing, an event failed":   {failed, time.Minute, 10 * time.Second, 10 * time.Second, false, 2},
		"nothing, one was given up":  {rejected, time.Hour, 10 * time.Second, 10 * time.Second, true, 1},
		"nothing, one was delivered": {failed, time.Minute, 5 * time.Minute, 5 * time.Minute, false, 2},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log, began := eventlogtest.NewMemory(), time.Now()
				r := &receiver{answer: func(a tidings.Attempt) tidings.Outcome {
					if a.Event.ID == sick && time.Since(began) < test.sickTime {
						time.Sleep(2 * time.Second)
						return test.answer
					}
					if a.Event.ID == slow { // once it is delivered, the other one is known to be sick
						time.Sleep(3 * time.Second)
					}
					return delivered
				}}
				e := endpoint("a", r)
				e.Retry.Delays = []time.Duration{2 * time.Minute}
				stop := start(t, log, relay.Options{}, e)
				for i := range 20 {
					log.Append(event(i, 0))
				}
				time.Sleep(test.backup)
				restore := log.Backup()
				time.Sleep(test.failover - test.backup)
				restore()
				time.Sleep(10 * time.Minute)
				stop()

				n := 0
				for _, a := range r.tries() {
					if a.id == sick {
						n++
					}
				}
				if n != test.want {
					t.Errorf("%d requests for the event, want %d", n, test.want)
				}
				if got := slices.Contains(r.got(), sick); got == test.dead {
					t.Errorf("delivered: %v, want %v", got, !test.dead)
				}
				rows, err := log.Parked(t.Context(), eventlog.ParkedFilter{Limit: 10})
				if err != nil || (len(rows) > 0) != test.dead {
					t.Errorf("parked: %+v, %v", rows, err)
				}
				others := slices.DeleteFunc(r.got(), func(id string) bool { return id == sick || id == slow })
				if len(others) != 18 {
					t.Errorf("delivered %v, want each of the 18 others once", others)
				}
			})
		})
	}
}

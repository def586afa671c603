package relay_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/eventlogtest"
	"github.com/tidings-dev/tidings/relay"
)

// A failover can lose what was written about events although it loses no events: the
// consumer that wrote it starts over from what the database still has. A failover that
// lost nothing changes nothing.
func TestFailoverThatLosesWhatWasParked(t *testing.T) {
	const sick, slow = "evt-0-0", "evt-19-0"
	tests := map[string]struct {
		answer   tidings.Outcome
		sickTime time.Duration // how long the event fails
		backup   time.Duration // when the standby stops following
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
					if a.Event.ID == slow { // once it is delivered, the other one is known to be at fault
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

// A process that missed a change of partitions because it was suspended does not undo it when
// it finds that the database was restarted; and if the database lost the change, it is made again.
func TestPartitionsAfterAFailover(t *testing.T) {
	divided := func(t *testing.T, c *cluster) (of int) {
		cursors, err := c.Cursors(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return cursors[0].Of
	}
	for name, fail := range map[string]func(c *cluster, old *process, restore func()){
		"a process with old settings": func(c *cluster, old *process, _ func()) {
			c.Restart()
			time.Sleep(5 * time.Second)
			old.goOn()
		},
		"the change was lost": func(_ *cluster, old *process, restore func()) {
			old.kill()
			restore()
		},
		"the process that undid it has left": func(c *cluster, old *process, restore func()) {
			restore()
			time.Sleep(5 * time.Second)
			old.goOn()
			time.Sleep(time.Minute)
			old.exit()
		},
	} {
		for before, after := range map[int]int{1: 3, 3: 1} {
			t.Run(fmt.Sprintf("%s, from %d to %d", name, before, after), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c, r := &cluster{Memory: eventlogtest.NewMemory()}, &receiver{}
					e := endpoint("a", nil)
					e.Partitions = before
					now, old := c.start(t, r, e), c.start(t, r, e)
					time.Sleep(time.Second)
					restore := c.Backup()
					old.stop()
					e.Sender, e.Partitions = now.sender(r), after
					if err := now.relay.Update(t.Context(), []relay.Endpoint{e}); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Minute)
					fail(c, old, restore)
					time.Sleep(30 * time.Second)
					if of := divided(t, c); of != after {
						t.Errorf("%d partitions, want %d", of, after)
					}
					for i := range 20 {
						c.append(event(i, 0))
					}
					time.Sleep(time.Second)
					if n := len(r.got()); n != 20 {
						t.Errorf("%d delivered, want 20", n)
					}
				})
			})
		}
	}
}

// An endpoint that succeeded another one continues where that one stopped, although the
// database lost the succession.
func TestFailoverThatLosesARename(t *testing.T) {
	for name, former := range map[string]string{"cursor_from": "a", "the same host": ""} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, began := &cluster{Memory: eventlogtest.NewMemory()}, time.Now()
				r := &receiver{answer: func(tidings.Attempt) tidings.Outcome {
					if time.Since(began) < 4*time.Minute {
						return unreachable
					}
					return delivered
				}}
				old, next := endpoint("example.com/a", nil), endpoint("example.com/b", nil)
				old.URL, next.URL = "https://example.com/a", "https://example.com/b"
				if former != "" {
					next.CursorFrom = old.Name
				}
				p := c.start(t, r, old)
				time.Sleep(time.Second)
				for i := range 10 {
					c.append(event(i, 0))
				}
				time.Sleep(time.Minute)
				restore := c.Backup()
				next.Sender = p.sender(r)
				if err := p.relay.Update(t.Context(), []relay.Endpoint{next}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				restore()
				time.Sleep(10 * time.Minute)
				if n := len(r.got()); n != 10 {
					t.Errorf("%d delivered, want 10", n)
				}
				if cursors, err := c.Cursors(t.Context()); err != nil || len(cursors) != 1 ||
					cursors[0].Endpoint != next.Name {
					t.Errorf("cursors %+v, %v; want that of %s", cursors, err, next.Name)
				}
			})
		})
	}
}

// A process that missed a renaming because it was suspended neither undoes it nor starts
// under the old name when it finds that the database was restarted.
func TestRenameThatAnotherMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, r := &cluster{Memory: eventlogtest.NewMemory()}, &receiver{}
		old, next := endpoint("example.com/a", nil), endpoint("example.com/b", nil)
		old.URL, next.URL = "https://example.com/a", "https://example.com/b"
		now, late := c.start(t, r, old), c.start(t, r, old)
		time.Sleep(time.Second)
		late.stop()
		next.Sender = now.sender(r)
		if err := now.relay.Update(t.Context(), []relay.Endpoint{next}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		c.Restart()
		time.Sleep(5 * time.Second)
		late.goOn()
		for i := range 20 {
			c.append(event(i, 0))
			time.Sleep(time.Second)
		}
		if n := len(r.got()); n != 20 {
			t.Errorf("%d delivered, want 20", n)
		}
		if cursors, err := c.Cursors(t.Context()); err != nil || len(cursors) != 1 || cursors[0].Endpoint != next.Name {
			t.Errorf("cursors %+v, %v; want that of %s", cursors, err, next.Name)
		}
	})
}

// A process that does not yet know what the database lost does not keep acquiring leases
// that it can't use.
func TestLeasesWaitForTheTail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, r := &cluster{Memory: eventlogtest.NewMemory()}, &receiver{}
		late := c.start(t, r, endpoint("a", nil), endpoint("b", nil))
		other := c.start(t, r, endpoint("a", nil), endpoint("b", nil))
		time.Sleep(30 * time.Second)
		late.set(&late.silent, true)
		time.Sleep(1500 * time.Millisecond)
		late.set(&late.silent, false) // its tail is still waiting for an answer
		c.Restart()
		time.Sleep(2 * time.Second)
		other.exit()
		time.Sleep(20 * time.Second)
		c.append(event(1, 0))
		time.Sleep(time.Second)
		if n := len(r.got()); n != 2 {
			t.Errorf("%d delivered, want 2", n)
		}
		cursors, err := c.Cursors(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, cursor := range cursors {
			if cursor.Generation > 6 {
				t.Errorf("endpoint %s was leased %d times", cursor.Endpoint, cursor.Generation)
			}
		}
	})
}

// What this process numbers right after the database was restarted is not lost.
func TestEventsNumberedAfterARestartAreNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, r := eventlogtest.NewMemory(), &receiver{}
		stop := start(t, log, relay.Options{}, endpoint("a", r))
		for i := range 3 {
			log.Append(event(i, 0))
		}
		time.Sleep(10 * time.Second)
		log.Restart()
		for i := range 3 {
			log.Append(event(i, 1))
		}
		time.Sleep(10 * time.Second)
		stop()
		if gaps, err := log.Gaps(t.Context(), 10); err != nil || len(gaps) > 0 {
			t.Errorf("gaps: %v, %v", gaps, err)
		}
		if got := len(r.got()); got != 6 {
			t.Errorf("%d requests for 6 events", got)
		}
	})
}

package relay_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog/eventlogtest"
	"github.com/tidings-dev/tidings/relay"
)

// An endpoint keeps its cursor and its backlog if its name changes twice, even at the
// same time: a process that was overtaken decides again.
func TestTwoRenames(t *testing.T) {
	old, next := endpoint("example.com/a", nil), endpoint("example.com/b", nil)
	old.URL, next.URL = "https://example.com/a", "https://example.com/b"
	update := func(t *testing.T, p *process, r relay.Sender, endpoints ...relay.Endpoint) {
		t.Helper()
		for i := range endpoints {
			endpoints[i].Sender = p.sender(r)
		}
		if err := p.relay.Update(t.Context(), endpoints); err != nil {
			t.Error(err)
		}
	}
	// missed returns a process that does not know yet that another one, which has left, renamed
	// the endpoint.
	missed := func(t *testing.T, c *cluster, r relay.Sender) *process {
		now, late := c.start(t, r, old), c.start(t, r, old)
		time.Sleep(time.Second)
		late.stop()
		update(t, now, r, next)
		time.Sleep(time.Minute)
		now.exit()
		return late
	}
	for name, race := range map[string]func(t *testing.T, c *cluster, r relay.Sender){
		"an update": func(t *testing.T, c *cluster, r relay.Sender) {
			one, other := c.start(t, r, old), c.start(t, r, old)
			time.Sleep(time.Second)
			one.beforePrepare(func() { update(t, other, r, old) })
			update(t, one, r, next)
			other.exit()
		},
		"a replica that finds different names": func(t *testing.T, c *cluster, r relay.Sender) {
			late := missed(t, c, r)
			late.beforePrepare(func() { c.start(t, r, next) })
			late.goOn()
			time.Sleep(time.Minute)
			late.exit()
		},
		"a replica that is being updated": func(t *testing.T, c *cluster, r relay.Sender) {
			late := missed(t, c, r)
			late.beforePrepare(func() { time.Sleep(30 * time.Second) })
			late.goOn()
			update(t, late, r, next)
		},
		"a leftover cursor_from": func(t *testing.T, c *cluster, r relay.Sender) {
			p, corrected := c.start(t, r, old), next
			corrected.CursorFrom = "example.com/older"
			update(t, p, r, corrected)
		},
		"disabled meanwhile": func(t *testing.T, c *cluster, r relay.Sender) {
			p, disabled := c.start(t, r, old), next
			disabled.Disabled = true
			update(t, p, r, disabled)
			c.append(event(10, 0))
			time.Sleep(time.Minute)
			update(t, p, r, next)
		},
		"a replica that missed two renames": func(t *testing.T, c *cluster, r relay.Sender) {
			now, late := c.start(t, r, old), c.start(t, r, old)
			time.Sleep(time.Second)
			late.stop()
			between, last := next, next
			between.Name, last.CursorFrom = "example.com/between", "example.com/between"
			update(t, now, r, between)
			time.Sleep(time.Minute)
			update(t, now, r, last)
			now.exit()
			late.goOn()
			time.Sleep(time.Minute) // it has undone both
			update(t, late, r, last)
		},
		"a new epoch": func(t *testing.T, c *cluster, r relay.Sender) {
			c.start(t, r, old).exit()
			restore, more := c.Backup(), endpoint("more", nil)
			p := c.start(t, r, next, more)
			time.Sleep(time.Second)
			p.beforePrepare(func() {
				other := c.start(t, r, old, more)
				go func() {
					time.Sleep(time.Minute)
					other.exit()
				}()
			})
			restore()
			time.Sleep(2 * time.Minute)
			update(t, p, r, next)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, began := &cluster{Memory: eventlogtest.NewMemory()}, time.Now()
				r := &receiver{answer: func(tidings.Attempt) tidings.Outcome {
					if time.Since(began) < 10*time.Minute {
						return unreachable
					}
					return delivered
				}}
				c.start(t, r, old).exit()
				for i := range 10 {
					c.append(event(i, 0))
				}
				race(t, c, r)
				time.Sleep(20 * time.Minute)
				if head, _ := c.Advance(t.Context()); int64(len(r.got())) != head {
					t.Errorf("%d delivered, want %d", len(r.got()), head)
				}
				cursors, err := c.Cursors(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				for _, cursor := range cursors {
					if configured := cursor.Endpoint == next.Name; configured != cursor.Removed.IsZero() {
						t.Errorf("cursor %+v, want only the cursor of %s", cursor, next.Name)
					}
				}
			})
		})
	}
}

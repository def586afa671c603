package resource

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// A caller is remembered for half a second after the look-up, unless a user has changed
// since it began.
func TestCallersAreRememberedForAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c callers
		ann, who := Identity{Email: "ann@example.com", Role: RoleUser}, Caller{UserID: "1", Role: RoleUser}
		remember := func(during func()) {
			_, _, forgotten := c.find(ann)
			at := time.Now()
			during()
			c.remember(ann, who, at, forgotten)
		}
		expect := func(when string, want bool) {
			t.Helper()
			got, found, _ := c.find(ann)
			if found != want || found && got != who {
				t.Errorf("%s: %+v, %v; want %v", when, got, found, want)
			}
		}
		expect("before", false)
		remember(func() {})
		expect("at once", true)
		for name, other := range map[string]Identity{
			"another token": {Email: ann.Email, Role: RoleAdmin}, "promoted": {Email: ann.Email, Role: RoleUser, Promote: true},
			"another user": {Email: "bob@example.com", Role: RoleUser},
		} {
			if _, found, _ := c.find(other); found {
				t.Errorf("%s is mistaken for ann", name)
			}
		}
		time.Sleep(callerTime - time.Millisecond)
		expect("just before half a second", true)
		time.Sleep(time.Millisecond)
		expect("after half a second", false)
		remember(func() { time.Sleep(callerTime) })
		expect("after a slow look-up", false)
		remember(c.forget)
		expect("after a change during the look-up", false)
		remember(func() {})
		c.forget()
		expect("after a change", false)
		for i := range 3 * maxCallers {
			c.remember(Identity{Email: fmt.Sprint(i)}, who, time.Now(), 2)
		}
		if n := len(c.known); n > maxCallers {
			t.Errorf("%d are remembered, want at most %d", n, maxCallers)
		}
	})
}

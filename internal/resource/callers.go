package resource

import (
	"context"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/internal/store"
)

const (
	// callerTime is how long a caller is remembered: for that long, another process's change
	// of the user may go unnoticed.
	callerTime = 500 * time.Millisecond
	maxCallers = 10_000
)

// callers remembers who signed in, so that not every request has to look them up. A
// change of any user by this process makes it forget everything. The zero value is usable.
type callers struct {
	mu        sync.Mutex
	known     map[Identity]signedIn
	forgotten int // number of times that everything was forgotten
}

type signedIn struct {
	Caller
	at time.Time
}

// find returns the caller with an identity, or what [callers.remember] needs.
func (c *callers) find(id Identity) (who Caller, found bool, forgotten int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known, found := c.known[id]
	return known.Caller, found && time.Since(known.at) < callerTime, c.forgotten
}

// remember remembers a caller who was looked up at a time, unless everything was forgotten
// since.
func (c *callers) remember(id Identity, who Caller, at time.Time, forgotten int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.forgotten != forgotten {
		return
	}
	if c.known == nil || len(c.known) >= maxCallers {
		c.known = make(map[Identity]signedIn)
	}
	c.known[id] = signedIn{who, at}
}

func (c *callers) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known = nil
	c.forgotten++
}

// create, update and delete are the collection's. They forget all callers even if they
// fail: the database may have committed nevertheless.

func (u *Users) create(ctx context.Context, who Caller, row *User) (*User, error) {
	defer u.callers.forget()
	return u.collection.create(ctx, who, row)
}

func (u *Users) update(ctx context.Context, who Caller, id string, ifMatch int64,
	change func(*store.Tx, *User) (hidden bool, err error),
) (*User, error) {
	defer u.callers.forget()
	return u.collection.update(ctx, who, id, ifMatch, change)
}

func (u *Users) delete(ctx context.Context, who Caller, id string, ifMatch int64) error {
	defer u.callers.forget()
	return u.collection.delete(ctx, who, id, ifMatch)
}

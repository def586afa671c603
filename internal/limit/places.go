// Package limit bounds what callers hold at once, such as event streams.
package limit

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Options of [NewPlaces]; all but Wait are required.
type Options struct {
	// What is counted, in the plural, such as "event streams".
	What string
	// Total is how many places the process has.
	Total int64
	// PerUser is how many of them one user may take.
	PerUser int64
	// Wait is how long to wait for a free place.
	Wait time.Duration
}

// Places bounds what goes on at once, such as event streams or bytes in memory,
// for the process and for each user. Those who find no place wait for a short
// time; a place that becomes free goes to the waiting user who has the fewest,
// so that nobody's requests hold up everybody else's. A nil Places has no limit.
type Places struct {
	o Options

	mu      sync.Mutex
	taken   int64
	refused int64
	users   map[string]*usage // of users who have a place or wait for one
	queue   []*waiter         // in order of arrival
}

type usage struct {
	taken   int64
	waiting int
}

type waiter struct {
	user  string
	n     int64
	ready chan struct{} // closed once it has its places
}

// NewPlaces returns places of which none is taken.
func NewPlaces(o Options) *Places { return &Places{o: o, users: make(map[string]*usage)} }

// Bounds of the queue: for one user, and for all.
const (
	maxWaiting = 64
	maxQueue   = 1024
)

// BusyError says that there was no free place in time.
type BusyError struct {
	message string
	// RetryAfter is when to try again.
	RetryAfter time.Duration
}

// Error says which limit was reached.
func (e *BusyError) Error() string { return e.message }

// Enter takes n places for a user, at most PerUser, and waits for them if need
// be. Call leave to give them back; a second call does nothing. The error is a
// [*BusyError], or the context's if that ended first.
func (p *Places) Enter(ctx context.Context, user string, n int64) (leave func(), err error) {
	if p == nil {
		return func() {}, nil
	}
	w := p.arrive(user, n)
	if w == nil {
		return nil, p.busy(user, n)
	}
	timeout := time.NewTimer(p.o.Wait)
	defer timeout.Stop()
	select {
	case <-w.ready:
	case <-timeout.C:
		err = p.busy(user, n)
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil && p.giveUp(w) {
		return nil, err
	}
	return sync.OnceFunc(func() { p.leave(user, n) }), nil
}

// Usage returns how many places are taken, and how often there was none.
func (p *Places) Usage() (taken, refused int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken, p.refused
}

// arrive joins the queue, and takes the places at once if they are free; nil if
// too many wait already.
func (p *Places) arrive(user string, n int64) *waiter {
	p.mu.Lock()
	defer p.mu.Unlock()
	u := p.users[user]
	if len(p.queue) >= maxQueue || u != nil && u.waiting >= maxWaiting {
		return nil
	}
	if u == nil {
		u = new(usage)
		p.users[user] = u
	}
	w := &waiter{user: user, n: n, ready: make(chan struct{})}
	u.waiting++
	p.queue = append(p.queue, w)
	p.admit()
	return w
}

// admit gives free places to those who wait.
func (p *Places) admit() {
	for {
		var next *waiter
		for _, w := range p.queue {
			u := p.users[w.user]
			if u.taken+w.n <= p.o.PerUser && (next == nil || u.taken < p.users[next.user].taken) {
				next = w
			}
		}
		if next == nil || p.taken+next.n > p.o.Total {
			return
		}
		p.taken += next.n
		p.users[next.user].taken += next.n
		p.remove(next)
		close(next.ready)
	}
}

// remove takes a waiter out of the queue.
func (p *Places) remove(w *waiter) {
	p.queue = slices.DeleteFunc(p.queue, func(other *waiter) bool { return other == w })
	p.users[w.user].waiting--
}

// giveUp leaves the queue; false if the waiter has its places already.
func (p *Places) giveUp(w *waiter) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-w.ready:
		return false
	default:
	}
	p.remove(w)
	p.forget(w.user)
	p.admit() // it may have stood before others
	return true
}

func (p *Places) leave(user string, n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken -= n
	p.users[user].taken -= n
	p.forget(user)
	p.admit()
}

// forget drops a user who has nothing here.
func (p *Places) forget(user string) {
	if *p.users[user] == (usage{}) {
		delete(p.users, user)
	}
}

// busy refuses a user, and says which limit does.
func (p *Places) busy(user string, n int64) *BusyError {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refused++
	e := &BusyError{
		RetryAfter: max(p.o.Wait, time.Second),
		message:    fmt.Sprintf("this server takes %d %s at once; try again later", p.o.Total, p.o.What),
	}
	if u := p.users[user]; u != nil && (u.taken+n > p.o.PerUser || u.waiting >= maxWaiting) {
		e.message = fmt.Sprintf("one user may have %d %s at once; end one, or try again later", p.o.PerUser, p.o.What)
	}
	return e
}

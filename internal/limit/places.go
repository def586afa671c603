// Package limit limits concurrency, such as the number of event streams, and the
// rate and pace of requests.
package limit

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Options configures [NewPlaces]; all fields but Wait are required.
type Options struct {
	// What is counted, in the plural, such as "event streams".
	What string
	// Total is the number of places in the process.
	Total int64
	// PerUser is how many places one user may hold.
	PerUser int64
	// Wait is how long to wait for a free place.
	Wait time.Duration
}

// Places is a counting semaphore that is fair to users. It limits, for example,
// concurrent event streams or bytes in memory, for the process and per user.
// Callers wait a short time for a place. A freed place goes to the waiting user
// who holds the fewest, so that one user cannot hold up others. A nil Places has
// no limit.
type Places struct {
	o Options

	mu      sync.Mutex
	taken   int64
	refused int64
	users   map[string]*usage // users who hold a place or wait for one
	queue   []*waiter         // in order of arrival
}

type usage struct {
	taken   int64
	waiting int
}

type waiter struct {
	user  string
	n     int64
	ready chan struct{} // closed when the waiter gets its places
}

// NewPlaces returns a semaphore with all places free.
func NewPlaces(o Options) *Places { return &Places{o: o, users: make(map[string]*usage)} }

// Limits on the queue: per user, and in total.
const (
	maxWaiting = 64
	maxQueue   = 1024
)

// BusyError reports that no place became free in time.
type BusyError struct {
	message string
	// RetryAfter is how long to wait before the next attempt.
	RetryAfter time.Duration
}

// Error names the limit that was reached.
func (e *BusyError) Error() string { return e.message }

// Enter takes n places for a user, at most PerUser, and waits for them if
// necessary. Leave releases them; further calls do nothing. The error is a
// [*BusyError], or the context's error if ctx ends first.
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

// Usage returns the number of taken places and of refused requests.
func (p *Places) Usage() (taken, refused int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken, p.refused
}

// arrive joins the queue and takes the places at once if they are free. It
// returns nil if the queue is full.
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

// admit gives free places to waiters.
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

// remove removes a waiter from the queue.
func (p *Places) remove(w *waiter) {
	p.queue = slices.DeleteFunc(p.queue, func(other *waiter) bool { return other == w })
	p.users[w.user].waiting--
}

// giveUp leaves the queue. It returns false if the waiter already has its places.
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
	p.admit() // the waiter may have blocked others
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

// forget drops a user who holds no places and waits for none.
func (p *Places) forget(user string) {
	if *p.users[user] == (usage{}) {
		delete(p.users, user)
	}
}

// busy returns an error that names the exhausted limit.
func (p *Places) busy(user string, n int64) *BusyError {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refused++
	e := &BusyError{
		RetryAfter: max(p.o.Wait, time.Second),
		message:    fmt.Sprintf("the server is limited to %d %s at a time; try again later", p.o.Total, p.o.What),
	}
	if u := p.users[user]; u != nil && (u.taken+n > p.o.PerUser || u.waiting >= maxWaiting) {
		e.message = fmt.Sprintf("each user is limited to %d %s at a time; end one or try again later", p.o.PerUser, p.o.What)
	}
	return e
}

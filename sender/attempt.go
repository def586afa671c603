package sender

import (
	"context"
	"net/http"
	"sync"
	"time"
)

// attempt is the context of an attempt. It ends with the caller's context, or at a
// deadline, for which it has a timer only if something waits for it: an [exchanger]
// sets the deadline on the connection instead.
type attempt struct {
	context.Context // the caller's
	deadline        time.Time
	steps           *steps

	mu     sync.Mutex
	timed  context.Context // nil until it is needed
	cancel context.CancelFunc
	over   bool
}

func newAttempt(ctx context.Context, began time.Time, timeout time.Duration) *attempt {
	deadline := began.Add(timeout)
	if given, ok := ctx.Deadline(); ok && given.Before(deadline) {
		deadline = given
	}
	return &attempt{Context: ctx, deadline: deadline, steps: &steps{began: began}}
}

// Deadline implements [context.Context].
func (a *attempt) Deadline() (time.Time, bool) { return a.deadline, true }

// Done implements [context.Context].
func (a *attempt) Done() <-chan struct{} { return a.timer().Done() }

// Err implements [context.Context].
func (a *attempt) Err() error { return a.timer().Err() }

// Value implements [context.Context].
func (a *attempt) Value(key any) any {
	if key == (stepsKey{}) {
		return a.steps
	}
	a.mu.Lock()
	timed := a.timed
	a.mu.Unlock()
	if timed != nil {
		return timed.Value(key) // children of the context find it this way
	}
	return a.Context.Value(key)
}

func (a *attempt) timer() context.Context {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.timed == nil {
		a.timed, a.cancel = context.WithDeadline(a.Context, a.deadline)
		if a.over {
			a.cancel()
		}
	}
	return a.timed
}

// end ends the context.
func (a *attempt) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = true
	if a.cancel != nil {
		a.cancel()
	}
}

// timedOut reports whether the deadline has passed.
func (a *attempt) timedOut() bool { return !time.Now().Before(a.deadline) }

// stepsKey is the context key of a request's steps.
type stepsKey struct{}

// stepsOf returns the steps of a request's attempt, or nil.
func stepsOf(r *http.Request) *steps {
	s, _ := r.Context().Value(stepsKey{}).(*steps)
	return s
}

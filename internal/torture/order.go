package torture

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/tidings-dev/tidings"
)

// atOnce is how many copies of a webhook are sent at the same time.
const atOnce = 5

func orderCases() []Case {
	order := func(name, about, advice string, run func(ctx context.Context, r *run) error) Case {
		return Case{Group: "order", Name: name, About: about, advice: advice, run: run, observed: true}
	}
	const newest = "remember version and timestamp of the newest event of each resource, even after it is deleted; " +
		"answer 2xx to events that have both a lower version and no later timestamp, and do nothing else"
	return []Case{
		order("duplicate", "the same webhook twice: 2xx both times, acted on once",
			"remember each webhook-id that you handled, and answer 2xx when it comes again", duplicate),
		order("duplicate-at-once", "the same webhook five times at once: acted on once",
			"make the check of the webhook-id atomic, such as an INSERT that fails on a duplicate key, in one "+
				"transaction with the work", duplicatesAtOnce),
		order("older-version", "version 3 of a resource before version 2: 2xx, and the older one changes nothing",
			newest, func(ctx context.Context, r *run) error { return r.outOfOrder(ctx, tidings.Updated) }),
		order("late-update", "deleted before a late updated: 2xx, and the update does not bring the resource back",
			newest, func(ctx context.Context, r *run) error { return r.outOfOrder(ctx, tidings.Deleted) }),
	}
}

func duplicate(ctx context.Context, r *run) error {
	e := r.event("updated", 1)
	for range 2 {
		if err := r.accepts(ctx, r.message(e).sign()); err != nil {
			return err
		}
	}
	return r.handled(ctx, map[string]int{e.ID: 1})
}

func duplicatesAtOnce(ctx context.Context, r *run) error {
	e := r.event("updated", 1)
	accepted := false
	for _, d := range r.together(ctx, atOnce, func(int) *message { return r.message(e).sign() }) {
		switch {
		case d.err != nil:
			return r.unanswered(d.err)
		case d.ok():
			accepted = true
		case d.status != http.StatusConflict && d.status != http.StatusTooManyRequests &&
			d.status != http.StatusServiceUnavailable:
			return fmt.Errorf("it answered %d, want 2xx", d.status)
		}
	}
	if !accepted {
		return errors.New("it accepted none of them")
	}
	return r.handled(ctx, map[string]int{e.ID: 1})
}

// outOfOrder sends the third version of a resource before the second.
func (r *run) outOfOrder(ctx context.Context, newest tidings.Action) error {
	third := r.event(newest, 3)
	third.Sequence = 3
	second := third
	second.ID, second.Action = uuid.Must(uuid.NewV7()).String(), tidings.Updated
	second.ResourceVersion, second.Sequence, second.Time = 2, 2, third.Time.Add(-time.Second)
	for _, e := range []tidings.Event{third, second} {
		if err := r.accepts(ctx, r.message(e).sign()); err != nil {
			return err
		}
	}
	return r.handled(ctx, map[string]int{third.ID: 1, second.ID: 0})
}

// delivery is the answer to one of several webhooks sent at once.
type delivery struct {
	answer
	id  string
	err error
}

func (r *run) together(ctx context.Context, n int, message func(i int) *message) []delivery {
	results := make(chan delivery)
	for i := range n {
		go func() {
			m := message(i)
			a, err := r.send(ctx, m)
			results <- delivery{a, m.id, err}
		}()
	}
	all := make([]delivery, n)
	for i := range all {
		all[i] = <-results
	}
	return all
}

package torture

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

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
		order("same-version", "two resources at the same version: both acted on",
			"recognize duplicates by webhook-id alone: versions are counted for each resource", sameVersion),
		order("same-time", "three changes at the same time, two of them of one resource: all acted on",
			"recognize duplicates by webhook-id alone: a transaction can change a resource twice, and others too", sameTime),
		order("version-restarts", "a version comes again, then a lower one, both with later timestamps: all acted on",
			"drop an event for its version only if its timestamp is not later either: after the sender's database was "+
				"restored, versions are used again", versionRestarts),
		order("clock-behind", "version 2 of a resource has an earlier timestamp than version 1: both acted on",
			"drop an event for its timestamp only if its version is lower, too: clocks of servers differ", clockBehind),
		order("others-newer", "an event with a lower version, sequence and timestamp than one of another resource: acted on",
			"remember the newest version and timestamp of each resource, not of all together: only events of one "+
				"resource arrive in order", othersNewer),
		order("same-id", "two resources of different types with the same id: both acted on",
			"a resource is its resource_type and its resource_id together", sameID),
		order("old-event", "an event of yesterday, which waited for the receiver: acted on",
			"compare webhook-timestamp with your clock, which is when the webhook was sent; the timestamp in the body is "+
				"when the change was made, and events wait while a receiver is down", oldEvent),
	}
}

func duplicate(ctx context.Context, r *run) error {
	e := r.event("updated")
	for range 2 {
		if err := r.accepts(ctx, r.message(e).sign()); err != nil {
			return err
		}
	}
	return r.handled(ctx, map[string]int{e.ID: 1})
}

func duplicatesAtOnce(ctx context.Context, r *run) error {
	e := r.event("updated")
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
	third := r.event(newest)
	second := again(third, -1, -moment)
	second.Sequence--
	for _, e := range []tidings.Event{third, second} {
		if err := r.accepts(ctx, r.message(e).sign()); err != nil {
			return err
		}
	}
	return r.handled(ctx, map[string]int{third.ID: 1, second.ID: 0})
}

// again returns another update of an event's resource, with its version and time
// moved by so much.
func again(e tidings.Event, versions int64, by time.Duration) tidings.Event {
	e.ID, e.Action = webhookID(), tidings.Updated
	e.ResourceVersion, e.Time, e.Sequence = e.ResourceVersion+versions, e.Time.Add(by), e.Sequence+1
	return e
}

// actsOn sends events one after another, each of which must be acted on once.
func (r *run) actsOn(ctx context.Context, events ...tidings.Event) error {
	want := make(map[string]int)
	for _, e := range events {
		if err := r.accepts(ctx, r.message(e).sign()); err != nil {
			return err
		}
		want[e.ID] = 1
	}
	return r.handled(ctx, want)
}

func sameVersion(ctx context.Context, r *run) error {
	one, other := r.event(tidings.Updated), r.event(tidings.Updated)
	other.ResourceVersion = one.ResourceVersion
	return r.actsOn(ctx, one, other)
}

func sameTime(ctx context.Context, r *run) error {
	one, other := r.event(tidings.Created), r.event(tidings.Updated)
	other.Time = one.Time
	return r.actsOn(ctx, one, again(one, 1, 0), other)
}

func versionRestarts(ctx context.Context, r *run) error {
	e := r.event(tidings.Updated)
	same := again(e, 0, moment)
	return r.actsOn(ctx, e, same, again(same, -1, moment))
}

func clockBehind(ctx context.Context, r *run) error {
	first := r.event(tidings.Created)
	return r.actsOn(ctx, first, again(first, 1, -moment))
}

func othersNewer(ctx context.Context, r *run) error {
	older, newer := r.event(tidings.Updated), r.event(tidings.Updated)
	return r.actsOn(ctx, newer, older)
}

func sameID(ctx context.Context, r *run) error {
	older, newer := r.event(tidings.Updated), r.event(tidings.Updated)
	older.Type, older.ResourceID = "torture_too", newer.ResourceID
	return r.actsOn(ctx, newer, older)
}

func oldEvent(ctx context.Context, r *run) error {
	e := r.event(tidings.Updated)
	e.Time = e.Time.AddDate(0, 0, -1)
	return r.actsOn(ctx, e)
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

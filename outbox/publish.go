package outbox

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
)

// MaxPublish is the maximum number of events in one call of [Outbox.Publish].
const MaxPublish = 1000

// Publication is an event published by a client that may retry.
type Publication struct {
	Event
	// Key is an idempotency key: within a day, publications with the same key are
	// the same event, the first one. Empty means that each is a new event.
	Key string
	// Batch is the number of events that the client published together, if Key is
	// derived from one key for all of them: in a batch of another size the key is
	// reused for another request. 0 means that the event has a key of its own.
	Batch int
}

// Publish writes all events or none, in a transaction of its own, and returns their
// webhook-ids once they are durable. It is for programs whose changes are in
// another database; if they are in this one, use [Outbox.Tell], which makes event
// and change atomic.
//
// If a key was used for another event or batch, the error is [eventlog.ErrKeyReused].
func (o *Outbox) Publish(ctx context.Context, events ...Publication) (ids []string, err error) {
	if o.isClosed() {
		return nil, fmt.Errorf("publish: %w", ErrClosed)
	}
	if len(events) > MaxPublish {
		return nil, fmt.Errorf("publish: %d events, but at most %d at once", len(events), MaxPublish)
	}
	rows, now := make([]eventlog.Publication, len(events)), time.Now()
	for i, p := range events {
		e := p.event(now)
		if err := o.check(e); err != nil {
			return nil, fmt.Errorf("publish event %d: %w", i, err)
		}
		rows[i] = eventlog.Publication{Event: e, Key: p.Key}
		if p.Key != "" {
			rows[i].Fingerprint = p.fingerprint()
			if p.Batch > 1 {
				rows[i].Fingerprint += fmt.Sprintf(" of %d", p.Batch)
			}
		}
	}
	if ids, err = o.home.log.Publish(ctx, rows); err != nil {
		return nil, err
	}
	o.told.Give()
	return ids, nil
}

// fingerprint returns everything that the client said about the event.
func (e Event) fingerprint() string {
	text, err := json.Marshal(e)
	if err != nil { // a time whose year JSON can't represent, which check refuses
		return ""
	}
	return string(text)
}

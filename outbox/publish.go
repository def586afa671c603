package outbox

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
)

// MaxPublish is how many events one call of [Outbox.Publish] may have.
const MaxPublish = 1000

// Publication is an event that is published by a client that may retry.
type Publication struct {
	Event
	// Key is an idempotency key: within a day, a publication with a key that was
	// used before is the event that was published first. Empty means that each is a
	// new event.
	Key string
}

// Publish writes events in a transaction of its own, all or none, and returns their
// webhook-ids once they are durable. It is for programs whose changes are in another
// database; where they are in this one, [Outbox.Tell] makes event and change one.
//
// A key that was used for another event is an [eventlog.ErrKeyReused].
func (o *Outbox) Publish(ctx context.Context, events ...Publication) (ids []string, err error) {
	if o.isClosed() {
		return nil, fmt.Errorf("publish: %w", ErrClosed)
	}
	if len(events) > MaxPublish {
		return nil, fmt.Errorf("publish: %d events, of at most %d at once", len(events), MaxPublish)
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
		}
	}
	if ids, err = o.home.log.Publish(ctx, rows); err != nil {
		return nil, err
	}
	o.told.Give()
	return ids, nil
}

// fingerprint is all that the client said of the event.
func (e Event) fingerprint() string {
	text, err := json.Marshal(e)
	if err != nil { // a time outside the years that JSON knows, which check refuses
		return ""
	}
	return string(text)
}

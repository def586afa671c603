package eventlog

import (
	"context"
	"errors"
	"time"

	"github.com/tidings-dev/tidings"
)

// PublicationLife is how long a [Publication]'s key is remembered.
const PublicationLife = 24 * time.Hour

// ErrKeyReused means that the key of a [Publication] was used within
// [PublicationLife] for an event with another fingerprint.
var ErrKeyReused = errors.New("the idempotency key was used for another event, or in a list of a different length; " +
	"use a new key")

// Publication is an event that a client may publish repeatedly when it retries, but
// that is written only once.
type Publication struct {
	Event tidings.Event
	// Key is the idempotency key. Publications with the same key are the same
	// event; empty means that each is a new one.
	Key string
	// Fingerprint identifies the content; it must be the same for all publications
	// with the same key.
	Fingerprint string
}

// Publisher writes events in transactions of its own.
type Publisher interface {
	// Publish writes all events or none, and returns their ids in the same order
	// once they are durable. A publication with a known key gets the id of the
	// event that was written first. The error may be [ErrKeyReused].
	Publish(ctx context.Context, events []Publication) (ids []string, err error)
	// ExpirePublications removes keys that are older than [PublicationLife].
	ExpirePublications(ctx context.Context) error
}

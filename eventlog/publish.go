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
var ErrKeyReused = errors.New("the idempotency key was used for another event")

// Publication is an event that may be published more than once by a client that
// retries, and is written once.
type Publication struct {
	Event tidings.Event
	// Key makes publications the same event; empty means that each is a new one.
	Key string
	// Fingerprint is what all publications with the same key have in common.
	Fingerprint string
}

// Publisher writes events in transactions of its own.
type Publisher interface {
	// Publish writes events, all or none, and returns their ids in the same order
	// once they are durable. A publication whose key is known gets the id of the
	// event that was written first. The error may be [ErrKeyReused].
	Publish(ctx context.Context, events []Publication) (ids []string, err error)
	// ExpirePublications forgets the keys that are older than [PublicationLife].
	ExpirePublications(ctx context.Context) error
}

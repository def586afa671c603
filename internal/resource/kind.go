package resource

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/store"
)

// Base holds the fields that all resources share.
type Base struct {
	ID        string    `bun:"id,pk" json:"id" format:"uuid"`
	Version   int64     `json:"version" doc:"Incremented by each change; also the ETag."`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
	CreatedBy *string   `json:"created_by" format:"uuid" doc:"The owner."`
}

func (b *Base) base() *Base { return b }

// ETag returns the entity tag of this version.
func (b *Base) ETag() string { return fmt.Sprintf(`"%d"`, b.Version) }

// sortValue returns the value of a column that lists can be sorted by.
func (b *Base) sortValue(column string) any {
	if column == "updated_at" {
		return b.UpdatedAt
	}
	return b.CreatedAt
}

// Row is a resource: a struct that embeds [Base]. Clients see its JSON form.
type Row interface {
	base() *Base
	sortValue(column string) any
	ETag() string
}

// kind declares a resource type.
type kind[R Row] struct {
	Type tidings.ResourceType
	// URL is the path of a resource, with {id} as a placeholder.
	URL string
	New func() R
	policy
	// References are the columns that refer to other resources. The owner's
	// column, created_by, is implied: unless the type is Unowned, its resources
	// are deleted with their owner.
	References []reference[R]
	// Details are the tables whose rows belong to a resource and are deleted
	// with it.
	Details []detail
	// Guard may read other rows and reject a change; row is the new state. It
	// is optional.
	Guard func(ctx context.Context, tx *store.Tx, do verb, row R) error
	// Deleting is called in the transaction that deletes a resource. It is
	// optional.
	Deleting func(ctx context.Context, tx *store.Tx, id string) error
	// Unowned resources outlive the user who created them.
	Unowned bool
	// Unlimited resources have no quota, because no request creates them.
	Unlimited bool
	// Self marks the type whose resources own themselves.
	Self bool
	// EventsAsOwner attributes updates to the owner, whoever made them.
	EventsAsOwner bool
}

// reference is a column that refers to another resource.
type reference[R Row] struct {
	To     tidings.ResourceType
	Column string
	// Clear removes the reference when the resource it refers to is deleted. If
	// Clear is nil, the row is deleted, too.
	Clear func(R)
}

// detail is a table whose rows belong to the resource that column refers to.
type detail struct {
	row    any
	column string
}

func (k *kind[R]) name() string { return strings.ReplaceAll(string(k.Type), "_", " ") }

func (k *kind[R]) event(who Caller, row R, a tidings.Action) tidings.Event {
	b := row.base()
	user := who.UserID
	if a == tidings.Updated && k.EventsAsOwner {
		user = owner(row).UserID
	}
	return tidings.Event{
		Type: k.Type, Action: a, ResourceID: b.ID, ResourceVersion: b.Version, UserID: user, OwnerID: owner(row).UserID,
		ResourceURL: strings.Replace(k.URL, "{id}", b.ID, 1),
	}
}

// mayRead reports whether the caller may see an event of this type: those who
// may read the resource may, and so may its owner and admins.
func (k *kind[R]) mayRead(who Caller, e tidings.Event) bool {
	if who.is(RoleAdmin) || k.Self && who.UserID == e.ResourceID {
		return true
	}
	return k.permit(who, reading) == nil && (k.others(who, reading) || e.OwnerID == who.UserID)
}

// snapshot returns the client's view of a row in canonical form, for
// comparison.
func snapshot(row Row) ([]byte, error) {
	text, err := json.Marshal(row)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var value any
	if err := d.Decode(&value); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	return json.Marshal(value)
}

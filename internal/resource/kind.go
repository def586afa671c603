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

// Base is what every resource has.
type Base struct {
	ID        string    `bun:"id,pk" json:"id" format:"uuid"`
	Version   int64     `json:"version" doc:"Grows with each change; the ETag."`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
	CreatedBy *string   `json:"created_by" format:"uuid" doc:"Its owner."`
}

func (b *Base) base() *Base { return b }

// ETag is the entity tag of this version.
func (b *Base) ETag() string { return fmt.Sprintf(`"%d"`, b.Version) }

// sortValue returns the value of a column that lists may be sorted by.
func (b *Base) sortValue(column string) any {
	if column == "updated_at" {
		return b.UpdatedAt
	}
	return b.CreatedAt
}

// Row is a resource: a struct with a [Base]. Its JSON form is what clients see.
type Row interface {
	base() *Base
	sortValue(column string) any
	ETag() string
}

// kind is what one type declares.
type kind[R Row] struct {
	Type tidings.ResourceType
	// URL is the path of a resource, with {id} where its id goes.
	URL string
	New func() R
	policy
	// References are the columns that name other resources. created_by, which names
	// the owner, is not declared: unless the type is Unowned, its resources are
	// deleted with their owner.
	References []reference[R]
	// Details are the rows that are part of a resource; they are deleted with it.
	Details []detail
	// Guard reads other rows and may refuse a change; row is as it will be. It is
	// optional.
	Guard func(ctx context.Context, tx *store.Tx, do verb, row R) error
	// Deleting is called in the transaction that deletes a resource. It is optional.
	Deleting func(ctx context.Context, tx *store.Tx, id string) error
	// Unowned resources outlive whoever created them.
	Unowned bool
	// Unlimited resources have no quota: no request creates them.
	Unlimited bool
	// Self means that a resource is its own owner.
	Self bool
	// ToldAsOwner makes updates carry the owner, whoever made them.
	ToldAsOwner bool
}

// reference is a column in which a resource names another one.
type reference[R Row] struct {
	To     tidings.ResourceType
	Column string
	// Clear removes the reference from a resource when the other one is deleted. If it
	// is nil, the resource is deleted with the other one.
	Clear func(R)
}

// detail is a table whose rows are part of the resource that a column names.
type detail struct {
	row    any
	column string
}

func (k *kind[R]) name() string { return strings.ReplaceAll(string(k.Type), "_", " ") }

func (k *kind[R]) event(who Caller, row R, a tidings.Action) tidings.Event {
	b := row.base()
	user := who.UserID
	if a == tidings.Updated && k.ToldAsOwner {
		user = owner(row).UserID
	}
	return tidings.Event{
		Type: k.Type, Action: a, ResourceID: b.ID, ResourceVersion: b.Version, UserID: user, OwnerID: owner(row).UserID,
		ResourceURL: strings.Replace(k.URL, "{id}", b.ID, 1),
	}
}

// mayRead reports whether a caller may see an event of this type: those who may read
// the resource, its owner, and admins, who see all events.
func (k *kind[R]) mayRead(who Caller, e tidings.Event) bool {
	if who.is(RoleAdmin) || k.Self && who.UserID == e.ResourceID {
		return true
	}
	return k.permit(who, reading) == nil && (k.Others(who, reading) || e.OwnerID == who.UserID)
}

// snapshot is what a client can see of a row, in a form that can be compared.
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

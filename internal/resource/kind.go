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

	// touched says that something changed that the row's JSON does not show.
	touched bool
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

// Kind is what one type declares. It does no I/O of its own.
type Kind[R Row] struct {
	Type tidings.ResourceType
	// URL is the path of a resource, with {id} where its id goes.
	URL string
	New func() R
	Policy
	// Guard looks at other rows and may veto a change; row is as it will be.
	Guard func(ctx context.Context, tx *store.Tx, do Verb, row R) error
	// Owns goes with a resource that is deleted, leaves first.
	Owns []Owned
	// Unowned resources have no created_by.
	Unowned bool
	// Self means that a resource is its own owner.
	Self bool
	// ToldAsOwner makes updates carry the owner, whoever made them.
	ToldAsOwner bool
}

func (k *Kind[R]) name() string { return strings.ReplaceAll(string(k.Type), "_", " ") }

func (k *Kind[R]) event(who Caller, row R, a tidings.Action) tidings.Event {
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

// mayRead reports whether a caller may hear of an event of this type: one that
// may read the resource, its owner, and admins, who are told everything.
func (k *Kind[R]) mayRead(who Caller, e tidings.Event) bool {
	if who.is(RoleAdmin) || k.Self && who.UserID == e.ResourceID {
		return true
	}
	return k.permit(who, Reading) == nil && (k.Others(who, Reading) || e.OwnerID == who.UserID)
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

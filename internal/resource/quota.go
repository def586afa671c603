package resource

import (
	"context"
	"strings"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/store"
)

// Quota is how much one user may own of something; the zero value is no limit.
type Quota struct {
	Max int64
	// Setting is the key of the configuration that sets it, for the error.
	Setting string
}

// Quotas are what one user may own.
type Quotas struct {
	// Resources of each type; of a type without owners, how many there may be.
	Resources map[tidings.ResourceType]Quota
	// In all contexts, and in all vector stores of a user.
	HistoryItems, HistoryBytes, VectorStoreItems, VectorStoreBytes Quota
}

// Requests of one user that run at once may take so much before they see each
// other's: as many requests, or what the large bodies of all replicas may hold.
const (
	spareRequests = 64
	spareBytes    = 64 << 20
)

// take returns an error unless a user has room for n more of something, of which
// used says how much there is. Close to the quota it holds the user until the end
// of the transaction, so that requests that run at once cannot take the same
// room; as long as there is spare room, they do not wait for each other.
func (q Quota) take(
	ctx context.Context, tx *store.Tx, who Caller, code Code, n, spare int64, used func() (int64, error),
) error {
	if q.Max == 0 {
		return nil
	}
	now, err := used()
	if err == nil && now+n > q.Max-spare {
		if err = tx.Lock(ctx, &User{Base: Base{ID: who.UserID}}); err == nil {
			now, err = used()
		}
	}
	if err != nil {
		return known(err, "user")
	}
	if now+n > q.Max {
		what := strings.ReplaceAll(strings.TrimPrefix(q.Setting, "limits."), "_", " ")
		return fail(code, "", "that would make %d %s; %s allows %d: delete some first", now+n, what, q.Setting, q.Max)
	}
	return nil
}

// takeRow takes a place for one more resource of a type.
func (c *collection[R]) takeRow(ctx context.Context, tx *store.Tx, who Caller) error {
	var owned []store.Filter
	if !c.kind.Unowned {
		owned = append(owned, ownedBy(who))
	}
	return c.quotas.Resources[c.kind.Type].take(ctx, tx, who, Conflict, 1, spareRequests, func() (int64, error) {
		return tx.Count(ctx, c.kind.New(), owned...)
	})
}

// sum adds up a column of a user's resources.
func (c *collection[R]) sum(ctx context.Context, tx *store.Tx, who Caller, column string) func() (int64, error) {
	return func() (int64, error) {
		return tx.Sum(ctx, c.kind.New(), column, ownedBy(who))
	}
}

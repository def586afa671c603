package resource

import (
	"context"
	"strings"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/store"
)

// Quota limits how much of something one user may own; the zero value is no
// limit.
type Quota struct {
	Max int64
	// Setting is the configuration key of the quota, for the error.
	Setting string
}

// Quotas limits what one user may own.
type Quotas struct {
	// Resources limits the resources of each type; for unowned types, their
	// total.
	Resources map[tidings.ResourceType]Quota
	// The total in all contexts and vector stores of a user.
	HistoryItems, HistoryBytes, VectorStoreItems, VectorStoreBytes Quota
}

// How far one user's concurrent requests may exceed a quota before they are
// serialized: as many requests, or as many bytes as the large bodies on all
// replicas may hold.
const (
	spareRequests = 64
	spareBytes    = 64 << 20
)

// take returns an error unless the user's quota has room for n more; used
// returns the current usage. Close to the quota it locks the user until the end
// of the transaction, so that concurrent requests cannot take the same room.
// With room to spare, requests do not wait for each other.
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
		return fromStore(err, "user")
	}
	if now+n > q.Max {
		what := strings.ReplaceAll(strings.TrimPrefix(q.Setting, "limits."), "_", " ")
		return fail(code, "", "this would make %d %s; %s allows %d: delete some first", now+n, what, q.Setting, q.Max)
	}
	return nil
}

// takeRow checks the quota for one more resource of a type.
func (c *collection[R]) takeRow(ctx context.Context, tx *store.Tx, who Caller) error {
	var owned []store.Filter
	if !c.kind.Unowned {
		owned = append(owned, ownedBy(who))
	}
	return c.quotas.Resources[c.kind.Type].take(ctx, tx, who, Conflict, 1, spareRequests, func() (int64, error) {
		return tx.Count(ctx, c.kind.New(), owned...)
	})
}

// sum returns a function that sums a column of a user's resources.
func (c *collection[R]) sum(ctx context.Context, tx *store.Tx, who Caller, column string) func() (int64, error) {
	return func() (int64, error) {
		return tx.Sum(ctx, c.kind.New(), column, ownedBy(who))
	}
}

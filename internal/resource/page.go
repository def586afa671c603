package resource

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/tidings-dev/tidings/internal/store"
)

// Page selects a page of a list.
type Page struct {
	Limit int64
	// Token is the id of the last item of the previous page; empty for the
	// first page.
	Token      string
	OrderBy    string
	Descending bool
}

// Items is a page of a list.
type Items[R any] struct {
	Items         []R     `json:"items" nullable:"false"`
	TotalCount    int64   `json:"total_count" doc:"The number of items on all pages."`
	HasMore       bool    `json:"has_more"`
	NextPageToken *string `json:"next_page_token" doc:"The page_token of the next page; null on the last page."`
}

const (
	// pageBytes limits the size of a page as JSON; a single item may be larger.
	pageBytes = 1 << 20
	// firstRows is how many rows are requested before their size is known: a
	// database may send a whole result even if it is not read to the end.
	firstRows = 8
)

// pager collects items until the page is full.
type pager[R any] struct {
	Items[R]
	limit, bytes int64
	// id returns the page token of an item. It is nil if there are no further
	// pages.
	id func(R) string
}

func newPager[R any](limit int64, id func(R) string) *pager[R] {
	return &pager[R]{Items: Items[R]{Items: []R{}}, limit: limit, id: id}
}

// add adds an item, or records that there are more than fit on the page.
func (p *pager[R]) add(item R) error {
	text, err := json.Marshal(item)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	n := len(p.Items.Items)
	if size := int64(len(text)); int64(n) < p.limit && (n == 0 || p.bytes+size <= pageBytes) {
		p.Items.Items, p.bytes = append(p.Items.Items, item), p.bytes+size
		return nil
	}
	p.HasMore = true
	if p.id != nil {
		token := p.id(p.Items.Items[n-1])
		p.NextPageToken = &token
	}
	return nil
}

// onePage returns as many items as fit on one page.
func onePage[R any](items []R) (*Items[R], error) {
	p := newPager[R](int64(len(items)), nil)
	p.TotalCount = int64(len(items))
	for _, item := range items {
		if err := p.add(item); err != nil || p.HasMore {
			return &p.Items, err
		}
	}
	return &p.Items, nil
}

// room returns how many more rows to read: as many as will fit if they are like
// the previous ones, and one more to learn whether there is a next page.
func (p *pager[R]) room() int64 {
	n := int64(len(p.Items.Items))
	rows := int64(firstRows)
	if n > 0 {
		rows = max(pageBytes-p.bytes, 0)*n/max(p.bytes, 1) + 1
	}
	return min(rows, p.limit+1-n)
}

// readPage reads a page of the rows that match the filters, in batches; it
// drops rows beyond the page. at returns the position of a row.
func readPage[R any](
	ctx context.Context, s *store.Store, newRow func() R, order store.Order, at func(R) store.Position,
	filters ...store.Filter,
) (*Items[R], error) {
	p := newPager(order.Limit, func(row R) string { return at(row).ID })
	for {
		order.Limit = p.room()
		read := int64(0)
		for row, err := range store.List(ctx, s, newRow, order, filters...) {
			if err != nil {
				return nil, err
			}
			if err := p.add(row); err != nil {
				return nil, err
			}
			if p.HasMore {
				return &p.Items, nil
			}
			read++
		}
		if read < order.Limit {
			return &p.Items, nil
		}
		last := at(p.Items.Items[len(p.Items.Items)-1])
		order.After = &last
	}
}

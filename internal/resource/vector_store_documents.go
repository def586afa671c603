package resource

import (
	"context"
	"time"

	"github.com/uptrace/bun"

	"github.com/tidings-dev/tidings/internal/store"
)

// DeleteDocument deletes all items of a document.
func (v *VectorStores) DeleteDocument(ctx context.Context, who Caller, id, document string) error {
	_, err := v.changeItems(ctx, who, id, 0, func(tx *store.Tx, s *VectorStore) (bool, error) {
		n, err := tx.DeleteDetails(ctx, new(vectorStoreItem), ofVectorStore(s.ID),
			equal("document_id", document))
		if err == nil && n == 0 {
			err = fail(NotFound, "document_id", "no such document in this vector store")
		}
		return true, err
	})
	return err
}

// Document summarizes the items that a vector store holds of a document.
type Document struct {
	ID            string    `json:"id"`
	VectorStoreID string    `json:"vector_store_id" format:"uuid"`
	FileID        *string   `json:"file_id" format:"uuid"`
	UsageBytes    int64     `json:"usage_bytes"`
	CreatedAt     time.Time `json:"created_at"`
}

// vectorStoreDocument aggregates the items of a document.
type vectorStoreDocument struct {
	bun.BaseModel `bun:"table:vector_store_items"`

	DocumentID   string
	DocumentType string
	UsageBytes   int64
	CreatedAt    time.Time // of the first item
}

// documentsRead limits the documents read for one page; the page holds fewer.
const documentsRead = 10_000

// Documents returns a page of the documents in a vector store, oldest first;
// after is the id of the last document of the previous page, empty for the
// first page.
func (v *VectorStores) Documents(ctx context.Context, who Caller, id, after string) (*Items[*Document], error) {
	s, err := v.get(ctx, who, id)
	if err != nil {
		return nil, err
	}
	var position *store.Position
	if after != "" {
		last, err := v.documents(ctx, nil, 1, ofVectorStore(s.ID), equal("document_id", after))
		if err != nil {
			return nil, err
		}
		if len(last) == 0 {
			return nil, fail(Invalid, "page_token", "the document no longer exists; start again from the first page")
		}
		position = &store.Position{Value: last[0].CreatedAt, ID: last[0].DocumentID}
	}
	rows, err := v.documents(ctx, position, documentsRead, ofVectorStore(s.ID))
	if err != nil {
		return nil, err
	}
	p := newPager(documentsRead-1, func(d *Document) string { return d.ID })
	p.TotalCount = s.Stats.NumDocuments
	for _, row := range rows {
		d := &Document{ID: row.DocumentID, VectorStoreID: s.ID, UsageBytes: row.UsageBytes, CreatedAt: row.CreatedAt}
		if row.DocumentType == platformFile {
			d.FileID = &d.ID
		}
		if err := p.add(d); err != nil || p.HasMore {
			return &p.Items, err
		}
	}
	return &p.Items, nil
}

func (v *VectorStores) documents(
	ctx context.Context, after *store.Position, limit int64, filters ...store.Filter,
) (rows []*vectorStoreDocument, err error) {
	err = v.store.Documents(ctx, &rows, after, limit, filters...)
	return rows, err
}

package resource

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/uptrace/bun"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/internal/valid"
)

// VectorStore is embeddings of documents.
type VectorStore struct {
	bun.BaseModel `bun:"table:vector_stores"`
	Base

	Name         string           `json:"name"`
	ModelID      string           `json:"model_id"`
	Dimension    int              `json:"dimension"`
	ContextID    *string          `json:"context_id" format:"uuid"`
	LastActiveAt time.Time        `json:"last_active_at"`
	NumItems     int64            `json:"-"`
	Stats        VectorStoreStats `bun:"embed:" json:"stats"`
}

// VectorStoreStats is what is in a vector store.
type VectorStoreStats struct {
	UsageBytes   int64 `json:"usage_bytes"`
	NumDocuments int64 `json:"num_documents"`
}

func vectorStoreKind(owns ...Owned) Kind[*VectorStore] {
	return Kind[*VectorStore]{
		Type:   VectorStoreType,
		URL:    "/api/v1/vector_stores/{id}",
		New:    func() *VectorStore { return new(VectorStore) },
		Policy: privateInContext,
		Owns:   owns,
	}
}

// NewVectorStore asks for a vector store.
type NewVectorStore struct {
	Name      string `json:"name" minLength:"1" maxLength:"256"`
	Dimension int    `json:"dimension" minimum:"1" maximum:"9999"`
	ModelID   string `json:"model_id" minLength:"1" maxLength:"256"`
}

// CreateVectorStore makes a vector store, in the context that the request is
// limited to.
func (r *Resources) CreateVectorStore(ctx context.Context, who Caller, in NewVectorStore) (*VectorStore, error) {
	row := &VectorStore{Name: in.Name, Dimension: in.Dimension, ModelID: in.ModelID, ContextID: who.context()}
	err := r.store.InTx(ctx, func(tx *store.Tx) error {
		if err := r.enter(ctx, tx, who, row.ContextID); err != nil {
			return err
		}
		row.LastActiveAt = tx.Now
		return r.VectorStores.insert(ctx, tx, who, row)
	})
	return row, err
}

// DeleteVectorStore removes a vector store.
func (r *Resources) DeleteVectorStore(ctx context.Context, who Caller, id string, ifMatch int64) error {
	now, err := r.VectorStores.find(ctx, who, Deleting, id)
	if err != nil {
		return err
	}
	return r.store.InTx(ctx, func(tx *store.Tx) error {
		if err := r.enter(ctx, tx, who, now.ContextID); err != nil {
			return err
		}
		row, err := r.VectorStores.lock(ctx, tx, who, Deleting, id, ifMatch)
		if err != nil {
			return err
		}
		return r.VectorStores.remove(ctx, tx, who, row)
	})
}

// ListVectorStores returns a part of the caller's vector stores.
func (r *Resources) ListVectorStores(ctx context.Context, who Caller, page Page) (*Items[*VectorStore], error) {
	if err := r.needContext(ctx, who); err != nil {
		return nil, err
	}
	return r.VectorStores.List(ctx, who, page)
}

// vectorStoreItem is a piece of a document and its embedding.
type vectorStoreItem struct {
	bun.BaseModel `bun:"table:vector_store_items"`

	ID            string `bun:",pk"`
	VectorStoreID string `bun:",pk"`
	DocumentID    string
	DocumentType  string
	CreatedAt     time.Time
	Text          string
	Embedding     []byte
	UsageBytes    int64
	Metadata      Metadata `bun:",nullzero,type:json"`
}

// VectorStoreItem is a piece of a document and its embedding.
type VectorStoreItem struct {
	ID           *string   `json:"id" required:"false" format:"uuid"`
	DocumentID   string    `json:"document_id" minLength:"1" maxLength:"256"`
	DocumentType string    `json:"document_type" required:"false" enum:"platform_file,external" default:"platform_file"`
	ModelID      string    `json:"model_id" required:"false" default:"platform" doc:"The model that made the embedding: that of the vector store, which is also called platform."`
	Text         string    `json:"text" maxLength:"262144"`
	Embedding    []float32 `json:"embedding" nullable:"false" maxItems:"9999"`
	Metadata     Metadata  `json:"metadata" required:"false" nullable:"true" maxProperties:"16"`
}

const (
	platformFile = "platform_file"
	// platformModel stands for the vector store's model, whatever that is.
	platformModel = "platform"
)

// row checks an item and turns it into a row.
func (i *VectorStoreItem) row(field string, s *VectorStore, now time.Time) (*vectorStoreItem, error) {
	if i.DocumentType == "" {
		i.DocumentType = platformFile
	}
	switch {
	case len(i.Embedding) != s.Dimension:
		return nil, fail(Invalid, field+".embedding", "has %d numbers; this vector store has %d dimensions", len(i.Embedding), s.Dimension)
	case i.ModelID != s.ModelID && i.ModelID != platformModel:
		return nil, fail(Invalid, field+".model_id", "differs from the vector store's, which is %q", s.ModelID)
	}
	if i.DocumentType == platformFile {
		id, ok := valid.UUID(i.DocumentID)
		if !ok {
			return nil, fail(Invalid, field+".document_id", "must be the id of a file, or document_type must be external")
		}
		i.DocumentID = id
	}
	if err := i.Metadata.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	row := &vectorStoreItem{
		ID: newID(), VectorStoreID: s.ID, DocumentID: i.DocumentID, DocumentType: i.DocumentType, CreatedAt: now,
		Text: i.Text, Embedding: encodeVector(i.Embedding), Metadata: i.Metadata,
	}
	row.UsageBytes = int64(len(row.Text) + len(row.Embedding))
	if i.ID != nil {
		row.ID = *i.ID
	}
	return row, nil
}

func encodeVector(v []float32) []byte {
	b := make([]byte, 0, 4*len(v))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

func decodeVector(b []byte) []float32 {
	v := make([]float32, len(b)/4)
	for i := range v {
		v[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return v
}

func ofVectorStore(id string) store.Filter {
	return store.Filter{Column: "vector_store_id", Op: store.Equal, Value: id}
}

// AddItems adds items to a vector store: all of them or none.
func (r *Resources) AddItems(ctx context.Context, who Caller, id string, ifMatch int64, items []VectorStoreItem) (*VectorStore, error) {
	return r.changeVectorStore(ctx, who, id, ifMatch, func(tx *store.Tx, s *VectorStore) error {
		if len(items) == 0 {
			return nil
		}
		rows, size := make([]*vectorStoreItem, len(items)), int64(0)
		for i := range items {
			var err error
			if rows[i], err = items[i].row(fmt.Sprintf("[%d]", i), s, tx.Now); err != nil {
				return err
			}
			size += rows[i].UsageBytes
		}
		if err := r.takeItems(ctx, tx, who, int64(len(rows)), size); err != nil {
			return err
		}
		s.touched = true
		return known(tx.InsertDetails(ctx, &rows), "item")
	})
}

// takeItems takes room for items of a vector store.
func (r *Resources) takeItems(ctx context.Context, tx *store.Tx, who Caller, n, size int64) error {
	err := r.quotas.VectorStoreItems.take(ctx, tx, who, Conflict, n, spareRequests*n, r.VectorStores.sum(ctx, tx, who, "num_items"))
	if err != nil {
		return err
	}
	return r.quotas.VectorStoreBytes.take(ctx, tx, who, TooLarge, size, spareBytes, r.VectorStores.sum(ctx, tx, who, "usage_bytes"))
}

// changeVectorStore changes what is in a vector store.
func (r *Resources) changeVectorStore(ctx context.Context, who Caller, id string, ifMatch int64, change func(*store.Tx, *VectorStore) error) (row *VectorStore, err error) {
	now, err := r.VectorStores.find(ctx, who, Updating, id)
	if err != nil {
		return nil, err
	}
	err = r.store.InTx(ctx, func(tx *store.Tx) error {
		if err := r.enter(ctx, tx, who, now.ContextID); err != nil {
			return err
		}
		if row, err = r.VectorStores.lock(ctx, tx, who, Updating, id, ifMatch); err != nil {
			return err
		}
		return r.VectorStores.change(ctx, tx, who, row, func(s *VectorStore) error {
			if err := change(tx, s); err != nil || !s.touched {
				return err
			}
			s.LastActiveAt = tx.Now
			if s.NumItems, err = tx.Count(ctx, new(vectorStoreItem), ofVectorStore(s.ID)); err != nil {
				return err
			}
			if s.Stats.UsageBytes, err = tx.Sum(ctx, new(vectorStoreItem), "usage_bytes", ofVectorStore(s.ID)); err != nil {
				return err
			}
			s.Stats.NumDocuments, err = tx.CountDistinct(ctx, new(vectorStoreItem), "document_id", ofVectorStore(s.ID))
			return err
		})
	})
	return row, err
}

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

// VectorStore holds embeddings of documents.
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

// VectorStoreStats describes the contents of a vector store.
type VectorStoreStats struct {
	UsageBytes   int64 `json:"usage_bytes"`
	NumDocuments int64 `json:"num_documents"`
}

// VectorStores is the type of the users' vector stores.
type VectorStores struct {
	*collection[*VectorStore]
	contexts *Contexts
}

func newVectorStores(contexts *Contexts) *VectorStores {
	return &VectorStores{contexts: contexts, collection: newCollection(kind[*VectorStore]{
		Type:       VectorStoreType,
		URL:        "/api/v1/vector_stores/{id}",
		New:        func() *VectorStore { return new(VectorStore) },
		policy:     privateInContext,
		References: []reference[*VectorStore]{{To: ContextType, Column: "context_id"}},
		Details:    []detail{{new(vectorStoreItem), "vector_store_id"}},
	})}
}

// Get returns one of the caller's vector stores.
func (v *VectorStores) Get(ctx context.Context, who Caller, id string) (*VectorStore, error) {
	return v.get(ctx, who, id)
}

// NewVectorStore is a request to create a vector store.
type NewVectorStore struct {
	Name      string `json:"name" minLength:"1" maxLength:"256"`
	Dimension int    `json:"dimension" minimum:"1" maximum:"9999"`
	ModelID   string `json:"model_id" minLength:"1" maxLength:"256"`
}

// Create creates a vector store in the context that the request is restricted
// to.
func (v *VectorStores) Create(ctx context.Context, who Caller, in NewVectorStore) (*VectorStore, error) {
	row := &VectorStore{Name: in.Name, Dimension: in.Dimension, ModelID: in.ModelID, ContextID: who.context()}
	err := v.store.InTx(ctx, func(tx *store.Tx) error {
		if err := v.contexts.enter(ctx, tx, who, row.ContextID); err != nil {
			return err
		}
		row.LastActiveAt = tx.Now
		return v.insert(ctx, tx, who, row)
	})
	return row, err
}

// Delete deletes a vector store. ifMatch is the expected version, or 0 for any.
func (v *VectorStores) Delete(ctx context.Context, who Caller, id string, ifMatch int64) error {
	now, err := v.find(ctx, who, deleting, id)
	if err != nil {
		return err
	}
	return v.store.InTx(ctx, func(tx *store.Tx) error {
		if err := v.contexts.enter(ctx, tx, who, now.ContextID); err != nil {
			return err
		}
		row, err := v.lock(ctx, tx, who, deleting, id, ifMatch)
		if err != nil {
			return err
		}
		return v.remove(ctx, tx, who, row)
	})
}

// List returns a page of the caller's vector stores.
func (v *VectorStores) List(ctx context.Context, who Caller, page Page) (*Items[*VectorStore], error) {
	if err := v.contexts.need(ctx, who); err != nil {
		return nil, err
	}
	return v.list(ctx, who, page)
}

// vectorStoreItem is a chunk of a document with its embedding.
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

// VectorStoreItem is a chunk of a document with its embedding.
type VectorStoreItem struct {
	ID           *string   `json:"id" required:"false" format:"uuid"`
	DocumentID   string    `json:"document_id" minLength:"1" maxLength:"256"`
	DocumentType string    `json:"document_type" required:"false" enum:"platform_file,external" default:"platform_file"`
	ModelID      string    `json:"model_id" required:"false" default:"platform" doc:"The model that computed the embedding, which must be the vector store's; platform is an alias for it."`
	Text         string    `json:"text" maxLength:"262144"`
	Embedding    []float32 `json:"embedding" nullable:"false" maxItems:"9999"`
	Metadata     Metadata  `json:"metadata" required:"false" nullable:"true" maxProperties:"16"`
}

const (
	platformFile = "platform_file"
	// platformModel is an alias for the vector store's model.
	platformModel = "platform"
)

// row validates an item and converts it to a row.
func (i *VectorStoreItem) row(field string, s *VectorStore, now time.Time) (*vectorStoreItem, error) {
	if i.DocumentType == "" {
		i.DocumentType = platformFile
	}
	switch {
	case len(i.Embedding) != s.Dimension:
		return nil, fail(Invalid, field+".embedding", "expected %[2]d dimensions, got %[1]d",
			len(i.Embedding), s.Dimension)
	case i.ModelID != s.ModelID && i.ModelID != platformModel:
		return nil, fail(Invalid, field+".model_id", "must be the vector store's model, %q", s.ModelID)
	}
	if i.DocumentType == platformFile {
		id, ok := valid.UUID(i.DocumentID)
		if !ok {
			return nil,
				fail(Invalid, field+".document_id", "must be the id of a file unless document_type is external")
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
	return equal("vector_store_id", id)
}

// AddItems adds items to a vector store, all or none.
func (v *VectorStores) AddItems(
	ctx context.Context, who Caller, id string, ifMatch int64, items []VectorStoreItem,
) (*VectorStore, error) {
	return v.changeItems(ctx, who, id, ifMatch, func(tx *store.Tx, s *VectorStore) (bool, error) {
		if len(items) == 0 {
			return false, nil
		}
		rows, size := make([]*vectorStoreItem, len(items)), int64(0)
		for i := range items {
			var err error
			if rows[i], err = items[i].row(fmt.Sprintf("[%d]", i), s, tx.Now); err != nil {
				return false, err
			}
			size += rows[i].UsageBytes
		}
		if err := v.takeItems(ctx, tx, who, int64(len(rows)), size); err != nil {
			return false, err
		}
		return true, fromStore(tx.InsertDetails(ctx, &rows), "item")
	})
}

// takeItems checks the quotas for items of a vector store.
func (v *VectorStores) takeItems(ctx context.Context, tx *store.Tx, who Caller, n, size int64) error {
	err := v.quotas.VectorStoreItems.take(ctx, tx, who, Conflict, n, spareRequests*n, v.sum(ctx, tx, who, "num_items"))
	if err != nil {
		return err
	}
	return v.quotas.VectorStoreBytes.take(ctx, tx, who, TooLarge, size, spareBytes, v.sum(ctx, tx, who, "usage_bytes"))
}

// changeItems changes the items of a vector store; change reports whether it
// changed any.
func (v *VectorStores) changeItems(ctx context.Context, who Caller, id string, ifMatch int64,
	change func(*store.Tx, *VectorStore) (bool, error),
) (row *VectorStore, err error) {
	now, err := v.find(ctx, who, updating, id)
	if err != nil {
		return nil, err
	}
	err = v.store.InTx(ctx, func(tx *store.Tx) error {
		if err := v.contexts.enter(ctx, tx, who, now.ContextID); err != nil {
			return err
		}
		if row, err = v.lock(ctx, tx, who, updating, id, ifMatch); err != nil {
			return err
		}
		return v.change(ctx, tx, who, row, func(s *VectorStore) (bool, error) {
			changed, err := change(tx, s)
			if err != nil || !changed {
				return false, err
			}
			s.LastActiveAt = tx.Now
			if s.NumItems, err = tx.Count(ctx, new(vectorStoreItem), ofVectorStore(s.ID)); err != nil {
				return false, err
			}
			if s.Stats.UsageBytes,
				err = tx.Sum(ctx, new(vectorStoreItem), "usage_bytes", ofVectorStore(s.ID)); err != nil {
				return false, err
			}
			s.Stats.NumDocuments, err = tx.CountDistinct(ctx, new(vectorStoreItem), "document_id", ofVectorStore(s.ID))
			return true, err
		})
	})
	return row, err
}

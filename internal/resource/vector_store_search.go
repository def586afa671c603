package resource

import (
	"context"
	"encoding/binary"
	"math"
	"slices"

	"github.com/tidings-dev/tidings/internal/store"
)

// Search is a request for the items nearest to a vector.
type Search struct {
	QueryVector []float32 `json:"query_vector" nullable:"false" maxItems:"9999"`
	Limit       int       `json:"limit" required:"false" minimum:"1" maximum:"10" default:"5"`
}

// Found is an item and its similarity.
type Found struct {
	Item  FoundItem `json:"item"`
	Score float64   `json:"score" doc:"Cosine similarity: 1 is the same direction."`
}

// FoundItem is an item of a vector store.
type FoundItem struct {
	ID            string    `json:"id" format:"uuid"`
	VectorStoreID string    `json:"vector_store_id" format:"uuid"`
	DocumentID    string    `json:"document_id"`
	DocumentType  string    `json:"document_type"`
	ModelID       string    `json:"model_id"`
	Text          string    `json:"text"`
	Embedding     []float32 `json:"embedding" nullable:"false"`
	Metadata      Metadata  `json:"metadata"`
}

// Search returns the items nearest to a vector, best first. It scans the rows
// one by one.
func (v *VectorStores) Search(ctx context.Context, who Caller, id string, in Search) (*Items[*Found], error) {
	if err := who.Need(RoleUser); err != nil { // not a reader: it finds texts of files
		return nil, err
	}
	s, err := v.get(ctx, who, id)
	if err != nil {
		return nil, err
	}
	if len(in.QueryVector) != s.Dimension {
		return nil, fail(Invalid, "query_vector", "expected %[2]d dimensions, got %[1]d",
			len(in.QueryVector), s.Dimension)
	}
	best := []*Found{}
	err = store.Each(ctx, v.store, func(row *vectorStoreItem) error {
		score := cosine(in.QueryVector, row.Embedding)
		at, _ := slices.BinarySearchFunc(best, score, func(f *Found, score float64) int {
			if f.Score >= score {
				return -1
			}
			return 1
		})
		if at < in.Limit {
			best = slices.Insert(best[:min(len(best), in.Limit-1)], min(at, len(best)),
				&Found{Score: score, Item: FoundItem{
					ID: row.ID, VectorStoreID: s.ID, DocumentID: row.DocumentID, DocumentType: row.DocumentType,
					ModelID: s.ModelID, Text: row.Text, Embedding: decodeVector(row.Embedding),
					Metadata: row.Metadata.orEmpty(),
				}})
		}
		return nil
	}, ofVectorStore(s.ID))
	if err != nil {
		return nil, err
	}
	err = v.store.InTx(ctx, func(tx *store.Tx) error {
		if err := v.contexts.enter(ctx, tx, who, s.ContextID); err != nil {
			return err
		}
		return tx.Touch(ctx, s)
	})
	if err != nil {
		return nil, err
	}
	return onePage(best)
}

// cosine returns the cosine similarity of a vector and an encoded one, or 0 if
// either is zero.
func cosine(a []float32, encoded []byte) float64 {
	var dot, aa, bb float64
	for i, x := range a {
		y := float64(math.Float32frombits(binary.LittleEndian.Uint32(encoded[4*i:])))
		dot += float64(x) * y
		aa += float64(x) * float64(x)
		bb += y * y
	}
	if aa == 0 || bb == 0 {
		return 0
	}
	return dot / (math.Sqrt(aa) * math.Sqrt(bb))
}

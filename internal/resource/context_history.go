package resource

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"github.com/tidings-dev/tidings/internal/store"
)

// HistoryItem is an A2A message or artifact: a part of a context.
type HistoryItem struct {
	bun.BaseModel `bun:"table:context_history"`

	ID        string          `bun:",pk" json:"id" format:"uuid"`
	ContextID string          `json:"context_id" format:"uuid"`
	Position  int64           `json:"-"`
	CreatedAt time.Time       `json:"created_at"`
	Kind      string          `json:"kind" enum:"message,artifact"`
	Data      json.RawMessage `bun:"type:json" json:"data"`
	SizeBytes int64           `json:"-"`
}

// a2aItem is what we look at in a message or an artifact, in the spellings of
// A2A 0.2 to 1.0.
type a2aItem struct {
	Role       string `json:"role"`
	ArtifactID string `json:"artifactId"`
	Artifact   string `json:"artifact_id"`
	Parts      []struct {
		Text string `json:"text"`
	} `json:"parts"`
}

func (a a2aItem) kind() (string, error) {
	switch {
	case a.Parts == nil:
		return "", fail(Invalid, "parts", "expected an A2A message or artifact, which has parts")
	case a.ArtifactID != "" || a.Artifact != "":
		return "artifact", nil
	case a.Role != "":
		return "message", nil
	}
	return "", fail(Invalid, "role", "expected an A2A message, which has a role, or an artifact, which has an artifactId")
}

const maxTitle = 100

// title is what a user's message is called; empty if nothing can be.
func (a a2aItem) title() string {
	if a.Role != "user" && a.Role != "ROLE_USER" {
		return ""
	}
	var texts []string
	for _, part := range a.Parts {
		texts = append(texts, strings.TrimSpace(part.Text))
	}
	title := []rune(strings.TrimSpace(strings.Join(texts, " ")))
	return string(title[:min(len(title), maxTitle)])
}

func ofContext(id string) store.Filter {
	return store.Filter{Column: "context_id", Op: store.Equal, Value: id}
}

// AddHistory appends a message or an artifact to a context. The first message of
// a user gives a context its title, where it has none and has room for one.
func (r *Resources) AddHistory(ctx context.Context, who Caller, contextID string, data json.RawMessage) (*HistoryItem, error) {
	var item a2aItem
	if err := json.Unmarshal(data, &item); err != nil {
		return nil, &Error{Code: Invalid, Message: "expected an A2A message or artifact", Cause: err}
	}
	kind, err := item.kind()
	if err != nil {
		return nil, err
	}
	row := &HistoryItem{ID: newID(), Kind: kind, Data: data, SizeBytes: int64(len(data))}
	_, err = r.Contexts.update(ctx, who, contextID, 0, func(tx *store.Tx, c *Context) error {
		if err := r.takeHistory(ctx, tx, who, row.SizeBytes); err != nil {
			return err
		}
		c.HistoryCount++
		c.HistoryBytes += row.SizeBytes
		c.LastActiveAt, c.touched = tx.Now, true
		row.ContextID, row.Position, row.CreatedAt = c.ID, c.HistoryCount, tx.Now
		if title := item.title(); title != "" && c.Metadata["title"] == "" && len(c.Metadata) < maxMetadata {
			c.Metadata = c.Metadata.merge(map[string]*string{"title": &title})
		}
		return tx.InsertDetails(ctx, row)
	})
	return row, err
}

// takeHistory takes room for a history item.
func (r *Resources) takeHistory(ctx context.Context, tx *store.Tx, who Caller, size int64) error {
	err := r.quotas.HistoryItems.take(ctx, tx, who, Conflict, 1, spareRequests, r.Contexts.sum(ctx, tx, who, "history_count"))
	if err != nil {
		return err
	}
	return r.quotas.HistoryBytes.take(ctx, tx, who, TooLarge, size, spareBytes, r.Contexts.sum(ctx, tx, who, "history_bytes"))
}

// History returns a part of a context's history.
func (r *Resources) History(ctx context.Context, who Caller, contextID string, page Page) (*Items[*HistoryItem], error) {
	c, err := r.Contexts.Get(ctx, who, contextID)
	if err != nil {
		return nil, err
	}
	order := store.Order{Column: "position", Descending: page.Descending, Limit: page.Limit}
	if page.Token != "" {
		last := new(HistoryItem)
		err := r.store.First(ctx, last, ofContext(c.ID), store.Filter{Column: "id", Op: store.Equal, Value: page.Token})
		if isCode(known(err, "item"), NotFound) {
			return nil, fail(Invalid, "page_token", "there is no such item any more; begin with the first page")
		} else if err != nil {
			return nil, err
		}
		order.After = &store.Position{Value: last.Position, ID: last.ID}
	}
	list, err := readPage(ctx, r.store, func() *HistoryItem { return new(HistoryItem) }, order, func(h *HistoryItem) store.Position {
		return store.Position{ID: h.ID, Value: h.Position}
	}, ofContext(c.ID))
	if err != nil {
		return nil, err
	}
	list.TotalCount = c.HistoryCount
	return list, nil
}

// HistoryItem returns an item of a context's history.
func (r *Resources) HistoryItem(ctx context.Context, who Caller, contextID, id string) (*HistoryItem, error) {
	c, err := r.Contexts.Get(ctx, who, contextID)
	if err != nil {
		return nil, err
	}
	row := new(HistoryItem)
	err = r.store.First(ctx, row, ofContext(c.ID), store.Filter{Column: "id", Op: store.Equal, Value: strings.ToLower(id)})
	return row, known(err, "item in this context")
}

// DeleteHistory removes an item and all after it.
func (r *Resources) DeleteHistory(ctx context.Context, who Caller, contextID, fromID string) error {
	_, err := r.Contexts.update(ctx, who, contextID, 0, func(tx *store.Tx, c *Context) error {
		var from []*HistoryItem
		err := tx.Find(ctx, &from, 1, ofContext(c.ID), store.Filter{Column: "id", Op: store.Equal, Value: fromID})
		if err != nil {
			return err
		}
		if len(from) == 0 {
			return fail(NotFound, "from_id", "there is no such item in this context")
		}
		c.LastActiveAt, c.touched = tx.Now, true
		c.HistoryCount = from[0].Position - 1
		c.HistoryBytes, err = tx.Sum(ctx, new(HistoryItem), "size_bytes", ofContext(c.ID),
			store.Filter{Column: "position", Op: store.Less, Value: from[0].Position})
		if err != nil {
			return err
		}
		_, err = tx.DeleteDetails(ctx, new(HistoryItem), ofContext(c.ID),
			store.Filter{Column: "position", Op: store.AtLeast, Value: from[0].Position})
		return err
	})
	return err
}

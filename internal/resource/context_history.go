package resource

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"github.com/tidings-dev/tidings/internal/store"
)

// HistoryItem is an A2A message or artifact in a context.
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

// a2aItem holds the members of a message or artifact that matter here, as
// spelled by A2A 0.2 to 1.0.
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
	return "", fail(Invalid, "role",
		"expected an A2A message, which has a role, or an artifact, which has an artifactId")
}

const maxTitle = 100

// title derives a title from a user's message, or returns "".
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
	return equal("context_id", id)
}

// AddHistory appends a message or artifact to a context. The first user message
// becomes the title of a context that has none, if its metadata has room.
func (c *Contexts) AddHistory(ctx context.Context, who Caller, id string, data json.RawMessage) (*HistoryItem, error) {
	var sent a2aItem
	if err := json.Unmarshal(data, &sent); err != nil {
		return nil, &Error{Code: Invalid, Message: "expected an A2A message or artifact", Cause: err}
	}
	kind, err := sent.kind()
	if err != nil {
		return nil, err
	}
	item := &HistoryItem{ID: newID(), Kind: kind, Data: data, SizeBytes: int64(len(data))}
	_, err = c.update(ctx, who, id, 0, func(tx *store.Tx, row *Context) (bool, error) {
		if err := c.takeHistory(ctx, tx, who, item.SizeBytes); err != nil {
			return false, err
		}
		row.HistoryCount++
		row.HistoryBytes += item.SizeBytes
		row.LastActiveAt = tx.Now
		item.ContextID, item.Position, item.CreatedAt = row.ID, row.HistoryCount, tx.Now
		if title := sent.title(); title != "" && row.Metadata["title"] == "" && len(row.Metadata) < maxMetadata {
			row.Metadata = row.Metadata.merge(map[string]*string{"title": &title})
		}
		return true, tx.InsertDetails(ctx, item)
	})
	return item, err
}

// takeHistory checks the quotas for a history item.
func (c *Contexts) takeHistory(ctx context.Context, tx *store.Tx, who Caller, size int64) error {
	err := c.quotas.HistoryItems.take(ctx, tx, who, Conflict, 1, spareRequests, c.sum(ctx, tx, who, "history_count"))
	if err != nil {
		return err
	}
	return c.quotas.HistoryBytes.take(ctx, tx, who, TooLarge, size, spareBytes, c.sum(ctx, tx, who, "history_bytes"))
}

// History returns a page of a context's history.
func (c *Contexts) History(ctx context.Context, who Caller, id string, page Page) (*Items[*HistoryItem], error) {
	row, err := c.get(ctx, who, id)
	if err != nil {
		return nil, err
	}
	order := store.Order{Column: "position", Descending: page.Descending, Limit: page.Limit}
	if page.Token != "" {
		last := new(HistoryItem)
		err := c.store.First(ctx, last, ofContext(row.ID), equal("id", page.Token))
		if isCode(fromStore(err, "item"), NotFound) {
			return nil, fail(Invalid, "page_token", "the item no longer exists; start again from the first page")
		} else if err != nil {
			return nil, err
		}
		order.After = &store.Position{Value: last.Position, ID: last.ID}
	}
	list, err := readPage(ctx, c.store, func() *HistoryItem { return new(HistoryItem) }, order,
		func(h *HistoryItem) store.Position {
			return store.Position{ID: h.ID, Value: h.Position}
		}, ofContext(row.ID))
	if err != nil {
		return nil, err
	}
	list.TotalCount = row.HistoryCount
	return list, nil
}

// HistoryItem returns an item of a context's history.
func (c *Contexts) HistoryItem(ctx context.Context, who Caller, contextID, id string) (*HistoryItem, error) {
	in, err := c.get(ctx, who, contextID)
	if err != nil {
		return nil, err
	}
	row := new(HistoryItem)
	err = c.store.First(ctx, row, ofContext(in.ID), equal("id", strings.ToLower(id)))
	return row, fromStore(err, "item in this context")
}

// DeleteHistory deletes an item and all later ones.
func (c *Contexts) DeleteHistory(ctx context.Context, who Caller, id, fromID string) error {
	_, err := c.update(ctx, who, id, 0, func(tx *store.Tx, row *Context) (bool, error) {
		var from []*HistoryItem
		err := tx.Find(ctx, &from, 1, ofContext(row.ID), equal("id", fromID))
		if err != nil {
			return false, err
		}
		if len(from) == 0 {
			return false, fail(NotFound, "from_id", "no such item in this context")
		}
		row.LastActiveAt = tx.Now
		row.HistoryCount = from[0].Position - 1
		row.HistoryBytes, err = tx.Sum(ctx, new(HistoryItem), "size_bytes", ofContext(row.ID),
			store.Filter{Column: "position", Op: store.Less, Value: from[0].Position})
		if err != nil {
			return false, err
		}
		_, err = tx.DeleteDetails(ctx, new(HistoryItem), ofContext(row.ID),
			store.Filter{Column: "position", Op: store.AtLeast, Value: from[0].Position})
		return true, err
	})
	return err
}

package resource

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/uptrace/bun"

	"github.com/tidings-dev/tidings/internal/store"
)

// UserFeedback is a user's opinion of an agent's answer.
type UserFeedback struct {
	bun.BaseModel `bun:"table:user_feedback"`
	Base

	ProviderID  string   `json:"provider_id" format:"uuid"`
	AgentName   string   `bun:"-" json:"agent_name" doc:"The name in the provider's agent card."`
	TaskID      string   `json:"task_id" format:"uuid"`
	ContextID   string   `json:"context_id" format:"uuid"`
	Rating      int      `json:"rating" enum:"1,-1"`
	Message     string   `json:"message"`
	Comment     *string  `json:"comment"`
	CommentTags []string `bun:",nullzero,type:json" json:"comment_tags"`
}

// Feedback is the type of the users' feedback.
type Feedback struct {
	*collection[*UserFeedback]
	providers *Providers
	contexts  *Contexts
}

func newFeedback(providers *Providers, contexts *Contexts) *Feedback {
	return &Feedback{providers: providers, contexts: contexts, collection: newCollection(kind[*UserFeedback]{
		Type:       UserFeedbackType,
		URL:        "/api/v1/user_feedback/{id}",
		New:        func() *UserFeedback { return new(UserFeedback) },
		policy:     personal,
		References: []reference[*UserFeedback]{{To: ProviderType, Column: "provider_id"}},
	})}
}

// Delete deletes feedback. ifMatch is the expected version, or 0 for any.
func (f *Feedback) Delete(ctx context.Context, who Caller, id string, ifMatch int64) error {
	return f.delete(ctx, who, id, ifMatch)
}

// NewUserFeedback is a request to create feedback.
type NewUserFeedback struct {
	ProviderID  string   `json:"provider_id" format:"uuid"`
	TaskID      string   `json:"task_id" format:"uuid"`
	ContextID   string   `json:"context_id" format:"uuid"`
	Rating      int      `json:"rating" enum:"1,-1"`
	Message     string   `json:"message" maxLength:"100000"`
	Comment     *string  `json:"comment" required:"false" maxLength:"100000"`
	CommentTags []string `json:"comment_tags" required:"false" nullable:"true" maxItems:"100" maxLength:"1000"`
}

// Create creates feedback.
func (f *Feedback) Create(ctx context.Context, who Caller, in NewUserFeedback) (*UserFeedback, error) {
	row := &UserFeedback{
		ProviderID: in.ProviderID, TaskID: in.TaskID, ContextID: in.ContextID, Rating: in.Rating,
		Message: in.Message, Comment: in.Comment, CommentTags: in.CommentTags,
	}
	err := f.store.InTx(ctx, func(tx *store.Tx) error {
		if _, err := f.providers.lockNamed(ctx, tx, who, in.ProviderID); err != nil {
			return err
		}
		if _, err := f.contexts.lockNamed(ctx, tx, who, in.ContextID); err != nil {
			return err
		}
		return f.insert(ctx, tx, who, row)
	})
	return row, err
}

// List returns a page of the feedback; if providerID is not empty, of that
// provider only.
func (f *Feedback) List(ctx context.Context, who Caller, page Page, providerID string) (*Items[*UserFeedback], error) {
	var filters []store.Filter
	if providerID != "" {
		filters = append(filters, ofProvider(providerID))
	}
	list, err := f.list(ctx, who, page, filters...)
	if err != nil {
		return nil, err
	}
	return list, f.nameAgents(ctx, list.Items)
}

// Get returns feedback that the caller may read.
func (f *Feedback) Get(ctx context.Context, who Caller, id string) (*UserFeedback, error) {
	row, err := f.get(ctx, who, id)
	if err != nil {
		return nil, err
	}
	return row, f.nameAgents(ctx, []*UserFeedback{row})
}

// nameAgents sets the names of the agents that the feedback is about.
func (f *Feedback) nameAgents(ctx context.Context, feedback []*UserFeedback) error {
	var ids []string
	for _, row := range feedback {
		if !slices.Contains(ids, row.ProviderID) {
			ids = append(ids, row.ProviderID)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	names := make(map[string]string)
	err := store.Each(ctx, f.store, func(p *Provider) error {
		var card struct {
			Name string `json:"name"`
		}
		err := json.Unmarshal(p.AgentCard, &card)
		names[p.ID] = card.Name
		return err
	}, store.Filter{Column: "id", Op: store.In, Value: ids})
	for _, row := range feedback {
		row.AgentName = names[row.ProviderID]
	}
	return err
}

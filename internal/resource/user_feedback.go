package resource

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/uptrace/bun"

	"github.com/tidings-dev/tidings/internal/store"
)

// UserFeedback is what a user thought of an agent's answer.
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

func userFeedbackKind() Kind[*UserFeedback] {
	return Kind[*UserFeedback]{
		Type:   UserFeedbackType,
		URL:    "/api/v1/user_feedback/{id}",
		New:    func() *UserFeedback { return new(UserFeedback) },
		Policy: personal,
	}
}

// NewUserFeedback asks for feedback to be kept.
type NewUserFeedback struct {
	ProviderID  string   `json:"provider_id" format:"uuid"`
	TaskID      string   `json:"task_id" format:"uuid"`
	ContextID   string   `json:"context_id" format:"uuid"`
	Rating      int      `json:"rating" enum:"1,-1"`
	Message     string   `json:"message" maxLength:"100000"`
	Comment     *string  `json:"comment" required:"false" maxLength:"100000"`
	CommentTags []string `json:"comment_tags" required:"false" nullable:"true" maxItems:"100" maxLength:"1000"`
}

// CreateUserFeedback keeps what the caller thought of an agent.
func (r *Resources) CreateUserFeedback(ctx context.Context, who Caller, in NewUserFeedback) (*UserFeedback, error) {
	row := &UserFeedback{
		ProviderID: in.ProviderID, TaskID: in.TaskID, ContextID: in.ContextID, Rating: in.Rating,
		Message: in.Message, Comment: in.Comment, CommentTags: in.CommentTags,
	}
	err := r.store.InTx(ctx, func(tx *store.Tx) error {
		if _, err := r.lockProvider(ctx, tx, who, in.ProviderID); err != nil {
			return err
		}
		if _, err := r.lockContext(ctx, tx, who, in.ContextID); err != nil {
			return err
		}
		return r.UserFeedback.insert(ctx, tx, who, row)
	})
	return row, err
}

// ListUserFeedback returns a part of the feedback, of one provider if it is
// named.
func (r *Resources) ListUserFeedback(ctx context.Context, who Caller, page Page, providerID string) (*Items[*UserFeedback], error) {
	var filters []store.Filter
	if providerID != "" {
		filters = append(filters, ofProvider(providerID))
	}
	list, err := r.UserFeedback.List(ctx, who, page, filters...)
	if err != nil {
		return nil, err
	}
	return list, r.nameAgents(ctx, list.Items)
}

// GetUserFeedback returns feedback that the caller may read.
func (r *Resources) GetUserFeedback(ctx context.Context, who Caller, id string) (*UserFeedback, error) {
	row, err := r.UserFeedback.Get(ctx, who, id)
	if err != nil {
		return nil, err
	}
	return row, r.nameAgents(ctx, []*UserFeedback{row})
}

// nameAgents fills in the names of the agents that feedback is about.
func (r *Resources) nameAgents(ctx context.Context, feedback []*UserFeedback) error {
	var ids []string
	for _, f := range feedback {
		if !slices.Contains(ids, f.ProviderID) {
			ids = append(ids, f.ProviderID)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	names := make(map[string]string)
	err := store.Each(ctx, r.store, func(p *Provider) error {
		var card struct {
			Name string `json:"name"`
		}
		err := json.Unmarshal(p.AgentCard, &card)
		names[p.ID] = card.Name
		return err
	}, store.Filter{Column: "id", Op: store.In, Value: ids})
	for _, f := range feedback {
		f.AgentName = names[f.ProviderID]
	}
	return err
}

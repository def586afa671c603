package resource

import (
	"cmp"
	"context"
	"slices"
	"strings"
)

// ModelMatch is a request for models similar to the suggested ones.
type ModelMatch struct {
	SuggestedModels []string `json:"suggested_models" required:"false" nullable:"true" maxItems:"100" maxLength:"256"`
	Capability      string   `json:"capability" enum:"llm,embedding"`
	ScoreCutoff     *float64 `json:"score_cutoff" required:"false" minimum:"0" maximum:"1" default:"0.4"`
}

// MatchedModel is a model and its similarity to a suggested one.
type MatchedModel struct {
	ModelID string  `json:"model_id"`
	Score   float64 `json:"score"`
}

// Offer is the models offered by all model providers.
type Offer []model

// Offer returns the models that can be matched.
func (m *ModelProviders) Offer(ctx context.Context, who Caller) (Offer, error) {
	if err := m.kind.permit(who, reading); err != nil {
		return nil, err
	}
	return m.offered(ctx, modelListAge)
}

// Match returns the models similar to the suggested ones, best first; without
// suggestions, all models with the capability. It compares every model with
// every suggestion, and stops when the context is done.
func (o Offer) Match(ctx context.Context, in ModelMatch) (*Items[*MatchedModel], error) {
	list, cutoff := []*MatchedModel{}, 0.0
	if in.ScoreCutoff != nil {
		cutoff = *in.ScoreCutoff
	}
	suggested := make([]pairs, len(in.SuggestedModels))
	for i, name := range in.SuggestedModels {
		suggested[i] = pairsOf(name)
	}
	for _, m := range o {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if m.embedding != (in.Capability == "embedding") {
			continue
		}
		if score := m.score(suggested); score >= cutoff {
			list = append(list, &MatchedModel{ModelID: m.id, Score: score})
		}
	}
	slices.SortStableFunc(list, func(a, b *MatchedModel) int { return cmp.Compare(b.Score, a.Score) })
	return onePage(list)
}

// score returns the model's similarity to the most similar suggestion. The type
// counts only where the suggestion names one.
func (m *model) score(suggested []pairs) float64 {
	if len(suggested) == 0 {
		return 1
	}
	score := 0.0
	for _, s := range suggested {
		name := m.bare
		if strings.Contains(s.text, ":") {
			name = m.full
		}
		score = max(score, likeness(name, s))
	}
	return score
}

// pairs holds a lower-case text and its sorted bigrams (of bytes).
type pairs struct {
	text  string
	pairs []uint16
}

func pairsOf(text string) pairs {
	p := pairs{text: strings.ToLower(text)}
	for i := range len(p.text) - 1 {
		p.pairs = append(p.pairs, uint16(p.text[i])<<8|uint16(p.text[i+1]))
	}
	slices.Sort(p.pairs)
	return p
}

// likeness returns the Sørensen–Dice coefficient of the bigrams of two texts.
func likeness(a, b pairs) float64 {
	if a.text == b.text {
		return 1
	}
	shared := 0
	for i, j := 0, 0; i < len(a.pairs) && j < len(b.pairs); {
		switch cmp.Compare(a.pairs[i], b.pairs[j]) {
		case -1:
			i++
		case 1:
			j++
		default:
			shared, i, j = shared+1, i+1, j+1
		}
	}
	if total := len(a.pairs) + len(b.pairs); total > 0 {
		return 2 * float64(shared) / float64(total)
	}
	return 0
}

package resource

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestLikeness(t *testing.T) {
	for _, test := range []struct {
		name, suggested string
		low, high       float64
	}{
		{"gpt-4o", "gpt-4o", 1, 1},
		{"gpt-4o", "OpenAI:GPT-4o", 1, 1},
		{"gpt-4o", "gpt-4o-mini", 0.5, 0.8},
		{"gpt-4o", "claude-sonnet", 0, 0.2},
		{"aaaa", "aa", 0.5, 0.5}, // a pair counts as often as both contain it
		{"o", "x", 0, 0},
	} {
		offered := asModels("openai", []string{test.name})[0]
		if got := offered.score([]pairs{pairsOf(test.suggested)}); got < test.low || got > test.high {
			t.Errorf("likeness of %s and %s = %v, want %v to %v", test.name, test.suggested, got, test.low, test.high)
		}
	}
}

// lister is a model provider that counts its requests.
type lister struct {
	asked int
	names []string
	err   error
}

func (l *lister) Models(ctx context.Context, _ ModelSource) ([]string, error) {
	l.asked++
	time.Sleep(time.Second)
	return l.names, errors.Join(l.err, ctx.Err())
}

type openBox struct{ Box }

func (openBox) Seal(plain, _ string) ([]byte, error)         { return []byte(plain), nil }
func (openBox) Open(sealed []byte, _ string) (string, error) { return string(sealed), nil }
func (openBox) Keys() []BoxKey                               { return []BoxKey{{ID: "k"}} }

func TestModelListsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		upstream := &lister{names: []string{"a", strings.Repeat("x", maxModelName+1), "b"}}
		m := newModelProviders(upstream, secrets{openBox{}})
		provider := &ModelProvider{Base: Base{ID: "id", Version: 1}, Type: "openai"}
		want := func(models, asked int) {
			t.Helper()
			list, err := m.modelsOf(t.Context(), provider, modelListAge)
			if err != nil || len(list) != models || upstream.asked != asked {
				t.Errorf("%d models after asking %d times, want %d and %d (%v)", len(list),
					upstream.asked, models, asked, err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // the first caller stops waiting; the others get the list
		if _, err := m.modelsOf(ctx, provider, modelListAge); err != nil {
			t.Error(err)
		}
		want(2, 1)
		time.Sleep(modelListAge + time.Second)
		want(2, 2)
		upstream.err, upstream.names = errors.New("away"), nil
		time.Sleep(modelListAge + time.Second)
		want(0, 3)
		time.Sleep(modelListRetry - time.Second)
		want(0, 3)
		time.Sleep(2 * time.Second)
		want(0, 4)
		provider.Version++
		want(0, 5)
		m.lists.keep(nil)
		if len(m.lists.lists) != 0 {
			t.Error("the list of a deleted model provider is still cached")
		}
		upstream.err, upstream.names = nil, make([]string, 3*maxModels)
		want(maxModels, 6)
	})
}

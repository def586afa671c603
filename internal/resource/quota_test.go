package resource

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings"
)

// No user may own more of a type than its quota allows. The error names the
// setting, and deleting makes room. Users have separate quotas, except for
// unowned types.
func TestQuotasOfEveryType(t *testing.T) {
	quotas := Quotas{Resources: make(map[tidings.ResourceType]Quota)}
	for typ := range samples {
		quotas.Resources[typ] = Quota{Max: 3, Setting: "limits." + string(typ)}
	}
	delete(quotas.Resources, UserType)
	databases(t, Options{Quotas: quotas}, func(f *fixture) {
		ann, bob := f.user(RoleAdmin), f.user(RoleAdmin)
		of := about{provider: f.sample(ProviderType, f.user(RoleAdmin), about{})}
		of.context = f.sample(ContextType, f.user(RoleUser), about{})
		for typ := range quotas.Resources {
			for range 3 {
				f.sample(typ, ann, of)
			}
			_, err := samples[typ](f, ann, of)
			if !isCode(err, Conflict) || !strings.Contains(err.Error(), "limits."+string(typ)+" allows 3") {
				f.Errorf("%s: the fourth: %v", typ, err)
			}
			if _, err := samples[typ](f, bob, of); (err == nil) != (typ != ModelProviderType) {
				f.Errorf("%s: another user's first: %v", typ, err)
			}
		}
		list, err := f.Contexts.List(f.Context(), ann, Page{Limit: 1, OrderBy: "created_at"}, ContextFilter{})
		f.must(err)
		f.must(f.Contexts.Delete(f.Context(), ann, list.Items[0].ID, 0))
		f.sample(ContextType, ann, about{})
	})
}

// The contents of contexts and vector stores have quotas, too, per user.
func TestQuotasOfParts(t *testing.T) {
	message := json.RawMessage(`{"role":"user","parts":[]}`)
	size := 3 * int64(len(message))
	history := func(f *fixture, who Caller, of string) error {
		_, err := f.Contexts.AddHistory(f.Context(), who, of, message)
		return err
	}
	items := func(f *fixture, who Caller, of string) error {
		_, err := f.VectorStores.AddItems(f.Context(), who, of, 0, []VectorStoreItem{{
			DocumentID: "d", DocumentType: "external", ModelID: "m", Text: strings.Repeat("x", 96),
			Embedding: []float32{1},
		}})
		return err
	}
	databases(t, Options{}, func(f *fixture) {
		for _, test := range []struct {
			setting string
			quota   func(q *Quotas) *Quota
			max     int64
			typ     tidings.ResourceType
			add     func(f *fixture, who Caller, of string) error
			code    Code
		}{
			{
				"limits.history_items", func(q *Quotas) *Quota { return &q.HistoryItems }, 3,
				ContextType, history, Conflict,
			},
			{
				"limits.history_bytes", func(q *Quotas) *Quota { return &q.HistoryBytes }, size,
				ContextType, history, TooLarge,
			},
			{
				"limits.vector_store_items", func(q *Quotas) *Quota { return &q.VectorStoreItems }, 3,
				VectorStoreType, items, Conflict,
			},
			{
				"limits.vector_store_bytes", func(q *Quotas) *Quota { return &q.VectorStoreBytes }, 300,
				VectorStoreType, items, TooLarge,
			},
		} {
			f.quotas = Quotas{}
			*test.quota(&f.quotas) = Quota{Max: test.max, Setting: test.setting}
			ann, bob := f.user(RoleUser), f.user(RoleUser)
			first, second := *f.sample(test.typ, ann, about{}), *f.sample(test.typ, ann, about{})
			for _, id := range []string{first, second, first} {
				f.must(test.add(f, ann, id))
			}
			err := test.add(f, ann, second)
			if !isCode(err, test.code) || !strings.Contains(err.Error(), test.setting) {
				f.Errorf("the fourth: %v, want it refused as %s by %s", err, test.code, test.setting)
			}
			f.must(test.add(f, bob, *f.sample(test.typ, bob, about{})))
		}
	})
}

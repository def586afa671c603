package resource

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Pages skip and repeat nothing, in any order, while items are added and
// already listed items move.
func TestPages(t *testing.T) {
	databases(t, Options{}, func(f *fixture) {
		ann, bob := f.user(RoleUser), f.user(RoleUser)
		var ids []string
		for range 7 {
			ids = append(ids, *f.sample(ContextType, ann, about{}))
			f.sample(ContextType, bob, about{})
		}
		updated := slices.Clone(ids)
		for _, n := range []int{4, 1, 6} { // they are now the most recently updated
			_, err := f.Contexts.Put(f.Context(), ann, ids[n], 0, ContextUpdate{Metadata: Metadata{"a": "b"}})
			f.must(err)
			updated = append(slices.DeleteFunc(updated, func(id string) bool { return id == ids[n] }), ids[n])
		}
		for _, test := range []struct {
			page  Page
			want  []string
			pages int
		}{
			{Page{Limit: 3, OrderBy: "created_at"}, ids, 3},
			{Page{Limit: 3, OrderBy: "created_at", Descending: true}, ids, 3},
			{Page{Limit: 1, OrderBy: "updated_at"}, updated, 7},
			{Page{Limit: 7, OrderBy: "updated_at", Descending: true}, updated, 1},
			{Page{Limit: 100, OrderBy: "created_at"}, ids, 1},
		} {
			want := slices.Clone(test.want)
			if test.page.Descending {
				slices.Reverse(want)
			}
			var got []string
			pages := 0
			for page := test.page; ; pages++ {
				list, err := f.Contexts.List(f.Context(), ann, page, ContextFilter{})
				f.must(err)
				if list.TotalCount != 7 || list.HasMore != (list.NextPageToken != nil) {
					f.Errorf("%+v: %d in total, more: %v", page, list.TotalCount, list.HasMore)
				}
				for _, row := range list.Items {
					got = append(got, row.ID)
				}
				if !list.HasMore {
					break
				}
				page.Token = *list.NextPageToken
			}
			if diff := cmp.Diff(want, got); diff != "" || pages+1 != test.pages {
				f.Errorf("%+v: %d pages, want %d (-want +got):\n%s", test.page, pages+1, test.pages, diff)
			}
		}
	})
}

// A page starts after an item that the caller may read. It respects its limit
// in bytes, unless a single item exceeds it.
func TestPageTokensAndSizes(t *testing.T) {
	databases(t, Options{}, func(f *fixture) {
		ann, bob := f.user(RoleAdmin), f.user(RoleUser)
		gone := *f.sample(ContextType, ann, about{})
		f.must(f.Contexts.Delete(f.Context(), ann, gone, 0))
		for name, token := range map[string]string{
			"deleted":         gone,
			"somebody else's": *f.sample(ContextType, bob, about{}),
			"of another type": *f.sample(ConnectorType, ann, about{}),
		} {
			page := Page{Limit: 1, OrderBy: "created_at", Token: token}
			_, err := f.Contexts.List(f.Context(), ann, page, ContextFilter{})
			if !isCode(err, Invalid) || !strings.Contains(err.Error(), "page_token") {
				f.Errorf("a token (%s): %v", name, err)
			}
		}

		of := about{f.sample(ProviderType, ann, about{}), f.sample(ContextType, ann, about{})}
		for _, size := range []int{10, pageBytes / 2, pageBytes / 2, pageBytes + 1, 10} {
			_, err := f.UserFeedback.create(f.Context(), ann, &UserFeedback{
				ProviderID: *of.provider, ContextID: *of.context, TaskID: newID(), Rating: 1,
				Message: strings.Repeat("x", size),
			})
			f.must(err)
		}
		var got []int
		for page := (Page{Limit: 100, OrderBy: "created_at"}); ; {
			list, err := f.UserFeedback.List(f.Context(), ann, page, "")
			f.must(err)
			got = append(got, len(list.Items))
			if !list.HasMore {
				break
			}
			page.Token = *list.NextPageToken
		}
		if diff := cmp.Diff([]int{2, 1, 1, 1}, got); diff != "" {
			f.Errorf("items on each page (-want +got):\n%s", diff)
		}
	})
}

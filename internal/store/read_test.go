package store_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/uptrace/bun"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/store"
)

type user struct {
	bun.BaseModel `bun:"table:users"`

	ID        string `bun:"id,pk"`
	Version   int64
	CreatedAt string
	UpdatedAt string
	Email     string
	Role      string
}

func id(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", n) }

func testReads(t *testing.T, s *store.Store) {
	ctx := t.Context()
	err := s.InTx(ctx, func(tx *store.Tx) error {
		var errs []error
		for n := range 5 {
			at := "2026-01-01 00:00:0" + fmt.Sprint(n/2) + "+00:00"
			row := &user{
				ID: id(n), Version: int64(n), CreatedAt: at, UpdatedAt: at,
				Email: fmt.Sprintf("u%d_%%@example.com", n), Role: "user",
			}
			errs = append(errs, tx.Insert(ctx, row, event(tidings.Created)))
		}
		return errors.Join(errs...)
	})
	if err != nil {
		t.Fatal(err)
	}
	list := func(order store.Order, filters ...store.Filter) (ids []string, total int64) {
		t.Helper()
		for r, err := range store.List(ctx, s, func() *user { return new(user) }, order, filters...) {
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, r.ID)
		}
		total, err := s.Count(ctx, new(user), filters...)
		if err != nil {
			t.Fatal(err)
		}
		return ids, total
	}
	first, total := list(store.Order{Column: "created_at", Limit: 3})
	if diff := cmp.Diff([]string{id(0), id(1), id(2)}, first); diff != "" || total != 5 {
		t.Errorf("first page of %d (-want +got):\n%s", total, diff)
	}
	next, _ := list(store.Order{
		Column: "created_at", Limit: 3,
		After: &store.Position{Value: "2026-01-01 00:00:01+00:00", ID: id(2)},
	})
	if diff := cmp.Diff([]string{id(3), id(4)}, next); diff != "" {
		t.Errorf("second page (-want +got):\n%s", diff)
	}
	last, _ := list(store.Order{Column: "created_at", Limit: 1, Descending: true},
		store.Filter{Column: "version", Op: store.Less, Value: 4})
	if diff := cmp.Diff([]string{id(3)}, last); diff != "" {
		t.Errorf("newest below version 4 (-want +got):\n%s", diff)
	}
	for text, want := range map[string]int64{"U1_%@": 1, "_%@EX": 5, "1%%": 0, "__": 0} {
		if _, total := list(store.Order{Column: "created_at", Limit: 9},
			store.Filter{Column: "email", Op: store.Contains, Value: text}); total != want {
			t.Errorf("e-mails that contain %q = %d, want %d", text, total, want)
		}
	}
	if err := s.Get(ctx, &user{ID: id(9)}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("get of nothing: %v", err)
	}
	if err := s.First(ctx, &user{}, store.Filter{Column: "role", Op: store.Equal, Value: "admin"}); !errors.Is(err,
		store.ErrNotFound) {
		t.Errorf("first of nothing: %v", err)
	}
}

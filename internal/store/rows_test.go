package store_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/uptrace/bun"

	"github.com/tidings-dev/tidings/internal/store"
)

// mixed has a column of every kind whose Go value two rows could share.
type mixed struct {
	bun.BaseModel `bun:"table:mixed"`

	ID     string            `bun:",pk"`
	Map    map[string]string `bun:"type:json"`
	Slice  []string          `bun:"type:json"`
	Struct struct {
		A, B *string
		Deep map[string][]int
	} `bun:"type:json"`
	Nested  *nested `bun:"type:json"`
	Pointer *string
	Number  *int64
	Time    *time.Time
	Bytes   []byte
	Raw     json.RawMessage `bun:"type:json"`
}

type nested struct{ Tags map[string]string }

// testRows checks that rows from one query share no memory: each is the same as
// if it had been read alone.
func testRows(t *testing.T, s *store.Store) {
	ctx := t.Context()
	bytes := "BYTEA"
	if s.SQLite() {
		bytes = "BLOB"
	}
	s.Exec(t, `CREATE TABLE mixed (id TEXT PRIMARY KEY, map TEXT, slice TEXT, struct TEXT, nested TEXT, pointer TEXT,
		number BIGINT, time TIMESTAMP, bytes `+bytes+`, raw TEXT)`)
	s.Exec(t, `INSERT INTO mixed VALUES
		('1', '{"a":"1","b":"1"}', '["a","b","c"]', '{"A":"1","Deep":{"x":[1,2]}}', '{"Tags":{"t":"1"}}', 'one',
			1, '2026-01-01 00:00:00', 'aaaa', '{"r":1}'),
		('2', '{"c":"2"}', '["d"]', '{"B":"2","Deep":{"y":[3]}}', '{"Tags":{"u":"2"}}', 'two',
			2, '2026-01-02 00:00:00', 'bb', '[2]'),
		('3', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
		('4', '{}', '[]', '{}', '{}', 'four', 4, '2026-01-04 00:00:00', 'c', '"4"')`)
	var want []*mixed
	for _, id := range []string{"1", "2", "3", "4"} {
		row := &mixed{ID: id}
		if err := s.Get(ctx, row); err != nil {
			t.Fatal(err)
		}
		want = append(want, row)
	}
	var first []*mixed // the kept result of an earlier read
	for name, read := range map[string]func(context.Context) ([]*mixed, error){
		"Each": func(ctx context.Context) (rows []*mixed, err error) {
			err = store.Each(ctx, s, func(row *mixed) error {
				rows = append(rows, row)
				return nil
			})
			return rows, err
		},
		"List": func(ctx context.Context) (rows []*mixed, err error) {
			for row, err := range store.List(ctx, s, func() *mixed { return new(mixed) },
				store.Order{Column: "id", Limit: 9}) {
				if err != nil {
					return nil, err
				}
				rows = append(rows, row)
			}
			return rows, nil
		},
		"Read and Find into rows that were read before": func(ctx context.Context) (rows []*mixed, err error) {
			err = s.InTx(ctx, func(tx *store.Tx) error {
				if err := tx.Find(ctx, &rows, 9); err != nil {
					return err
				}
				first = rows
				return tx.Read(ctx, &rows, "id")
			})
			return rows, err
		},
	} {
		got, err := read(ctx)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: rows share memory (-want +got):\n%s", name, diff)
		}
	}
	if diff := cmp.Diff(want, first); diff != "" {
		t.Errorf("a second read changed the rows of the first (-want +got):\n%s", diff)
	}
}

// testListStops checks that rows after the last consumed one are not loaded.
func testListStops(t *testing.T, s *store.Store) {
	s.Exec(t, `CREATE TABLE listed (id TEXT PRIMARY KEY)`)
	for n := range 32 {
		s.Exec(t, fmt.Sprintf(`INSERT INTO listed VALUES ('%02d')`, n))
	}
	type listed struct {
		bun.BaseModel `bun:"table:listed"`

		ID string `bun:",pk"`
	}
	loaded := map[*listed]bool{}
	newRow := func() *listed {
		row := &listed{}
		loaded[row] = true
		return row
	}
	for row, err := range store.List(t.Context(), s, newRow, store.Order{Column: "id", Limit: 32}) {
		if err != nil {
			t.Fatal(err)
		}
		if row.ID == "01" {
			break
		}
	}
	maps.DeleteFunc(loaded, func(row *listed, _ bool) bool { return row.ID == "" }) // names the table
	if len(loaded) != 2 {
		t.Errorf("%d rows were loaded to consume 2", len(loaded))
	}
}

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect"
)

// Filter is a condition on a column. Columns are named by code, never by users.
type Filter struct {
	Column string
	Op     Op
	Value  any
}

// Op compares a column with a value.
type Op string

// The comparisons.
const (
	Equal    Op = "="
	NotEqual Op = "<>"
	Less     Op = "<"
	Greater  Op = ">"
	AtLeast  Op = ">="
	// Contains finds a text in a column, whatever the case.
	Contains Op = "contains"
)

var likeEscape = strings.NewReplacer("!", "!!", "%", "!%", "_", "!_")

func (f Filter) apply(q *bun.SelectQuery) *bun.SelectQuery {
	if f.Op == Contains {
		return q.Where("lower(?) LIKE ? ESCAPE '!'", bun.Ident(f.Column), "%"+likeEscape.Replace(strings.ToLower(fmt.Sprint(f.Value)))+"%")
	}
	return q.Where("? "+string(f.Op)+" ?", bun.Ident(f.Column), f.Value)
}

// Order is how a list is sorted; the id decides between equals.
type Order struct {
	Column     string
	Descending bool
	// After is the row that came last on the page before; nil for the first page.
	After *Position
	Limit int64
}

// Position is a place in a sorted list.
type Position struct {
	Value any
	ID    string
}

// Get reads the row whose primary key is set; [ErrNotFound] if there is none.
func (s *Store) Get(ctx context.Context, row any) error {
	return notFound(s.reader.NewSelect().Model(row).WherePK().Scan(ctx))
}

// First reads the first row that passes the filters; [ErrNotFound] if none does.
func (s *Store) First(ctx context.Context, row any, filters ...Filter) error {
	return notFound(where(s.reader.NewSelect().Model(row), filters).Limit(1).Scan(ctx))
}

// List reads rows that pass the filters, and counts all that do.
func (s *Store) List(ctx context.Context, rows any, order Order, filters ...Filter) (total int64, err error) {
	if total, err = where(s.reader.NewSelect().Model(rows), filters).Count(ctx); err != nil {
		return 0, fmt.Errorf("count: %w", err)
	}
	direction, compare := "ASC", ">"
	if order.Descending {
		direction, compare = "DESC", "<"
	}
	q := where(s.reader.NewSelect().Model(rows), filters)
	column := bun.Ident(order.Column)
	if order.After != nil {
		q = q.Where("(?, id) "+compare+" (?, ?)", column, order.After.Value, order.After.ID)
	}
	err = q.OrderExpr("? "+direction+", id "+direction, column).Limit(order.Limit).Scan(ctx)
	if err != nil {
		return 0, fmt.Errorf("list: %w", err)
	}
	return total, nil
}

// Lock reads the row whose primary key is set and holds it until the end of the
// transaction; [ErrNotFound] if there is none.
func (tx *Tx) Lock(ctx context.Context, row any) error {
	return notFound(tx.lock(tx.tx.NewSelect().Model(row).WherePK()).Scan(ctx))
}

// Find reads all rows that pass the filters, by id, and holds them.
func (tx *Tx) Find(ctx context.Context, rows any, filters ...Filter) error {
	return notFound(tx.lock(where(tx.tx.NewSelect().Model(rows), filters).Order("id")).Scan(ctx))
}

// lock makes PostgreSQL hold what is read; SQLite's one writer holds everything.
func (tx *Tx) lock(q *bun.SelectQuery) *bun.SelectQuery {
	if tx.tx.Dialect().Name() == dialect.PG {
		return q.For("UPDATE")
	}
	return q
}

func where(q *bun.SelectQuery, filters []Filter) *bun.SelectQuery {
	for _, f := range filters {
		q = f.apply(q)
	}
	return q
}

func notFound(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	return err
}

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"strings"
	"time"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect"

	"github.com/tidings-dev/tidings/eventlog/sqldb"
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
	// In finds one of several values, a slice that is not empty.
	In Op = "IN"
)

var likeEscape = strings.NewReplacer("!", "!!", "%", "!%", "_", "!_")

func (f Filter) expression() string {
	switch f.Op {
	case Contains:
		return "lower(?) LIKE ? ESCAPE '!'"
	case In:
		return "? IN (?)"
	}
	return "? " + string(f.Op) + " ?"
}

func (f Filter) arguments() []any {
	column := bun.Ident(f.Column)
	switch f.Op {
	case Contains:
		return []any{column, "%" + likeEscape.Replace(strings.ToLower(fmt.Sprint(f.Value))) + "%"}
	case In:
		return []any{column, bun.List(f.Value)}
	}
	return []any{column, argument(f.Value)}
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

// readTime bounds what reads up to all rows of a user, rowTime what reads one.
const (
	readTime = 2 * time.Minute
	rowTime  = 10 * time.Second
)

// reading runs do on a connection that reads.
func (s *Store) reading(ctx context.Context, do func(context.Context, *sql.Conn) error) error {
	return sqldb.Do(ctx, s.reader, readTime, do)
}

// Get reads the row whose primary key is set; [ErrNotFound] if there is none that
// passes the filters.
func (s *Store) Get(ctx context.Context, row any, filters ...Filter) error {
	return sqldb.Do(ctx, s.reader, rowTime, func(ctx context.Context, conn *sql.Conn) error {
		return notFound(where(s.statement(conn).NewSelect().Model(row).WherePK(), filters).Scan(ctx))
	})
}

// First reads the first row that passes the filters; [ErrNotFound] if none does.
func (s *Store) First(ctx context.Context, row any, filters ...Filter) error {
	return sqldb.Do(ctx, s.reader, rowTime, func(ctx context.Context, conn *sql.Conn) error {
		return notFound(where(s.statement(conn).NewSelect().Model(row), filters).Limit(1).Scan(ctx))
	})
}

// Count counts the rows that pass the filters.
func (s *Store) Count(ctx context.Context, row any, filters ...Filter) (total int64, err error) {
	err = s.reading(ctx, func(ctx context.Context, conn *sql.Conn) (err error) {
		if total, err = where(s.statement(conn).NewSelect().Model(row), filters).Count(ctx); err != nil {
			return fmt.Errorf("count: %w", known(err))
		}
		return nil
	})
	return total, err
}

// Sum adds up a column of the rows that pass the filters.
func (s *Store) Sum(ctx context.Context, row any, column string, filters ...Filter) (sum int64, err error) {
	err = s.reading(ctx, func(ctx context.Context, conn *sql.Conn) (err error) {
		sum, err = total(ctx, s.statement(conn), row, column, filters)
		return err
	})
	return sum, err
}

func total(ctx context.Context, db *bun.DB, row any, column string, filters []Filter) (sum int64, err error) {
	err = where(db.NewSelect().Model(row), filters).ColumnExpr("coalesce(sum(?), 0)", bun.Ident(column)).Scan(ctx, &sum)
	return sum, known(err)
}

// List reads the rows that pass the filters one by one, in order, each into a new
// row. What comes after the last row that somebody wants to see is not kept.
func List[R any](ctx context.Context, s *Store, newRow func() R, order Order, filters ...Filter) iter.Seq2[R, error] {
	direction, compare := "ASC", ">"
	if order.Descending {
		direction, compare = "DESC", "<"
	}
	column := bun.Ident(order.Column)
	return func(yield func(R, error) bool) {
		err := s.reading(ctx, func(ctx context.Context, conn *sql.Conn) error {
			db := s.statement(conn)
			q := where(db.NewSelect().Model(newRow()), filters)
			if order.After != nil {
				q = q.Where("(?, id) "+compare+" (?, ?)", column, argument(order.After.Value), order.After.ID)
			}
			rows, err := q.OrderExpr("? "+direction+", id "+direction, column).Limit(order.Limit).Rows(ctx)
			if err != nil {
				return fmt.Errorf("list: %w", known(err))
			}
			defer rows.Close()
			for rows.Next() {
				row := newRow()
				if err := db.ScanRow(ctx, rows, row); err != nil {
					return fmt.Errorf("list: %w", known(err))
				}
				if !yield(row, nil) {
					return errStop
				}
			}
			return known(rows.Err())
		})
		if err != nil && !errors.Is(err, errStop) {
			yield(*new(R), err)
		}
	}
}

// errStop ends reading when nobody wants more.
var errStop = errors.New("stop")

// Each reads the rows that pass the filters one by one and calls do with each. A
// row shares nothing with the others, so do may keep it or parts of it.
func Each[R any](ctx context.Context, s *Store, do func(*R) error, filters ...Filter) error {
	return s.reading(ctx, func(ctx context.Context, conn *sql.Conn) error {
		db := s.statement(conn)
		rows, err := where(db.NewSelect().Model((*R)(nil)), filters).Rows(ctx)
		if err != nil {
			return fmt.Errorf("read: %w", known(err))
		}
		defer rows.Close()
		for rows.Next() {
			// A row of its own each time: bun merges JSON into the map that a row has.
			row := new(R)
			if err := db.ScanRow(ctx, rows, row); err != nil {
				return fmt.Errorf("read: %w", known(err))
			}
			if err := do(row); err != nil {
				return err
			}
		}
		return known(rows.Err())
	})
}

// renew makes rows point to a new, empty slice: bun reads into the elements that a
// slice already has, which somebody may have kept.
func renew(rows any) {
	slice := reflect.ValueOf(rows).Elem()
	slice.Set(reflect.MakeSlice(slice.Type(), 0, 0))
}

// Documents reads what documents the items that pass the filters belong to, oldest
// first, into rows that have a document's id, type, size and first time.
func (s *Store) Documents(ctx context.Context, rows any, after *Position, limit int64, filters ...Filter) error {
	return s.reading(ctx, func(ctx context.Context, conn *sql.Conn) error {
		q := where(s.statement(conn).NewSelect().Model(rows), filters).Column("document_id").
			ColumnExpr("max(document_type) AS document_type").
			ColumnExpr("CAST(sum(usage_bytes) AS BIGINT) AS usage_bytes").
			ColumnExpr("min(created_at) AS created_at").Group("document_id")
		if after != nil {
			q = q.Having("(min(created_at), document_id) > (?, ?)", argument(after.Value), after.ID)
		}
		err := q.OrderExpr("min(created_at), document_id").Limit(limit).Scan(ctx)
		if err != nil {
			return fmt.Errorf("list documents: %w", known(err))
		}
		return nil
	})
}

// Column is a column of the table of a row, a pointer to a struct.
type Column struct {
	Row  any
	Name string
}

// Idle returns the ids of rows that were last active before a time and to which at
// least one row refers in one of the columns. It returns no more than limit ids, those
// longest idle first.
func (s *Store) Idle(
	ctx context.Context, row any, before time.Time, limit int64, columns ...Column,
) (ids []string, err error) {
	if len(columns) == 0 {
		return nil, nil
	}
	err = s.reading(ctx, func(ctx context.Context, conn *sql.Conn) error {
		db := s.statement(conn)
		err := db.NewSelect().TableExpr("? AS idle", s.tableOf(row)).ColumnExpr("id").
			Where("last_active_at < ?", before).
			WhereGroup(" AND ", func(q *bun.SelectQuery) *bun.SelectQuery {
				for _, c := range columns {
					q = q.WhereOr("EXISTS (SELECT 1 FROM ? WHERE ? = idle.id)", s.tableOf(c.Row), bun.Ident(c.Name))
				}
				return q
			}).Order("last_active_at").Limit(limit).Scan(ctx, &ids)
		if err != nil {
			return fmt.Errorf("find idle rows: %w", known(err))
		}
		return nil
	})
	return ids, err
}

// tableOf is the table of a row in a statement.
func (s *Store) tableOf(row any) bun.Safe {
	return s.dialect.Tables().Get(reflect.TypeOf(row).Elem()).SQLName
}

// Lock reads the row whose primary key is set and holds it until the end of the
// transaction; [ErrNotFound] if there is none that passes the filters.
func (tx *Tx) Lock(ctx context.Context, row any, filters ...Filter) error {
	return notFound(tx.lock(where(tx.statement().NewSelect().Model(row).WherePK(), filters)).Scan(ctx))
}

// Find reads at most limit rows that pass the filters into a new slice, by id, and
// holds them.
func (tx *Tx) Find(ctx context.Context, rows any, limit int64, filters ...Filter) error {
	renew(rows)
	return notFound(tx.lock(where(tx.statement().NewSelect().Model(rows), filters).Order("id").Limit(limit)).Scan(ctx))
}

// Read reads all rows that pass the filters into a new slice, in the order of a
// column.
func (tx *Tx) Read(ctx context.Context, rows any, order string, filters ...Filter) error {
	renew(rows)
	return notFound(where(tx.statement().NewSelect().Model(rows), filters).Order(order).Scan(ctx))
}

// Sum adds up a column of the rows that pass the filters.
func (tx *Tx) Sum(ctx context.Context, row any, column string, filters ...Filter) (sum int64, err error) {
	return total(ctx, tx.statement(), row, column, filters)
}

// Count counts the rows that pass the filters.
func (tx *Tx) Count(ctx context.Context, row any, filters ...Filter) (count int64, err error) {
	err = where(tx.statement().NewSelect().Model(row), filters).ColumnExpr("count(*)").Scan(ctx, &count)
	return count, known(err)
}

// CountDistinct counts the values of a column in the rows that pass the filters.
func (tx *Tx) CountDistinct(ctx context.Context, row any, column string, filters ...Filter) (count int64, err error) {
	err = where(tx.statement().NewSelect().Model(row), filters).ColumnExpr("count(DISTINCT ?)",
		bun.Ident(column)).Scan(ctx, &count)
	return count, known(err)
}

// lock makes PostgreSQL hold what is read; SQLite's one writer holds everything.
func (tx *Tx) lock(q *bun.SelectQuery) *bun.SelectQuery {
	if tx.store.dialect.Name() == dialect.PG {
		return q.For("UPDATE")
	}
	return q
}

func where(q *bun.SelectQuery, filters []Filter) *bun.SelectQuery {
	for _, f := range filters {
		q = q.Where(f.expression(), f.arguments()...)
	}
	return q
}

func notFound(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	return known(err)
}

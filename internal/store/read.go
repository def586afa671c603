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

// Filter is a condition on a column. Column names come from code, never from
// users.
type Filter struct {
	Column string
	Op     Op
	Value  any
}

// Op is a comparison operator.
type Op string

// The comparison operators.
const (
	Equal    Op = "="
	NotEqual Op = "<>"
	Less     Op = "<"
	Greater  Op = ">"
	AtLeast  Op = ">="
	// Contains matches a substring, ignoring case.
	Contains Op = "contains"
	// In matches any element of a non-empty slice.
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

// Order is the order of a list; ties are broken by id.
type Order struct {
	Column     string
	Descending bool
	// After is the position of the last row of the previous page; nil for the
	// first page.
	After *Position
	Limit int64
}

// Position is a position in a sorted list.
type Position struct {
	Value any
	ID    string
}

// readTime limits reads of up to all of a user's rows, rowTime reads of a
// single row.
const (
	readTime = 2 * time.Minute
	rowTime  = 10 * time.Second
)

// reading runs do with a connection for reading.
func (s *Store) reading(ctx context.Context, do func(context.Context, *sql.Conn) error) error {
	return sqldb.Do(ctx, s.reader, readTime, do)
}

// Get reads the row with the primary key of row. It returns [ErrNotFound] if
// the row does not exist or does not match the filters.
func (s *Store) Get(ctx context.Context, row any, filters ...Filter) error {
	return sqldb.Do(ctx, s.reader, rowTime, func(ctx context.Context, conn *sql.Conn) error {
		return notFound(where(s.statement(conn).NewSelect().Model(row).WherePK(), filters).Scan(ctx))
	})
}

// First reads the first row that matches the filters, or returns [ErrNotFound].
func (s *Store) First(ctx context.Context, row any, filters ...Filter) error {
	return sqldb.Do(ctx, s.reader, rowTime, func(ctx context.Context, conn *sql.Conn) error {
		return notFound(where(s.statement(conn).NewSelect().Model(row), filters).Limit(1).Scan(ctx))
	})
}

// Count counts the rows that match the filters.
func (s *Store) Count(ctx context.Context, row any, filters ...Filter) (total int64, err error) {
	err = s.reading(ctx, func(ctx context.Context, conn *sql.Conn) (err error) {
		if total, err = where(s.statement(conn).NewSelect().Model(row), filters).Count(ctx); err != nil {
			return fmt.Errorf("count: %w", asStoreError(err))
		}
		return nil
	})
	return total, err
}

// Sum returns the sum of a column over the rows that match the filters.
func (s *Store) Sum(ctx context.Context, row any, column string, filters ...Filter) (sum int64, err error) {
	err = s.reading(ctx, func(ctx context.Context, conn *sql.Conn) (err error) {
		sum, err = total(ctx, s.statement(conn), row, column, filters)
		return err
	})
	return sum, err
}

func total(ctx context.Context, db *bun.DB, row any, column string, filters []Filter) (sum int64, err error) {
	err = where(db.NewSelect().Model(row), filters).ColumnExpr("coalesce(sum(?), 0)", bun.Ident(column)).Scan(ctx, &sum)
	return sum, asStoreError(err)
}

// List yields the rows that match the filters in order, each in a new row. It
// reads no more than is consumed.
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
				return fmt.Errorf("list: %w", asStoreError(err))
			}
			defer rows.Close()
			for rows.Next() {
				row := newRow()
				if err := db.ScanRow(ctx, rows, row); err != nil {
					return fmt.Errorf("list: %w", asStoreError(err))
				}
				if !yield(row, nil) {
					return errStop
				}
			}
			return asStoreError(rows.Err())
		})
		if err != nil && !errors.Is(err, errStop) {
			yield(*new(R), err)
		}
	}
}

// errStop ends reading when the consumer stops.
var errStop = errors.New("stop")

// Each calls do for every row that matches the filters. Rows share no memory,
// so do may keep them.
func Each[R any](ctx context.Context, s *Store, do func(*R) error, filters ...Filter) error {
	return s.reading(ctx, func(ctx context.Context, conn *sql.Conn) error {
		db := s.statement(conn)
		rows, err := where(db.NewSelect().Model((*R)(nil)), filters).Rows(ctx)
		if err != nil {
			return fmt.Errorf("read: %w", asStoreError(err))
		}
		defer rows.Close()
		for rows.Next() {
			// A new row each time: bun merges JSON into a row's existing map.
			row := new(R)
			if err := db.ScanRow(ctx, rows, row); err != nil {
				return fmt.Errorf("read: %w", asStoreError(err))
			}
			if err := do(row); err != nil {
				return err
			}
		}
		return asStoreError(rows.Err())
	})
}

// renew points rows to a new, empty slice, because bun reads into the existing
// elements of a slice, which the caller may have kept.
func renew(rows any) {
	slice := reflect.ValueOf(rows).Elem()
	slice.Set(reflect.MakeSlice(slice.Type(), 0, 0))
}

// Documents reads the documents of the items that match the filters, oldest
// first, into rows with a document's id, type, size and first time.
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
			return fmt.Errorf("list documents: %w", asStoreError(err))
		}
		return nil
	})
}

// Column is a column of the table of Row, a pointer to a struct.
type Column struct {
	Row  any
	Name string
}

// Idle returns the ids of rows that were last active before the given time and
// are referred to by at least one row in one of the columns. It returns at most
// limit ids, longest idle first.
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
			return fmt.Errorf("find idle rows: %w", asStoreError(err))
		}
		return nil
	})
	return ids, err
}

// tableOf returns the qualified table name of a row.
func (s *Store) tableOf(row any) bun.Safe {
	return s.dialect.Tables().Get(reflect.TypeOf(row).Elem()).SQLName
}

// Lock reads the row with the primary key of row and locks it until the end of
// the transaction. It returns [ErrNotFound] if the row does not exist or does
// not match the filters.
func (tx *Tx) Lock(ctx context.Context, row any, filters ...Filter) error {
	return notFound(tx.lock(where(tx.statement().NewSelect().Model(row).WherePK(), filters)).Scan(ctx))
}

// Find reads and locks up to limit rows that match the filters, by id, into a
// new slice.
func (tx *Tx) Find(ctx context.Context, rows any, limit int64, filters ...Filter) error {
	renew(rows)
	return notFound(tx.lock(where(tx.statement().NewSelect().Model(rows), filters).Order("id").Limit(limit)).Scan(ctx))
}

// Read reads all rows that match the filters into a new slice, ordered by a
// column.
func (tx *Tx) Read(ctx context.Context, rows any, order string, filters ...Filter) error {
	renew(rows)
	return notFound(where(tx.statement().NewSelect().Model(rows), filters).Order(order).Scan(ctx))
}

// Sum returns the sum of a column over the rows that match the filters.
func (tx *Tx) Sum(ctx context.Context, row any, column string, filters ...Filter) (sum int64, err error) {
	return total(ctx, tx.statement(), row, column, filters)
}

// Count counts the rows that match the filters.
func (tx *Tx) Count(ctx context.Context, row any, filters ...Filter) (count int64, err error) {
	err = where(tx.statement().NewSelect().Model(row), filters).ColumnExpr("count(*)").Scan(ctx, &count)
	return count, asStoreError(err)
}

// CountDistinct counts the distinct values of a column in the rows that match
// the filters.
func (tx *Tx) CountDistinct(ctx context.Context, row any, column string, filters ...Filter) (count int64, err error) {
	err = where(tx.statement().NewSelect().Model(row), filters).ColumnExpr("count(DISTINCT ?)",
		bun.Ident(column)).Scan(ctx, &count)
	return count, asStoreError(err)
}

// lock adds FOR UPDATE on PostgreSQL; on SQLite, the single writer holds
// everything.
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
	return asStoreError(err)
}

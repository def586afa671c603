package store

import (
	"context"
	"database/sql"
	"reflect"
	"strconv"
	"time"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect"
	"github.com/uptrace/bun/schema"
)

// newDialect returns the dialect shared by all statements. It writes integers
// in rows through the statement's [binder], because bun does not consult the
// dialect for them. It qualifies all table names with the schema.
func newDialect(base schema.Dialect, inSchema string) *boundDialect {
	d := &boundDialect{Dialect: base, schema: inSchema}
	d.tables = schema.NewTables(d)
	return d
}

type boundDialect struct {
	schema.Dialect
	tables *schema.Tables
	schema string // quoted, with a trailing dot; empty on SQLite
}

// Tables implements [schema.Dialect].
func (d *boundDialect) Tables() *schema.Tables { return d.tables }

// OnTable implements [schema.Dialect].
func (d *boundDialect) OnTable(table *schema.Table) {
	d.Dialect.OnTable(table)
	table.SQLName = schema.Safe(d.schema) + table.SQLName
	table.SQLNameForSelects = table.SQLName
	for _, field := range table.FieldMap {
		switch field.IndirectType.Kind() {
		case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
			field.Append = appendInt
			if field.IsPtr {
				field.Append = schema.PtrAppender(appendInt)
			}
		}
	}
}

func appendInt(gen schema.QueryGen, b []byte, v reflect.Value) []byte {
	return gen.Dialect().(*binder).bind(b, v.Int())
}

// binder is the dialect of one statement. bun writes values into the text of a
// statement; a binder writes $1, $2, … instead and passes the values to the
// driver separately, so that no database setting can change where a value ends,
// and statements can be prepared.
type binder struct {
	*boundDialect
	conn bun.IConn
	args []any
}

// statement returns a DB for a single statement on a connection.
func (s *Store) statement(conn bun.IConn) *bun.DB {
	b := &binder{boundDialect: s.dialect, conn: conn}
	return bun.NewDB(s.reader, b, bun.WithConnResolver(b))
}

func (d *binder) bind(b []byte, v any) []byte {
	d.args = append(d.args, v)
	return strconv.AppendInt(append(b, '$'), int64(len(d.args)), 10)
}

// AppendUint32 implements [schema.Dialect].
func (d *binder) AppendUint32(b []byte, n uint32) []byte { return d.bind(b, int64(n)) }

// AppendUint64 implements [schema.Dialect]. Neither database has numbers beyond
// AppendUint64 implements [schema.Dialect]. Neither database has integers
// beyond int64.
func (d *binder) AppendUint64(b []byte, n uint64) []byte { return d.bind(b, int64(n)) }

// AppendTime implements [schema.Dialect]. SQLite has no time type; this text
// form sorts in time order.
func (d *binder) AppendTime(b []byte, t time.Time) []byte {
	if d.Name() == dialect.SQLite {
		return d.bind(b, t.UTC().Format("2006-01-02 15:04:05.999999-07:00"))
	}
	return d.bind(b, t)
}

// AppendString implements [schema.Dialect].
func (d *binder) AppendString(b []byte, s string) []byte { return d.bind(b, s) }

// AppendBytes implements [schema.Dialect].
func (d *binder) AppendBytes(b, bytes []byte) []byte { return d.bind(b, bytes) }

// AppendJSON implements [schema.Dialect].
func (d *binder) AppendJSON(b, json []byte) []byte { return d.bind(b, string(json)) }

// AppendBool implements [schema.Dialect].
func (d *binder) AppendBool(b []byte, v bool) []byte { return d.bind(b, v) }

// ResolveConn implements [bun.ConnResolver].
func (d *binder) ResolveConn(context.Context, bun.Query) bun.IConn { return d }

// Close implements [bun.ConnResolver].
func (d *binder) Close() error { return nil }

// QueryContext implements [bun.IConn].
func (d *binder) QueryContext(ctx context.Context, query string, _ ...any) (*sql.Rows, error) {
	rows, err := d.conn.QueryContext(ctx, query, d.args...)
	return rows, asStoreError(err)
}

// QueryRowContext implements [bun.IConn].
func (d *binder) QueryRowContext(ctx context.Context, query string, _ ...any) *sql.Row {
	return d.conn.QueryRowContext(ctx, query, d.args...)
}

// ExecContext implements [bun.IConn].
func (d *binder) ExecContext(ctx context.Context, query string, _ ...any) (sql.Result, error) {
	result, err := d.conn.ExecContext(ctx, query, d.args...)
	return result, asStoreError(err)
}

// number is an integer argument, which bun would otherwise write into the text
// of a statement.
type number int64

// AppendQuery implements [schema.QueryAppender].
func (n number) AppendQuery(gen schema.QueryGen, b []byte) ([]byte, error) {
	return gen.Dialect().(*binder).bind(b, int64(n)), nil
}

// argument wraps a value so that bun binds it.
func argument(v any) any {
	switch n := v.(type) {
	case int:
		return number(n)
	case int64:
		return number(n)
	}
	return v
}

package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
)

type lastKey struct{}

// WithCommit marks the last statements of a transaction, whose results nobody needs.
// PostgreSQL gets them in one message with the COMMIT, which then returns their error.
func WithCommit(ctx context.Context) context.Context { return context.WithValue(ctx, lastKey{}, true) }

// openPool is [stdlib.OpenDBFromPool] with connections that heed [WithCommit].
func openPool(pool *pgxpool.Pool) *sql.DB {
	db := sql.OpenDB(pipelines{stdlib.GetPoolConnector(pool)})
	db.SetMaxIdleConns(0) // the pool keeps them
	return db
}

type pipelines struct{ driver.Connector }

// Connect implements [driver.Connector].
func (p pipelines) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := p.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &pipeline{Conn: conn.(*stdlib.Conn)}, nil
}

// pipeline is a connection that holds the last statements of a transaction until it
// commits.
type pipeline struct {
	*stdlib.Conn
	last  *pgx.Batch
	limit time.Time // the deadline of last
}

// ExecContext implements [driver.ExecerContext].
func (p *pipeline) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	limit, limited := ctx.Deadline()
	if p.last == nil || !limited || ctx.Value(lastKey{}) == nil {
		return p.Conn.ExecContext(ctx, query, args)
	}
	values := make([]any, len(args))
	for i, a := range args {
		values[i] = a.Value
	}
	p.last.Queue(query, values...)
	p.limit = limit
	return driver.ResultNoRows, nil
}

// BeginTx implements [driver.ConnBeginTx].
func (p *pipeline) BeginTx(ctx context.Context, o driver.TxOptions) (driver.Tx, error) {
	tx, err := p.Conn.BeginTx(ctx, o)
	if err != nil {
		return nil, err
	}
	p.last = new(pgx.Batch)
	return pipelineTx{tx, ctx, p}, nil
}

type pipelineTx struct {
	driver.Tx
	ctx  context.Context
	conn *pipeline
}

// Commit implements [driver.Tx].
func (tx pipelineTx) Commit() error {
	last, conn := tx.conn.last, tx.conn.Conn.Conn()
	tx.conn.last = nil
	if last.Len() == 0 {
		return tx.Tx.Commit()
	}
	ctx, end := context.WithDeadline(tx.ctx, tx.conn.limit)
	defer end()
	last.Queue("commit") // skipped if a statement before it fails
	err := conn.SendBatch(ctx, last).Close()
	if err != nil && !conn.IsClosed() && conn.PgConn().TxStatus() != 'I' {
		err = errors.Join(err, tx.Tx.Rollback())
	}
	return err
}

// Rollback implements [driver.Tx].
func (tx pipelineTx) Rollback() error {
	tx.conn.last = nil
	return tx.Tx.Rollback()
}

package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/tidings-dev/tidings/eventlog"
)

type lastKey struct{}

// withCommit marks the last statements of a transaction, whose results nobody needs.
// PostgreSQL gets them in one message with the COMMIT, which then returns their error.
func withCommit(ctx context.Context) context.Context { return context.WithValue(ctx, lastKey{}, true) }

// errNotBegun means that the connection broke in the first statement of a transaction.
var errNotBegun = errors.New("the transaction did not begin")

// openPipelined is [stdlib.OpenDBFromPool] with connections that heed withCommit and
// send the BEGIN of a transaction in one message with its first statement. The pool must
// use [buildFrontend].
func openPipelined(pool *pgxpool.Pool) *sql.DB {
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

// pipeline is a connection whose transactions need fewer round trips.
type pipeline struct {
	*stdlib.Conn
	tx *pipelineTx // may have ended
}

// BeginTx implements [driver.ConnBeginTx]. Only "read committed" is pipelined.
func (p *pipeline) BeginTx(ctx context.Context, o driver.TxOptions) (driver.Tx, error) {
	p.tx = nil
	if sql.IsolationLevel(o.Isolation) != sql.LevelReadCommitted || o.ReadOnly {
		return p.Conn.BeginTx(ctx, o)
	}
	conn := p.Conn.Conn()
	if conn.IsClosed() {
		return nil, driver.ErrBadConn
	}
	p.tx = &pipelineTx{ctx: ctx, conn: conn}
	return p.tx, nil
}

// ExecContext implements [driver.ExecerContext].
func (p *pipeline) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if p.tx == nil {
		return p.Conn.ExecContext(ctx, query, args)
	}
	if limit, limited := ctx.Deadline(); limited && ctx.Value(lastKey{}) != nil {
		p.tx.hold(query, args, limit)
		return driver.ResultNoRows, nil
	}
	var err error
	if len(args) == 0 { // which pgx sends with the simple protocol
		err = p.tx.begin(ctx)
	} else {
		p.tx.lead()
	}
	if err != nil {
		return nil, err
	}
	result, err := p.Conn.ExecContext(ctx, query, args)
	return result, p.tx.noting(err)
}

// QueryContext implements [driver.QueryerContext].
func (p *pipeline) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if p.tx != nil {
		p.tx.lead()
	}
	rows, err := p.Conn.QueryContext(ctx, query, args)
	if err != nil && p.tx != nil {
		err = p.tx.noting(err)
	}
	return rows, err
}

// pipelineTx is a transaction that begins with its first statement, and holds its last
// ones until it commits.
type pipelineTx struct {
	ctx   context.Context
	conn  *pgx.Conn
	begun bool
	last  pgx.Batch
	limit time.Time // the deadline of last
}

// begin begins the transaction now.
func (tx *pipelineTx) begin(ctx context.Context) error {
	if tx.begun {
		return nil
	}
	tx.begun = true
	_, err := tx.conn.Exec(ctx, beginText)
	return tx.noting(err)
}

// lead begins the transaction in the message that pgx sends next.
func (tx *pipelineTx) lead() {
	if tx.begun {
		return
	}
	tx.begun = true
	for _, m := range beginMessages {
		tx.conn.PgConn().Frontend().Send(m)
	}
}

// noting adds errNotBegun if the connection broke before the first statement was
// answered.
func (tx *pipelineTx) noting(err error) error {
	if err == nil || tx.conn.PgConn().TxStatus() != 'I' {
		return err
	}
	_, known := errors.AsType[*eventlog.UnavailableError](err)
	_, away := eventlog.Unavailable(err)
	if known || !away || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return errors.Join(errNotBegun, err)
}

func (tx *pipelineTx) hold(query string, args []driver.NamedValue, limit time.Time) {
	values := make([]any, len(args))
	for i, a := range args {
		values[i] = a.Value
	}
	tx.last.Queue(query, values...)
	tx.limit = limit
}

// Commit implements [driver.Tx].
func (tx *pipelineTx) Commit() error {
	err := tx.begin(tx.ctx)
	if err == nil {
		err = tx.commit()
	}
	if err != nil && tx.conn.PgConn().TxStatus() != 'I' {
		err = errors.Join(err, tx.Rollback())
	}
	return err
}

func (tx *pipelineTx) commit() error {
	if tx.last.Len() > 0 {
		ctx, end := context.WithDeadline(tx.ctx, tx.limit)
		defer end()
		tx.last.Queue("commit") // PostgreSQL skips it if a statement before it fails
		return tx.conn.SendBatch(ctx, &tx.last).Close()
	}
	tag, err := tx.conn.Exec(tx.ctx, "commit")
	if err == nil && tag.String() == "ROLLBACK" { // a statement failed
		err = pgx.ErrTxCommitRollback
	}
	return err
}

// Rollback implements [driver.Tx].
func (tx *pipelineTx) Rollback() error {
	if !tx.begun {
		return nil
	}
	_, err := tx.conn.Exec(tx.ctx, "rollback")
	if err != nil {
		_ = tx.conn.Close(tx.ctx) // its state is unknown
	}
	return err
}

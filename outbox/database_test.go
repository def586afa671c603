package outbox_test

import (
	"context"
	"database/sql"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
	"github.com/uptrace/bun/dialect/sqlitedialect"
	"github.com/uptrace/bun/schema"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog/sqlite"
	"github.com/tidings-dev/tidings/internal/testdb"
	"github.com/tidings-dev/tidings/internal/testtool"
	"github.com/tidings-dev/tidings/outbox"
	"github.com/tidings-dev/tidings/outbox/outboxtest"
)

// The transactions of other libraries, with their method sets.
type (
	// sqlxTx is a *sqlx.Tx, which embeds one of database/sql.
	sqlxTx struct {
		*sql.Tx
		Mapper any
	}
	// entTx is an *ent.Tx with the feature sql/execquery.
	entTx struct{ tx *sql.Tx }
	// gormDB is a *gorm.DB in a transaction.
	gormDB struct {
		Statement *struct{ ConnPool gormConnPool }
	}
	// gormConnPool is a gorm.ConnPool.
	gormConnPool interface {
		PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
		ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
		QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
		QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	}
)

func (tx *entTx) Commit() error   { return tx.tx.Commit() }
func (tx *entTx) Rollback() error { return tx.tx.Rollback() }
func (tx *entTx) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	return tx.tx.ExecContext(ctx, query, args...)
}

func TestTellInTransactionsOfOtherLibraries(t *testing.T) {
	for name, c := range map[string]struct {
		open    func(t *testing.T) (*sql.DB, outbox.Database)
		dialect schema.Dialect
	}{
		"PostgreSQL": {func(t *testing.T) (*sql.DB, outbox.Database) {
			db := openDB(t, "pgx", testdb.Postgres(t))
			return db, outbox.PostgresDB(db)
		}, pgdialect.New()},
		"SQLite": {func(t *testing.T) (*sql.DB, outbox.Database) {
			db := openDB(t, "sqlite", newFile(t)+waiting)
			return db, outbox.SQLite(db)
		}, sqlitedialect.New()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, database := c.open(t)
			hooks := open(t, database, outbox.Options{})
			ctx := t.Context()
			within := func(id string, tell func(tx *sql.Tx) error) {
				t.Helper()
				tx, err := db.BeginTx(ctx, nil)
				if err == nil {
					defer tx.Rollback()
					err = tell(tx)
				}
				if err == nil {
					err = tx.Commit()
				}
				if err != nil {
					t.Errorf("%s: %v", id, err)
				}
			}
			within("sqlx", func(tx *sql.Tx) error { return hooks.Tell(ctx, &sqlxTx{Tx: tx}, ordered("sqlx")) })
			within("ent", func(tx *sql.Tx) error { return hooks.Tell(ctx, &entTx{tx}, ordered("ent")) })
			within("gorm", func(tx *sql.Tx) error {
				g := gormDB{&struct{ ConnPool gormConnPool }{tx}}
				return hooks.Tell(ctx, g.Statement.ConnPool, ordered("gorm"))
			})
			err := bun.NewDB(db, c.dialect).RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
				return hooks.Tell(ctx, tx, ordered("bun"))
			})
			if err != nil {
				t.Errorf("bun: %v", err)
			}
			outboxtest.Told(t, database, ordered("sqlx"), ordered("ent"), ordered("gorm"), ordered("bun"))
		})
	}
}

// All tables are in a schema, and outboxes in different schemas are independent. The
// program may migrate separately from Open.
func TestSchemaAndMigrate(t *testing.T) {
	pool := newPool(t, testdb.Postgres(t))
	for _, database := range []outbox.Database{outbox.Postgres(pool), outbox.Postgres(pool).Schema("shop webhooks")} {
		if err := outbox.Migrate(t.Context(), database); err != nil {
			t.Fatal(err)
		}
		hooks := open(t, database, outbox.Options{NoMigrate: true})
		tellPgx(t, pool, hooks, ordered("1"))
		outboxtest.Told(t, database, ordered("1"))
	}
	rows, err := pool.Query(t.Context(),
		"SELECT DISTINCT schemaname::text FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', "+
			"'information_schema') ORDER BY 1")
	if err != nil {
		t.Fatal(err)
	}
	var schemas string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		schemas += name + ","
	}
	if schemas != "shop webhooks,tidings," {
		t.Errorf("tables in %s", schemas)
	}
}

// A role that only calls Tell needs few privileges.
func TestRoleThatOnlyTells(t *testing.T) {
	url := testdb.Postgres(t)
	pool := newPool(t, url)
	if err := outbox.Migrate(t.Context(), outbox.Postgres(pool)); err != nil {
		t.Fatal(err)
	}
	_, err := pool.Exec(t.Context(), `CREATE ROLE only_tells LOGIN; GRANT USAGE ON SCHEMA tidings TO only_tells;
		GRANT INSERT ON tidings.tidings_outbox TO only_tells; GRANT SELECT ON tidings.tidings_log_version TO only_tells`)
	if err != nil {
		t.Fatal(err)
	}
	teller := newPool(t, strings.Replace(url, "tidings@", "only_tells@", 1))
	hooks := open(t, outbox.Postgres(teller), outbox.Options{NoMigrate: true})
	tellPgx(t, teller, hooks, ordered("1"))
	outboxtest.Told(t, outbox.Postgres(pool), ordered("1"))
}

// Deliveries neither need nor take the program's connections.
func TestProgramAndDeliveriesHaveTheirOwnConnections(t *testing.T) {
	pool := newPool(t, testdb.Postgres(t)+"&pool_max_conns=1")
	receiver := outboxtest.NewReceiver(t)
	hooks := open(t, outbox.Postgres(pool), outbox.Options{Endpoints: []tidings.Endpoint{receiver.Endpoint()}})
	run(t, hooks)
	tellPgx(t, pool, hooks, ordered("1"))
	busy, err := pool.Acquire(t.Context()) // the only one
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Release()
	receiver.Wait(1)
	var n int
	err = busy.QueryRow(t.Context(),
		"SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()").Scan(&n)
	if err != nil || n > 8 {
		t.Errorf("%d connections, %v; want at most the program's and six", n, err)
	}
}

// The program's pool may use any of pgx's query modes, as poolers require.
func TestPoolsOfEveryKind(t *testing.T) {
	testtool.InAll(t)
	url := testdb.Postgres(t)
	for _, mode := range []string{"simple_protocol", "exec", "cache_describe", "describe_exec"} {
		t.Run(mode, func(t *testing.T) {
			pool := newPool(t, url+"&default_query_exec_mode="+mode)
			receiver := outboxtest.NewReceiver(t)
			hooks := open(t, outbox.Postgres(pool), outbox.Options{Endpoints: []tidings.Endpoint{receiver.Endpoint()}})
			run(t, hooks)
			tellPgx(t, pool, hooks, ordered("1"))
			receiver.Wait(1)
		})
	}
}

// The connection that listens for other processes is replaced when it breaks.
func TestListenerComesBack(t *testing.T) {
	for name, database := range map[string]func(*pgxpool.Pool) outbox.Database{
		"pgx": outbox.Postgres,
		"database/sql": func(pool *pgxpool.Pool) outbox.Database {
			return outbox.PostgresDB(openDB(t, "pgx", pool.Config().ConnString()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := newPool(t, testdb.Postgres(t))
			testListener(t, pool, database(pool))
		})
	}
}

func testListener(t *testing.T, pool *pgxpool.Pool, database outbox.Database) {
	t.Helper()
	run(t, open(t, database, outbox.Options{Endpoints: []tidings.Endpoint{}}))
	listener := func() (pid int) {
		waitFor(t, func() bool {
			return pool.QueryRow(t.Context(),
				"SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query "+
					"LIKE 'LISTEN%'").Scan(&pid) == nil
		})
		return pid
	}
	first := listener()
	if _, err := pool.Exec(t.Context(), "SELECT pg_terminate_backend($1)", first); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return listener() != first })
}

// A program may use its own log.
func TestFromLog(t *testing.T) {
	db := openDB(t, "sqlite", newFile(t)+waiting)
	receiver := outboxtest.NewReceiver(t)
	s := sqlShop(t, outbox.FromLog(sqlite.New(db, db)), db)
	hooks := open(t, s.database, outbox.Options{Endpoints: []tidings.Endpoint{receiver.Endpoint()}})
	run(t, hooks)
	if err := s.order(t.Context(), hooks, "1", true); err != nil {
		t.Fatal(err)
	}
	receiver.Wait(1)
}

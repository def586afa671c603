package capture

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/eventlog/postgres"
)

// A statement that waits for a table lock makes all writers of the table queue
// behind it, so it waits only briefly and is retried after a pause.
const (
	lockTime  = "1s"
	runTime   = "2500ms"
	firstWait = 200 * time.Millisecond
	lastWait  = 5 * time.Second
	// patience bounds all attempts of a call together.
	patience = 5 * time.Minute
)

// SQLSTATEs of errors after which a retry may succeed.
const (
	lockNotAvailable = "55P03"
	deadlockDetected = "40P01"
	queryCanceled    = "57014" // by statement_timeout
	serialization    = "40001"
	invalidParameter = "22023" // from attach(), about the configuration
)

func hasCode(err error, codes ...string) bool {
	state, ok := errors.AsType[interface {
		error
		SQLState() string
	}](err)
	if !ok {
		return false
	}
	for _, code := range codes {
		if state.SQLState() == code {
			return true
		}
	}
	return false
}

// Attach creates the log's tables if necessary, and installs or updates the
// triggers of tables and emit(). It may be called at every start, by several
// processes concurrently. What is already in place is left alone, without a lock.
// Attached tables that are not listed stay attached; see [Detach].
//
// It requires the privilege to create triggers on the tables, and to read those
// with parts or with events for TRUNCATE. While a transaction of the application
// locks a table, it retries for up to five minutes in all, and never blocks writers
// for longer than three seconds; see [Options.Waiting]. Tables are independent: those
// that can be attached are, and the error names the others. db is a pool of github.com/jackc/pgx/v5/stdlib.
func Attach(ctx context.Context, db *sql.DB, tables []Table, o Options) error {
	all, err := sources(tables)
	if err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	w := newWaiter(db, o)
	if err := w.install(ctx, tables); err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	var failed []error
	for _, s := range all { // a fault of one keeps none of the others from being attached
		if err := w.attach(ctx, s); err != nil {
			failed = append(failed, fmt.Errorf("attach %s: %w", s.name, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(failed...)
}

// install creates the log's tables and the functions.
func (w *waiter) install(ctx context.Context, tables []Table) error {
	log := postgres.New(w.db, postgres.Options{Schema: w.o.schema()})
	pending, err := log.Pending(ctx)
	if err == nil && pending {
		err = log.Migrate(ctx)
	}
	if err != nil {
		return err
	}
	return w.retry(ctx, "schema "+w.o.schema(), "", func() error {
		return transact(ctx, w.db, func(tx *sql.Tx) error { return installIn(ctx, tx, tables, w.o) })
	})
}

// installIn creates the functions in a transaction.
func installIn(ctx context.Context, tx *sql.Tx, tables []Table, o Options) error {
	// One process installs; the others then have nothing to do.
	if _, err := tx.ExecContext(ctx, "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))",
		o.schema()+" capture"); err != nil {
		return err
	}
	installed, err := installedVersion(ctx, tx, o.schema())
	if err != nil {
		return err
	}
	if installed < version {
		if _, err := tx.ExecContext(ctx, functions(o.schema())); err != nil {
			return fmt.Errorf("create functions: %w", err)
		}
	}
	if _, err := tx.ExecContext(ctx, typesSQL(o.schema(), vocabularyOf(tables, o))); err != nil {
		return fmt.Errorf("write the types of emit(): %w", err)
	}
	if _, err := tx.ExecContext(ctx, notifySQL(o.schema(), o.Notify)); err != nil {
		return fmt.Errorf("have transactions notify, or not: %w", err)
	}
	return nil
}

// querier is a pool or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// installedVersion returns the version of the functions in the database; 0 for
// none.
func installedVersion(ctx context.Context, db querier, schema string) (n int, err error) {
	function := quote(schema) + ".capture_version()"
	var there bool
	err = db.QueryRowContext(ctx, "SELECT to_regprocedure($1) IS NOT NULL", function).Scan(&there)
	if err == nil && there {
		err = db.QueryRowContext(ctx, "SELECT "+function).Scan(&n)
	}
	if err != nil {
		return 0, fmt.Errorf("read the version of the functions: %w", err)
	}
	return n, nil
}

func (w *waiter) attach(ctx context.Context, s source) error {
	recover := true
	return w.retry(ctx, "table "+s.name, s.relation, func() error {
		err := attachOnce(ctx, w.db, w.o.schema(), s, recover)
		if hasCode(err, queryCanceled) { // recovering takes too long to block writers
			recover = false
		}
		return err
	})
}

func attachOnce(ctx context.Context, db *sql.DB, schema string, s source, recover bool) error {
	return transact(ctx, db, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "SELECT "+quote(schema)+".attach($1, $2::jsonb, $3)", s.relation, s.spec, recover)
		return err
	})
}

// transact calls do in a transaction with short lock and statement timeouts.
func transact(ctx context.Context, db *sql.DB, do func(*sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // no-op after a commit
	_, err = tx.ExecContext(ctx, "SET LOCAL lock_timeout = '"+lockTime+"'; SET LOCAL statement_timeout = '"+runTime+
		"'; SET LOCAL idle_in_transaction_session_timeout = '"+runTime+"'; SET LOCAL client_min_messages = warning; "+
		"SET LOCAL standard_conforming_strings = on")
	if err == nil {
		err = do(tx)
	}
	if err != nil {
		return err
	}
	return tx.Commit()
}

// Detach removes the triggers of tables and of their parts, and returns the names
// of the tables. Without names it removes everything that [Attach] installed except
// the log's tables, whatever the configuration says, and also after a dump and
// restore. Events that the triggers wrote are still delivered.
func Detach(ctx context.Context, db *sql.DB, o Options, names ...string) ([]string, error) {
	var relations []string
	for _, name := range names {
		relation, err := quoteTable(name)
		if err != nil {
			return nil, fmt.Errorf("detach: %w", err)
		}
		relations = append(relations, relation)
	}
	if n, err := installedVersion(ctx, db, o.schema()); err != nil || n == 0 {
		return nil, err
	}
	if len(names) == 0 { // one by one: any lock would hold up a lock on all of them
		rows, err := list(ctx, db, o.schema())
		if err != nil {
			return nil, fmt.Errorf("detach: %w", err)
		}
		for _, row := range rows {
			relations = append(relations, row.relation)
		}
		relations = append(relations, "") // functions that are not listed
	}
	var gone []string
	w := newWaiter(db, o)
	for _, relation := range relations {
		found, err := w.detach(ctx, relation)
		gone = append(gone, found...)
		if err != nil {
			return gone, fmt.Errorf("detach: %w", err)
		}
	}
	if len(names) > 0 {
		return gone, nil
	}
	err := transact(ctx, db, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, notifySQL(o.schema(), false)+dropFunctions(o.schema()))
		return err
	})
	if err != nil {
		return gone, fmt.Errorf("detach: remove functions: %w", err)
	}
	return gone, nil
}

// detach detaches a table, or what is left if relation is empty.
func (w *waiter) detach(ctx context.Context, relation string) (gone []string, err error) {
	err = w.retry(ctx, "table "+relation, relation, func() error {
		return transact(ctx, w.db, func(tx *sql.Tx) error {
			rows, err := tx.QueryContext(ctx, "SELECT * FROM "+quote(w.o.schema())+".detach(nullif($1, ''))", relation)
			if err != nil {
				return err
			}
			gone, err = texts(rows)
			return err
		})
	})
	return gone, err
}

func texts(rows *sql.Rows) ([]string, error) {
	defer rows.Close()
	var all []string
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		all = append(all, text)
	}
	return all, rows.Err()
}

// dropFunctions returns a statement that removes all functions that functions creates.
func dropFunctions(schema string) string {
	return `DO $tidings$ DECLARE f regprocedure; BEGIN
		FOR f IN SELECT p.oid FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = pronamespace
			WHERE nspname = ` + literal(schema) + ` AND
				(proname ~ '^capture_' OR proname IN ('attach', 'detach', 'emit')) LOOP
			EXECUTE pg_catalog.format('DROP FUNCTION %s', f);
		END LOOP;
		DELETE FROM ` + quote(schema) + `.tidings_types;
	END $tidings$`
}

package capture

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"
)

// waiter retries statements that find something locked.
type waiter struct {
	db  *sql.DB
	o   Options
	end time.Time // of all attempts together
}

func newWaiter(db *sql.DB, o Options) *waiter {
	return &waiter{db: db, o: o, end: time.Now().Add(patience)}
}

// retry calls do until it no longer fails because of a lock. relation is the table that
// it locks; empty if it locks none.
func (w *waiter) retry(ctx context.Context, what, relation string, do func() error) error {
	for pause := firstWait; ; pause = min(2*pause, lastWait) {
		err := do()
		if !hasCode(err, lockNotAvailable, deadlockDetected, queryCanceled, serialization) || ctx.Err() != nil {
			return err
		}
		locked := what + " is locked by " + lockedBy(ctx, w.db, w.o.schema(), relation)
		if time.Now().Add(pause).After(w.end) {
			return fmt.Errorf("%s; end that transaction and try again: %w", locked, err)
		}
		if w.o.Waiting != nil {
			w.o.Waiting(fmt.Sprintf("%s; trying again for up to %s", locked, time.Until(w.end).Round(time.Second)))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", locked, ctx.Err())
		case <-time.After(pause):
		}
	}
}

// lockedBy says which sessions hold locks that keep triggers from being installed on a
// table and its partitions, or that another process is installing some. Statements of
// sessions may contain secrets and are not quoted.
func lockedBy(ctx context.Context, db *sql.DB, schema, relation string) string {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	rows, err := db.QueryContext(ctx, `SELECT DISTINCT coalesce(l.pid, 0), coalesce(a.usename, ''),
			coalesce(a.application_name, ''), coalesce(a.state, ''),
			coalesce(extract(epoch FROM clock_timestamp() - a.xact_start), 0)::float8,
			l.locktype = 'advisory'
		FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
		WHERE l.granted AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
			AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
			AND (l.locktype = 'relation' AND l.mode NOT IN ('AccessShareLock', 'RowShareLock')
				AND l.relation IN (SELECT to_regclass(nullif($1, '')) UNION
					SELECT relid FROM pg_catalog.pg_partition_tree(to_regclass(nullif($1, ''))))
			OR l.locktype = 'advisory' AND l.objsubid = 1
				AND ((l.classid::bigint << 32) | l.objid::bigint) = hashtextextended($2, 0))
		ORDER BY 5 DESC LIMIT 5`, relation, schema+" capture")
	if err != nil {
		return "another transaction"
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		var pid int
		var user, application, state string
		var seconds float64
		var attaching bool
		if rows.Scan(&pid, &user, &application, &state, &seconds, &attaching) != nil {
			break
		}
		all = append(all, session(pid, user, application, state, seconds, attaching))
	}
	if len(all) == 0 || rows.Err() != nil {
		return "a transaction that has ended meanwhile"
	}
	return strings.Join(all, ", and by ")
}

func session(pid int, user, application, state string, seconds float64, attaching bool) string {
	if pid == 0 {
		return "a prepared transaction (see pg_prepared_xacts)"
	}
	if state == "" {
		state = "its state is visible to members of pg_read_all_stats"
	}
	text := fmt.Sprintf("pid %d (role %q, application %q, %s", pid, user, application, state)
	if seconds > 0 {
		text += ", in a transaction for " + time.Duration(seconds*float64(time.Second)).Round(time.Second).String()
	}
	if attaching {
		text += ", attaching or detaching tables"
	}
	return text + ")"
}

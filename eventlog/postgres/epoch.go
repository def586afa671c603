package postgres

import (
	"context"
	"database/sql"
	"errors"
	"strings"
)

// errRestarted means that an epoch must begin before anything is numbered.
var errRestarted = errors.New("the server was restarted")

// start returns a SQL expression for a string that differs for each start of the
// server, and each time the tables are created or truncated, as by a restore.
// (VACUUM FULL changes it as well, which is harmless.) Otherwise a log can only go
// back if rows are deleted and loaded again, or if the running server lost
// acknowledged writes (synchronous_commit off); only a process that had read
// further notices that.
func (l *Log) start() string { return start(l.schema) }

func start(schema string) string {
	return "((extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint::text || ' ' || " +
		"pg_relation_filenode(to_regclass('" +
		strings.ReplaceAll(schema, "'", "''") + "tidings_head'))::text)"
}

// beginEpoch begins an epoch unless another replica has done so.
func (l *Log) beginEpoch(ctx context.Context) error {
	return l.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		var head int64
		if err := tx.QueryRowContext(ctx, "SELECT seq FROM "+l.schema+
			"tidings_head FOR UPDATE").Scan(&head); err != nil {
			return err
		}
		var epoch, now string
		var same bool
		id, start := l.Newest()
		err := tx.QueryRowContext(ctx, "SELECT "+id+", "+start+" = "+l.start()+", "+l.start()).Scan(&epoch, &same, &now)
		if err != nil || same && !l.WentBack(epoch, head) {
			return err
		}
		if err := l.BeginEpoch(ctx, tx, head, now); err != nil {
			return err
		}
		return l.notify(ctx, tx, notifyChanges)
	})
}

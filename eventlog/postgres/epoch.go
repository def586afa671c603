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
// (VACUUM FULL changes it as well, which is harmless.) If rows were deleted and loaded
// again, the row of the current epoch was not written by the transaction named in its
// column written. If only the head and the events were loaded, or the running server
// lost acknowledged writes (synchronous_commit off), the log ends before a cursor or
// before what a process has read; otherwise nobody had seen what was lost.
func start(schema string) string {
	return "((extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint::text || ' ' || " +
		"pg_relation_filenode(to_regclass('" +
		strings.ReplaceAll(schema, "'", "''") + "tidings_head'))::text)"
}

// beginEpoch begins an epoch if the log may have gone back since the current one began.
func (l *Log) beginEpoch(ctx context.Context) error {
	return l.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
		var head int64
		if err := tx.QueryRowContext(ctx, "SELECT seq FROM "+l.schema+
			"tidings_head FOR UPDATE").Scan(&head); err != nil {
			return err
		}
		var epoch, now string
		var same, beyond bool
		err := tx.QueryRowContext(ctx, "SELECT "+l.Newest("id")+", "+l.Lasts()+", "+start(l.schema)+
			", EXISTS (SELECT 1 FROM "+l.schema+"tidings_cursors WHERE seq > $1)", head).Scan(
			&epoch, &same, &now, &beyond)
		if err != nil || same && !beyond && !l.WentBack(epoch, head) {
			return err
		}
		if err := l.BeginEpoch(ctx, tx, head, now); err != nil {
			return err
		}
		return l.notify(ctx, tx, notifyChanges)
	})
}

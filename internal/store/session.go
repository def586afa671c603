package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/internal/unread"
)

// session holds the settings of every session, which override the defaults of
// the database and the role. Without sessions, they are set in every
// transaction.
type session struct {
	pollOnly bool
	opened   *pools
	// Names and values of the settings that are not in startup.
	settings map[string]string
	fromURL  map[string]string // those set in database_url
}

// Poolers track these for each client, even those without sessions, so they can
// be sent on connecting.
var startup = map[string]string{
	"client_encoding": "UTF8", "DateStyle": "ISO", "TimeZone": "UTC", "standard_conforming_strings": "on",
}

// sessionOf extracts the settings from a connection configuration. Those in the
// URL take precedence over ours.
func sessionOf(cfg *pgx.ConnConfig, pollOnly bool) session {
	s := session{pollOnly: pollOnly, opened: new(pools), fromURL: make(map[string]string), settings: map[string]string{
		"default_transaction_isolation": "read committed",
		"statement_timeout":             "120s",
		"lock_timeout":                  "20s",
		// A process that hangs or is cut off must not block the others with its
		// locks. This is longer than a transaction may wait for the file store.
		"idle_in_transaction_session_timeout": "90s",
		"bytea_output":                        "hex",
		"extra_float_digits":                  "1",
		"row_security":                        "on",
		// Queries read few rows of many partitions, for which PostgreSQL expects so much
		// work that it would compile them. That takes longer than the queries.
		"jit": "off",
		// Planning a read of many partitions takes longer than the read.
		"plan_cache_mode": "force_generic_plan",
	}}
	for name, value := range cfg.RuntimeParams {
		switch lower := strings.ToLower(name); lower {
		case "application_name", "options", "replication": // only possible on connecting
			continue
		case "client_encoding", "datestyle", "timezone", "standard_conforming_strings",
			"default_transaction_isolation": // ours
		default:
			s.settings[lower], s.fromURL[lower] = value, value
		}
		delete(cfg.RuntimeParams, name)
	}
	maps.Copy(cfg.RuntimeParams, startup)
	return s
}

// statement sets the settings for the session or, if transaction is true, for
// the transaction.
func (s session) statement(transaction bool) (text string, args []any) {
	var calls []string
	for _, name := range slices.Sorted(maps.Keys(s.settings)) {
		args = append(args, name, s.settings[name])
		calls = append(calls, fmt.Sprintf("set_config($%d, $%d, %t)", len(args)-1, len(args), transaction))
	}
	// Few roles may set this, and few have it set, but foreign keys depend on
	// it.
	calls = append(calls, fmt.Sprintf("CASE WHEN current_setting('session_replication_role') <> 'origin' "+
		"THEN set_config('session_replication_role', 'origin', %t) END", transaction))
	return "SELECT " + strings.Join(calls, ", "), args
}

// transaction sets the settings in a transaction, for poolers without sessions.
func (s session) transaction(ctx context.Context, tx *sql.Tx) error {
	if !s.pollOnly {
		return nil
	}
	text, args := s.statement(true)
	_, err := tx.ExecContext(ctx, text, args...)
	return err
}

// connected prepares a new connection.
func (s session) connected(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	conn.TypeMap().RegisterType(&pgtype.Type{
		Name: "timestamptz", OID: pgtype.TimestamptzOID, Codec: &pgtype.TimestamptzCodec{ScanLocation: time.UTC},
	})
	if encoding := conn.PgConn().ParameterStatus("server_encoding"); encoding != "" && encoding != "UTF8" {
		return &eventlog.UnavailableError{
			Reason: "the database's encoding is " + encoding +
				", which cannot represent all text; create one with ENCODING 'UTF8' TEMPLATE template0",
		}
	}
	if s.pollOnly {
		return nil
	}
	text, args := s.statement(false)
	_, err := conn.Exec(ctx, text, append([]any{pgx.QueryExecModeExec}, args...)...)
	return err
}

// pools holds the connection pools to one database.
type pools struct {
	mu  sync.Mutex
	all []*pgxpool.Pool
}

func (p *pools) add(pool *pgxpool.Pool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = append(p.all, pool)
}

// reset closes idle connections now, and others when they are returned.
func (p *pools) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pool := range p.all {
		pool.Reset()
	}
}

// open opens a pool that never hands out a connection to a server that is gone
// or silent. If one connection does not respond, the pool assumes that the
// other idle ones would not either.
func (s session) open(cfg *pgxpool.Config, open func(*pgxpool.Pool) *sql.DB) (*sql.DB, func() error, error) {
	cfg.ShouldPing = func(ctx context.Context, p pgxpool.ShouldPingParams) bool {
		if p.IdleDuration < time.Second && !unread.Unread(p.Conn.PgConn().Conn()) {
			return false
		}
		ctx, cancel := context.WithTimeout(ctx, cfg.PingTimeout)
		defer cancel()
		if p.Conn.Ping(ctx) != nil {
			s.opened.reset()
		}
		return p.Conn.IsClosed() // then the pool opens another
	}
	cfg.AfterConnect = s.connected
	cfg.ConnConfig.BuildFrontend = buildFrontend(s.opened.reset)
	cfg.ConnConfig.OnPgError = func(_ *pgconn.PgConn, e *pgconn.PgError) bool {
		if strings.HasPrefix(e.Code, "57P") || e.Code == "25006" { // the other connections go to the same server
			s.opened.reset()
		}
		_, away := eventlog.Unavailable(e)
		return !away && e.Severity != "FATAL"
	}
	cfg.ConnConfig.Tracer = onDeadline(s.opened.reset)
	// The maximum that is in use. A silent connection keeps its slot in the
	// pool for up to 15 s while pgx closes it, and another may be opened in the
	// meantime.
	inUse := int(cfg.MaxConns)
	cfg.MaxConns *= 2
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	if err != nil {
		return nil, nil, fmt.Errorf("open database: %w", err)
	}
	s.opened.add(pool)
	db := open(pool)
	db.SetMaxOpenConns(inUse)
	return db, func() error {
		err := db.Close()
		closed := make(chan struct{})
		go func() {
			pool.Close() // waits until all connections are returned
			close(closed)
		}()
		select {
		case <-closed:
			return err
		case <-time.After(closeTime):
			return errors.Join(err, errors.New("connections to the database are still in use"))
		}
	}, nil
}

// onDeadline is called when a statement times out, because other idle
// connections may be silent, too.
type onDeadline func()

var _ pgx.BatchTracer = onDeadline(nil)

// TraceQueryStart implements [pgx.QueryTracer].
func (onDeadline) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}

// TraceQueryEnd implements [pgx.QueryTracer].
func (do onDeadline) TraceQueryEnd(_ context.Context, _ *pgx.Conn, data pgx.TraceQueryEndData) {
	if errors.Is(data.Err, context.DeadlineExceeded) {
		do()
	}
}

// TraceBatchStart implements [pgx.BatchTracer].
func (onDeadline) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return ctx
}

// TraceBatchQuery implements [pgx.BatchTracer].
func (onDeadline) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

// TraceBatchEnd implements [pgx.BatchTracer].
func (do onDeadline) TraceBatchEnd(ctx context.Context, conn *pgx.Conn, data pgx.TraceBatchEndData) {
	do.TraceQueryEnd(ctx, conn, pgx.TraceQueryEndData{Err: data.Err})
}

// closeTime is how long Close waits for running statements.
const closeTime = 5 * time.Second

// checkSessions returns an error if two concurrent connections share a database
// session, which means that a pooler without sessions is in between.
func checkSessions(ctx context.Context, cfg *pgx.ConnConfig) error {
	sessions := make(map[string]int)
	for i := range 2 {
		conn, err := pgx.ConnectConfig(ctx, cfg)
		if err != nil {
			return err
		}
		defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // it was only queried
		var id string
		err = conn.QueryRow(ctx, "SELECT pg_backend_pid() || ' ' || pg_postmaster_start_time()",
			pgx.QueryExecModeSimpleProtocol).Scan(&id)
		if err != nil {
			return err
		}
		sessions[id] = i
	}
	if len(sessions) == 1 {
		return errors.New("database_url points to a pooler without sessions, such as PgBouncer in transaction " +
			"mode; set poll_only to true")
	}
	return nil
}

// limits lists the settings that end slow statements or sessions, with the SQLSTATE and
// a part of the message that identify them.
var limits = []struct{ state, text, name string }{
	{"57014", "statement timeout", "statement_timeout"},
	{"55P03", "lock timeout", "lock_timeout"},
	{"25P03", "", "idle_in_transaction_session_timeout"},
	{"25P04", "", "transaction_timeout"},
	{"57P05", "", "idle_session_timeout"},
}

// explainStart adds advice if a setting ended a statement of the startup, or if a pooler
// rejected a startup parameter; only options and replication are sent on connecting.
func (s session) explainStart(err error) error {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return err
	}
	if strings.Contains(pg.Message, "unsupported startup parameter") {
		return fmt.Errorf(`%w; move each setting in options to a separate parameter of database_url, such as `+
			`"&work_mem=1MB", `+
			"or configure the pooler to ignore it (PgBouncer: ignore_startup_parameters)", err)
	}
	for _, l := range limits {
		if pg.Code != l.state || !strings.Contains(pg.Message, l.text) {
			continue
		}
		if value, ok := s.fromURL[l.name]; ok {
			return fmt.Errorf("%w; database_url sets %s to %s, which is too short: raise it, or leave it out", err,
				l.name,
				value)
		}
		if value, ok := s.settings[l.name]; ok {
			return fmt.Errorf("%w; %s is %s, unless the database or the role sets a shorter one for new "+
				"connections (ALTER "+
				"DATABASE … RESET %[2]s, ALTER ROLE … RESET %[2]s): see what else uses the database, or raise it in "+
				"database_url", err, l.name, value)
		}
		return fmt.Errorf("%w; the database, the role or database_url sets %s, which is too short: raise it, or ALTER "+
			"DATABASE … RESET %[2]s, ALTER ROLE … RESET %[2]s", err, l.name)
	}
	return err
}

package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/uptrace/bun/dialect/pgdialect"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/postgres"
	"github.com/tidings-dev/tidings/eventlog/postgres/listen"
	"github.com/tidings-dev/tidings/eventlog/sqldb"
	"github.com/tidings-dev/tidings/internal/pgurl"
)

// PostgresOptions configures a PostgreSQL database.
type PostgresOptions struct {
	// Schema is the schema of all tables; the default is
	// [postgres.DefaultSchema].
	Schema string
	// PollOnly avoids everything that outlives a transaction (LISTEN, prepared
	// statements), for poolers without sessions.
	PollOnly bool
	// MaxConnections limits the connections of this process; at least
	// [pgurl.MinConnections]. 0 means pool_max_conns in the URL, or
	// [DefaultConnections].
	MaxConnections int
	// PartitionWidth is the time span of a partition of the log; 0 means a day.
	PartitionWidth time.Duration
}

// DefaultConnections is the number of connections of a process. A third
// delivers events, one listens, and the rest serves requests; none can use up
// another's.
const DefaultConnections = 25

// Defaults for connection settings that the URL does not specify; see
// [pgxpool.ParseConfig].
const (
	connectTime     = 5 * time.Second
	connLifetime    = 30 * time.Minute
	lifetimeJitter  = 6 * time.Minute
	connIdleTime    = 5 * time.Minute
	connPingTime    = 2 * time.Second
	connHealthCheck = 30 * time.Second
)

// OpenPostgres opens the database at a URL. It does not connect yet.
func OpenPostgres(databaseURL string, o PostgresOptions) (*Store, error) {
	cfg, err := parsePostgres(databaseURL, o)
	if err != nil {
		return nil, err
	}
	session := sessionOf(cfg.ConnConfig, o.PollOnly)
	requests, deliveries := cfg.Copy(), cfg.Copy()
	deliveries.MaxConns = max(cfg.MaxConns/3, minDeliveries)
	requests.MaxConns = cfg.MaxConns - deliveries.MaxConns
	if !o.PollOnly {
		requests.MaxConns-- // one listens
	}
	deliveries.MinConns, deliveries.MinIdleConns = 0, 0 // it always has some in use
	requests.MinConns = min(requests.MinConns, requests.MaxConns)
	db, closeDB, err := session.open(requests, openPipelined)
	if err != nil {
		return nil, err
	}
	openPool := func(pool *pgxpool.Pool) *sql.DB { return stdlib.OpenDBFromPool(pool) }
	deliveryDB, closeDeliveryDB, err := session.open(deliveries, openPool)
	if err != nil {
		return nil, errors.Join(err, closeDB())
	}
	schema := cmp.Or(o.Schema, postgres.DefaultSchema)
	log := postgres.New(deliveryDB, postgres.Options{
		Schema: schema, PartitionWidth: o.PartitionWidth, BoundedSessions: !o.PollOnly,
	})
	transact := func(ctx context.Context, do func(context.Context, *sql.Tx) ([]tidings.Event, error)) error {
		var events []tidings.Event
		err := sqldb.Transact(ctx, db, txTime, &sql.TxOptions{Isolation: sql.LevelReadCommitted}, session.transaction,
			func(ctx context.Context, tx *sql.Tx) (err error) {
				if events, err = do(ctx, tx); err != nil {
					return err
				}
				ctx, end := context.WithTimeout(withCommit(ctx), statementTime)
				defer end()
				return log.Append(ctx, tx, events...)
			})
		if err == nil {
			log.Committed(events...)
		}
		return err
	}
	s := &Store{
		reader: db, writer: db, dialect: newDialect(pgdialect.New(), pgx.Identifier{schema}.Sanitize()+"."),
		transact: transact, transactAlone: transact,
		log: log, session: session,
		migrations: []sqldb.Migrations{resourceMigrations("postgres")}, ready: usable(schema),
		closers: []func() error{closeDB, closeDeliveryDB},
	}
	if !o.PollOnly {
		s.listen = &listener{config: cfg.ConnConfig, log: log, lifetime: cfg.MaxConnLifetime}
	}
	return s, nil
}

// listener listens for notifications from other replicas on a connection of its
// own.
type listener struct {
	config   *pgx.ConnConfig
	log      *postgres.Log
	lifetime time.Duration // maximum lifetime of a connection
}

// Listen wakes the readers of the log when another replica announces new
// events, until ctx is done. Without a connection, readers poll.
func (s *Store) Listen(ctx context.Context) {
	if l := s.listen; l != nil {
		listen.Run(ctx, l.log, l.lifetime,
			func(ctx context.Context) (*pgx.Conn, error) { return pgx.ConnectConfig(ctx, l.config) })
	}
}

// minDeliveries is the number of connections that a migration needs.
const minDeliveries = 3

// parsePostgres parses the URL and applies the defaults.
func parsePostgres(databaseURL string, o PostgresOptions) (*pgxpool.Config, error) {
	cfg, err := pgurl.Parse(databaseURL)
	if err != nil {
		return nil, fmt.Errorf("database_url: %w", err)
	}
	given, err := pgconn.ParseConfig(pgurl.Plain(databaseURL)) // including the pool's parameters
	if err != nil {
		return nil, err
	}
	unless := func(name string, set func()) {
		if _, ok := given.RuntimeParams[name]; !ok {
			set()
		}
	}
	unless("pool_max_conns", func() { cfg.MaxConns = DefaultConnections })
	unless("pool_max_conn_lifetime", func() { cfg.MaxConnLifetime = connLifetime })
	unless("pool_max_conn_lifetime_jitter",
		func() { cfg.MaxConnLifetimeJitter = min(lifetimeJitter, cfg.MaxConnLifetime/5) })
	unless("pool_max_conn_idle_time", func() { cfg.MaxConnIdleTime = connIdleTime })
	unless("pool_ping_timeout", func() { cfg.PingTimeout = connPingTime })
	unless("pool_health_check_period", func() { cfg.HealthCheckPeriod = connHealthCheck })
	if o.MaxConnections > 0 {
		cfg.MaxConns = int32(o.MaxConnections)
	}
	if cfg.MaxConns < pgurl.MinConnections {
		return nil, fmt.Errorf("database.max_connections must be at least %d", pgurl.MinConnections)
	}
	// Detect a server that disappeared silently soon enough to fail over.
	conn := cfg.ConnConfig
	if conn.ConnectTimeout == 0 {
		conn.ConnectTimeout = connectTime
	}
	conn.DialFunc = (&net.Dialer{Control: noticeSilence, KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3,
	}}).DialContext
	conn.ValidateConnect = explainReadOnly(conn.ValidateConnect, severalHosts(conn))
	if o.PollOnly || conn.DefaultQueryExecMode != pgx.QueryExecModeCacheStatement {
		// Nothing is prepared, but the parameter types of statements are
		// cached: values are sent in binary, so that no setting can change how
		// they are parsed.
		conn.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	}
	return cfg, nil
}

func severalHosts(cfg *pgx.ConnConfig) bool {
	for _, other := range cfg.Fallbacks { // the same host appears twice: with and without TLS
		if other.Host != cfg.Host || other.Port != cfg.Port {
			return true
		}
	}
	return false
}

// explainReadOnly reports that a host is read-only as the error's reason. If
// there are several hosts, only a writable one is acceptable, unless the URL
// says otherwise.
func explainReadOnly(validate pgconn.ValidateConnectFunc, several bool) pgconn.ValidateConnectFunc {
	if validate == nil && several {
		validate = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	if validate == nil {
		return nil
	}
	return func(ctx context.Context, conn *pgconn.PgConn) error {
		err := validate(ctx, conn)
		if errors.Is(err, pgconn.ErrReadOnlyConnection) || errors.Is(err, pgconn.ErrStandbyConnection) {
			return &eventlog.UnavailableError{Reason: "no host in database_url is writable", Err: err}
		}
		return err
	}
}

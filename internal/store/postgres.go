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
	"github.com/uptrace/bun/dialect/pgdialect"

	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/postgres"
	"github.com/tidings-dev/tidings/eventlog/postgres/listen"
	"github.com/tidings-dev/tidings/internal/pgurl"
)

// PostgresOptions are what a PostgreSQL database may need.
type PostgresOptions struct {
	// Schema is the schema of all tables; [postgres.DefaultSchema] unless set.
	Schema string
	// PollOnly asks for nothing that lasts longer than a transaction, for poolers
	// that have no sessions: no LISTEN, no prepared statements.
	PollOnly bool
	// MaxConnections is how many connections this process has at most, from
	// [pgurl.MinConnections]; 0 means pool_max_conns in the URL or [DefaultConnections].
	MaxConnections int
	// PartitionWidth is how much time a partition of the log covers; 0 means a day.
	PartitionWidth time.Duration
}

// DefaultConnections are those of one process. A third delivers events, one listens,
// and the rest serves requests: they can't take them from each other.
const DefaultConnections = 25

// Defaults of what the URL may say of connections; see [pgxpool.ParseConfig].
const (
	connectTime     = 5 * time.Second
	connLifetime    = 30 * time.Minute
	lifetimeJitter  = 6 * time.Minute
	connIdleTime    = 5 * time.Minute
	connPingTime    = 2 * time.Second
	connHealthCheck = 30 * time.Second
)

// OpenPostgres opens the database behind a URL. It does not connect yet.
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
	deliveries.MinConns, deliveries.MinIdleConns = 0, 0 // it always uses some
	requests.MinConns = min(requests.MinConns, requests.MaxConns)
	db, closeDB, err := session.open(requests)
	if err != nil {
		return nil, err
	}
	deliveryDB, closeDeliveryDB, err := session.open(deliveries)
	if err != nil {
		return nil, errors.Join(err, closeDB())
	}
	schema := cmp.Or(o.Schema, postgres.DefaultSchema)
	log := postgres.New(deliveryDB, postgres.Options{
		Schema: schema, PartitionWidth: o.PartitionWidth, BoundedSessions: !o.PollOnly,
	})
	s := &Store{
		reader: db, writer: db, dialect: newDialect(pgdialect.New(), pgx.Identifier{schema}.Sanitize()+"."),
		log: log, session: session,
		txOptions:  &sql.TxOptions{Isolation: sql.LevelReadCommitted},
		migrations: resourceMigrations("postgres"), ready: usable(schema),
		closers: []func() error{closeDB, closeDeliveryDB},
	}
	if !o.PollOnly {
		s.listen = &listener{config: cfg.ConnConfig, log: log, lifetime: cfg.MaxConnLifetime}
	}
	return s, nil
}

// listener hears what other replicas say. It has a connection of its own.
type listener struct {
	config   *pgx.ConnConfig
	log      *postgres.Log
	lifetime time.Duration // the most that a connection lasts
}

// Listen wakes the readers of the log when another replica says that there is
// something new, until the context ends. While it has no connection they poll.
func (s *Store) Listen(ctx context.Context) {
	if l := s.listen; l != nil {
		listen.Run(ctx, l.log, l.lifetime,
			func(ctx context.Context) (*pgx.Conn, error) { return pgx.ConnectConfig(ctx, l.config) })
	}
}

// minDeliveries is what a migration takes.
const minDeliveries = 3

// parsePostgres reads the URL, and fills in what it leaves open.
func parsePostgres(databaseURL string, o PostgresOptions) (*pgxpool.Config, error) {
	cfg, err := pgurl.Parse(databaseURL)
	if err != nil {
		return nil, fmt.Errorf("database_url: %w", err)
	}
	said, err := pgconn.ParseConfig(pgurl.Plain(databaseURL)) // with what is the pool's
	if err != nil {
		return nil, err
	}
	unless := func(name string, set func()) {
		if _, ok := said.RuntimeParams[name]; !ok {
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
	// A server that is gone without a word is noticed in time to give way to others.
	conn := cfg.ConnConfig
	if conn.ConnectTimeout == 0 {
		conn.ConnectTimeout = connectTime
	}
	conn.DialFunc = (&net.Dialer{Control: noticeSilence, KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3,
	}}).DialContext
	conn.ValidateConnect = explainReadOnly(conn.ValidateConnect, severalHosts(conn))
	if o.PollOnly || conn.DefaultQueryExecMode != pgx.QueryExecModeCacheStatement {
		// Nothing is prepared, but the types of a statement are remembered: values are
		// binary, so that no setting decides how they read.
		conn.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	}
	return cfg, nil
}

func severalHosts(cfg *pgx.ConnConfig) bool {
	for _, other := range cfg.Fallbacks { // the same host twice is with TLS and without
		if other.Host != cfg.Host || other.Port != cfg.Port {
			return true
		}
	}
	return false
}

// explainReadOnly says in the reason of the error that a host takes no writes. Of
// several hosts it is one that does that is wanted, unless the URL says otherwise.
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
			return &eventlog.UnavailableError{Reason: "no host of database_url takes writes", Err: err}
		}
		return err
	}
}

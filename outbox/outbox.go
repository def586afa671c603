package outbox

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/relay"
	"github.com/tidings-dev/tidings/sender"
	"github.com/tidings-dev/tidings/vocabulary"
)

// Defaults of [Options].
const (
	DefaultRetention           = 7 * 24 * time.Hour
	DefaultDeadLetterRetention = 30 * 24 * time.Hour
	defaultMaxInFlight         = 16
	defaultDrainTimeout        = 10 * time.Second
	connectTimeout             = 5 * time.Second
	closeTime                  = 5 * time.Second // in addition to DrainTimeout
	defaultPollInterval        = 100 * time.Millisecond
)

// Types maps the program's resource types to their actions. A type without actions
// has created, updated and deleted.
type Types = vocabulary.Types

// Options configures an outbox. Types is required.
type Options struct {
	// Types are the program's resource types with their actions.
	Types Types
	// Endpoints receive the events told after Open returns. Name defaults to the
	// host and path of the URL. If nil, set the endpoints later with
	// [Outbox.SetEndpoints]; a process that only calls Tell can leave them to the
	// processes that call Run.
	Endpoints []tidings.Endpoint
	// Retention is how long events are kept, and how long the undelivered events of
	// a removed endpoint are; 0 means [DefaultRetention]. An endpoint misses events
	// that expire before it received them; this is logged.
	Retention time.Duration
	// HistoryRetention is how long attempts and replays are kept; 0 means Retention.
	HistoryRetention time.Duration
	// DeadLetterRetention is how long dead letters are kept; 0 means
	// [DefaultDeadLetterRetention].
	DeadLetterRetention time.Duration
	// NoMigrate makes Open leave the tables unchanged and return an error if
	// [Migrate] has anything to do.
	NoMigrate bool
	// Egress restricts the addresses of endpoints. The zero value allows all except
	// link-local addresses and cloud metadata services. Set PublicOnly if users
	// choose the URLs.
	Egress sender.Egress
	// Transport returns the transport for an endpoint, to configure TLS or a proxy.
	// If it is or returns nil, package sender's transport is used. The transport is
	// cloned. Connections are always pooled and subject to Egress, so its dial
	// functions are not used.
	Transport func(tidings.Endpoint) *http.Transport
	// Configure sets options that only the relay has: the retry schedule, a rate
	// limit, coalescing, the starting position, a custom Sender.
	Configure func(*relay.Endpoint) error
	// PollInterval is how often Run polls for events written by other programs; 0
	// means 100 ms. Events of this process, and of others that call Run, are
	// noticed immediately.
	PollInterval time.Duration
	// Sender configures the User-Agent and the CloudEvents source.
	Sender sender.Options
	// Relay configures the logger, the observer (for metrics), tracing, time limits,
	// and how many attempts may be in flight, 512 by default, which is also how many
	// connections may be open. When Run ends, attempts in flight get DrainTimeout, 10
	// seconds by default.
	Relay relay.Options
}

func (o *Options) setDefaults() {
	o.PollInterval = cmp.Or(o.PollInterval, defaultPollInterval)
	o.Relay.DrainTimeout = cmp.Or(o.Relay.DrainTimeout, defaultDrainTimeout)
	if o.Relay.MaxInFlight <= 0 {
		o.Relay.MaxInFlight = relay.DefaultMaxInFlight
	}
	if o.Relay.Logger == nil {
		o.Relay.Logger = slog.Default()
	}
}

func (o *Options) check() error {
	if len(o.Types) == 0 {
		return errors.New("Options.Types is empty: list the types of the program's resources")
	}
	if err := o.Types.Check(); err != nil {
		return fmt.Errorf("Options.Types: %w", err)
	}
	if min(o.Retention, o.HistoryRetention, o.DeadLetterRetention, o.PollInterval) < 0 {
		return errors.New("Options.Retention, HistoryRetention, DeadLetterRetention and PollInterval must not be negative")
	}
	return nil
}

// Errors of an [Outbox].
var (
	// ErrClosed means that the outbox is closed.
	ErrClosed = errors.New("the outbox is closed")
	// ErrRan means that Run was already called.
	ErrRan = errors.New("Run was called before: one call runs until its context ends; open another outbox to run again")
)

// Outbox notifies endpoints of changes. Create one with [Open]. Its methods are
// safe for concurrent use.
type Outbox struct {
	options Options
	logger  *slog.Logger
	home    *home
	told    eventlog.Signal // an event was written and may be committed soon
	changes eventlog.Signal // a change of parked events was added
	ready   chan struct{}   // closed once there is a relay

	observers observers
	retention atomic.Pointer[Retention]
	removed   removed

	connections *sender.Connections // of the senders that the outbox makes for endpoints

	setting sync.Mutex // held by SetEndpoints
	filters map[string]*filter

	mu    sync.Mutex
	relay *relay.Relay
	// configured has the names of the endpoints that were set last; it is replaced,
	// never changed.
	configured map[string]bool
	stop       context.CancelFunc // of Run
	ended      chan struct{}      // closed when Run returns; nil before Run
	closed     bool
}

// Open opens the outbox in a program's database and creates its tables, unless
// NoMigrate is set. Events told after it returns reach every endpoint in the
// options, once some process runs the outbox.
func Open(ctx context.Context, database Database, options Options) (_ *Outbox, err error) {
	options.setDefaults()
	if err := options.check(); err != nil {
		return nil, fmt.Errorf("open outbox: %w", err)
	}
	o := &Outbox{
		options: options, logger: options.Relay.Logger, told: eventlog.NewSignal(), changes: eventlog.NewSignal(),
		ready:   make(chan struct{}),
		filters: make(map[string]*filter), connections: sender.NewConnections(options.Relay.MaxInFlight),
	}
	o.SetRetention(Retention{options.Retention, options.HistoryRetention, options.DeadLetterRetention})
	if options.Relay.Observer != nil {
		o.Observe(options.Relay.Observer)
	}
	o.options.Relay.Observer = &o.observers
	if o.home, err = database.open(ctx, o.Retention().Events); err != nil {
		return nil, fmt.Errorf("open outbox: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("open outbox: %w", errors.Join(err, o.home.close()))
		}
	}()
	if err := o.migrate(ctx); err != nil {
		return nil, err
	}
	if options.Endpoints != nil {
		if err := o.SetEndpoints(ctx, options.Endpoints...); err != nil {
			return nil, err
		}
	}
	return o, nil
}

func (o *Outbox) migrate(ctx context.Context) error {
	if !o.options.NoMigrate {
		return o.home.log.Migrate(ctx)
	}
	pending, err := o.home.log.Pending(ctx)
	if err == nil && pending {
		err = errors.New("the tables are missing or of an earlier version: call outbox.Migrate, or unset NoMigrate")
	}
	return err
}

// Types returns the types from the options.
func (o *Outbox) Types() Types { return o.options.Types }

// Log returns the log of events and their deliveries.
func (o *Outbox) Log() eventlog.Home { return o.home.log }

// Relay returns the relay, which delivers the events and knows the state of the
// endpoints. It is nil until endpoints are set.
func (o *Outbox) Relay() *relay.Relay {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.relay
}

// DB returns the pool that [SQLiteFile] opened, for the program's own statements;
// nil for other databases. Its transactions wait for each other instead of failing
// with SQLITE_BUSY. It is closed with the outbox.
func (o *Outbox) DB() *sql.DB { return o.home.db }

// Close stops Run, waits until it has returned, and closes what Open opened.
// Attempts in flight get DrainTimeout to finish, and final writes 5 seconds.
func (o *Outbox) Close() error {
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return nil
	}
	o.closed = true
	stop, ended, r := o.stop, o.ended, o.relay
	o.mu.Unlock()
	var late error
	switch {
	case ended != nil:
		stop()
		select {
		case <-ended:
		case <-time.After(o.options.Relay.DrainTimeout + closeTime + time.Second):
			late = errors.New("deliveries did not end in time")
		}
	case r != nil: // nobody else closes them
		closeAll(r.Endpoints())
	}
	if err := errors.Join(late, o.home.close()); err != nil {
		return fmt.Errorf("close outbox: %w", err)
	}
	return nil
}

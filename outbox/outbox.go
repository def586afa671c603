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
	closeTime                  = 5 * time.Second // beyond DrainTimeout
	defaultPollInterval        = 100 * time.Millisecond
)

// Types are the resource types that a program tells of, each with its actions. A type
// without any has created, updated and deleted.
type Types = vocabulary.Types

// Options of an outbox. Types are required.
type Options struct {
	// Types are the resource types that the program tells of, with their actions.
	Types Types
	// Endpoints get the events told after Open returns. The Name of one may be left
	// out: then it is the host and the path of its URL. Nil means that
	// [Outbox.SetEndpoints] says later which there are; a process that only tells
	// leaves them to those that Run.
	Endpoints []tidings.Endpoint
	// Retention is how long events are kept, and what an endpoint that was removed has
	// not got; 0 means [DefaultRetention]. An event that an endpoint has not got by
	// then is lost for it, and that is logged.
	Retention time.Duration
	// HistoryRetention is how long attempts and replays are kept; 0 means Retention.
	HistoryRetention time.Duration
	// DeadLetterRetention is how long events are kept that an endpoint refused to
	// the last; 0 means [DefaultDeadLetterRetention].
	DeadLetterRetention time.Duration
	// NoMigrate leaves the tables as they are; Open returns an error if [Migrate]
	// has something to do.
	NoMigrate bool
	// Egress is which addresses endpoints may have. The zero value allows all but
	// link-local addresses and the metadata services of clouds. Set PublicOnly where
	// users choose the URLs.
	Egress sender.Egress
	// Transport returns the transport for an endpoint, to set TLS or a proxy; nil, as
	// a result too, means that of package sender. It is cloned; connections are
	// always made under Egress and pooled, so its dial functions are not used.
	Transport func(tidings.Endpoint) *http.Transport
	// Configure sets what only the relay knows of an endpoint: its retry schedule, a
	// rate limit, coalescing, where it begins, a Sender of the program's own.
	Configure func(*relay.Endpoint) error
	// PollInterval is how often Run looks for events that other programs wrote; 0 means
	// 100 ms. Those of this program, and of others that Run, it hears of at once.
	PollInterval time.Duration
	// Sender has the User-Agent and the CloudEvents source.
	Sender sender.Options
	// Relay has the logger, the observer (for metrics), tracing and time limits. What
	// is under way when Run ends gets DrainTimeout, 10 seconds unless set.
	Relay relay.Options
}

func (o *Options) setDefaults() {
	o.PollInterval = cmp.Or(o.PollInterval, defaultPollInterval)
	o.Relay.DrainTimeout = cmp.Or(o.Relay.DrainTimeout, defaultDrainTimeout)
	if o.Relay.Logger == nil {
		o.Relay.Logger = slog.Default()
	}
}

func (o *Options) check() error {
	if len(o.Types) == 0 {
		return errors.New("Options.Types is empty: list the types of resources that the program tells of")
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
	// ErrClosed says that the outbox was closed.
	ErrClosed = errors.New("the outbox is closed")
	// ErrRan says that Run was called before.
	ErrRan = errors.New("Run was called before: one call runs until its context ends; open another outbox to run again")
)

// Outbox tells endpoints of changes. Make one with [Open]. Its methods may be called
// from several goroutines at once.
type Outbox struct {
	options Options
	logger  *slog.Logger
	home    *home
	told    eventlog.Signal // an event was written, and may be committed soon
	ready   chan struct{}   // closed once there is a relay

	observers observers
	retention atomic.Pointer[Retention]
	removed   removed

	setting sync.Mutex // held by SetEndpoints
	filters map[string]*filter

	mu     sync.Mutex
	relay  *relay.Relay
	stop   context.CancelFunc // of Run
	ended  chan struct{}      // closed when Run returns; nil before Run
	closed bool
}

// Open opens the outbox in a program's database, and makes its tables unless told
// not to. Events told after it returns reach every endpoint in the options, once some
// process runs the outbox.
func Open(ctx context.Context, database Database, options Options) (_ *Outbox, err error) {
	options.setDefaults()
	if err := options.check(); err != nil {
		return nil, fmt.Errorf("open outbox: %w", err)
	}
	o := &Outbox{
		options: options, logger: options.Relay.Logger, told: eventlog.NewSignal(), ready: make(chan struct{}),
		filters: make(map[string]*filter),
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
		err = errors.New("the tables are missing or of an earlier version: call outbox.Migrate, or leave out NoMigrate")
	}
	return err
}

// Types are those of the options.
func (o *Outbox) Types() Types { return o.options.Types }

// Log is the log of events: what was told, and what became of it.
func (o *Outbox) Log() eventlog.Home { return o.home.log }

// Relay delivers the events: it knows how endpoints are doing. It is nil before
// there are endpoints.
func (o *Outbox) Relay() *relay.Relay {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.relay
}

// DB is the pool that [SQLiteFile] opened, for the program's own statements; nil
// for other databases. Its transactions wait for each other instead of failing with
// SQLITE_BUSY. It is closed with the outbox.
func (o *Outbox) DB() *sql.DB { return o.home.db }

// Close ends Run, waits until it has returned, and closes what Open opened. What is
// under way then gets DrainTimeout to finish, and the last writes 5 seconds.
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

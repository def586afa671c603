// Package app assembles and runs the server.
package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/internal/auth"
	"github.com/tidings-dev/tidings/internal/config"
	"github.com/tidings-dev/tidings/internal/httpapi"
	"github.com/tidings-dev/tidings/internal/job"
	"github.com/tidings-dev/tidings/internal/limit"
	"github.com/tidings-dev/tidings/internal/resource"
	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/operator"
	"github.com/tidings-dev/tidings/outbox"
	"github.com/tidings-dev/tidings/sender"
)

// Options configures the server.
type Options struct {
	Logger  *slog.Logger
	Version string
	// NoMigrate leaves the database unchanged; if it needs migrations, [New] fails.
	NoMigrate bool
	// Level is the logger's level, which a reload sets; it may be nil.
	Level *slog.LevelVar
	// Load reads the settings again, given the current ones; nil disables reloads.
	Load func(inForce *config.Config) (config.Config, error)
	// Pace limits how slow clients may be; zero values select [limit.DefaultPace].
	Pace limit.Pace
	// KeepAlive is passed to [httpapi.Options].
	KeepAlive time.Duration
}

// App is the server: an open listener and everything behind it.
//
//	requests ─► http ─► resources ─► store ─► event log ─► relay ─► endpoints
//	            jobs ───────┘
type App struct {
	options   Options
	logger    *slog.Logger
	userAgent string
	listener  net.Listener
	server    *http.Server
	store     *store.Store
	hooks     *outbox.Outbox
	platform  *platform // nil in a relay
	tables    *tables   // nil if no tables are watched
	auth      *authenticator
	metrics   *metrics
	tracer    *tracer
	stopping  atomic.Bool   // /readyz fails
	draining  chan struct{} // closed when new requests are no longer accepted
	closers   []closer      // called in reverse order

	connections *sender.Connections // to endpoints

	reloading  sync.Mutex
	lastReload *httpapi.Reloaded // guarded by reloading
	config     atomic.Pointer[config.Config]
	status     reloadStatus
	tried      atomic.Pointer[try]
}

type closer struct {
	name  string
	close func() error
}

// HTTP limits. Bodies have limits of their own.
const (
	headerTime  = 10 * time.Second
	idleTime    = 2 * time.Minute
	headerLimit = 64 << 10
)

// New opens everything that can fail to open. Call [App.Run] to serve requests, or
// [App.Close].
func New(ctx context.Context, cfg config.Config, o Options) (_ *App, err error) {
	a := &App{options: o, logger: o.Logger, userAgent: "Tidings/" + o.Version, draining: make(chan struct{})}
	a.config.Store(&cfg)
	a.status.since = time.Now()
	a.tried.Store(&try{digest: cfg.LoadedDigest()})
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Close())
		}
	}()
	if err := a.openDatabase(ctx, &cfg); err != nil {
		return nil, err
	}
	if a.tracer, err = newTracer(ctx, cfg.Tracing, o.Version, a.logger); err != nil {
		return nil, err
	}
	a.onClose("traces", a.tracer.close)
	var users auth.Users = operators{}
	if !cfg.Relay {
		if a.platform, err = a.openPlatform(ctx, &cfg); err != nil {
			return nil, err
		}
		users = a.platform.resources.Users
	}
	a.auth = &authenticator{users: users, logger: a.logger}
	if err := a.auth.set(&cfg); err != nil {
		return nil, err
	}
	a.metrics = newMetrics()
	// The endpoints come first: events committed from now on reach all of them.
	if err := a.openOutbox(ctx, &cfg); err != nil {
		return nil, err
	}
	if cfg.Relay {
		if err := a.openTables(ctx, &cfg); err != nil {
			return nil, err
		}
	}
	handler := a.handler(&cfg)
	listener, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	a.listener = limit.Listener(listener, cmp.Or(o.Pace.Answer, limit.DefaultPace.Answer))
	a.server = &http.Server{
		Handler: a.closeConnections(a.metrics.observe(a.tracer.observe(handler))), ReadHeaderTimeout: headerTime,
		IdleTimeout: idleTime, MaxHeaderBytes: headerLimit,
		ErrorLog: slog.NewLogLogger(a.logger.Handler(), slog.LevelDebug),
	}
	a.onClose("listener", func() error { return ignoreClosed(a.listener.Close()) })
	return a, nil
}

func (a *App) handler(cfg *config.Config) http.Handler {
	options := httpapi.Options{
		Publisher: a.hooks, Published: cfg.Published(), Events: cfg.Vocabulary(), Authenticator: a.auth,
		Logger: a.logger, Sessions: a.hooks.Log(),
		Version: a.options.Version, MaxFileSize: int64(cfg.Files.MaxSize), Ready: a.ready, Metrics: a.metrics.handler(),
		Reload: a.Reload, Stopping: a.draining, BodyPace: a.options.Pace.Body, KeepAlive: a.options.KeepAlive,
	}
	if trusted := cfg.Console.TrustedHeader; trusted.Name != "" {
		options.TrustedHeader = &httpapi.TrustedHeader{
			Name: trusted.Name, Networks: trusted.Prefixes(), Roles: trusted.Roles,
		}
	}
	operators := operator.Options{Logger: a.logger, Config: a.configStatus, Written: a.written}
	if a.platform != nil {
		options.Resources, operators.ParseID = a.platform.resources, resource.ParseID
	}
	if a.tables != nil {
		options.Tables, operators.Sources = a.tables.States, a.sources
		operators.Activity = a.tables.activity
		a.metrics.registry.MustRegister(a.tables)
	}
	options.Webhooks = operator.New(a.hooks, operators)
	limits, rates := places(cfg.Limits), rates(cfg.Limits)
	a.metrics.watchLimits(limits, rates)
	options.Limits, options.Rates = limits, rates
	handler := httpapi.New(options)
	if cfg.Auth.Disabled {
		return onlyLocalHosts(handler)
	}
	return handler
}

func (a *App) onClose(name string, do func() error) {
	a.closers = append(a.closers, closer{name, do})
}

// Addr returns the address that the server listens on.
func (a *App) Addr() string { return a.listener.Addr().String() }

func (a *App) ready(ctx context.Context) error {
	if a.stopping.Load() {
		return errors.New("the server is stopping")
	}
	if err := a.usable(ctx); err != nil {
		if !errors.Is(ctx.Err(), context.Canceled) { // the client is still connected
			a.logger.WarnContext(ctx, "not ready", "error", err)
		}
		if unavailable, ok := errors.AsType[*eventlog.UnavailableError](err); ok {
			return errors.New(unavailable.Reason)
		}
		return errors.New("the database does not respond")
	}
	return nil
}

// usable returns an error if the database can't serve requests or number events.
func (a *App) usable(ctx context.Context) error {
	if err := a.store.Ready(ctx); err != nil {
		return err
	}
	return a.hooks.Relay().Stuck()
}

// jobs returns the server's periodic jobs.
func (a *App) jobs() []job.Job {
	jobs := []job.Job{a.shrink()}
	if a.platform != nil {
		jobs = append(jobs, a.platform.jobs...)
	}
	if a.tables != nil {
		jobs = append(jobs, a.tables.job())
	}
	return jobs
}

// Run serves until the context ends, and then for the shutdown delay. It lets
// requests in flight finish, then webhooks in flight, saves the cursors and closes
// everything, all within the shutdown timeout.
func (a *App) Run(ctx context.Context) error {
	cfg := a.config.Load()
	timeout := time.Duration(cfg.ShutdownTimeout)
	a.logger.Info("ready", "address", a.Addr(), "endpoints", len(cfg.Webhook.Endpoints))
	var group errgroup.Group
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group.Go(func() error { return a.hooks.Run(background) })
	for _, do := range []func(){
		func() { a.store.Listen(background) },
		func() { job.Run(background, a.logger, a.jobs()) },
		func() { a.watch(background) },
	} {
		group.Go(func() error {
			do()
			return nil
		})
	}
	served := make(chan error, 1)
	go func() { served <- a.server.Serve(a.listener) }()

	var failure error
	select {
	case <-ctx.Done():
		a.stopping.Store(true)
		a.logger.Info("stopping: finishing requests and webhooks in flight", "after", time.Duration(cfg.ShutdownDelay))
		select {
		case <-time.After(time.Duration(cfg.ShutdownDelay)):
		case failure = <-served:
		}
	case failure = <-served:
	}
	if failure != nil {
		failure = fmt.Errorf("serve: %w", failure)
	}
	close(a.draining)
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	drained := time.Now().Add(timeout - min(closeTime, timeout/4))
	a.hooks.Relay().StopBy(drained)
	defer time.AfterFunc(timeout/2, stop).Stop() // slow requests must not use up the webhooks' time
	drain, cancelDrain := context.WithDeadline(end, drained)
	defer cancelDrain()
	if err := a.server.Shutdown(drain); err != nil {
		a.logger.Warn("requests still in flight were cut off", "error", err)
		failure = errors.Join(failure, a.server.Close())
	}
	stop()
	failure = errors.Join(failure, within(end, "stop", group.Wait), a.close(end))
	a.logger.Info("stopped")
	return failure
}

const (
	// closeTime is how much of the shutdown timeout is reserved for closing, at most.
	closeTime = 2 * time.Second
	// lateTime is how long a step may take after the timeout has expired.
	lateTime = 100 * time.Millisecond
)

// within runs do, and waits for it until the context ends and lateTime longer.
func within(ctx context.Context, what string, do func() error) error {
	done := make(chan error, 1)
	go func() {
		err := do()
		if err != nil {
			err = fmt.Errorf("%s: %w", what, err)
		}
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(lateTime):
		return fmt.Errorf("%s: not finished within shutdown_timeout", what)
	}
}

// closeConnections makes clients of a stopping server reconnect, so that they reach
// another replica before their connection is closed.
func (a *App) closeConnections(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a.stopping.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// Close closes everything in reverse order of opening.
func (a *App) Close() error { return a.close(context.Background()) }

// close is like Close, but gives up on whatever outlasts the context.
func (a *App) close(ctx context.Context) error {
	var errs []error
	for _, v := range slices.Backward(a.closers) {
		if err := within(ctx, "close "+v.name, v.close); err != nil {
			errs = append(errs, err)
		}
	}
	a.closers = nil
	return errors.Join(errs...)
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// onlyLocalHosts refuses requests for other host names. It prevents DNS rebinding, by
// which another site's page could reach this machine under the site's own name.
func onlyLocalHosts(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			http.Error(w, "without authentication, this server answers only requests to localhost", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Package app puts the server together and runs it.
package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/internal/blob"
	"github.com/tidings-dev/tidings/internal/config"
	"github.com/tidings-dev/tidings/internal/datadir"
	"github.com/tidings-dev/tidings/internal/httpapi"
	"github.com/tidings-dev/tidings/internal/job"
	"github.com/tidings-dev/tidings/internal/limit"
	"github.com/tidings-dev/tidings/internal/remote"
	"github.com/tidings-dev/tidings/internal/resource"
	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/internal/webhook"
	"github.com/tidings-dev/tidings/relay"
)

// Options of the server.
type Options struct {
	Logger  *slog.Logger
	Version string
	// NoMigrate leaves the database as it is; if it needs migrations, [New] fails.
	NoMigrate bool
	// Level is the level of the logger, which a reload sets; may be nil.
	Level *slog.LevelVar
	// Load reads the settings again; nil where they can't change.
	Load func() (config.Config, error)
	// Pace is how slow clients may be; what is 0 is as in [limit.DefaultPace].
	Pace limit.Pace
	// KeepAlive is as in [httpapi.Options].
	KeepAlive time.Duration
}

// App is the server: a listener that is open, and everything behind it.
//
//	requests ─► http ─► resources ─► store ─► event log ─► relay ─► endpoints
//	            jobs ───────┘
type App struct {
	options   Options
	logger    *slog.Logger
	userAgent string
	listener  net.Listener
	server    *http.Server
	relay     *relay.Relay
	webhooks  *webhook.Service
	remote    *remote.Client
	auth      *authenticator
	metrics   *metrics
	tracer    *tracer
	jobs      []job.Job
	store     *store.Store
	leaving   atomic.Bool   // not ready any more
	draining  chan struct{} // closed once no more requests are taken
	closers   []closer      // the last first

	reloading sync.Mutex
	config    atomic.Pointer[config.Config]
	digest    string // of the configuration at the start
}

type closer struct {
	name  string
	close func() error
}

// HTTP limits; bodies have their own.
const (
	headerTime  = 10 * time.Second
	idleTime    = 2 * time.Minute
	headerLimit = 64 << 10
)

// New opens everything that can fail to open. What it returns answers requests
// once [App.Run] is called; without that, call [App.Close].
func New(ctx context.Context, cfg config.Config, o Options) (_ *App, err error) {
	a := &App{options: o, logger: o.Logger, userAgent: "Tidings/" + o.Version, draining: make(chan struct{})}
	a.config.Store(&cfg)
	a.digest = cfg.Digest() // what changes while the database is opened is a change, too
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
	resources, err := a.resources(ctx, &cfg)
	if err != nil {
		return nil, err
	}
	if err := useKeys(ctx, &cfg, resources); err != nil {
		return nil, err
	}
	a.auth = &authenticator{users: resources.Users, logger: a.logger}
	if err := a.auth.set(&cfg); err != nil {
		return nil, err
	}
	a.metrics = newMetrics(&cfg)
	// The relay first: an event that is committed after this reaches every endpoint.
	if err := a.deliver(ctx, &cfg); err != nil {
		return nil, err
	}
	a.webhooks = webhook.New(a.store.Log(), a.relay, webhook.Options{
		Types: resource.Types(), ParseID: resource.ParseID,
		Retention: func() time.Duration { return time.Duration(a.config.Load().Webhook.Retention) },
	})
	a.metrics.watch(a.store, a.relay, a.webhooks)
	limits := places(cfg.Limits)
	requestRates := rates(cfg.Limits)
	a.metrics.watchLimits(limits, requestRates)
	handler := httpapi.New(httpapi.Options{
		Resources: resources, Webhooks: a.webhooks, Feed: a.relay, Log: a.store.Log(), Authenticator: a.auth,
		Logger: a.logger, Version: o.Version,
		MaxFileSize: int64(cfg.Files.MaxSize), Ready: a.ready, Metrics: a.metrics.handler(), Reload: a.Reload,
		Discarded: func(n int64) { a.metrics.parkedRemoved("discarded", n) }, Stopping: a.draining,
		Limits: limits, Rates: requestRates, BodyPace: o.Pace.Body, KeepAlive: o.KeepAlive,
	})
	if cfg.Auth.Disabled {
		handler = onlyLocalHosts(handler)
	}
	a.jobs = append(job.All(resources, a.logger, job.Settings{
		CheckInterval:      time.Duration(cfg.Providers.CheckInterval),
		ModelCheckInterval: time.Duration(cfg.ModelProviders.CheckInterval),
		ExpireAfter:        time.Duration(cfg.Contexts.ExpireAfter),
	}), a.expiry())
	listener, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	a.listener = limit.Listener(listener, cmp.Or(o.Pace.Answer, limit.DefaultPace.Answer))
	a.server = &http.Server{
		Handler: a.closeWhenLeaving(a.metrics.observe(a.tracer.observe(handler))), ReadHeaderTimeout: headerTime,
		IdleTimeout: idleTime, MaxHeaderBytes: headerLimit,
		ErrorLog: slog.NewLogLogger(a.logger.Handler(), slog.LevelDebug),
	}
	a.onClose("listener", func() error { return ignoreClosed(a.listener.Close()) })
	return a, nil
}

// How long a start waits for the database before it says so, and says so again.
const (
	waitNotice  = 5 * time.Second
	waitNotices = 30 * time.Second
)

// openDatabase opens the database and brings it up to date.
func (a *App) openDatabase(ctx context.Context, cfg *config.Config) (err error) {
	defer a.noteWaiting()()
	exposed := datadir.Exposed(cfg.DataDir) // before they are tightened
	if a.store, err = OpenStore(ctx, *cfg); err != nil {
		return err
	}
	a.onClose("database", a.store.Close)
	a.keepPrivate(cfg, exposed)
	return a.migrate(ctx, a.options.NoMigrate)
}

// noteWaiting logs that the start still waits, until it is told to stop.
func (a *App) noteWaiting() (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	begun := time.Now()
	go func() {
		defer close(ended)
		for pause := waitNotice; ; pause = waitNotices {
			select {
			case <-done:
				return
			case <-time.After(pause):
				a.logger.Warn("still waiting for the database: it does not answer, a pooler before it has no free "+
					"connection, "+
					"or its tables are being migrated, by this server or another", "for",
					time.Since(begun).Round(time.Second))
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}

// OpenStore opens the configured database and finds out whether it can be used.
func OpenStore(ctx context.Context, cfg config.Config) (*store.Store, error) {
	s, err := openStore(cfg)
	if err != nil {
		return nil, err
	}
	if err := s.Check(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func openStore(cfg config.Config) (*store.Store, error) {
	if !cfg.DatabaseURL.Set() {
		return store.OpenSQLite(cfg.DataDir)
	}
	databaseURL, err := cfg.DatabaseURL.Read()
	if err != nil {
		return nil, fmt.Errorf("database_url: %w", err)
	}
	return store.OpenPostgres(databaseURL, store.PostgresOptions{
		Schema: cfg.DatabaseSchema, PollOnly: cfg.PollOnly, MaxConnections: cfg.Database.MaxConnections,
		PartitionWidth: partitionWidth(time.Duration(cfg.Webhook.Retention)),
	})
}

// partitionWidth lets events stay a seventh longer than their retention, or a
// day.
func partitionWidth(retention time.Duration) time.Duration {
	return min(max(retention/7, time.Second), 24*time.Hour)
}

// migrateTries is how often a start connects to a database that restarts or fails over
// just then, before it gives up.
const migrateTries = 3

func (a *App) migrate(ctx context.Context, not bool) error {
	if !not {
		err := a.store.Migrate(ctx)
		for tries := 1; tries < migrateTries && err != nil; tries++ {
			if _, away := eventlog.Unavailable(err); !away {
				break
			}
			err = a.store.Migrate(ctx)
		}
		if err != nil {
			return err
		}
		a.rewrite(ctx)
		return nil
	}
	pending, err := a.store.Pending(ctx)
	if err == nil && pending {
		err = errors.New("the database needs migrations; run 'tidings migrate', or serve without --no-migrate")
	}
	return err
}

// rewriteLimit is the size of a SQLite file that a start rewrites: that takes a second
// or two.
const rewriteLimit = 256 << 20

// rewrite has a SQLite file of an earlier version give space back from now on.
func (a *App) rewrite(ctx context.Context) {
	ok, size, err := a.store.CanGiveBack(ctx)
	switch {
	case err == nil && ok:
		return
	case err == nil && size > rewriteLimit:
		a.logger.Warn("the database file was made by an earlier version and can't give space back; stop the server "+
			"and run 'tidings migrate', which rewrites it",
			"bytes", size)
		return
	case err == nil:
		a.logger.Info("rewriting the database file once, so that it can give space back", "bytes", size)
		err = a.store.Rewrite(ctx)
	}
	if err != nil { // it works all the same
		a.logger.Warn("the database file can't give space back", "error", err)
	}
}

func (a *App) resources(ctx context.Context, cfg *config.Config) (*resource.Resources, error) {
	blobs, err := openBlobs(cfg)
	if err != nil {
		return nil, err
	}
	a.onClose("file contents", blobs.Close)
	box, err := openBox(ctx, cfg, a.store, a.logger)
	if err != nil {
		return nil, err
	}
	a.remote = remote.New(cfg.UserEgress(), a.userAgent)
	a.onClose("connections to agents", a.remote.Close)
	if proxy, err := http.ProxyFromEnvironment(&http.Request{URL: &url.URL{
		Scheme: "https",
		Host:   "example.com",
	}}); proxy != nil && err == nil {
		a.logger.Warn("agents, MCP servers and model providers are reached directly, not through the proxy of the " +
			"environment, which could reach addresses that users must not")
	}
	var presets []resource.Preset
	for _, p := range cfg.Connectors.Presets {
		secret, err := p.ClientSecret.Read()
		if err != nil {
			return nil, fmt.Errorf("connector preset %s: %w", p.URL, err)
		}
		presets = append(presets,
			resource.Preset{URL: p.URL, Metadata: p.Metadata, ClientID: p.ClientID, ClientSecret: secret})
	}
	return resource.New(a.store, resource.Outside{
		Agents: a.remote, Models: a.remote, MCP: a.remote, Blobs: blobs,
		Box: box,
	}, resource.Options{
		Limits:  resource.FileLimits{MaxSize: int64(cfg.Files.MaxSize), UserQuota: int64(cfg.Files.UserQuota)},
		Quotas:  quotas(&cfg.Limits),
		Presets: presets, Logger: a.logger,
	}), nil
}

type blobs interface {
	resource.Blobs
	Close() error
}

func openBlobs(cfg *config.Config) (blobs, error) {
	s := cfg.Files.S3
	if s.Bucket == "" {
		folder, err := blob.OpenFolder(filepath.Join(cfg.DataDir, datadir.Files))
		if err != nil {
			return nil, datadir.Explain(cfg.DataDir, err)
		}
		return folder, nil
	}
	access, err := s.AccessKey.Read()
	if err != nil {
		return nil, fmt.Errorf("files.s3.access_key: %w", err)
	}
	secret, err := s.SecretKey.Read()
	if err != nil {
		return nil, fmt.Errorf("files.s3.secret_key: %w", err)
	}
	return blob.NewBucket(blob.BucketOptions{
		Endpoint: s.Endpoint, Region: s.Region, Name: s.Bucket, Prefix: s.Prefix, AccessKey: access, SecretKey: secret,
	})
}

func (a *App) onClose(name string, do func() error) {
	a.closers = append(a.closers, closer{name, do})
}

// Addr is the address that the server listens on.
func (a *App) Addr() string { return a.listener.Addr().String() }

func (a *App) ready(ctx context.Context) error {
	if a.leaving.Load() {
		return errors.New("the server is stopping")
	}
	if err := usable(ctx, a.store, a.relay); err != nil {
		if !errors.Is(ctx.Err(), context.Canceled) { // otherwise whoever asked has hung up
			a.logger.WarnContext(ctx, "not ready", "error", err)
		}
		if away, ok := errors.AsType[*eventlog.UnavailableError](err); ok {
			return errors.New(away.Reason)
		}
		return errors.New("the database does not answer")
	}
	return nil
}

// usable returns why the database can't be used: by requests, or to number events.
func usable(ctx context.Context, s *store.Store, r *relay.Relay) error {
	if err := s.Ready(ctx); err != nil {
		return err
	}
	return r.Stuck()
}

// Run serves until the context ends, and for the shutdown delay. Then it lets the
// requests under way finish, then the webhooks under way, saves the cursors and
// closes everything, all of it within the shutdown timeout.
func (a *App) Run(ctx context.Context) error {
	cfg := a.config.Load()
	timeout := time.Duration(cfg.ShutdownTimeout)
	a.logger.Info("ready", "address", a.Addr(), "endpoints", len(cfg.Webhook.Endpoints))
	var group errgroup.Group
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group.Go(func() error { return a.relay.Run(background) })
	for _, do := range []func(){
		func() { a.store.Listen(background) },
		func() { job.Run(background, a.logger, a.jobs) },
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
		a.leaving.Store(true)
		a.logger.Info("stopping: finishing what is under way", "after", time.Duration(cfg.ShutdownDelay))
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
	a.relay.StopBy(drained)
	defer time.AfterFunc(timeout/2, stop).Stop() // webhooks can't wait for every request
	drain, cancelDrain := context.WithDeadline(end, drained)
	defer cancelDrain()
	if err := a.server.Shutdown(drain); err != nil {
		a.logger.Warn("requests still under way were cut off", "error", err)
		failure = errors.Join(failure, a.server.Close())
	}
	stop()
	failure = errors.Join(failure, within(end, "stop", group.Wait), a.close(end))
	a.logger.Info("stopped")
	return failure
}

const (
	// closeTime is how much of the shutdown timeout is for closing, at most.
	closeTime = 2 * time.Second
	// lateTime is what is closed once the time is over has all the same.
	lateTime = 100 * time.Millisecond
)

// within runs do, and waits for it until the context ends and a moment longer.
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
		return fmt.Errorf("%s: shutdown_timeout is over", what)
	}
}

// closeWhenLeaving has clients come back on another connection, which leads them
// to another replica, before this one closes theirs.
func (a *App) closeWhenLeaving(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a.leaving.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// Close closes everything, the last opened first.
func (a *App) Close() error { return a.close(context.Background()) }

// close is Close, which gives up what takes longer than the context.
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

// onlyLocalHosts refuses requests for other host names: a web page elsewhere
// could otherwise use a name of its own that leads to this machine.
func onlyLocalHosts(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			http.Error(w, "without authentication this server answers to localhost only", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

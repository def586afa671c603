// Package app puts the server together and runs it.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-dev/tidings/internal/auth"
	"github.com/tidings-dev/tidings/internal/blob"
	"github.com/tidings-dev/tidings/internal/config"
	"github.com/tidings-dev/tidings/internal/httpapi"
	"github.com/tidings-dev/tidings/internal/job"
	"github.com/tidings-dev/tidings/internal/remote"
	"github.com/tidings-dev/tidings/internal/resource"
	"github.com/tidings-dev/tidings/internal/secretbox"
	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/relay"
	"github.com/tidings-dev/tidings/sender"
)

// Options of the server.
type Options struct {
	Logger  *slog.Logger
	Version string
	// NoMigrate leaves the database as it is; if it needs migrations, [New] fails.
	NoMigrate bool
}

// App is the server: a listener that is open, and everything behind it.
//
//	requests ─► http ─► resources ─► store ─► event log ─► relay ─► endpoints
//	            jobs ───────┘
type App struct {
	config   config.Config
	logger   *slog.Logger
	listener net.Listener
	server   *http.Server
	relay    *relay.Relay
	jobs     []job.Job
	store    *store.Store
	draining atomic.Bool
	closers  []closer // the last first
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
	a := &App{config: cfg, logger: o.Logger}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Close())
		}
	}()
	userAgent := "Tidings/" + o.Version
	if a.store, err = OpenStore(ctx, cfg); err != nil {
		return nil, err
	}
	a.onClose("database", a.store.Close)
	if err := a.migrate(ctx, o.NoMigrate); err != nil {
		return nil, err
	}
	resources, err := a.resources(userAgent)
	if err != nil {
		return nil, err
	}
	authenticator, err := a.authenticator(resources)
	if err != nil {
		return nil, err
	}
	metrics := newMetrics(a.store.Log())
	// The relay first: an event that is committed after this reaches every endpoint.
	if err := a.deliver(ctx, userAgent, metrics); err != nil {
		return nil, err
	}
	handler := httpapi.New(httpapi.Options{
		Resources: resources, Authenticator: authenticator, Logger: a.logger, Version: o.Version,
		MaxFileSize: int64(cfg.Files.MaxSize), Ready: a.ready, Metrics: metrics.handler(),
	})
	if cfg.Auth.Disabled {
		handler = onlyLocalHosts(handler)
	}
	a.jobs = job.All(resources, a.logger, job.Settings{
		CheckInterval: time.Duration(cfg.Providers.CheckInterval), ExpireAfter: time.Duration(cfg.Contexts.ExpireAfter),
	})
	if a.listener, err = net.Listen("tcp", cfg.Listen); err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	a.server = &http.Server{
		Handler: metrics.observe(handler), ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: headerLimit,
		ErrorLog: slog.NewLogLogger(a.logger.Handler(), slog.LevelDebug),
	}
	a.onClose("listener", func() error { return ignoreClosed(a.listener.Close()) })
	return a, nil
}

// OpenStore opens the configured database and finds out whether it answers.
func OpenStore(ctx context.Context, cfg config.Config) (*store.Store, error) {
	s, err := openStore(cfg)
	if err != nil {
		return nil, err
	}
	if err := s.Ping(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("the database does not answer: %w", err), s.Close())
	}
	return s, nil
}

func openStore(cfg config.Config) (*store.Store, error) {
	if !cfg.DatabaseURL.Set() {
		return store.OpenSQLite(cfg.DataDir)
	}
	url, err := cfg.DatabaseURL.Read()
	if err != nil {
		return nil, fmt.Errorf("database_url: %w", err)
	}
	return store.OpenPostgres(url)
}

func (a *App) migrate(ctx context.Context, not bool) error {
	if !not {
		return a.store.Migrate(ctx)
	}
	pending, err := a.store.Pending(ctx)
	if err == nil && pending {
		err = errors.New("the database needs migrations; run 'tidings migrate', or serve without --no-migrate")
	}
	return err
}

func (a *App) resources(userAgent string) (*resource.Resources, error) {
	blobs, err := blob.OpenFolder(filepath.Join(a.config.DataDir, "files"))
	if err != nil {
		return nil, err
	}
	a.onClose("file contents", blobs.Close)
	key, err := a.config.EncryptionKey.Read()
	if err != nil {
		return nil, fmt.Errorf("encryption_key: %w", err)
	}
	box, err := secretbox.New(key)
	if err != nil {
		return nil, err
	}
	client := remote.New(sender.Egress{Deny: a.config.Egress.DenyNetworks, Allow: a.config.Egress.AllowNetworks}, userAgent)
	a.onClose("connections to agents", client.Close)
	var presets []resource.Preset
	for _, p := range a.config.Connectors.Presets {
		secret, err := p.ClientSecret.Read()
		if err != nil {
			return nil, fmt.Errorf("connector preset %s: %w", p.URL, err)
		}
		presets = append(presets, resource.Preset{URL: p.URL, Metadata: p.Metadata, ClientID: p.ClientID, ClientSecret: secret})
	}
	return resource.New(a.store, resource.Outside{Agents: client, Models: client, MCP: client, Blobs: blobs, Box: box}, resource.Options{
		Limits:  resource.FileLimits{MaxSize: int64(a.config.Files.MaxSize), UserQuota: int64(a.config.Files.UserQuota)},
		Presets: presets, Logger: a.logger,
	}), nil
}

func (a *App) authenticator(users auth.Users) (*auth.Authenticator, error) {
	o := auth.Options{AdminEmails: a.config.Auth.AdminEmails, Disabled: a.config.Auth.Disabled}
	for _, t := range a.config.Auth.Tokens {
		o.Tokens = append(o.Tokens, auth.Token{SHA256: t.SHA256, User: t.User, Role: resource.Role(t.Role)})
	}
	switch {
	case o.Disabled:
		a.logger.Warn("authentication is disabled: whoever reaches this server is an admin; it listens on loopback only")
	case len(o.Tokens) == 0:
		token, file, created, err := auth.AdminToken(a.config.DataDir)
		if err != nil {
			return nil, err
		}
		if created {
			a.logger.Info("made an admin token, because none is configured", "file", file)
		}
		o.Tokens = append(o.Tokens, token)
	}
	return auth.New(users, o)
}

// deliver prepares the relay and the endpoints.
func (a *App) deliver(ctx context.Context, userAgent string, observer relay.Observer) error {
	receivers, err := a.config.Receivers(userAgent)
	if err != nil {
		return err
	}
	var endpoints []relay.Endpoint
	for i, r := range receivers {
		a.onClose("connections to "+r.Name, r.Close)
		if !r.Enabled {
			a.logger.Info("endpoint is not enabled", "endpoint", r.Name)
			continue
		}
		if a.config.Webhook.Endpoints[i].UsesProxy() {
			a.logger.Warn("endpoint is reached through a proxy: the egress rule sees only the proxy's address", "endpoint", r.Name)
		}
		s, err := sender.New(r.Endpoint, r.Client, sender.Options{UserAgent: userAgent, Source: a.config.Webhook.Source})
		if err != nil {
			return fmt.Errorf("endpoint %s: %w", r.Name, err)
		}
		endpoints = append(endpoints, relay.Endpoint{Endpoint: r.Endpoint, Sender: s, Retry: r.Retry, Fingerprint: r.Fingerprint})
	}
	a.relay, err = relay.New(ctx, a.store.Log(), endpoints, relay.Options{
		Logger: a.logger, Observer: observer, DrainTimeout: time.Duration(a.config.ShutdownTimeout),
	})
	return err
}

func (a *App) onClose(name string, do func() error) {
	a.closers = append(a.closers, closer{name, do})
}

// Addr is the address that the server listens on.
func (a *App) Addr() string { return a.listener.Addr().String() }

func (a *App) ready(ctx context.Context) error {
	if a.draining.Load() {
		return errors.New("the server is stopping")
	}
	if err := a.store.Ping(ctx); err != nil {
		a.logger.WarnContext(ctx, "not ready: the database does not answer", "error", err)
		return errors.New("the database does not answer")
	}
	return nil
}

// Run serves until the context ends. Then it lets the requests under way finish,
// then the webhooks under way, saves the cursors and closes everything; each
// within the shutdown timeout.
func (a *App) Run(ctx context.Context) error {
	a.logger.Info("ready", "address", a.Addr(), "endpoints", len(a.config.Webhook.Endpoints))
	var group errgroup.Group
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group.Go(func() error { return a.relay.Run(background) })
	group.Go(func() error {
		job.Run(background, a.logger, a.jobs)
		return nil
	})
	served := make(chan error, 1)
	go func() { served <- a.server.Serve(a.listener) }()

	var failure error
	select {
	case <-ctx.Done():
		a.logger.Info("stopping: finishing what is under way")
	case failure = <-served:
		failure = fmt.Errorf("serve: %w", failure)
	}
	a.draining.Store(true)
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Duration(a.config.ShutdownTimeout))
	defer cancel()
	if err := a.server.Shutdown(drain); err != nil {
		a.logger.Warn("requests still under way were cut off", "error", err)
		failure = errors.Join(failure, a.server.Close())
	}
	stop()
	failure = errors.Join(failure, group.Wait(), a.Close())
	a.logger.Info("stopped")
	return failure
}

// Close closes everything, the last opened first.
func (a *App) Close() error {
	var errs []error
	for _, v := range slices.Backward(a.closers) {
		if err := v.close(); err != nil {
			errs = append(errs, fmt.Errorf("close %s: %w", v.name, err))
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

package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/auth"
	"github.com/tidings-dev/tidings/internal/config"
	"github.com/tidings-dev/tidings/internal/resource"
	"github.com/tidings-dev/tidings/relay"
	"github.com/tidings-dev/tidings/sender"
)

// authenticator knows the tokens that are configured now.
type authenticator struct {
	users  auth.Users
	logger *slog.Logger
	now    atomic.Pointer[credentials]
}

type credentials struct {
	*auth.Authenticator
	replaced chan struct{} // closed once others count
}

// Identify implements httpapi.Authenticator.
func (a *authenticator) Identify(authorization string) (resource.Identity, error) {
	return a.now.Load().Identify(authorization)
}

// Caller implements httpapi.Authenticator.
func (a *authenticator) Caller(ctx context.Context, id resource.Identity) (resource.Caller, error) {
	return a.now.Load().Caller(ctx, id)
}

// Recheck implements httpapi.Authenticator.
func (a *authenticator) Recheck(ctx context.Context, authorization string, who resource.Caller) (resource.Caller, error) {
	return a.now.Load().Recheck(ctx, authorization, who)
}

// Changed implements httpapi.Authenticator.
func (a *authenticator) Changed() <-chan struct{} { return a.now.Load().replaced }

// replace makes other credentials count.
func (a *authenticator) replace(next *auth.Authenticator) {
	if old := a.now.Swap(&credentials{next, make(chan struct{})}); old != nil {
		close(old.replaced)
	}
}

// set makes the tokens of a configuration those that count. Without any, the
// first start makes one.
func (a *authenticator) set(cfg *config.Config) error {
	next, err := a.prepare(cfg)
	if err == nil {
		a.replace(next)
	}
	return err
}

func (a *authenticator) prepare(cfg *config.Config) (*auth.Authenticator, error) {
	o := auth.Options{AdminEmails: cfg.Auth.AdminEmails, Disabled: cfg.Auth.Disabled}
	for i, t := range cfg.Auth.Tokens {
		if t.Token.Set() {
			secret, err := t.Token.Read()
			if err != nil {
				return nil, fmt.Errorf("auth.tokens[%d]: %w", i, err)
			}
			t.SHA256 = auth.Hash(strings.TrimSpace(secret))
		}
		o.Tokens = append(o.Tokens, auth.Token{SHA256: t.SHA256, User: t.User, Role: resource.Role(t.Role)})
	}
	switch {
	case o.Disabled:
		a.logger.Warn("authentication is disabled: whoever reaches this server is an admin; it listens on loopback only")
	case len(o.Tokens) == 0:
		token, file, created, err := auth.AdminToken(cfg.DataDir)
		if err != nil {
			return nil, err
		}
		if created {
			a.logger.Info("made an admin token, because none is configured", "file", file)
		}
		o.Tokens = append(o.Tokens, token)
	}
	return auth.New(a.users, o)
}

// deliver makes the relay.
func (a *App) deliver(ctx context.Context, cfg *config.Config) error {
	endpoints, err := a.endpoints(cfg)
	if err != nil {
		return err
	}
	if err := a.expireEndpoints(ctx, cfg); err != nil { // those that come back inherit nothing
		closeAll(endpoints)
		return err
	}
	options := relay.Options{Logger: a.logger, Observer: a.metrics, DrainTimeout: time.Duration(cfg.ShutdownTimeout)}
	if a.tracer.on() {
		options.Trace = a.tracer.attempt
	}
	if a.relay, err = relay.New(ctx, a.store.Log(), endpoints, options); err != nil {
		closeAll(endpoints)
	}
	return err
}

// endpoints turns the configured endpoints into those of the relay.
func (a *App) endpoints(cfg *config.Config) ([]relay.Endpoint, error) {
	receivers, err := cfg.Receivers()
	if err != nil {
		return nil, err
	}
	var endpoints []relay.Endpoint
	connections := 0
	for i, r := range receivers {
		if !r.Enabled {
			a.logger.Info("endpoint is not enabled", "endpoint", r.Name)
			endpoints = append(endpoints, relay.Endpoint{Endpoint: tidings.Endpoint{Name: r.Name}, Disabled: true})
			continue
		}
		if cfg.Webhook.Endpoints[i].UsesProxy() {
			a.logger.Warn("endpoint is reached through a proxy: the egress rule sees only the proxy's address", "endpoint", r.Name)
		}
		e := r.Endpoint
		e.Closed = func() {
			if err := r.Close(); err != nil {
				a.logger.Debug("connections could not be closed", "endpoint", r.Name, "error", err)
			}
		}
		endpoints = append(endpoints, e)
		if endpoints[len(endpoints)-1].Sender, err = sender.New(e.Endpoint, r.Client, sender.Options{UserAgent: a.userAgent, Source: cfg.Webhook.Source}); err != nil {
			closeAll(endpoints)
			return nil, fmt.Errorf("endpoint %s: %w", r.Name, err)
		}
		connections += e.MaxInFlight
	}
	warnOfFiles(a.logger, connections)
	return endpoints, nil
}

func closeAll(endpoints []relay.Endpoint) {
	for _, e := range endpoints {
		if e.Closed != nil {
			e.Closed()
		}
	}
}

// ErrNoReload says that there is no file to read again.
var ErrNoReload = errors.New("this server was started without a configuration file")

// Reload reads the settings again. If anything is wrong with them, nothing
// changes. Endpoints, tokens and the log level take effect at once; the log
// names settings that need a restart.
func (a *App) Reload(ctx context.Context) error {
	if a.options.Load == nil {
		a.logger.Warn("nothing to reload: the server was started without a configuration file")
		return ErrNoReload
	}
	a.reloading.Lock()
	defer a.reloading.Unlock()
	err := a.reload(ctx)
	a.metrics.reloaded(err == nil)
	if err != nil {
		a.logger.Error("the configuration was not reloaded; the one before stays", "error", err)
		return err
	}
	a.logger.Info("configuration reloaded", "endpoints", len(a.config.Load().Webhook.Endpoints))
	return nil
}

// reload does all that can fail first.
func (a *App) reload(ctx context.Context) error {
	cfg, err := a.options.Load()
	if err != nil {
		return err
	}
	old := a.config.Load()
	later := config.NeedRestart(old, &cfg)
	cfg.Auth.Disabled = old.Auth.Disabled // a listener that others reach must not lose its authentication
	tokens, err := a.auth.prepare(&cfg)
	if err != nil {
		return err
	}
	endpoints, err := a.endpoints(&cfg)
	if err != nil {
		return err
	}
	if err := a.expireEndpoints(ctx, &cfg); err != nil { // those that come back inherit nothing
		closeAll(endpoints)
		return err
	}
	a.metrics.keep(old, &cfg)
	if err := a.relay.Update(ctx, endpoints); err != nil {
		a.metrics.keep(old)
		closeAll(endpoints)
		return err
	}
	a.config.Store(&cfg)
	a.metrics.keep(&cfg)
	a.remote.SetEgress(cfg.UserEgress())
	a.auth.replace(tokens)
	if a.options.Level != nil {
		a.options.Level.Set(cfg.Log.SlogLevel())
	}
	if len(later) > 0 {
		a.logger.Warn("some settings that changed take effect after a restart only", "settings", later)
	}
	return nil
}

const (
	watchInterval = 2 * time.Second
	// retryInterval is how often a configuration that was refused is tried again:
	// a file that it names may have come.
	retryInterval = 30 * time.Second
)

// watch reloads once the configuration changes, or a file that it names: by
// what they hold, so that it does not matter how they are replaced.
func (a *App) watch(ctx context.Context) {
	if a.options.Load == nil {
		return
	}
	tried := a.config.Load().Digest()
	seen, failed, at := tried, false, time.Now()
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := a.config.Load().Digest()
		settled := now == seen // what changes just now may be half of it
		seen = now
		if settled && (now != tried || failed && time.Since(at) >= retryInterval) {
			failed, at = a.Reload(ctx) != nil, time.Now() // it says itself what was wrong
			tried = a.config.Load().Digest()
			seen = tried
		}
	}
}

package app

import (
	"context"
	"errors"
)

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
	a.metrics.reloaded(err == nil && len(a.config.Load().Stale()) == 0)
	if err != nil {
		a.logger.Error("the configuration was not reloaded; the one before stays", "error", err)
		return err
	}
	for _, problem := range a.config.Load().Stale() {
		a.logger.Error("a file of endpoints is broken; its last good version stays", "problem", problem.String())
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
	if err := cfg.CheckEmptied(old); err != nil {
		return err
	}
	if err := cfg.CheckTypes(old); err != nil {
		return err
	}
	later := cfg.KeepRunning(old)
	tokens, err := a.auth.prepare(&cfg)
	if err != nil {
		return err
	}
	endpoints, err := a.endpoints(&cfg)
	if err != nil {
		return err
	}
	a.hooks.SetRetention(retention(&cfg))
	if err := a.hooks.SetRelayEndpoints(ctx, endpoints...); err != nil {
		a.hooks.SetRetention(retention(old))
		return err
	}
	a.config.Store(&cfg)
	if a.platform != nil {
		a.platform.remote.SetEgress(cfg.UserEgress())
	}
	a.auth.replace(tokens)
	if a.options.Level != nil {
		a.options.Level.Set(cfg.Log.SlogLevel())
	}
	if len(later) > 0 {
		a.logger.Warn("some settings that changed take effect after a restart only", "settings", later)
	}
	return nil
}

package app

import (
	"context"
	"errors"
	"time"

	"github.com/tidings-dev/tidings/internal/config"
	"github.com/tidings-dev/tidings/internal/httpapi"
	"github.com/tidings-dev/tidings/relay"
)

// ErrNoReload means that there is no file to reload.
var ErrNoReload = errors.New("this server was started without a configuration file")

// Reload reads the settings again. If any is invalid, nothing changes. Endpoints,
// tokens and the log level take effect at once; the log names settings that need a
// restart. Reload returns what changed or, if nothing did, the last changes made.
func (a *App) Reload(ctx context.Context) (*httpapi.Reloaded, error) {
	if a.options.Load == nil {
		a.logger.Warn("nothing to reload: the server was started without a configuration file")
		return nil, ErrNoReload
	}
	a.reloading.Lock()
	defer a.reloading.Unlock()
	digest := a.config.Load().Digest() // before loading, so that later changes differ from it
	needRestart, diff, err := a.reload(ctx)
	cfg := a.config.Load()
	if err == nil {
		digest = cfg.LoadedDigest()
	}
	failed := err != nil || len(cfg.Stale()) > 0
	a.tried.Store(&try{digest, failed, time.Now()})
	a.status.record(needRestart, diff, err, cfg.Stale())
	a.metrics.reloaded(!failed)
	if err != nil {
		a.logger.Error("the configuration was not reloaded; the previous one stays in effect", "error", err)
		if problems, ok := errors.AsType[config.Problems](err); ok {
			err = &httpapi.ReloadError{Problems: shown(problems)}
		}
		return nil, err
	}
	for _, problem := range cfg.Stale() {
		a.logger.Error("an endpoint file is broken and was not reloaded", "problem", problem.String())
	}
	a.logger.Info("configuration reloaded", "endpoints", len(cfg.Webhook.Endpoints))
	return a.lastReload, nil
}

// recordChanges records what a reload changed.
func (a *App) recordChanges(now, before *config.Config, needRestart []string) {
	done := &httpapi.Reloaded{
		Reloaded: true, At: time.Now().UTC(), Endpoints: []httpapi.EndpointChange{},
		Settings: now.SettingChanges(before), Restart: needRestart,
	}
	for _, c := range now.EndpointChanges(before) {
		done.Endpoints = append(done.Endpoints, httpapi.EndpointChange{
			Endpoint: c.Endpoint, Change: c.Kind, Settings: c.Settings, Contents: c.Contents,
		})
	}
	for _, problem := range now.Stale() {
		done.Broken = append(done.Broken, problem.String())
	}
	if a.lastReload == nil || len(done.Endpoints)+len(done.Settings) > 0 {
		a.lastReload = done
		return
	}
	again := *a.lastReload
	again.Unchanged, again.Restart, again.Broken = true, done.Restart, done.Broken
	a.lastReload = &again
}

// reload does everything that can fail first. It returns the settings that need a restart,
// and what differs, also if that is refused.
func (a *App) reload(ctx context.Context) (needRestart []string, diff []config.Change, err error) {
	old := a.config.Load()
	cfg, err := a.options.Load(old)
	diff = cfg.Changes(old)
	if err != nil {
		return nil, diff, err
	}
	if err := cfg.CheckEmptied(old); err != nil {
		return nil, diff, err
	}
	needRestart = cfg.KeepRunning(old)
	tokens, err := a.auth.prepare(&cfg)
	if err != nil {
		return nil, diff, err
	}
	endpoints, err := a.endpoints(&cfg)
	if err != nil {
		return nil, diff, err
	}
	if err := a.applyEndpoints(ctx, &cfg, old, endpoints); err != nil {
		return nil, diff, err
	}
	a.config.Store(&cfg)
	a.recordChanges(&cfg, old, needRestart)
	if a.platform != nil {
		a.platform.remote.SetEgress(cfg.UserEgress())
	}
	a.auth.replace(tokens)
	if a.options.Level != nil {
		a.options.Level.Set(cfg.Log.SlogLevel())
	}
	if len(needRestart) > 0 {
		a.logger.Warn("some changed settings take effect only after a restart", "settings", needRestart)
	}
	return needRestart, diff, nil
}

// applyEndpoints makes the endpoints of a configuration take effect. It leaves those of an
// unchanged file alone: another replica, which has a newer file, may have renamed them.
func (a *App) applyEndpoints(ctx context.Context, now, before *config.Config, endpoints []relay.Endpoint) error {
	if len(now.EndpointChanges(before))+len(now.SettingChanges(before)) == 0 {
		closeAll(endpoints)
		return nil
	}
	a.hooks.SetRetention(retention(now))
	err := a.hooks.SetRelayEndpoints(ctx, endpoints...)
	if err != nil {
		a.hooks.SetRetention(retention(before))
	}
	return err
}

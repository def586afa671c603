package app

import (
	"context"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings/internal/config"
	"github.com/tidings-dev/tidings/internal/reach"
	"github.com/tidings-dev/tidings/operator"
	"github.com/tidings-dev/tidings/outbox"
	"github.com/tidings-dev/tidings/relay"
	"github.com/tidings-dev/tidings/sender"
)

// openOutbox opens the outbox of the log, with the configured endpoints.
func (a *App) openOutbox(ctx context.Context, cfg *config.Config) error {
	connections := connectionLimit(a.logger, cfg.Webhook.MaxConnections)
	a.connections = sender.NewConnections(connections)
	endpoints, err := a.endpoints(cfg)
	if err != nil {
		return err
	}
	keep := retention(cfg)
	options := outbox.Options{
		Types: cfg.Vocabulary(), NoMigrate: true, // the store has migrated
		Retention: keep.Events, HistoryRetention: keep.History, DeadLetterRetention: keep.DeadLetters,
		PollInterval: time.Second, // the store wakes the log itself
		Relay: relay.Options{
			Logger: a.logger, DrainTimeout: time.Duration(cfg.ShutdownTimeout), MaxInFlight: connections,
			Version: a.options.Version,
		},
	}
	if cfg.Relay {
		options.PollInterval = time.Duration(cfg.Sources.Poll) // the application does not wake the log
	}
	if a.tracer.on() {
		options.Relay.Trace = a.tracer.attempt
	}
	if a.hooks, err = outbox.Open(ctx, outbox.FromLog(a.store.Log()), options); err != nil {
		closeAll(endpoints)
		return err
	}
	a.onClose("deliveries", a.hooks.Close)
	a.metrics.registry.MustRegister(operator.Collector(a.hooks), readyCollector{a.usable})
	return a.hooks.SetRelayEndpoints(ctx, endpoints...)
}

func retention(cfg *config.Config) outbox.Retention {
	return outbox.Retention{
		Events: time.Duration(cfg.Webhook.Retention), History: time.Duration(cfg.Webhook.HistoryRetention),
		DeadLetters: time.Duration(cfg.Webhook.DeadLetterRetention),
	}
}

// endpoints builds the configured endpoints of the relay, each with its sender.
func (a *App) endpoints(cfg *config.Config) ([]relay.Endpoint, error) {
	receivers, err := cfg.Receivers()
	if err != nil {
		return nil, err
	}
	for _, warning := range cfg.Warnings() {
		a.logger.Warn("configuration: " + warning.String())
	}
	var endpoints []relay.Endpoint
	for _, r := range receivers {
		e := r.Endpoint
		if r.Disabled {
			a.logger.Info("endpoint is disabled", "endpoint", r.Name)
			e.Disabled = true
			endpoints = append(endpoints, e)
			continue
		}
		if r.UsesProxy() {
			a.logger.Warn("endpoint uses a proxy: the egress rule checks only the proxy's address",
				"endpoint", r.Name)
		}
		s, end, err := reach.Open(e.Endpoint, r.HTTP, reach.Options{
			Egress: cfg.EndpointEgress(), MaxConnectionAge: r.MaxConnectionAge, Connections: a.connections,
			Sender: sender.Options{UserAgent: a.userAgent, Source: cfg.Webhook.Source},
		})
		if err != nil {
			closeAll(endpoints)
			return nil, fmt.Errorf("endpoint %s: %w", r.Name, err)
		}
		e.Sender = s
		e.Closed = func() {
			if err := end(); err != nil {
				a.logger.Debug("connections could not be closed", "endpoint", r.Name, "error", err)
			}
		}
		endpoints = append(endpoints, e)
	}
	return endpoints, nil
}

func closeAll(endpoints []relay.Endpoint) {
	for _, e := range endpoints {
		if e.Closed != nil {
			e.Closed()
		}
	}
}

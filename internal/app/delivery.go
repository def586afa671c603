package app

import (
	"context"
	"fmt"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/config"
	"github.com/tidings-dev/tidings/internal/reach"
	"github.com/tidings-dev/tidings/relay"
	"github.com/tidings-dev/tidings/sender"
)

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

// endpoints builds what the configuration describes: endpoints of the relay, each with
// the sender that reaches it.
func (a *App) endpoints(cfg *config.Config) ([]relay.Endpoint, error) {
	receivers, err := cfg.Receivers()
	if err != nil {
		return nil, err
	}
	var endpoints []relay.Endpoint
	connections := 0
	for _, r := range receivers {
		e := r.Endpoint
		if r.Disabled {
			a.logger.Info("endpoint is not enabled", "endpoint", r.Name)
			endpoints = append(endpoints, relay.Endpoint{Endpoint: tidings.Endpoint{Name: r.Name}, Disabled: true})
			continue
		}
		if r.UsesProxy() {
			a.logger.Warn("endpoint is reached through a proxy: the egress rule sees only the proxy's address",
				"endpoint", r.Name)
		}
		s, end, err := reach.Open(e.Endpoint, r.HTTP, reach.Options{
			Egress: cfg.EndpointEgress(), MaxConnectionAge: r.MaxConnectionAge,
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

package app

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/internal/config"
	"github.com/tidings-dev/tidings/internal/job"
)

// expiry is the job that removes what is past its retention.
type expiry struct {
	app    *App
	warned map[string]time.Time // when, by endpoint
}

func (a *App) expiry() job.Job {
	e := &expiry{a, make(map[string]time.Time)}
	retention := time.Duration(a.config.Load().Webhook.Retention)
	return job.Job{Name: "expire events", Every: min(max(retention/20, time.Second), 10*time.Minute), Run: e.run}
}

func (e *expiry) run(ctx context.Context) error {
	cfg, log := e.app.config.Load(), e.app.store.Log()
	var names []string
	for _, endpoint := range cfg.Webhook.Endpoints {
		names = append(names, endpoint.Name)
	}
	retention, history := time.Duration(cfg.Webhook.Retention), time.Duration(cfg.Webhook.HistoryRetention)
	gone, err := log.ExpireEvents(ctx, retention)
	for _, notice := range gone.Notices {
		e.app.logger.Warn("the event log was put right", "what", notice)
	}
	if len(gone.Gaps) > 0 {
		e.tell(gone.Gaps, names)
		err = errors.Join(err, log.Nudge(ctx)) // consumers go on behind the gap
	}
	if gone.At.IsZero() { // the clock may be wrong
		return errors.Join(err, e.app.store.GiveBack(ctx), e.warn(ctx))
	}
	return errors.Join(err,
		log.ExpireHistory(ctx, history), log.ExpireReplays(ctx, gone.At.Add(-history)),
		log.ExpireGaps(ctx, gone.At.Add(-history)),
		e.app.expireEndpoints(ctx, cfg),
		e.app.expireDead(ctx, gone.At.Add(-time.Duration(cfg.Webhook.DeadLetterRetention))),
		e.app.store.GiveBack(ctx), e.warn(ctx))
}

// tell logs and counts what each endpoint missed.
func (e *expiry) tell(gaps []eventlog.Gap, names []string) {
	missed := make(map[string]eventlog.Gap)
	for _, g := range gaps {
		if known, ok := missed[g.Endpoint]; ok { // of another partition; all end at the same position
			g.From = min(g.From, known.From)
		}
		missed[g.Endpoint] = g
	}
	for _, name := range slices.Sorted(maps.Keys(missed)) {
		g := missed[name]
		count := g.To - g.From + 1
		if !slices.Contains(names, name) {
			e.app.logger.Warn("events expired that an endpoint which was removed did not get", "endpoint", name, "from",
				g.From, "to", g.To, "count", count)
			continue
		}
		e.app.logger.Error("events expired before the endpoint could get them", "endpoint", name, "from", g.From,
			"to", g.To, "count", count)
		e.app.metrics.Missed(g)
	}
}

// warnInterval is how often a warning about an endpoint is repeated.
const warnInterval = time.Hour

// warn logs which endpoints lose events soon.
func (e *expiry) warn(ctx context.Context) error {
	endpoints, err := e.app.webhooks.Endpoints(ctx)
	if err != nil {
		return err
	}
	for _, endpoint := range endpoints {
		if endpoint.Expires == "" || !endpoint.Configured {
			delete(e.warned, endpoint.Name)
			continue
		}
		if last, warned := e.warned[endpoint.Name]; warned && time.Since(last) < warnInterval {
			continue
		}
		e.warned[endpoint.Name] = time.Now()
		e.app.logger.Warn("events that the endpoint has not got expire soon: mend it, or raise webhook.retention",
			"endpoint", endpoint.Name,
			"state", endpoint.State, "events", endpoint.LagEvents, "from", endpoint.Expires)
	}
	return nil
}

// expireEndpoints removes what is kept of endpoints that were removed from the
// configuration longer ago than events are kept; nothing if the clock may be wrong.
func (a *App) expireEndpoints(ctx context.Context, cfg *config.Config) error {
	gone, err := a.store.Log().ExpireEndpoints(ctx, time.Duration(cfg.Webhook.Retention))
	if clock, ok := errors.AsType[*eventlog.ClockError](err); ok {
		a.logger.Warn("what is kept of removed endpoints stays", "error", clock)
		return nil
	}
	for _, g := range gone {
		a.metrics.parkedRemoved("endpoint_removed", g.Parked)
		a.logger.Warn("nothing is kept any more of an endpoint that was removed from the configuration",
			"endpoint", g.Endpoint, "cursor", g.Cursor, "parked", g.Parked)
	}
	return err
}

// expireDead removes dead letters that are past their retention.
func (a *App) expireDead(ctx context.Context, before time.Time) error {
	gone, err := a.store.Log().ExpireDead(ctx, before)
	for endpoint, n := range gone {
		a.metrics.parkedRemoved("expired", n)
		a.logger.Warn("dead letters are past webhook.dead_letter_retention and were removed",
			"endpoint", endpoint, "count", n)
	}
	return err
}

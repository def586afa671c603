package app

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/internal/config"
	"github.com/tidings-dev/tidings/internal/httpapi"
	"github.com/tidings-dev/tidings/internal/limit"
	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/internal/webhook"
	"github.com/tidings-dev/tidings/outbox"
	"github.com/tidings-dev/tidings/relay"
)

// metrics is what Prometheus sees. It observes the relay. Labels are the configured
// endpoints, known events and classes of reasons, so the number of series is bounded.
type metrics struct {
	mu        sync.RWMutex // held for reading while a series of an endpoint is written
	endpoints map[string]bool

	registry *prometheus.Registry
	attempts *prometheus.CounterVec
	delay    *prometheus.HistogramVec
	duration *prometheus.HistogramVec
	merged   *prometheus.CounterVec
	filtered *prometheus.CounterVec
	missed   *prometheus.CounterVec
	reloads  *prometheus.CounterVec
	reload   prometheus.Gauge
	requests *prometheus.HistogramVec
}

func newMetrics(cfg *config.Config) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		attempts: counter("tidings_webhook_attempts_total", "Attempts to deliver, by what came of them.", "endpoint",
			"event", "verdict", "reason"),
		delay: histogram("tidings_webhook_delay_seconds", "Time from the change to its delivery.",
			[]float64{.001, .0025, .005, .01, .025, .05, .1, .5, 1, 5, 30, 300, 3600}, "endpoint"),
		duration: histogram("tidings_webhook_attempt_seconds", "Time that an attempt took.",
			prometheus.DefBuckets, "endpoint"),
		merged: counter("tidings_webhook_merged_total",
			"Events that were not sent, because another one tells of them.", "endpoint"),
		filtered: counter("tidings_webhook_filtered_total",
			"Parked events that were not sent, because the endpoint's events do not match them any more.", "endpoint"),
		missed: counter("tidings_webhook_missed_total",
			"Events that expired before their endpoint could get them, or that the database lost, by reason.",
			"endpoint", "reason"),
		reloads: counter("tidings_config_reloads_total", "Reloads of the configuration, by result.", "result"),
		reload: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tidings_config_last_reload_success",
			Help: "1 if the last reload was taken, 0 if the configuration was bad and the one before stays.",
		}),
		requests: histogram("tidings_http_request_seconds", "Time to answer a request.", prometheus.DefBuckets,
			"method", "route", "status"),
	}
	m.keep(cfg)
	m.reload.Set(1)
	for _, result := range []string{"success", "failure"} {
		m.reloads.WithLabelValues(result)
	}
	m.registry.MustRegister(m.attempts, m.delay, m.duration, m.merged, m.filtered, m.missed,
		m.reloads, m.reload, m.requests,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// watch adds what is asked for when Prometheus asks.
func (m *metrics) watch(s *store.Store, hooks *outbox.Outbox, w *webhook.Service) {
	r := hooks.Relay()
	m.registry.MustRegister(&collector{s, s.Log(), r, w}, prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "tidings_history_dropped_total",
		Help: "Attempts that were not kept, because the database did not take them in time.",
	}, func() float64 { return float64(r.HistoryDropped()) }))
	for reason, count := range map[string]func(outbox.Removed) int64{
		"endpoint_removed": func(r outbox.Removed) int64 { return r.Endpoints },
		"expired":          func(r outbox.Removed) int64 { return r.Expired },
		"discarded":        func(r outbox.Removed) int64 { return r.Discarded },
	} {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name:        "tidings_parked_removed_total",
			Help:        "Parked events and dead letters that were removed without being delivered, by why.",
			ConstLabels: prometheus.Labels{"reason": reason},
		}, func() float64 { return float64(count(hooks.Removed())) }))
	}
}

// watchLimits adds what requests hold, and how many come too often.
func (m *metrics) watchLimits(l httpapi.Limits, r httpapi.Rates) {
	const refusedName, refusedHelp = "tidings_limit_refused_total",
		"Requests that were refused because a limit was reached."
	for name, rate := range map[string]*limit.Rate{"requests_per_second": r.Callers, "unauthenticated": r.Strangers} {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: refusedName, Help: refusedHelp, ConstLabels: prometheus.Labels{"limit": name},
		}, func() float64 { return float64(rate.Refused()) }))
	}
	for name, places := range map[string]*limit.Places{
		"concurrent_requests": l.Requests, "event_streams": l.Streams, "uploads": l.Uploads, "scans": l.Scans,
		"body_memory": l.Bodies,
	} {
		labels := prometheus.Labels{"limit": name}
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tidings_limit_taken", Help: "Places that requests hold, by the setting that limits them.",
			ConstLabels: labels,
		}, func() float64 { taken, _ := places.Usage(); return float64(taken) }),
			prometheus.NewCounterFunc(prometheus.CounterOpts{
				Name: refusedName, Help: refusedHelp, ConstLabels: labels,
			}, func() float64 { _, refused := places.Usage(); return float64(refused) }))
	}
}

// scrapes is how many requests for metrics are answered at once: each asks the
// database.
const scrapes = 4

// handler serves what there is: that the database is away is a metric, and no
// reason to have none.
func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: scrapes,
	})
}

// perEndpoint are the vectors with the label "endpoint".
func (m *metrics) perEndpoint() []interface{ DeletePartialMatch(prometheus.Labels) int } {
	return []interface{ DeletePartialMatch(prometheus.Labels) int }{
		m.attempts, m.delay, m.duration,
		m.merged, m.filtered, m.missed,
	}
}

// keep removes the series of endpoints that none of the configurations has. What is still under
// way to one of them is not counted any more.
func (m *metrics) keep(configs ...*config.Config) {
	now := make(map[string]bool)
	for _, cfg := range configs {
		for _, e := range cfg.Webhook.Endpoints {
			now[e.Name] = true
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for name := range m.endpoints {
		if !now[name] {
			for _, v := range m.perEndpoint() {
				v.DeletePartialMatch(prometheus.Labels{"endpoint": name})
			}
		}
	}
	m.endpoints = now
}

// of calls count if the endpoint is configured.
func (m *metrics) of(endpoint string, count func()) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.endpoints[endpoint] {
		count()
	}
}

// commonStatuses have a reason of their own in metrics.
var commonStatuses = []int{
	http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound,
	http.StatusMethodNotAllowed,
	http.StatusRequestTimeout, http.StatusConflict, http.StatusGone, http.StatusRequestEntityTooLarge,
	http.StatusUnsupportedMediaType,
	http.StatusUnprocessableEntity, http.StatusTooManyRequests, http.StatusInternalServerError,
	http.StatusNotImplemented,
	http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout,
}

// reasonClass is the reason of a failure as a label: statuses beyond the common ones
// are one class for each hundred, since a receiver may answer any.
func reasonClass(o tidings.Outcome) string {
	if !strings.HasPrefix(o.Reason, "http_") || slices.Contains(commonStatuses, o.Status) {
		return o.Reason
	}
	if class := o.Status / 100; class >= 1 && class <= 5 {
		return fmt.Sprintf("http_%dxx", class)
	}
	return "http_other"
}

// Attempted implements relay.Observer.
func (m *metrics) Attempted(endpoint string, a tidings.Attempt, o tidings.Outcome) {
	m.of(endpoint, func() {
		m.attempts.WithLabelValues(endpoint, a.Event.Name(), o.Verdict.String(), reasonClass(o)).Inc()
		if o.Verdict == tidings.Interrupted {
			return
		}
		m.duration.WithLabelValues(endpoint).Observe(o.Duration.Seconds())
		if o.Verdict == tidings.Delivered && !a.Replay && a.Event.Sequence > 0 {
			m.delay.WithLabelValues(endpoint).Observe(time.Since(a.Event.Time).Seconds())
		}
	})
}

// Merged implements relay.Observer.
func (m *metrics) Merged(endpoint string, _, _ tidings.Event) {
	m.of(endpoint, func() { m.merged.WithLabelValues(endpoint).Inc() })
}

// Filtered implements relay.Observer.
func (m *metrics) Filtered(endpoint string, _ tidings.Event) {
	m.of(endpoint, func() { m.filtered.WithLabelValues(endpoint).Inc() })
}

// Missed implements relay.Observer.
func (m *metrics) Missed(g eventlog.Gap) {
	if g.Reason == eventlog.GapLost && g.Index > 0 {
		return // each partition has the same
	}
	reason := string(cmp.Or(g.Reason, eventlog.GapExpired))
	m.of(g.Endpoint, func() { m.missed.WithLabelValues(g.Endpoint, reason).Add(float64(g.To - g.From + 1)) })
}

func (m *metrics) reloaded(taken bool) {
	if taken {
		m.reloads.WithLabelValues("success").Inc()
		m.reload.Set(1)
		return
	}
	m.reloads.WithLabelValues("failure").Inc()
	m.reload.Set(0)
}

// observe times requests, by route: a label for every path would never end.
func (m *metrics) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		begun := time.Now()
		next.ServeHTTP(seen, r)
		m.requests.WithLabelValues(knownMethod(r.Method), routeOf(r),
			strconv.Itoa(seen.status)).Observe(time.Since(begun).Seconds())
	})
}

func routeOf(r *http.Request) string {
	_, route, _ := strings.Cut(r.Pattern, " ")
	return route
}

func knownMethod(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
		return method
	}
	return "other"
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader notes the status.
func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// collector asks the log and the relay when it is asked itself.
type collector struct {
	store    *store.Store
	log      eventlog.Home
	relay    *relay.Relay
	webhooks *webhook.Service
}

// gauge is a metric that the collector fills.
type gauge struct{ desc *prometheus.Desc }

func newGauge(name, help string, labels ...string) gauge {
	return gauge{prometheus.NewDesc(name, help, labels, nil)}
}

func (g gauge) send(ch chan<- prometheus.Metric, value float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, value, labels...)
}

var (
	databaseUp = newGauge("tidings_database_up",
		"1 if the database can serve requests and number events, as in /readyz. What can't be read from it is "+
			"not shown.")
	logHead      = newGauge("tidings_log_head", "Position of the last event in the log.")
	logOldest    = newGauge("tidings_log_oldest", "Position of the oldest event that has not expired.")
	outboxDepth  = newGauge("tidings_outbox_depth", "Committed events that have no position yet.")
	replicaCount = newGauge("tidings_replicas", "Replicas that share the endpoints.")
	leasesHeld   = newGauge("tidings_leases_held",
		"Leases of endpoints, or their partitions, that this replica holds.")
	leasesFree    = newGauge("tidings_leases_free", "Leases of configured endpoints that nobody holds.")
	replays       = newGauge("tidings_replays_running", "Replays that run or wait.")
	endpointState = newGauge("tidings_endpoint_state", "1 for the state that the endpoint is in.", "endpoint", "state")
	endpointGauge = []struct {
		gauge
		value func(e *webhook.Endpoint) float64
	}{
		{
			newGauge("tidings_endpoint_cursor", "Position below which everything is settled.", "endpoint"),
			func(e *webhook.Endpoint) float64 { return float64(e.Cursor) },
		},
		{
			newGauge("tidings_endpoint_lag_events", "Events behind the cursor.", "endpoint"),
			func(e *webhook.Endpoint) float64 { return float64(e.LagEvents) },
		},
		{
			newGauge("tidings_endpoint_lag_seconds", "Age of the oldest event behind the cursor.", "endpoint"),
			func(e *webhook.Endpoint) float64 { return e.LagSeconds },
		},
		{
			newGauge("tidings_endpoint_retention_used_ratio",
				"Age of the oldest event behind the cursor, as a share of webhook.retention; from 1 on events expire "+
					"before the endpoint gets them.", "endpoint"),
			func(e *webhook.Endpoint) float64 { return e.RetentionUsed },
		},
		{
			newGauge("tidings_endpoint_in_flight", "Requests of this replica under way.", "endpoint"),
			func(e *webhook.Endpoint) float64 { return float64(e.InFlight) },
		},
		{
			newGauge("tidings_endpoint_parked", "Events that failed on their own, and those behind them.", "endpoint"),
			func(e *webhook.Endpoint) float64 { return float64(e.Parked) },
		},
		{
			newGauge("tidings_endpoint_dead_letters", "Events that were given up.", "endpoint"),
			func(e *webhook.Endpoint) float64 { return float64(e.Dead) },
		},
	}
)

const collectTime = 5 * time.Second

// Describe implements prometheus.Collector.
func (*collector) Describe(ch chan<- *prometheus.Desc) {
	for _, g := range []gauge{
		databaseUp, logHead, logOldest, outboxDepth, replicaCount, leasesHeld, leasesFree,
		replays, endpointState,
	} {
		ch <- g.desc
	}
	for _, g := range endpointGauge {
		ch <- g.desc
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), collectTime)
	defer cancel()
	if err := usable(ctx, c.store, c.relay); err != nil {
		databaseUp.send(ch, 0)
	} else {
		databaseUp.send(ch, 1)
	}
	_ = c.collect(ctx, ch) // what can't be read is not there
}

func (c *collector) collect(ctx context.Context, ch chan<- prometheus.Metric) error {
	for _, n := range []struct {
		gauge
		read func(context.Context) (int64, error)
	}{{logHead, c.log.Advance}, {logOldest, c.log.Oldest}, {outboxDepth, c.log.Unnumbered}} {
		value, err := n.read(ctx)
		if err != nil {
			return err
		}
		n.send(ch, float64(value))
	}
	fellows, err := c.log.Replicas(ctx)
	if err != nil {
		return err
	}
	replicaCount.send(ch, float64(len(fellows)))
	running, err := c.log.Replays(ctx, true, eventlog.MaxReplays)
	if err != nil {
		return err
	}
	replays.send(ch, float64(len(running)))
	endpoints, err := c.webhooks.Endpoints(ctx)
	if err != nil {
		return err
	}
	free := 0
	for _, e := range endpoints {
		if !e.Configured {
			continue
		}
		for _, p := range e.Partitions {
			if p.Replica == "" {
				free++
			}
		}
		endpointState.send(ch, 1, e.Name, e.State)
		for _, g := range endpointGauge {
			g.send(ch, g.value(e), e.Name)
		}
	}
	leasesFree.send(ch, float64(free))
	leasesHeld.send(ch, float64(c.relay.Held()))
	return nil
}

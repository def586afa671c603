package operator

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/outbox"
)

// collector collects an outbox's metrics, as one of its observers. Labels are
// endpoints, known events and classes of reasons, so the number of series is
// bounded.
type collector struct {
	*Service
	mu      sync.RWMutex    // held for reading while a series of an endpoint is written
	counted map[string]bool // endpoints

	attempts *prometheus.CounterVec
	delay    *prometheus.HistogramVec
	duration *prometheus.HistogramVec
	merged   *prometheus.CounterVec
	filtered *prometheus.CounterVec
	missed   *prometheus.CounterVec
}

// Collector returns a collector for the metrics of an outbox: attempts and their
// outcomes since it was created, the log, and the state of endpoints. Create it
// before the outbox runs. Each collection queries the database for at most five
// seconds and omits what could not be read. The metrics are listed in
// docs/operations.md.
func Collector(hooks *outbox.Outbox) prometheus.Collector {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, buckets []float64) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets},
			[]string{"endpoint"})
	}
	m := &collector{
		Service: New(hooks, Options{}), counted: make(map[string]bool),
		attempts: counter("tidings_webhook_attempts_total", "Delivery attempts, by outcome.", "endpoint",
			"event", "verdict", "reason"),
		delay: histogram("tidings_webhook_delay_seconds", "Time from the change to its delivery.",
			[]float64{.001, .0025, .005, .01, .025, .05, .1, .5, 1, 5, 30, 300, 3600}),
		duration: histogram("tidings_webhook_attempt_seconds", "Duration of an attempt.", prometheus.DefBuckets),
		merged: counter("tidings_webhook_merged_total",
			"Events that were not sent because another one covers them.", "endpoint"),
		filtered: counter("tidings_webhook_filtered_total",
			"Parked events that were not sent because the endpoint's patterns no longer match them.", "endpoint"),
		missed: counter("tidings_webhook_missed_total",
			"Events that expired before the endpoint received them or that the database lost, by reason.",
			"endpoint", "reason"),
	}
	hooks.Observe(m)
	return m
}

// vector has a series for each endpoint.
type vector interface {
	prometheus.Collector
	DeletePartialMatch(labels prometheus.Labels) int
}

func (m *collector) vectors() []vector {
	return []vector{m.attempts, m.delay, m.duration, m.merged, m.filtered, m.missed}
}

// count increments counters of an endpoint. For a new endpoint it first prunes:
// there are never series of more than one endpoint that is not configured.
func (m *collector) count(endpoint string, count func()) {
	m.mu.RLock()
	known := m.counted[endpoint]
	if known {
		count()
	}
	m.mu.RUnlock()
	if known {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.prune()
	m.counted[endpoint] = true
	count()
}

// prune removes the series of endpoints that are no longer configured.
func (m *collector) prune() {
	configured := m.hooks.EndpointNames()
	for name := range m.counted {
		if !configured[name] {
			for _, v := range m.vectors() {
				v.DeletePartialMatch(prometheus.Labels{"endpoint": name})
			}
			delete(m.counted, name)
		}
	}
}

// commonStatuses are the statuses with their own reason in metrics.
var commonStatuses = []int{
	http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound,
	http.StatusMethodNotAllowed,
	http.StatusRequestTimeout, http.StatusConflict, http.StatusGone, http.StatusRequestEntityTooLarge,
	http.StatusUnsupportedMediaType,
	http.StatusUnprocessableEntity, http.StatusTooManyRequests, http.StatusInternalServerError,
	http.StatusNotImplemented,
	http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout,
}

// reasonClass returns the reason of a failure as a label. Other statuses are
// grouped by hundreds, since a receiver may return any.
func reasonClass(o tidings.Outcome) string {
	if !strings.HasPrefix(o.Reason, "http_") || slices.Contains(commonStatuses, o.Status) {
		return o.Reason
	}
	if class := o.Status / 100; class >= 1 && class <= 5 {
		return fmt.Sprintf("http_%dxx", class)
	}
	return "http_other"
}

// Attempted implements [relay.Observer].
func (m *collector) Attempted(endpoint string, a tidings.Attempt, o tidings.Outcome) {
	m.count(endpoint, func() {
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

// Merged implements [relay.Observer].
func (m *collector) Merged(endpoint string, _, _ tidings.Event) {
	m.count(endpoint, func() { m.merged.WithLabelValues(endpoint).Inc() })
}

// Filtered implements [relay.Observer].
func (m *collector) Filtered(endpoint string, _ tidings.Event) {
	m.count(endpoint, func() { m.filtered.WithLabelValues(endpoint).Inc() })
}

// Missed implements [relay.Observer].
func (m *collector) Missed(g eventlog.Gap) {
	if g.Reason == eventlog.GapLost && g.Index > 0 {
		return // every partition reports the same loss
	}
	reason := string(cmp.Or(g.Reason, eventlog.GapExpired))
	m.count(g.Endpoint, func() { m.missed.WithLabelValues(g.Endpoint, reason).Add(float64(g.To - g.From + 1)) })
}

// Describe implements [prometheus.Collector].
func (m *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, v := range m.vectors() {
		v.Describe(ch)
	}
	for _, g := range []metric{
		logHead, logOldest, outboxDepth, replicaCount, leasesHeld, leasesFree, replaysRunning, endpointState,
		historyDropped, parkedRemoved, inFlight, inFlightLimit, inFlightWaiting,
	} {
		ch <- g.desc
	}
	for _, g := range endpointGauges {
		ch <- g.desc
	}
}

const collectTime = 5 * time.Second

// Collect implements [prometheus.Collector].
func (m *collector) Collect(ch chan<- prometheus.Metric) {
	m.mu.Lock()
	m.prune()
	for _, v := range m.vectors() {
		v.Collect(ch)
	}
	m.mu.Unlock()
	removed := m.hooks.Removed()
	parkedRemoved.send(ch, float64(removed.Endpoints), "endpoint_removed")
	parkedRemoved.send(ch, float64(removed.Expired), "expired")
	parkedRemoved.send(ch, float64(removed.Discarded), "discarded")
	if m.relay() == nil {
		return
	}
	historyDropped.send(ch, float64(m.relay().HistoryDropped()))
	load := m.relay().Load()
	inFlight.send(ch, float64(load.InFlight))
	inFlightLimit.send(ch, float64(load.Limit))
	inFlightWaiting.send(ch, float64(load.Waiting))
	ctx, cancel := context.WithTimeout(context.Background(), collectTime)
	defer cancel()
	_ = m.collect(ctx, ch) // omits what can't be read
}

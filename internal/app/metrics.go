package app

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

// metrics is what Prometheus sees. It observes the relay.
type metrics struct {
	registry *prometheus.Registry
	attempts *prometheus.CounterVec
	delay    *prometheus.HistogramVec
	requests *prometheus.HistogramVec
}

func newMetrics(log eventlog.Log) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidings_webhook_attempts_total", Help: "Attempts to deliver, by what came of them.",
		}, []string{"endpoint", "verdict", "reason"}),
		delay: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tidings_webhook_delay_seconds", Help: "Time from the change to its delivery.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .5, 1, 5, 30, 300, 3600},
		}, []string{"endpoint"}),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tidings_http_request_seconds", Help: "Time to answer a request.", Buckets: prometheus.DefBuckets,
		}, []string{"method", "route", "status"}),
	}
	m.registry.MustRegister(m.attempts, m.delay, m.requests, &logCollector{log},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// Attempted implements relay.Observer.
func (m *metrics) Attempted(endpoint string, a tidings.Attempt, o tidings.Outcome) {
	m.attempts.WithLabelValues(endpoint, o.Verdict.String(), o.Reason).Inc()
	if o.Verdict == tidings.Delivered {
		m.delay.WithLabelValues(endpoint).Observe(time.Since(a.Event.Time).Seconds())
	}
}

// observe times requests, by route: a label for every path would never end.
func (m *metrics) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		begun := time.Now()
		next.ServeHTTP(seen, r)
		_, route, _ := strings.Cut(r.Pattern, " ")
		m.requests.WithLabelValues(knownMethod(r.Method), route, strconv.Itoa(seen.status)).Observe(time.Since(begun).Seconds())
	})
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

// logCollector asks the event log when it is asked itself.
type logCollector struct{ log eventlog.Log }

var (
	headMetric   = prometheus.NewDesc("tidings_log_head", "Position of the last event in the log.", nil, nil)
	cursorMetric = prometheus.NewDesc("tidings_endpoint_cursor", "Position below which everything is settled for an endpoint.", []string{"endpoint"}, nil)
)

const collectTime = 5 * time.Second

// Describe implements prometheus.Collector.
func (*logCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- headMetric
	ch <- cursorMetric
}

// Collect implements prometheus.Collector.
func (c *logCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), collectTime)
	defer cancel()
	head, err := c.log.Advance(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(headMetric, err)
		return
	}
	ch <- prometheus.MustNewConstMetric(headMetric, prometheus.GaugeValue, float64(head))
	cursors, err := c.log.Cursors(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(cursorMetric, err)
		return
	}
	for endpoint, cursor := range cursors {
		ch <- prometheus.MustNewConstMetric(cursorMetric, prometheus.GaugeValue, float64(cursor.Sequence), endpoint)
	}
}

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

	"github.com/tidings-dev/tidings/internal/httpapi"
	"github.com/tidings-dev/tidings/internal/limit"
	"github.com/tidings-dev/tidings/internal/rest"
)

// metrics holds the server's metrics, besides those of [operator.Collector]. Labels are
// routes and limits, so the number of series is bounded.
type metrics struct {
	registry *prometheus.Registry
	reloads  *prometheus.CounterVec
	reload   prometheus.Gauge
	requests *prometheus.HistogramVec
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidings_config_reloads_total", Help: "Reloads of the configuration, by result.",
		}, []string{"result"}),
		reload: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tidings_config_last_reload_success",
			Help: "1 if the last reload succeeded, 0 if the configuration was invalid and the previous one stays in effect.",
		}),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tidings_http_request_seconds", Help: "Time to respond to a request.", Buckets: prometheus.DefBuckets,
		}, []string{"method", "route", "status"}),
	}
	m.reload.Set(1)
	for _, result := range []string{"success", "failure"} {
		m.reloads.WithLabelValues(result)
	}
	m.registry.MustRegister(m.reloads, m.reload, m.requests,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// readyCollector reports whether the server is ready at the time of a scrape.
type readyCollector struct{ usable func(context.Context) error }

var databaseUp = prometheus.NewDesc("tidings_database_up",
	"1 if the database can serve requests and number events, as in /readyz. Metrics that it can't supply are omitted.",
	nil, nil)

const collectTime = 5 * time.Second

// Describe implements [prometheus.Collector].
func (readyCollector) Describe(ch chan<- *prometheus.Desc) { ch <- databaseUp }

// Collect implements [prometheus.Collector].
func (c readyCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), collectTime)
	defer cancel()
	up := 1.0
	if c.usable(ctx) != nil {
		up = 0
	}
	ch <- prometheus.MustNewConstMetric(databaseUp, prometheus.GaugeValue, up)
}

// watchLimits registers the usage of limits, and the refused requests.
func (m *metrics) watchLimits(l rest.Limits, r httpapi.Rates) {
	const refusedName, refusedHelp = "tidings_limit_refused_total",
		"Requests refused because a limit was reached."
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
			Name: "tidings_limit_taken", Help: "Places held by requests, by the setting that limits them.",
			ConstLabels: labels,
		}, func() float64 { taken, _ := places.Usage(); return float64(taken) }),
			prometheus.NewCounterFunc(prometheus.CounterOpts{
				Name: refusedName, Help: refusedHelp, ConstLabels: labels,
			}, func() float64 { _, refused := places.Usage(); return float64(refused) }))
	}
}

// scrapes limits concurrent requests for metrics, since each queries the database.
const scrapes = 4

// handler serves the available metrics, even if the database is unavailable, which is
// itself a metric.
func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: scrapes,
	})
}

func (m *metrics) reloaded(ok bool) {
	if ok {
		m.reloads.WithLabelValues("success").Inc()
		m.reload.Set(1)
		return
	}
	m.reloads.WithLabelValues("failure").Inc()
	m.reload.Set(0)
}

// observe times requests by route. Labels by path would be unbounded.
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

// WriteHeader records the status.
func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

package operator

import (
	"context"
	"math"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidings-dev/tidings/eventlog"
)

// metric is a metric computed at collection time.
type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func gauge(name, help string, labels ...string) metric {
	return metric{prometheus.NewDesc(name, help, labels, nil), prometheus.GaugeValue}
}

func (m metric) send(ch chan<- prometheus.Metric, value float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(m.desc, m.kind, value, labels...)
}

var (
	logHead      = gauge("tidings_log_head", "Position of the last event in the log.")
	logOldest    = gauge("tidings_log_oldest", "Position of the oldest event that has not expired.")
	outboxDepth  = gauge("tidings_outbox_depth", "Committed events that have no position yet.")
	replicaCount = gauge("tidings_replicas", "Replicas that share the endpoints.")
	leasesHeld   = gauge("tidings_leases_held",
		"Leases of endpoints, or their partitions, that this replica holds.")
	leasesFree     = gauge("tidings_leases_free", "Leases of configured endpoints that nobody holds.")
	replaysRunning = gauge("tidings_replays_running", "Replays that run or wait.")
	inFlight       = gauge("tidings_in_flight", "Requests of this replica in flight to all endpoints together.")
	inFlightLimit  = gauge("tidings_in_flight_limit",
		"How many requests of this replica may be in flight: webhook.max_connections, or fewer if the limit on open "+
			"files is lower.")
	inFlightWaiting = gauge("tidings_in_flight_waiting",
		"Endpoints, or their partitions, that wait for other requests of this replica to finish.")
	endpointState  = gauge("tidings_endpoint_state", "1 for the state that the endpoint is in.", "endpoint", "state")
	endpointGauges = []struct {
		metric
		value func(e *Endpoint) float64
	}{
		{
			gauge("tidings_endpoint_cursor", "Position below which everything is settled.", "endpoint"),
			func(e *Endpoint) float64 { return float64(e.Cursor) },
		},
		{
			gauge("tidings_endpoint_lag_events", "Events behind the cursor.", "endpoint"),
			func(e *Endpoint) float64 { return float64(e.Behind) },
		},
		{
			gauge("tidings_endpoint_lag_seconds", "Age of the oldest event behind the cursor.", "endpoint"),
			func(e *Endpoint) float64 { return e.BehindSeconds },
		},
		{
			gauge("tidings_endpoint_oldest_undelivered_seconds",
				"Age of the oldest event that the endpoint has not received, parked ones included.", "endpoint"),
			func(e *Endpoint) float64 { return e.LagSeconds },
		},
		{
			gauge("tidings_endpoint_refusing", "1 if the endpoint responds, but accepts nothing.", "endpoint"),
			func(e *Endpoint) float64 {
				if e.Refusing() {
					return 1
				}
				return 0
			},
		},
		{
			gauge("tidings_endpoint_retention_left_seconds",
				"Time until the oldest event behind the cursor expires; absent if there is none.", "endpoint"),
			func(e *Endpoint) float64 {
				if e.LostAt == "" {
					return math.NaN()
				}
				return e.RetentionLeft.Seconds()
			},
		},
		{
			gauge("tidings_endpoint_retention_used_ratio",
				"Age of the oldest event behind the cursor, as a share of webhook.retention; from 1 on events expire "+
					"before the endpoint receives them.", "endpoint"),
			func(e *Endpoint) float64 { return e.RetentionUsed },
		},
		{
			gauge("tidings_endpoint_in_flight", "Requests of this replica in flight.", "endpoint"),
			func(e *Endpoint) float64 { return float64(e.InFlight) },
		},
		{
			gauge("tidings_endpoint_parked", "Events that failed on their own, and those behind them.", "endpoint"),
			func(e *Endpoint) float64 { return float64(e.Parked) },
		},
		{
			gauge("tidings_endpoint_dead_letters", "Events that were given up.", "endpoint"),
			func(e *Endpoint) float64 { return float64(e.Dead) },
		},
	}
)

var (
	historyDropped = metric{
		prometheus.NewDesc("tidings_history_dropped_total",
			"Attempts that were not recorded because the database was too slow.", nil, nil),
		prometheus.CounterValue,
	}
	parkedRemoved = metric{
		prometheus.NewDesc("tidings_parked_removed_total",
			"Parked events and dead letters that were removed without being delivered, by reason.", []string{"reason"}, nil),
		prometheus.CounterValue,
	}
)

func (c *collector) collect(ctx context.Context, ch chan<- prometheus.Metric) error {
	for _, n := range []struct {
		metric
		read func(context.Context) (int64, error)
	}{{logHead, c.log().Advance}, {logOldest, c.log().Oldest}, {outboxDepth, c.log().Unnumbered}} {
		value, err := n.read(ctx)
		if err != nil {
			return err
		}
		n.send(ch, float64(value))
	}
	fellows, err := c.log().Replicas(ctx)
	if err != nil {
		return err
	}
	replicaCount.send(ch, float64(len(fellows)))
	running, err := c.log().Replays(ctx, true, eventlog.MaxReplays)
	if err != nil {
		return err
	}
	replaysRunning.send(ch, float64(len(running)))
	endpoints, err := c.Endpoints(ctx)
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
		for _, g := range endpointGauges {
			if value := g.value(e); !math.IsNaN(value) {
				g.send(ch, value, e.Name)
			}
		}
	}
	leasesFree.send(ch, float64(free))
	leasesHeld.send(ch, float64(c.relay().Held()))
	return nil
}

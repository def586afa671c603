package app

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/config"
	"github.com/tidings-dev/tidings/internal/store"
)

// tracer records the spans of a change: the request, its event, and each attempt to
// deliver the event. Without a collector it records none, but still propagates a
// request's trace context.
type tracer struct {
	provider *sdktrace.TracerProvider // nil if tracing is off
	trace.Tracer
}

func newTracer(ctx context.Context, cfg config.Tracing, version string, logger *slog.Logger) (*tracer, error) {
	if cfg.Endpoint == "" {
		return &tracer{Tracer: noop.NewTracerProvider().Tracer("")}, nil
	}
	logTracing(logger)
	otlp, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(cfg.Endpoint+"/v1/traces"))
	if err != nil {
		return nil, fmt.Errorf("tracing.endpoint: %w", err)
	}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(&exporter{SpanExporter: otlp, logger: logger}),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(cfg.SampleRatio))),
		sdktrace.WithResource(resource.NewSchemaless(attribute.String("service.name", "tidings"),
			attribute.String("service.version", version))),
	)
	return &tracer{provider, provider.Tracer("tidings")}, nil
}

func (t *tracer) on() bool { return t.provider != nil }

const traceCloseTime = 5 * time.Second

// close exports the remaining spans. It ignores errors, since the collector may be
// unavailable.
func (t *tracer) close() error {
	if t.on() {
		ctx, cancel := context.WithTimeout(context.Background(), traceCloseTime)
		defer cancel()
		_ = t.provider.Shutdown(ctx)
	}
	return nil
}

// observe records a span for each API request, and makes the events of its changes
// part of its trace.
func (t *tracer) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
		ctx, span := t.Start(ctx, r.Method, trace.WithSpanKind(trace.SpanKindServer))
		defer span.End()
		seen := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		request := r.WithContext(store.WithTrace(ctx, t.event))
		next.ServeHTTP(seen, request)
		r.Pattern = request.Pattern // for outer handlers
		if route := routeOf(request); route != "" {
			span.SetName(knownMethod(r.Method) + " " + route)
			span.SetAttributes(attribute.String("http.route", route))
		}
		span.SetAttributes(attribute.String("http.request.method", knownMethod(r.Method)),
			attribute.Int("http.response.status_code", seen.status))
		if seen.status >= http.StatusInternalServerError {
			span.SetStatus(codes.Error, "")
		}
	})
}

// event records the span of an event and returns its traceparent.
func (t *tracer) event(ctx context.Context, e tidings.Event) string {
	if t.on() {
		var span trace.Span
		ctx, span = t.Start(ctx, "event "+e.Name(), trace.WithSpanKind(trace.SpanKindProducer), trace.WithAttributes(
			attribute.String("tidings.event", e.Name()), attribute.String("tidings.resource_id", e.ResourceID)))
		span.End()
	}
	return traceparent(ctx)
}

func traceparent(ctx context.Context) string {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier["traceparent"]
}

// attempt starts the span of an attempt, as part of the event's trace.
func (t *tracer) attempt(endpoint string, a *tidings.Attempt) (end func(tidings.Outcome)) {
	parent := propagation.TraceContext{}.Extract(context.Background(),
		propagation.MapCarrier{"traceparent": a.Event.Trace})
	ctx, span := t.Start(parent, "deliver "+a.Event.Name(), trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(
			attribute.String("tidings.endpoint", endpoint), attribute.String("tidings.event", a.Event.Name()),
			attribute.String("tidings.webhook_id", a.Event.ID), attribute.Int("tidings.attempt", a.Number),
			attribute.Bool("tidings.replay", a.Replay)))
	a.Trace = traceparent(ctx)
	return func(o tidings.Outcome) {
		span.SetAttributes(attribute.String("tidings.outcome", o.Verdict.String()))
		if o.Status != 0 {
			span.SetAttributes(attribute.Int("http.response.status_code", o.Status))
		}
		if o.Verdict != tidings.Delivered {
			span.SetStatus(codes.Error, o.Reason)
		}
		span.End()
	}
}

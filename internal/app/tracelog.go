package app

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// logTracing sends what OpenTelemetry says of its environment variables to the
// log, without their values: the headers of a collector hold credentials. It has
// one logger for the whole process.
func logTracing(logger *slog.Logger) {
	otel.SetLogger(logr.FromSlogHandler(valueless{logger.With("see", "OTEL_EXPORTER_OTLP_*").Handler()}))
}

// valueless is a handler that keeps the message of a record and nothing else.
type valueless struct{ slog.Handler }

// Handle implements [slog.Handler].
func (h valueless) Handle(ctx context.Context, r slog.Record) error {
	return h.Handler.Handle(ctx, slog.NewRecord(r.Time, r.Level, "OpenTelemetry: "+r.Message, r.PC))
}

// WithAttrs implements [slog.Handler].
func (h valueless) WithAttrs([]slog.Attr) slog.Handler { return h }

// exporter logs why spans could not be sent, once a minute at most. What a
// collector answered is left out: it may repeat its request.
type exporter struct {
	sdktrace.SpanExporter
	logger *slog.Logger
	logged time.Time
}

const exporterLogInterval = time.Minute

// ExportSpans implements [sdktrace.SpanExporter]. It returns no error, which
// OpenTelemetry would print.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := e.SpanExporter.ExportSpans(ctx, spans)
	if err != nil && time.Since(e.logged) >= exporterLogInterval {
		e.logged = time.Now()
		reason, _, _ := strings.Cut(err.Error(), "body: ")
		e.logger.WarnContext(ctx, "traces could not be sent", "spans", len(spans), "error",
			strings.TrimRight(reason, " ("))
	}
	return nil
}

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

// logTracing logs OpenTelemetry's messages about its environment variables, without
// their values, since a collector's headers contain credentials. OpenTelemetry has one
// logger per process.
func logTracing(logger *slog.Logger) {
	otel.SetLogger(logr.FromSlogHandler(valueless{logger.With("see", "OTEL_EXPORTER_OTLP_*").Handler()}))
}

// valueless is a handler that keeps only a record's message.
type valueless struct{ slog.Handler }

// Handle implements [slog.Handler].
func (h valueless) Handle(ctx context.Context, r slog.Record) error {
	return h.Handler.Handle(ctx, slog.NewRecord(r.Time, r.Level, "OpenTelemetry: "+r.Message, r.PC))
}

// WithAttrs implements [slog.Handler].
func (h valueless) WithAttrs([]slog.Attr) slog.Handler { return h }

// exporter logs why spans could not be sent, at most once a minute. It omits the
// collector's response, which may quote the request.
type exporter struct {
	sdktrace.SpanExporter
	logger *slog.Logger
	logged time.Time
}

const exporterLogInterval = time.Minute

// ExportSpans implements [sdktrace.SpanExporter]. It returns no error, because
// OpenTelemetry would print it.
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

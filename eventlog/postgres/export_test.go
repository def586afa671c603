package postgres

import (
	"context"
	"time"
)

// EnsurePartitions adds partitions for a time, as its first event would.
func (l *Log) EnsurePartitions(ctx context.Context, at time.Time) error {
	return l.events.ensure(ctx, at.UnixMicro())
}

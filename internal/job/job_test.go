package job_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/internal/job"
)

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		good, bad := 0, 0
		jobs := []job.Job{
			{Name: "good", Every: time.Minute, Run: func(context.Context) error { good++; return nil }},
			{Name: "bad", Every: time.Hour, Run: func(context.Context) error { bad++; return errors.New("no luck") }},
		}
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Minute)
		defer cancel()
		job.Run(ctx, slog.New(slog.NewTextHandler(&log, nil)), jobs)
		if good != 90 && good != 91 || bad != 2 {
			t.Errorf("ran %d and %d times, want 90 and 2", good, bad)
		}
		if n := strings.Count(log.String(), `job=bad error="no luck"`); n != 2 {
			t.Errorf("the failed job was logged %d times, want 2:\n%s", n, log.String())
		}
	})
}

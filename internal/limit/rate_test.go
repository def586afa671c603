package limit_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/internal/limit"
)

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := limit.NewRate(limit.RateOptions{
			PerSecond: 10, Burst: 5, Who: "one caller",
			Setting: "limits.requests_per_second",
		})
		take := func(key string, left int, reset time.Duration) {
			t.Helper()
			b, err := r.Take(key)
			if want := (limit.Budget{Limit: 5, Window: 500 * time.Millisecond, Left: left, Reset: reset}); b != want ||
				err != nil {
				t.Errorf("%s: %+v, %v; want %+v", key, b, err, want)
			}
		}
		for left := range 5 {
			take("ann", 4-left, time.Duration(left+1)*100*time.Millisecond)
		}
		_, err := r.Take("ann")
		e, ok := errors.AsType[*limit.RateError](err)
		if want := "one caller is limited to 10 requests per second, in bursts of 5 (limits.requests_per_second)"; !ok ||
			e.Error() != want {
			t.Fatalf("%v, want %s", err, want)
		}
		if e.RetryAfter != 100*time.Millisecond || r.Refused() != 1 {
			t.Errorf("retry after %v; %d requests refused", e.RetryAfter, r.Refused())
		}
		take("bob", 4, 100*time.Millisecond) // others are not affected
		time.Sleep(e.RetryAfter)
		take("ann", 0, 500*time.Millisecond)
		time.Sleep(time.Hour)
		take("ann", 4, 100*time.Millisecond)
	})
}

// Memory is bounded for any number of keys; keys beyond the limit share a budget.
func TestRateOfManyKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := limit.NewRate(limit.RateOptions{PerSecond: 1, Burst: 2, Who: "one address"})
		for n := range 120_000 {
			_, err := r.Take(fmt.Sprint(n))
			if n < 100_000 && err != nil || n > 100_001 && err == nil {
				t.Fatalf("key %d: %v", n, err)
			}
		}
		time.Sleep(3 * time.Second) // all buckets are full again
		for n := range 1000 {
			if _, err := r.Take(fmt.Sprint("new", n)); err != nil {
				t.Fatalf("key %d: %v", n, err)
			}
		}
	})
}

package relay_test

import (
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog/eventlogtest"
	"github.com/tidings-dev/tidings/internal/testtool"
	"github.com/tidings-dev/tidings/relay"
)

// What consumers that merge read ahead is bounded for the process, however many of them
// there are and however many partitions they have.
func TestMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const endpoints, partitions, waiting = 10, 2, 70_000
		log := eventlogtest.NewMemory()
		down := &receiver{answer: func(tidings.Attempt) tidings.Outcome { return unreachable }}
		var all []relay.Endpoint
		for n := range endpoints {
			e := endpoint(fmt.Sprint("e", n), down)
			e.Coalesce, e.Partitions = tidings.CoalesceLatest, partitions
			all = append(all, e)
		}
		start(t, log, relay.Options{}, all...)()
		for n := range waiting {
			log.Append(event(n, 0))
		}
		heap := func() int64 {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return int64(m.HeapAlloc)
		}
		before := heap()
		stop := start(t, log, relay.Options{}, all...)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		took := heap() - before
		stop()
		limit := int64(110 << 20)
		if testtool.Raced {
			limit *= 2
		}
		t.Logf("%d MiB", took>>20)
		if took > limit {
			t.Errorf("%d endpoints with %d events waiting take %d MiB", endpoints, waiting, took>>20)
		}
	})
}

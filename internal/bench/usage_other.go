//go:build !unix

package bench

import (
	"runtime"
	"time"
)

// cpuTime is not to be had here.
func cpuTime() time.Duration { return 0 }

// peakMemory is what Go has from the system, in MiB.
func peakMemory() float64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.Sys) / (1 << 20)
}

//go:build !unix

package bench

import (
	"runtime"
	"time"
)

// cpuTime is not available on this system.
func cpuTime() time.Duration { return 0 }

// peakMemory returns the memory that Go has obtained from the system, in MiB.
func peakMemory() float64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.Sys) / (1 << 20)
}

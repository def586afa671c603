package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidings-dev/tidings"
)

// stats holds the receiver's statistics: the number of webhooks, and
// percentiles of the time from change to arrival, in milliseconds.
type stats struct {
	Arrived int     `json:"arrived"`
	P50     float64 `json:"p50_ms"`
	P99     float64 `json:"p99_ms"`
}

// delaysKept limits the receiver's memory.
const delaysKept = 1 << 20

// receiver receives webhooks.
type receiver struct {
	delay    time.Duration
	failures float64
	arrived  atomic.Int64

	mu     sync.Mutex
	timing bool
	delays []float64
}

// Receive runs a receiver until in ends. It writes its URL to out.
func Receive(ctx context.Context, in io.Reader, out io.Writer, delay time.Duration, failures float64) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	r := &receiver{delay: delay, failures: failures}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /bare", func(w http.ResponseWriter, request *http.Request) {
		_, _ = io.Copy(io.Discard, request.Body) // an incomplete body counts as sent
		r.wait()
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST /webhook", r.webhook)
	mux.HandleFunc("GET /stats", r.stats)
	mux.HandleFunc("POST /reset", r.reset)
	if _, err := fmt.Fprintf(out, "http://%s\n", l.Addr()); err != nil {
		return errors.Join(err, l.Close())
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, in) // only the end matters
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	case err := <-served:
		return err
	}
	return server.Close()
}

func (r *receiver) wait() {
	if r.delay > 0 {
		<-time.After(r.delay)
	}
}

func (r *receiver) webhook(w http.ResponseWriter, request *http.Request) {
	now := time.Now()
	body, err := io.ReadAll(io.LimitReader(request.Body, 64<<10))
	r.wait()
	if err != nil || (r.failures > 0 && rand.Float64() < r.failures) {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusNoContent)
	r.mu.Lock()
	if r.timing && len(r.delays) < delaysKept {
		if at, ok := timeOf(body); ok {
			r.delays = append(r.delays, now.Sub(at).Seconds()*1000)
		}
	}
	r.mu.Unlock()
	r.arrived.Add(1)
}

// timeOf extracts the time from a body in any format.
func timeOf(body []byte) (time.Time, bool) {
	var b struct{ Timestamp, Time string }
	if json.Unmarshal(body, &b) != nil {
		return time.Time{}, false
	}
	at, err := time.Parse(tidings.TimeLayout, b.Timestamp+b.Time)
	return at, err == nil
}

func (r *receiver) stats(w http.ResponseWriter, _ *http.Request) {
	s := stats{Arrived: int(r.arrived.Load())}
	r.mu.Lock()
	delays := slices.Clone(r.delays)
	r.mu.Unlock()
	if n := len(delays); n > 0 {
		slices.Sort(delays)
		s.P50, s.P99 = delays[n/2], delays[n*99/100]
	}
	_ = json.NewEncoder(w).Encode(s) // the client may be gone
}

// reset starts the part in which each arrival is timed.
func (r *receiver) reset(http.ResponseWriter, *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.timing, r.delays = true, nil
	r.arrived.Store(0)
}

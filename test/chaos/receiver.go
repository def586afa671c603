//go:build unix

package main

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidings-dev/tidings/receive"
)

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// receiver accepts the webhooks of one endpoint and injects faults.
type receiver struct {
	persona
	server   *httptest.Server
	verifier *receive.Verifier
	healthy  atomic.Bool  // no more faults
	removed  atomic.Bool  // currently without an endpoint
	down     atomic.Bool  // returns 500 to all
	gone     atomic.Bool  // returns 410 to all
	plain    atomic.Bool  // does not speak TLS
	skew     atomic.Int64 // clock skew in nanoseconds

	mu         sync.Mutex
	bodies     map[string][]byte
	arrived    map[string]time.Time
	order      []arrival   // first arrivals
	duplicates []arrival   // later arrivals
	closed     []time.Time // when it closed its connections
	different  int
	rejected   map[string]time.Time // when an event that it rejects first arrived
	met        map[string]int       // faults injected
}

type arrival struct {
	id       string
	sequence int64
	resource string
	first    time.Time
	again    time.Time // for a duplicate
}

// fault handles a request in a way that no receiver should.
type fault struct {
	name string
	do   func(w http.ResponseWriter, r *http.Request)
}

func status(code int, header ...string) fault {
	return fault{fmt.Sprint("returns ", code, header), func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
	}}
}

// raw is a fault that takes over the connection.
func raw(name string, do func(c net.Conn, done <-chan struct{})) fault {
	return fault{name, func(w http.ResponseWriter, r *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		do(c, r.Context().Done())
	}}
}

const longerThanTimeout = 3 * time.Second

// allFaults are the faults of a flaky receiver.
func allFaults() []fault {
	hang := func(_ net.Conn, done <-chan struct{}) {
		select {
		case <-done:
		case <-time.After(longerThanTimeout):
		}
	}
	return []fault{
		status(500), status(503), status(503, "Retry-After", "1"), status(429), status(429, "Retry-After", "1"),
		status(301, "Location", "http://127.0.0.1:1/"), status(404),
		raw("hangs", hang),
		raw("never ends its headers", func(c net.Conn, done <-chan struct{}) {
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nX-Slow: ")
			hang(c, done)
		}),
		raw("streams forever", func(c net.Conn, done <-chan struct{}) {
			fmt.Fprint(c, "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 1000000000\r\n\r\n")
			end := time.Now().Add(longerThanTimeout)
			for time.Now().Before(end) {
				if _, err := fmt.Fprint(c, "x"); err != nil {
					return
				}
				time.Sleep(10 * time.Millisecond) //nolint:forbidigo // deliberately slow
			}
		}),
		raw("resets", func(c net.Conn, _ <-chan struct{}) {
			if tcp, ok := c.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
			}
		}),
		raw("garbage", func(c net.Conn, _ <-chan struct{}) { fmt.Fprint(c, "\x16\x03\x01 what?\r\n\r\n") }),
	}
}

func newReceiver(p persona) (*receiver, error) {
	r := &receiver{
		persona: p, bodies: make(map[string][]byte), arrived: make(map[string]time.Time),
		rejected: make(map[string]time.Time), met: make(map[string]int),
	}
	var err error
	if r.verifier, err = receive.NewVerifier(secret); err != nil {
		return nil, err
	}
	r.verifier.Now = func() time.Time { return time.Now().Add(time.Duration(r.skew.Load())) }
	r.server = httptest.NewUnstartedServer(r)
	r.server.Listener = plainListener{r.server.Listener, &r.plain}
	r.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	if p.tls {
		r.server.StartTLS()
	} else {
		r.server.Start()
	}
	return r, nil
}

// ServeHTTP accepts a webhook or injects a fault.
func (r *receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return // the sender was killed
	}
	switch {
	case r.healthy.Load():
	case r.gone.Load():
		r.meet("returns 410")
		w.WriteHeader(http.StatusGone)
		return
	case r.down.Load():
		r.meet("is down")
		w.WriteHeader(http.StatusInternalServerError)
		return
	case len(r.faults) > 0 && rand.IntN(r.oneIn) == 0:
		f := r.faults[rand.IntN(len(r.faults))]
		r.meet(f.name)
		f.do(w, request)
		return
	case rand.IntN(500) == 0:
		r.mu.Lock()
		r.closed = append(r.closed, time.Now())
		r.mu.Unlock()
		r.server.CloseClientConnections() // also those that are not idle
		r.meet("closes connections")
		return
	}
	if err := r.verifier.Verify(request.Header, body); err != nil {
		r.meet("its clock jumped")
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	event, err := receive.Decode(request.Header, body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if f, ok := r.rejects(event.ID); ok {
		r.meet(f.name + " to one event")
		f.do(w, request)
		return
	}
	sequence, _ := strconv.ParseInt(request.Header.Get("tidings-sequence"), 10, 64) // the check reports 0
	r.mu.Lock()
	if known, ok := r.bodies[event.ID]; ok {
		r.duplicates = append(r.duplicates, arrival{
			id: event.ID, sequence: sequence, resource: event.Resource(), first: r.arrived[event.ID], again: time.Now(),
		})
		if !bytes.Equal(known, body) {
			r.different++
		}
	} else {
		now := time.Now()
		r.bodies[event.ID], r.arrived[event.ID] = body, now
		r.order = append(r.order, arrival{id: event.ID, sequence: sequence, resource: event.Resource(), first: now})
	}
	r.mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
}

// particular is the name of the receiver that rejects some events in different ways for
// rejectTime.
const particular = "particular"

const (
	rejectOneIn = 100 // events
	rejectTime  = 10 * time.Second
)

var rejections = []fault{status(403), status(404), status(422), status(429), status(500)}

// rejects returns how the receiver rejects an event at the moment.
func (r *receiver) rejects(id string) (fault, bool) {
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(id))
	n := int(hash.Sum32())
	if r.name != particular || n%rejectOneIn != 0 || r.healthy.Load() {
		return fault{}, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, met := r.rejected[id]; !met {
		r.rejected[id] = time.Now()
	}
	return rejections[n/rejectOneIn%len(rejections)], time.Since(r.rejected[id]) < rejectTime
}

func (r *receiver) meet(fault string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.met[fault]++
}

// closeTLS makes the receiver respond without TLS.
func (r *receiver) closeTLS() {
	r.plain.Store(true)
	r.server.CloseClientConnections()
}

func (r *receiver) openTLS() { r.plain.Store(false) }

// plainListener responds to connections without TLS on demand.
type plainListener struct {
	net.Listener
	plain *atomic.Bool
}

// Accept implements net.Listener.
func (l plainListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil || !l.plain.Load() {
			return c, err
		}
		fmt.Fprint(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
		_ = c.Close()
	}
}

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

// receiver takes the webhooks of one endpoint, and misbehaves by a script.
type receiver struct {
	persona
	server   *httptest.Server
	verifier *receive.Verifier
	well     atomic.Bool
	removed  atomic.Bool  // it has no endpoint just now
	down     atomic.Bool  // answers 500 to all
	gone     atomic.Bool  // answers 410 to all
	plain    atomic.Bool  // has forgotten its TLS
	skew     atomic.Int64 // nanoseconds that its clock is off

	mu         sync.Mutex
	bodies     map[string][]byte
	arrived    map[string]time.Time
	order      []arrival   // first arrivals
	duplicates []arrival   // and the others
	closed     []time.Time // when it closed its connections
	different  int
	disliked   map[string]time.Time // when an event that it dislikes came first
	met        map[string]int       // faults
}

type arrival struct {
	id       string
	sequence int64
	resource string
	first    time.Time
	again    time.Time // the second time, of a duplicate
}

// fault answers a request in a way that no receiver should.
type fault struct {
	name string
	do   func(w http.ResponseWriter, r *http.Request)
}

func status(code int, header ...string) fault {
	return fault{fmt.Sprint("answers ", code, header), func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
	}}
}

// raw takes the connection over and does with it what it wants.
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

// allFaults is the script.
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
		raw("streams for ever", func(c net.Conn, done <-chan struct{}) {
			fmt.Fprint(c, "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 1000000000\r\n\r\n")
			end := time.Now().Add(longerThanTimeout)
			for time.Now().Before(end) {
				if _, err := fmt.Fprint(c, "x"); err != nil {
					return
				}
				time.Sleep(10 * time.Millisecond) //nolint:forbidigo // it is slow on purpose
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
		disliked: make(map[string]time.Time), met: make(map[string]int),
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

// ServeHTTP takes a webhook, unless the script says otherwise.
func (r *receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return // cut off by a kill
	}
	switch {
	case r.well.Load():
	case r.gone.Load():
		r.meet("answers 410")
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
	if f, ok := r.dislikes(event.ID); ok {
		r.meet(f.name + " to one event")
		f.do(w, request)
		return
	}
	sequence, _ := strconv.ParseInt(request.Header.Get("tidings-sequence"), 10, 64) // 0 shows in the check
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

// particular is the name of the receiver that refuses some events, each in a way of
// its own, until it has seen them for a while.
const particular = "particular"

const (
	oneIn = 100 // events it dislikes one of so many
	sulks = 10 * time.Second
)

var dislikes = []fault{status(403), status(404), status(422), status(429), status(500)}

// dislikes returns what the receiver has against an event just now.
func (r *receiver) dislikes(id string) (fault, bool) {
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(id))
	n := int(hash.Sum32())
	if r.name != particular || n%oneIn != 0 || r.well.Load() {
		return fault{}, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, met := r.disliked[id]; !met {
		r.disliked[id] = time.Now()
	}
	return dislikes[n/oneIn%len(dislikes)], time.Since(r.disliked[id]) < sulks
}

func (r *receiver) meet(fault string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.met[fault]++
}

// closeTLS has the receiver talk nonsense to those who expect TLS.
func (r *receiver) closeTLS() {
	r.plain.Store(true)
	r.server.CloseClientConnections()
}

func (r *receiver) openTLS() { r.plain.Store(false) }

// plainListener answers connections without TLS on demand.
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

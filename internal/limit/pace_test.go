package limit_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/internal/limit"
)

// serve runs a handler behind a [limit.Listener].
func serve(t *testing.T, stall time.Duration, handler http.HandlerFunc) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
	done := make(chan error, 1)
	go func() { done <- server.Serve(limit.Listener(l, stall)) }()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func request(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	return c
}

const responseSize = 8 << 20

// A client that reads nothing is disconnected. The handler gets an error, and the
// kernel has buffered little of the response.
func TestClientThatDoesNotRead(t *testing.T) {
	gone := make(chan error, 1)
	written := 0
	address := serve(t, 100*time.Millisecond, func(w http.ResponseWriter, r *http.Request) {
		for written < responseSize {
			n, err := w.Write(make([]byte, 64<<10))
			if written += n; err != nil {
				gone <- errors.Join(err, r.Context().Err())
				return
			}
		}
		gone <- nil
	})
	c := request(t, address)
	err := <-gone
	if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.Is(err, context.Canceled) {
		t.Errorf("the handler got %v", err)
	}
	if written > 4<<20 {
		t.Errorf("%d bytes were buffered for a client that reads nothing", written)
	}
	if got, _ := io.ReadAll(c); bytes.HasSuffix(got, []byte("0\r\n\r\n")) {
		t.Errorf("the client got a complete response of %d bytes", len(got))
	}
}

// A slow client that keeps reading gets the whole response, however long it takes.
func TestClientThatReadsSlowly(t *testing.T) {
	const stall = 200 * time.Millisecond
	address := serve(t, stall, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(bytes.Repeat([]byte("x"), responseSize))
	})
	c := request(t, address)
	begun, total := time.Now(), 0
	buffer := make([]byte, 256<<10)
	pause := time.NewTicker(20 * time.Millisecond)
	defer pause.Stop()
	for {
		<-pause.C
		n, err := io.ReadFull(c, buffer)
		total += n
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			t.Fatalf("after %d bytes and %v: %v", total, time.Since(begun), err)
		}
	}
	if total < responseSize || time.Since(begun) < 2*stall {
		t.Errorf("%d bytes in %v", total, time.Since(begun))
	}
}

// clock is a body that arrives byte by byte and respects the connection's
// deadline.
type clock struct {
	text     string
	pause    time.Duration
	deadline time.Time
}

func (c *clock) Read(b []byte) (int, error) {
	if c.text == "" {
		return 0, io.EOF
	}
	if at := time.Now().Add(c.pause); !c.deadline.IsZero() && at.After(c.deadline) {
		time.Sleep(time.Until(c.deadline))
		return 0, os.ErrDeadlineExceeded
	}
	time.Sleep(c.pause)
	n := copy(b[:1], c.text)
	c.text = c.text[n:]
	return n, nil
}

func (c *clock) Close() error { return nil }

func (c *clock) set(deadline time.Time) error {
	c.deadline = deadline
	return nil
}

func TestSlowBody(t *testing.T) {
	const pace = 30 * time.Second
	tests := []struct {
		name   string
		size   int
		pause  time.Duration
		reader time.Duration // between reads
		after  time.Duration // when it times out; 0 for never
	}{
		{"a byte every 20 s", 10, 20 * time.Second, 0, pace},
		{"small and slow", 29, time.Second, 0, 0},
		{"small and too slow", 31, time.Second, 0, pace},
		{"large at the lowest rate", 4 * limit.BodyStep, pace / limit.BodyStep, 0, 0},
		{"large and slower", 4 * limit.BodyStep, pace/limit.BodyStep + 10*time.Microsecond, 0, pace},
		{"slow reader", 29, time.Second, time.Minute, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &clock{text: strings.Repeat("x", test.size), pause: test.pause}
				body := limit.Body(c, pace, c.set)
				begun := time.Now()
				var err error
				for err == nil {
					_, err = body.Read(make([]byte, 100))
					time.Sleep(test.reader)
				}
				switch cut := errors.Is(err, os.ErrDeadlineExceeded); {
				case cut != (test.after > 0):
					t.Errorf("after %v: %v", time.Since(begun), err)
				case cut && time.Since(begun) != test.after:
					t.Errorf("timed out after %v, want %v", time.Since(begun), test.after)
				case !cut && !c.deadline.IsZero():
					t.Error("the connection still has a deadline")
				}
			})
		})
	}
}

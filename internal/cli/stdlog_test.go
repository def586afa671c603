package cli

import (
	"bytes"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/testtool"
)

// lines collects log output.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// The HTTP client's message about an unsolicited response becomes an ordinary log line
// and does not repeat the response.
func TestStandardLog(t *testing.T) {
	written := new(lines)
	flags := log.Flags()
	adoptLog(slog.New(slog.NewJSONHandler(written, nil)))
	defer func() {
		log.SetFlags(flags)
		log.SetOutput(os.Stderr)
	}()
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		_, _ = buffered.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		_ = buffered.Flush()
		<-time.After(100 * time.Millisecond) // the connection is idle again
		_, _ = buffered.WriteString("HTTP/1.1 500 hunter2\r\n\r\n")
		_ = buffered.Flush()
	}))
	defer receiver.Close()
	response, err := receiver.Client().Get(receiver.URL)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	for deadline := time.Now().Add(testtool.Allow(10 * time.Second)); written.String() == ""; {
		if time.Now().After(deadline) {
			t.Fatal("nothing was logged")
		}
		<-time.After(time.Millisecond)
	}
	text := written.String()
	if !strings.HasPrefix(text, `{"time":`) || !strings.Contains(text, "Unsolicited response") ||
		strings.Contains(text, "hunter2") {
		t.Errorf("the log: %s", text)
	}
}

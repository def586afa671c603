package app_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/testtool"
)

// An answer of 101 is a failure: the attempt ends and the connection is closed, so that
// neither a test of the endpoint nor a shutdown waits for it.
func TestReceiverSwitchesProtocols(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		closed := make(chan struct{}, 100)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					r := bufio.NewReader(c)
					if _, err := http.ReadRequest(r); err != nil {
						return
					}
					fmt.Fprint(c,
						"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
					_, _ = io.Copy(io.Discard, r)
					closed <- struct{}{}
				}()
			}
		}()
		w := newWorldWith(t, settings,
			object{"name": "switching", "url": "http://" + l.Addr().String(), "timeout": "3s"})
		w.wants(w.call("admin", "POST", "/webhooks/endpoints/switching/test", nil), 200,
			`"outcome":"failed"`, `"reason":"http_101"`)
		<-closed
		w.call("ann", "POST", "/contexts", object{})
		w.until("admin", "GET", "/webhooks/attempts?endpoint=switching", nil,
			has(`"reason":"http_101"`, `"status":101`))
		begun := time.Now()
		if err := w.stop(); err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took > testtool.Allow(3*time.Second) {
			t.Errorf("shutdown took %v", took)
		}
	})
}

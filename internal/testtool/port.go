package testtool

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"testing"
)

// Systems assign higher ports to outgoing connections and to listeners on port 0.
const (
	firstPort = 10_000
	lastPort  = 31_999
)

// ports holds the ports that FreePort has tried.
var ports sync.Map

// FreePort returns a loopback port that is not in use and that it has not returned before.
// The system does not assign it to anyone else, so it remains free until a program listens
// on it, and while that program restarts.
func FreePort() (int, error) {
	for range lastPort - firstPort {
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		if _, taken := ports.LoadOrStore(port, true); taken {
			continue
		}
		if l, err := net.Listen("tcp", loopback(port)); err == nil {
			return port, l.Close()
		}
	}
	return 0, errors.New("no free loopback port")
}

// FreeAddress returns the loopback address of a [FreePort].
func FreeAddress(tb testing.TB) string {
	tb.Helper()
	port, err := FreePort()
	if err != nil {
		tb.Fatal(err)
	}
	return loopback(port)
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

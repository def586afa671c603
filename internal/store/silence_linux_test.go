package store_test

import (
	"net"
	"syscall"
	"testing"

	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/internal/testdb"
)

// The system closes a connection to a database that has gone silent after seconds:
// whether something was sent (TCP_USER_TIMEOUT) or not (keep-alives).
func TestConnectionsNoticeSilence(t *testing.T) {
	s, err := store.OpenPostgres(testdb.Postgres(t), store.PostgresOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	s.Sockets(t, func(conn net.Conn) {
		raw, err := conn.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		const userTimeout = 18 // TCP_USER_TIMEOUT, in milliseconds
		for option, limit := range map[int]int{
			userTimeout: 15_000, syscall.TCP_KEEPIDLE: 5, syscall.TCP_KEEPINTVL: 2, syscall.TCP_KEEPCNT: 3,
		} {
			var value int
			failed := raw.Control(func(fd uintptr) {
				value, err = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, option)
			})
			if failed != nil || err != nil || value < 1 || value > limit {
				t.Errorf("TCP option %d is %d, %v, %v; want at most %d", option, value, failed, err, limit)
			}
		}
	})
}

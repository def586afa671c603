package store

import "syscall"

// tcpUserTimeout is TCP_USER_TIMEOUT of tcp(7), in milliseconds.
const (
	tcpUserTimeout = 0x12
	silenceTime    = 11_000
)

// noticeSilence makes the system close a connection whose peer does not
// acknowledge data, for example because its machine is gone. Keep-alives only
// detect this on idle connections.
func noticeSilence(network, _ string, c syscall.RawConn) error {
	if network == "unix" {
		return nil
	}
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, silenceTime)
	})
	if err != nil {
		return err
	}
	return failed
}

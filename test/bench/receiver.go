package main

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/tidings-dev/tidings/internal/child"
)

// receive runs the receiver of another process, which reads the URLs and the certificate
// from the output.
func receive(ctx context.Context) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	var arrived atomic.Int64
	more := make(chan struct{}, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
		swallow(w, r)
		arrived.Add(1)
		select {
		case more <- struct{}{}:
		default:
		}
	})
	mux.HandleFunc("GET /wait", func(w http.ResponseWriter, r *http.Request) { // waits for n since the last wait
		n, _ := strconv.ParseInt(r.FormValue("n"), 10, 64)
		for arrived.Load() < n {
			select {
			case <-more:
			case <-r.Context().Done():
				return
			}
		}
		arrived.Add(-n)
		w.WriteHeader(http.StatusNoContent)
	})
	secure := httptest.NewUnstartedServer(mux)
	secure.StartTLS()
	defer secure.Close()
	fmt.Println("http://"+l.Addr().String(), secure.URL, base64.StdEncoding.EncodeToString(secure.Certificate().Raw))
	return http.Serve(l, mux) //nolint:gosec // the benchmark is its only client
}

// receiverProcess is a receiver in a separate process.
type receiverProcess struct {
	url, secure string // over HTTP and HTTPS
	certificate *x509.Certificate
	cmd         *exec.Cmd
}

func startReceiver(ctx context.Context) (*receiverProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	r := &receiverProcess{cmd: exec.CommandContext(ctx, self, "-receive")}
	r.cmd.Stderr = os.Stderr
	child.EndWithUs(r.cmd, syscall.SIGKILL)
	out, err := r.cmd.StdoutPipe()
	if err == nil {
		err = r.cmd.Start()
	}
	if err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	fields := strings.Fields(line)
	if err != nil || len(fields) != 3 {
		return nil, fmt.Errorf("the receiver did not start: %w, %q", err, line)
	}
	der, err := base64.StdEncoding.DecodeString(fields[2])
	if err == nil {
		r.url, r.secure = fields[0], fields[1]
		r.certificate, err = x509.ParseCertificate(der)
	}
	return r, err
}

// wait waits until n webhooks have arrived since the last wait.
func (r *receiverProcess) wait(ctx context.Context, n int) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/wait?n=%d", r.url, n), nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, response.Body)
	return response.Body.Close()
}

func (r *receiverProcess) stop() {
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
}

// cpuOf returns the CPU time of a process in seconds, user and system, optionally
// including its children. It is 0 without /proc.
func cpuOf(pid int, children bool) float64 {
	own, _ := statOf(pid)
	total := own.self
	if !children {
		return total
	}
	total += own.ended
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if id, err := strconv.Atoi(e.Name()); err == nil {
			if times, of := statOf(id); of == pid {
				total += times.self
			}
		}
	}
	return total
}

// cpuTimes are seconds of CPU time of a process and of its terminated children.
type cpuTimes struct{ self, ended float64 }

// statOf returns the CPU times of a process and its parent.
func statOf(pid int) (t cpuTimes, parent int) {
	const ticks = 100 // per second, on every Linux
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return t, 0
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 15 {
		return t, 0
	}
	number := func(i int) float64 {
		n, _ := strconv.ParseFloat(fields[i], 64)
		return n
	}
	return cpuTimes{(number(11) + number(12)) / ticks, (number(13) + number(14)) / ticks}, int(number(1))
}

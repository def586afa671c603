package app_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tidings-dev/tidings/internal/child"
)

// refused starts a server that must fail to start, and returns its output.
func (p *process) refused(attributes *syscall.SysProcAttr) string {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.Context(), testTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), serveFile+"="+p.file)
	cmd.SysProcAttr = attributes
	child.EndWithUs(cmd, syscall.SIGKILL)
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) {
		p.Skip("this account may not create PID namespaces")
	}
	if _, exited := errors.AsType[*exec.ExitError](err); !exited || ctx.Err() != nil {
		p.Fatalf("the server should exit with an error: %v; output:\n%s", err, out)
	}
	return string(out)
}

// Only one process uses a data directory. A second one fails and names the first, even
// if it uses another path or runs in another container. A killed process does not block
// the next one.
func TestOneProcessPerDataDirectory(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(folder, link); err != nil {
		t.Fatal(err)
	}
	first := newProcess(t, map[string]any{"data_dir": folder})
	first.start()
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, folder string
		attributes   *syscall.SysProcAttr
	}{
		{"same name", folder, nil},
		{"symbolic link", link, nil},
		{"another container", folder, inContainer()},
	} {
		t.Run(test.name, func(t *testing.T) {
			second := newProcess(t, map[string]any{"data_dir": test.folder})
			want := fmt.Sprintf("data directory %s is in use by process %d on host %s", test.folder,
				first.cmd.Process.Pid, host)
			if out := second.refused(test.attributes); !strings.Contains(out, want) {
				t.Errorf("output %q, want %q", out, want)
			}
		})
	}
	if status, _, err := first.call("GET", "/users/me", nil); err != nil || status != 200 {
		t.Errorf("first process: %d, %v", status, err)
	}
	first.end(syscall.SIGKILL)
	second := newProcess(t, map[string]any{"data_dir": link})
	second.start()
	if out := first.refused(nil); !strings.Contains(out, fmt.Sprintf("process %d ", second.cmd.Process.Pid)) {
		t.Errorf("after a kill: output %q, want the second process's id", out)
	}
	if err := second.end(syscall.SIGTERM); err != nil {
		t.Errorf("the second process ended with %v", err)
	}
	first.start()
}

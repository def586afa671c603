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

// refused starts a server that must not start, and returns what it said.
func (p *process) refused(attributes *syscall.SysProcAttr) string {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), serveFile+"="+p.file)
	cmd.SysProcAttr = attributes
	child.EndWithUs(cmd, syscall.SIGKILL)
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) {
		p.Skip("this account may not make PID namespaces")
	}
	if _, exited := errors.AsType[*exec.ExitError](err); !exited || ctx.Err() != nil {
		p.Fatalf("a second server on the folder: %v; want it to exit with an error; it said:\n%s", err, out)
	}
	return string(out)
}

// One process owns a data folder. Another one is told which, whatever name it
// has for the folder, in another container too; a killed one leaves nothing that
// is in the way.
func TestOneOwnerOfAFolder(t *testing.T) {
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
			want := fmt.Sprintf("data folder %s is in use by process %d on host %s", test.folder,
				first.cmd.Process.Pid, host)
			if said := second.refused(test.attributes); !strings.Contains(said, want) {
				t.Errorf("it said %q, want %q", said, want)
			}
		})
	}
	if status, _, err := first.call("GET", "/users/me", nil); err != nil || status != 200 {
		t.Errorf("the owner answers %d, %v", status, err)
	}
	first.end(syscall.SIGKILL)
	second := newProcess(t, map[string]any{"data_dir": link})
	second.start()
	if said := first.refused(nil); !strings.Contains(said, fmt.Sprintf("process %d ", second.cmd.Process.Pid)) {
		t.Errorf("after a kill: it said %q, want the process id of the new owner", said)
	}
	if err := second.end(syscall.SIGTERM); err != nil {
		t.Errorf("the new owner stopped with %v", err)
	}
	first.start()
}

//go:build container

package deploy_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/testtool"
)

// blocks returns the commands on a page in docs.
func blocks(t *testing.T, page string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "docs", page))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for i, part := range strings.Split(string(text), "```") {
		if code, ok := strings.CutPrefix(part, "sh\n"); ok && i%2 == 1 {
			all = append(all, code)
		}
	}
	return all
}

// command runs a program with the tests' settings for containers.
func command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "CONTAINERS_CONF="+containersConf)
	return cmd
}

var containersConf = func() string {
	path, err := filepath.Abs("containers.conf")
	if err != nil {
		panic(err)
	}
	return path
}()

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// within waits until check returns no error.
func within(t *testing.T, check func() error) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		<-time.After(100 * time.Millisecond)
	}
}

func ready(t *testing.T, address string) {
	t.Helper()
	within(t, func() error {
		response, err := http.Get("http://" + address + "/readyz")
		if err != nil {
			return err
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return errors.New(response.Status)
		}
		return nil
	})
}

// docs/linux.md works on a system with systemd.
func TestSystemd(t *testing.T) {
	const machine = "tidings-systemd-test"
	_ = command("podman", "rm", "--force", machine).Run() // from an earlier run
	output(t, "podman", "run", "--detach", "--name", machine, "--systemd=always", "--privileged", "--network", "host",
		"--workdir", "/srv", "localhost/tidings-debian", "/sbin/init")
	defer func() {
		if t.Failed() {
			log, _ := command("podman", "exec", machine, "journalctl", "--no-pager", "--unit",
				"tidings").CombinedOutput()
			t.Logf("log:\n%s", log)
		}
		_ = command("podman", "rm", "--force", machine).Run()
	}()
	sh := func(script string) string {
		t.Helper()
		return output(t, "podman", "exec", machine, "sh", "-euc", script)
	}
	within(t, func() error {
		out, err := command("podman", "exec", machine, "systemctl", "is-system-running").CombinedOutput()
		if err != nil {
			return fmt.Errorf("systemd is %s", out)
		}
		return nil
	})
	binary := filepath.Join(t.TempDir(), "tidings")
	output(t, "make", "-C", "..", "binary", "OUT="+binary)
	output(t, "podman", "cp", binary, machine+":/srv/tidings")
	output(t, "podman", "cp", ".", machine+":/srv/deploy")
	address := testtool.FreeAddress(t)
	sh("mkdir -p /etc/systemd/system/tidings.service.d && printf '[Service]\\nEnvironment=TIDINGS_LISTEN=" + address +
		"\\n' > /etc/systemd/system/tidings.service.d/test.conf")

	page := blocks(t, "linux.md")
	sh(page[0])
	ready(t, address)
	sh("export TIDINGS_URL=http://" + address + "; " + page[1])
	if out := sh("systemd-analyze verify /etc/systemd/system/tidings.service"); out != "" {
		t.Errorf("systemd-analyze: %s", out)
	}
	if user := sh("ps -o user= -C tidings"); user != "tidings" {
		t.Errorf("the server runs as %q", user)
	}

	arrived := make(chan string, 16)
	receiver := http.Server{
		ReadHeaderTimeout: time.Second,
		Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			arrived <- r.URL.Path
		}),
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = receiver.Serve(l) }()
	defer receiver.Close()
	sh("echo 'webhook: {endpoints: [{name: here, url: \"http://" + l.Addr().String() +
		"/hook\"}]}' > /etc/tidings/tidings.yaml")
	sh(page[2])
	within(t, func() error {
		_, err := command("podman", "exec", machine, "tidings", "endpoints", "test", "here", "--data-dir",
			"/var/lib/tidings", "--url", "http://"+address).Output()
		return err
	})
	if path := <-arrived; path != "/hook" {
		t.Errorf("arrived at %s", path)
	}

	// The server restarts after a kill and shuts down cleanly.
	sh("systemctl kill --signal KILL tidings")
	within(t, func() error {
		out, err := command("podman", "exec", machine, "systemctl", "show", "--property",
			"NRestarts,ActiveState", "tidings").Output()
		if err != nil || !bytes.Contains(out, []byte("NRestarts=1")) ||
			!bytes.Contains(out, []byte("ActiveState=active")) {
			return fmt.Errorf("after the kill: %s %w", out, err)
		}
		return nil
	})
	ready(t, address)
	sh("systemctl stop tidings")
	if log := sh("journalctl --no-pager --unit tidings"); !strings.Contains(log, "msg=stopped") {
		t.Errorf("the server did not shut down cleanly:\n%s", log)
	}
}

// docs/compose.md works with Podman Compose and a locally built image.
func TestCompose(t *testing.T) {
	folder := t.TempDir()
	if err := os.CopyFS(filepath.Join(folder, "deploy"), os.DirFS(".")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(folder, 0o755); err != nil { //nolint:gosec // the container's user traverses it
		t.Fatal(err)
	}
	const published = "127.0.0.1:8333:"
	address, file := testtool.FreeAddress(t), filepath.Join(folder, "deploy", "compose.yaml")
	text, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(text), published) {
		t.Fatalf("%v; compose.yaml has no port %s:\n%s", err, published, text)
	}
	text = []byte(strings.Replace(string(text), published, address+":", 1))
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	image := "localhost/tidings-dev/tidings:" + version(t)
	output(t, "podman", "tag", "localhost/tidings-dev/tidings:check", image)
	defer func() { _ = command("podman", "untag", image, image).Run() }()
	run := func(script string) string {
		t.Helper()
		cmd := command("sh", "-euc", strings.ReplaceAll(strings.TrimSpace(script), "docker compose", "podman-compose"))
		cmd.Dir = folder
		out, err := cmd.Output()
		if err != nil {
			problem := err.Error()
			if exit, ok := errors.AsType[*exec.ExitError](err); ok {
				problem = string(exit.Stderr)
			}
			t.Fatalf("%s: %s\n%s", script, problem, out)
		}
		return string(out)
	}
	const compose = "docker compose -f deploy/compose.yaml "
	defer run(compose + "down --volumes")
	page := blocks(t, "compose.md")
	run(page[0])
	ready(t, address)
	run(page[1])

	// Add a receiver in the same container and an endpoint for it.
	receiver := command("podman", "exec", "--interactive", "deploy_tidings_1", "/tidings", "bench", "receiver")
	out, err := receiver.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := receiver.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := receiver.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = in.Close()
		_ = receiver.Wait()
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	settings := fmt.Sprintf("webhook: {endpoints: [{name: here, url: %q}]}\n", strings.Fields(line)[0]+"/webhook")
	next := filepath.Join(folder, "next.yaml")
	if err := os.WriteFile(next, []byte(settings), 0o644); err != nil { //nolint:gosec // as the page says
		t.Fatal(err)
	}
	if err := os.Rename(next, filepath.Join(folder, "deploy", "tidings", "tidings.yaml")); err != nil {
		t.Fatal(err)
	}
	within(t, func() error {
		out, err := command("podman", "exec", "deploy_tidings_1", "/tidings", "endpoints", "test", "here", "--data-dir",
			"/var/lib/tidings").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w", out, err)
		}
		return nil
	})
}

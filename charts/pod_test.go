//go:build container || cluster

package charts_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// image is built by "make container-check", for this machine and for arm64.
const image = "localhost/tidings-dev/tidings"

func podman(t *testing.T, args ...string) string {
	t.Helper()
	out, err := podmanCommand(args...).Output()
	if err != nil {
		problem := err.Error()
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			problem += "\n" + string(exit.Stderr)
		}
		t.Fatalf("podman %s: %s\n%s", strings.Join(args, " "), problem, out)
	}
	return strings.TrimSpace(string(out))
}

func podmanCommand(args ...string) *exec.Cmd {
	cmd := exec.Command("podman", args...)
	cmd.Env = append(os.Environ(), "CONTAINERS_CONF=../deploy/containers.conf")
	return cmd
}

// pod starts the containers of a rendered Deployment as a kubelet would, with the
// chart's user, capabilities, file system, volumes and limits.
type pod struct {
	*testing.T
	spec    object
	secrets map[string]map[string]string
	volumes string // their folder
}

func newPod(t *testing.T, spec object, objects []object) *pod {
	t.Helper()
	p := &pod{T: t, spec: spec, volumes: t.TempDir()}
	if err := os.Chmod(p.volumes, 0o755); err != nil { //nolint:gosec // the container's user traverses it
		t.Fatal(err)
	}
	for _, v := range p.spec["volumes"].([]any) {
		folder := filepath.Join(p.volumes, v.(object)["name"].(string))
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		p.own(folder)
	}
	p.update(objects)
	return p
}

func (p *pod) own(path string) {
	p.Helper()
	security := p.spec["securityContext"].(object)
	if err := os.Chown(path, security["runAsUser"].(int), security["fsGroup"].(int)); err != nil {
		p.Fatal(err)
	}
}

// update replaces the contents of the volumes atomically, as a kubelet does: "..data"
// links to a new folder.
func (p *pod) update(objects []object) {
	p.Helper()
	p.secrets = secretsOf(p.T, objects)
	for name, files := range volumeFiles(p.T, objects, p.spec) {
		if len(files) == 0 {
			continue
		}
		volume := filepath.Join(p.volumes, name)
		folder, err := os.MkdirTemp(volume, "..version")
		if err != nil {
			p.Fatal(err)
		}
		p.own(folder)
		for file, text := range files {
			path := filepath.Join(folder, file)
			if err := os.WriteFile(path, []byte(text), 0o440); err != nil { //nolint:gosec // as the chart's defaultMode
				p.Fatal(err)
			}
			p.own(path)
			_ = os.Symlink(filepath.Join("..data", file), filepath.Join(volume, file)) // may exist
		}
		if err := os.Symlink(filepath.Base(folder), filepath.Join(volume, "..next")); err != nil {
			p.Fatal(err)
		}
		if err := os.Rename(filepath.Join(volume, "..next"), filepath.Join(volume, "..data")); err != nil {
			p.Fatal(err)
		}
	}
}

// list returns value as a list, or nil if it is missing.
func list(value any) []any {
	all, _ := value.([]any)
	return all
}

// args returns podman's arguments for a container.
func (p *pod) args(container object, more ...string) []string {
	p.Helper()
	of, on := p.spec["securityContext"].(object), container["securityContext"].(object)
	if of["runAsNonRoot"] != true || of["seccompProfile"].(object)["type"] != "RuntimeDefault" ||
		on["allowPrivilegeEscalation"] != false {
		p.Fatalf("the security context differs from podman's arguments: %v, %v", of, on)
	}
	args := []string{
		"run", "--rm", "--network", "host", "--security-opt", "no-new-privileges", "--user",
		fmt.Sprintf("%d:%d", of["runAsUser"], of["runAsGroup"]),
	}
	for _, c := range on["capabilities"].(object)["drop"].([]any) {
		args = append(args, "--cap-drop", c.(string))
	}
	if on["readOnlyRootFilesystem"] == true {
		args = append(args, "--read-only", "--read-only-tmpfs=false")
	}
	memory := container["resources"].(object)["limits"].(object)["memory"].(string)
	args = append(args, "--memory", strings.ToLower(strings.TrimSuffix(memory, "i")))
	for _, m := range container["volumeMounts"].([]any) {
		at := m.(object)
		mode := "rw"
		if at["readOnly"] == true {
			mode = "ro"
		}
		args = append(args, "--volume", fmt.Sprintf("%s/%s:%s:%s", p.volumes, at["name"], at["mountPath"], mode))
	}
	for _, e := range list(container["env"]) {
		variable := e.(object)
		ref := variable["valueFrom"].(object)["secretKeyRef"].(object)
		args = append(args, "--env",
			fmt.Sprintf("%s=%s", variable["name"], p.secrets[ref["name"].(string)][ref["key"].(string)]))
	}
	args = append(append(args, more...), image+":check")
	for _, a := range container["args"].([]any) {
		args = append(args, a.(string))
	}
	return args
}

func (p *pod) containers(key string) []object {
	var all []object
	for _, c := range list(p.spec[key]) {
		all = append(all, c.(object))
	}
	return all
}

// receiver records requests. Between hold and letGo it does not respond.
type receiver struct {
	*httptest.Server
	mu   sync.Mutex
	got  []string
	slow chan struct{}
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		body, _ := io.ReadAll(request.Body)
		r.mu.Lock()
		r.got = append(r.got, request.URL.Path+" "+request.Header.Get("Authorization")+" "+string(body))
		slow := r.slow
		r.mu.Unlock()
		if slow != nil {
			<-slow
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) hold() (letGo func()) {
	slow := make(chan struct{})
	r.mu.Lock()
	r.slow = slow
	r.mu.Unlock()
	return func() { close(slow) }
}

// wait waits for a request that contains all texts.
func (r *receiver) wait(t *testing.T, texts ...string) {
	t.Helper()
	var got []string
	within(t, func() string {
		r.mu.Lock()
		defer r.mu.Unlock()
		got = slices.Clone(r.got)
		for _, g := range got {
			if !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(g, text) }) {
				return ""
			}
		}
		return fmt.Sprintf("no webhook with %q arrived, only %q", texts, got)
	})
}

// within waits until problem returns "".
func within(t *testing.T, problem func() string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		text := problem()
		if text == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(text)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// ready waits until a server is ready.
func ready(t *testing.T, address string) {
	t.Helper()
	within(t, func() string {
		response, err := http.Get("http://" + address + "/readyz")
		if err != nil {
			return err.Error()
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return response.Status
		}
		return ""
	})
}

// syncBuffer collects a program's output.
type syncBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func (r *receiver) times(text string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, g := range r.got {
		if strings.Contains(g, text) {
			n++
		}
	}
	return n
}

// server is the running container of a Deployment's pod.
type server struct {
	*testing.T
	name, address string
	log           syncBuffer
	kill          func()
	ended         chan error
}

// serve runs a pod's init containers, and then its container until the test ends.
func (p *pod) serve(name, address string) *server {
	p.Helper()
	for _, c := range p.containers("initContainers") {
		if out := podman(p.T, p.args(c)...); !strings.Contains(out, "up to date") {
			p.Errorf("%s: %s", c["name"], out)
		}
	}
	_ = podmanCommand("rm", "--force", name).Run() // from an earlier run
	s := &server{T: p.T, name: name, address: address, ended: make(chan error, 1)}
	cmd := podmanCommand(p.args(p.containers("containers")[0], "--name", name)...)
	cmd.Stdout, cmd.Stderr = &s.log, &s.log
	if err := cmd.Start(); err != nil {
		p.Fatal(err)
	}
	go func() { s.ended <- cmd.Wait() }()
	s.kill = sync.OnceFunc(func() {
		_ = podmanCommand("kill", name).Run() // it may have ended
		if p.Failed() {
			p.Logf("log:\n%s", s.log.String())
		}
	})
	p.Cleanup(s.kill)
	ready(p.T, address)
	return s
}

// terminate sends SIGTERM to the container, as a kubelet does.
func (s *server) terminate() {
	s.Helper()
	podman(s.T, "kill", "--signal", "TERM", s.name)
}

// stopped waits until the container has shut down cleanly.
func (s *server) stopped() {
	s.Helper()
	select {
	case err := <-s.ended:
		if err != nil {
			s.Errorf("the container ended with %v", err)
		}
	case <-time.After(patience):
		s.Fatal("the container did not end")
	}
	if !strings.Contains(s.log.String(), "msg=stopped") {
		s.Error("the log does not say that it stopped")
	}
}

// create creates a context and returns its id.
func create(ctx context.Context, address string) (id string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/api/v1/contexts",
		strings.NewReader("{}"))
	if err != nil {
		return "", err
	}
	request.Header.Set("Authorization", "Bearer "+elsewhere["tidings-admin"]["token"])
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	var made struct{ ID string }
	if err := json.NewDecoder(response.Body).Decode(&made); err != nil || response.StatusCode != http.StatusCreated {
		return "", fmt.Errorf("create a context: %s, %w", response.Status, err)
	}
	return made.ID, nil
}

// logs waits until a text is in the log the given number of times.
func (s *server) logs(text string, times int) {
	s.Helper()
	within(s.T, func() string {
		if strings.Count(s.log.String(), text) < times {
			return "not in the log: " + text + "\n" + s.log.String()
		}
		return ""
	})
}

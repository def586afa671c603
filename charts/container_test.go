//go:build container

package charts_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
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

// image is what "make container-check" builds, for this machine and for arm64.
const image = "localhost/tidings-dev/tidings"

func podman(t *testing.T, args ...string) string {
	t.Helper()
	out, err := podmanCommand(args...).Output()
	if err != nil {
		problem := err.Error()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			problem += "\n" + string(exit.Stderr)
		}
		t.Fatalf("podman %s: %s\n%s", strings.Join(args, " "), problem, out)
	}
	return strings.TrimSpace(string(out))
}

// podmanCommand uses runc: crun knows no mixed control groups.
func podmanCommand(args ...string) *exec.Cmd {
	return exec.Command("podman", append([]string{"--runtime", "runc"}, args...)...)
}

func TestImage(t *testing.T) {
	var inspected []struct {
		Architecture string
		Config       struct {
			User       string
			Labels     map[string]string
			Entrypoint []string
			Cmd        []string
		}
	}
	commit := strings.TrimSpace(output(t, "git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"))
	for tag, arch := range map[string]string{"check": "amd64", "check-arm64": "arm64"} {
		if err := json.Unmarshal([]byte(podman(t, "image", "inspect", image+":"+tag)), &inspected); err != nil {
			t.Fatal(err)
		}
		i := inspected[0]
		if i.Architecture != arch || i.Config.User != "65532:65532" || !slices.Equal(i.Config.Entrypoint, []string{"/tidings"}) {
			t.Errorf("%s: %+v", tag, i)
		}
		if l := i.Config.Labels; l["org.opencontainers.image.revision"] != commit || l["org.opencontainers.image.licenses"] != "Apache-2.0" {
			t.Errorf("%s: labels %q, want the commit %s", tag, l, commit)
		}
		root := podman(t, "image", "mount", image+":"+tag)
		defer podman(t, "image", "unmount", image+":"+tag)
		for _, file := range []string{"etc/ssl/certs/ca-certificates.crt", "usr/share/zoneinfo.zip", "tmp", "var/lib/tidings"} {
			if _, err := os.Stat(filepath.Join(root, file)); err != nil {
				t.Error(err)
			}
		}
		for _, file := range []string{"bin", "lib", "usr/bin"} {
			if _, err := os.Stat(filepath.Join(root, file)); err == nil {
				t.Errorf("%s: the image is not empty: %s", tag, file)
			}
		}
		// The same commit makes the same binary here, without a container.
		here := filepath.Join(t.TempDir(), "tidings")
		output(t, "make", "-C", "..", "binary", "GOARCH="+arch, "OUT="+here)
		inImage, err := os.ReadFile(filepath.Join(root, "tidings"))
		if err != nil {
			t.Fatal(err)
		}
		if built, err := os.ReadFile(here); err != nil || !bytes.Equal(built, inImage) {
			t.Errorf("%s: the binary differs from one that was built here, %v", tag, err)
		}
		var sbom struct {
			Components []struct{ Name string }
		}
		text, err := os.ReadFile(filepath.Join(root, "sbom.cdx.json"))
		if err == nil {
			err = json.Unmarshal(text, &sbom)
		}
		if err != nil || !slices.ContainsFunc(sbom.Components, func(c struct{ Name string }) bool { return c.Name == "modernc.org/sqlite" }) {
			t.Errorf("%s: sbom.cdx.json: %v, %d components", tag, err, len(sbom.Components))
		}
	}
	if got := podman(t, append(limits(), image+":check", "version")...); !strings.Contains(got, "commit "+commit) {
		t.Errorf("version: %s, want the commit %s", got, commit)
	}
}

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// limits are below those of whoever runs this, which podman would raise.
func limits() []string {
	return []string{"run", "--rm", "--ulimit", "nofile=4096:4096", "--ulimit", "nproc=1000:1000", "--network", "host"}
}

// pod starts the containers of a rendered Deployment as a kubelet would: user,
// capabilities, file system, volumes and limits are those of the chart.
type pod struct {
	*testing.T
	spec    object
	volumes string // their folder
}

func newPod(t *testing.T, objects []object) *pod {
	p := &pod{T: t, volumes: t.TempDir()}
	p.spec = find(t, objects, "Deployment", "")["spec"].(object)["template"].(object)["spec"].(object)
	if err := os.Chmod(p.volumes, 0o755); err != nil { //nolint:gosec // the container's user goes through it
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

// update swaps what the volumes hold at once, as a kubelet does: "..data" leads to
// a new folder.
func (p *pod) update(objects []object) {
	p.Helper()
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
			_ = os.Symlink(filepath.Join("..data", file), filepath.Join(volume, file)) // may be there
		}
		if err := os.Symlink(filepath.Base(folder), filepath.Join(volume, "..next")); err != nil {
			p.Fatal(err)
		}
		if err := os.Rename(filepath.Join(volume, "..next"), filepath.Join(volume, "..data")); err != nil {
			p.Fatal(err)
		}
	}
}

// args turn a container into those of podman.
func (p *pod) args(container object) []string {
	p.Helper()
	of, on := p.spec["securityContext"].(object), container["securityContext"].(object)
	if of["runAsNonRoot"] != true || of["seccompProfile"].(object)["type"] != "RuntimeDefault" || on["allowPrivilegeEscalation"] != false {
		p.Fatalf("not what podman is told below: %v, %v", of, on)
	}
	args := append(limits(), "--user", fmt.Sprintf("%d:%d", of["runAsUser"], of["runAsGroup"]), "--security-opt", "no-new-privileges")
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
	args = append(args, image+":check")
	for _, a := range container["args"].([]any) {
		args = append(args, a.(string))
	}
	return args
}

func (p *pod) containers(key string) []object {
	var all []object
	for _, c := range p.spec[key].([]any) {
		all = append(all, c.(object))
	}
	return all
}

// receiver keeps the requests that it gets; it answers when it is let go.
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

// wait waits for a request that holds all texts.
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
		return fmt.Sprintf("no webhook with %q arrived, but %q", texts, got)
	})
}

// within asks until nothing is wrong any more.
func within(t *testing.T, wrong func() string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		problem := wrong()
		if problem == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(problem)
		}
		<-time.After(50 * time.Millisecond)
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// The container as the chart starts it, with the configuration that the chart
// renders: it serves, delivers, reads its configuration again once the mount is
// swapped, and finishes what is under way when it is told to stop.
func TestContainerAsTheChartStartsIt(t *testing.T) {
	first, second := newReceiver(t), newReceiver(t)
	address := freeAddress(t)
	rendered := func(more ...string) []object {
		set := append([]string{
			"config.listen=" + address, "config.shutdown_delay=1s",
			"webhook.endpoints[0].url=" + first.URL + "/first",
			"webhook.endpoints[0].headers.Authorization.secretRef.name=crm", "webhook.endpoints[0].headers.Authorization.secretRef.key=authorization",
			"admin.existingSecret=tidings-admin", "admin.existingSecretKey=token",
		}, more...)
		return render(t, "helm", "--set", strings.Join(set, ","))
	}
	p := newPod(t, rendered())
	for _, c := range p.containers("initContainers") {
		if out := podman(t, p.args(c)...); !strings.Contains(out, "up to date") {
			t.Errorf("%s: %s", c["name"], out)
		}
	}
	const name = "tidings-container-test"
	_ = podmanCommand("rm", "--force", name).Run() // of a run before
	var log bytes.Buffer
	args := slices.Insert(p.args(p.containers("containers")[0]), 1, "--name", name)
	server := podmanCommand(args...)
	server.Stdout, server.Stderr = &log, &log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	defer func() {
		_ = podmanCommand("kill", name).Run() // if it still runs
		if t.Failed() {
			t.Logf("log:\n%s", log.String())
		}
	}()
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
	inspected := podman(t, "inspect", name)
	for _, secret := range []string{elsewhere["crm"]["authorization"], elsewhere["tidings-admin"]["token"]} {
		if strings.Contains(inspected, secret) {
			t.Errorf("the container's arguments or environment hold a secret")
		}
	}

	create := func() string {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+address+"/api/v1/contexts", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+elsewhere["tidings-admin"]["token"])
		request.Header.Set("Content-Type", "application/json")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		var made struct{ ID string }
		if err := json.NewDecoder(response.Body).Decode(&made); err != nil || response.StatusCode != http.StatusCreated {
			t.Fatalf("create a context: %s, %v", response.Status, err)
		}
		return made.ID
	}
	first.wait(t, "/first", "Bearer x", create(), "context.created")

	p.update(rendered("webhook.endpoints[1].url=" + second.URL + "/second"))
	within(t, func() string {
		out := podman(t, "exec", name, "/tidings", "endpoints", "--data-dir", "/etc/tidings", "--url", "http://"+address)
		if !strings.Contains(out, "/second\thealthy") {
			return "after the mount was swapped: " + out
		}
		return ""
	})
	second.wait(t, "/second", create())

	letGo := first.hold()
	last := create()
	first.wait(t, last) // it is under way
	stop := podmanCommand("kill", "--signal", "TERM", name)
	if out, err := stop.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	within(t, func() string {
		response, err := http.Get("http://" + address + "/readyz")
		if err != nil {
			return "" // it does not listen any more
		}
		response.Body.Close()
		if response.StatusCode == http.StatusOK {
			return "it still says that it is ready"
		}
		return ""
	})
	letGo()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("it does not end")
	}
	if !strings.Contains(log.String(), "msg=stopped") {
		t.Error("it did not say that it stopped in order")
	}
	if first.times(last) != 1 {
		t.Errorf("the webhook under way was sent %d times", first.times(last))
	}
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

//go:build container

package charts_test

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/testdb"
	"github.com/tidings-dev/tidings/internal/testtool"
)

// commit returns the commit that the image was built from.
func commit(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func TestImage(t *testing.T) {
	for _, tt := range []struct {
		tag, arch string
		machine   elf.Machine
	}{{"check", "amd64", elf.EM_X86_64}, {"check-arm64", "arm64", elf.EM_AARCH64}} {
		t.Run(tt.arch, func(t *testing.T) {
			var inspected []struct {
				Architecture string
				Config       struct {
					User       string
					Labels     map[string]string
					Entrypoint []string
				}
			}
			if err := json.Unmarshal([]byte(podman(t, "image", "inspect", image+":"+tt.tag)), &inspected); err != nil {
				t.Fatal(err)
			}
			i := inspected[0]
			if i.Architecture != tt.arch || i.Config.User != "65532:65532" ||
				!slices.Equal(i.Config.Entrypoint, []string{"/tidings"}) {
				t.Errorf("image: %+v", i)
			}
			if l := i.Config.Labels; l["org.opencontainers.image.revision"] != commit(t) ||
				l["org.opencontainers.image.licenses"] != "Apache-2.0" {
				t.Errorf("labels %q, want the commit %s", l, commit(t))
			}
			testImageFiles(t, podman(t, "image", "mount", image+":"+tt.tag), tt.machine)
			podman(t, "image", "unmount", image+":"+tt.tag)
		})
	}
}

// testImageFiles checks which files are in an image and which are not.
func testImageFiles(t *testing.T, root string, machine elf.Machine) {
	for file, there := range map[string]bool{
		"etc/ssl/certs/ca-certificates.crt": true, "usr/share/zoneinfo.zip": true, "tmp": true, "var/lib/tidings": true,
		"bin": false, "lib": false, "usr/bin": false, "root": false,
	} {
		if _, err := os.Stat(filepath.Join(root, file)); (err == nil) != there {
			t.Errorf("%s: %v; want it to exist: %v", file, err, there)
		}
	}
	program, err := elf.Open(filepath.Join(root, "tidings"))
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	if program.Machine != machine || program.Section(".interp") != nil {
		t.Errorf("the binary is for %v, or not static", program.Machine)
	}
	var sbom struct {
		Components []struct{ Name string }
	}
	text, err := os.ReadFile(filepath.Join(root, "sbom.cdx.json"))
	if err == nil {
		err = json.Unmarshal(text, &sbom)
	}
	if err != nil ||
		!slices.ContainsFunc(sbom.Components,
			func(c struct{ Name string }) bool { return c.Name == "modernc.org/sqlite" }) {
		t.Errorf("sbom.cdx.json: %v, %d components", err, len(sbom.Components))
	}
}

// A build of the same commit outside a container yields the same binary.
func TestImageHasTheBinaryOfItsCommit(t *testing.T) {
	here := filepath.Join(t.TempDir(), "tidings")
	if out, err := exec.Command("make", "-C", "..", "binary", "OUT="+here).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	built, err := os.ReadFile(here)
	if err != nil {
		t.Fatal(err)
	}
	root := podman(t, "image", "mount", image+":check")
	defer podman(t, "image", "unmount", image+":check")
	if inImage, err := os.ReadFile(filepath.Join(root, "tidings")); err != nil || !bytes.Equal(built, inImage) {
		t.Errorf("the binary in the image differs from a local build; %v", err)
	}
	if got := podman(t, "run", "--rm", image+":check", "version"); !strings.Contains(got, "commit "+commit(t)) {
		t.Errorf("version: %s, want the commit %s", got, commit(t))
	}
}

// template returns the pod spec of a rendered Deployment.
func template(t *testing.T, objects []object) object {
	t.Helper()
	return find(t, objects, "Deployment", "")["spec"].(object)["template"].(object)["spec"].(object)
}

// The container starts as the chart starts it, with the rendered configuration. It
// serves, delivers, reloads its configuration when the mount is swapped, and finishes
// requests in flight when it is terminated.
func TestContainerAsTheChartStartsIt(t *testing.T) {
	first, second := newReceiver(t), newReceiver(t)
	address := testtool.FreeAddress(t)
	rendered := func(more ...string) []object {
		set := append([]string{
			"config.listen=" + address, "config.shutdown_delay=1s",
			"webhook.endpoints[0].url=" + first.URL + "/first",
			"webhook.endpoints[0].headers.Authorization.secretRef.name=crm",
			"webhook.endpoints[0].headers.Authorization.secretRef.key=authorization",
			"admin.existingSecret=tidings-admin", "admin.existingSecretKey=token",
		}, more...)
		return render(t, "helm", "--set", strings.Join(set, ","))
	}
	objects := rendered()
	p := newPod(t, template(t, objects), objects)
	s := p.serve("tidings-container-test", address)
	inspected := podman(t, "inspect", s.name)
	for _, secret := range []string{elsewhere["crm"]["authorization"], elsewhere["tidings-admin"]["token"]} {
		if strings.Contains(inspected, secret) {
			t.Errorf("the container's arguments or environment contain a secret")
		}
	}
	create := func() string {
		t.Helper()
		id, err := create(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	first.wait(t, "/first", "Bearer x", create(), "context.created")

	p.update(rendered("webhook.endpoints[1].url=" + second.URL + "/second"))
	within(t, func() string {
		out := podman(t, "exec", s.name, "/tidings", "endpoints", "--data-dir", "/etc/tidings",
			"--url", "http://"+address)
		if !strings.Contains(out, "/second\thealthy") {
			return "after the mount was swapped: " + out
		}
		return ""
	})
	second.wait(t, "/second", create())

	letGo := first.hold()
	last := create()
	first.wait(t, last) // it is in flight
	s.terminate()
	within(t, func() string {
		response, err := http.Get("http://" + address + "/readyz")
		if err != nil {
			return "" // it no longer listens
		}
		response.Body.Close()
		if response.StatusCode == http.StatusOK {
			return "it is still ready"
		}
		return ""
	})
	letGo()
	s.stopped()
	if first.times(last) != 1 {
		t.Errorf("the webhook in flight was sent %d times", first.times(last))
	}
}

// A rolling update on PostgreSQL has no downtime: the new pod serves before the old one
// stops, and the old one serves until clients have switched. Each change is delivered
// once.
func TestContainersRollingUpdate(t *testing.T) {
	database := testdb.OwnServer(t)
	url, err := database.Create("rolling")
	if err != nil {
		t.Fatal(err)
	}
	r := newReceiver(t)
	serve := func(name string) *server {
		address := testtool.FreeAddress(t)
		objects := render(t, "helm", "--set-string", strings.Join([]string{
			"config.listen=" + address, "config.shutdown_delay=2s", "database.url=" + url,
			"webhook.endpoints[0].url=" + r.URL,
			"admin.existingSecret=tidings-admin", "admin.existingSecretKey=token",
		}, ","))
		if strategy := find(t, objects, "Deployment",
			"")["spec"].(object)["strategy"].(object); strategy["rollingUpdate"].(object)["maxUnavailable"] != 0 {
			t.Fatalf("strategy %v", strategy)
		}
		return newPod(t, template(t, objects), objects).serve(name, address)
	}
	old := serve("tidings-rolling-old")
	var service atomic.Value // the address behind the Service
	service.Store(old.address)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	made := make(chan []string)
	go func() {
		var ids []string
		for ctx.Err() == nil {
			id, err := create(t.Context(), service.Load().(string))
			if err != nil {
				t.Errorf("a request failed during the update: %v", err)
				break
			}
			ids = append(ids, id)
			<-time.After(20 * time.Millisecond) // the default rate limit holds
		}
		made <- ids
	}()
	next := serve("tidings-rolling-new")
	old.terminate()
	<-time.After(time.Second) // until every node has been notified
	service.Store(next.address)
	old.stopped()
	stop()
	ids := <-made
	for _, id := range ids {
		r.wait(t, id)
	}
	for _, id := range ids {
		if n := r.times(id); n != 1 {
			t.Errorf("%s was sent %d times", id, n)
		}
	}
	t.Logf("%d changes during the update", len(ids))
}

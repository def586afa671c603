//go:build container

package charts_test

import (
	"bytes"
	"context"
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
)

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
	if got := podman(t, "run", "--rm", image+":check", "version"); !strings.Contains(got, "commit "+commit) {
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

// template is the pod of a rendered Deployment.
func template(t *testing.T, objects []object) object {
	t.Helper()
	return find(t, objects, "Deployment", "")["spec"].(object)["template"].(object)["spec"].(object)
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
	objects := rendered()
	p := newPod(t, template(t, objects), objects)
	s := p.serve("tidings-container-test", address)
	inspected := podman(t, "inspect", s.name)
	for _, secret := range []string{elsewhere["crm"]["authorization"], elsewhere["tidings-admin"]["token"]} {
		if strings.Contains(inspected, secret) {
			t.Errorf("the container's arguments or environment hold a secret")
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
		out := podman(t, "exec", s.name, "/tidings", "endpoints", "--data-dir", "/etc/tidings", "--url", "http://"+address)
		if !strings.Contains(out, "/second\thealthy") {
			return "after the mount was swapped: " + out
		}
		return ""
	})
	second.wait(t, "/second", create())

	letGo := first.hold()
	last := create()
	first.wait(t, last) // it is under way
	s.terminate()
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
	s.stopped()
	if first.times(last) != 1 {
		t.Errorf("the webhook under way was sent %d times", first.times(last))
	}
}

// A rolling update on PostgreSQL has no gap: the new pod serves before the old one
// stops, which answers until those who send it requests have heard of that; and
// each change is told once, by whichever pod.
func TestContainersRollingUpdate(t *testing.T) {
	database, err := testdb.StartPostgres()
	if err != nil {
		t.Fatal(err)
	}
	defer database.Close()
	url, err := database.Create("rolling")
	if err != nil {
		t.Fatal(err)
	}
	r := newReceiver(t)
	serve := func(name string) *server {
		address := freeAddress(t)
		objects := render(t, "helm", "--set-string", strings.Join([]string{
			"config.listen=" + address, "config.shutdown_delay=2s", "database.url=" + url, "webhook.endpoints[0].url=" + r.URL,
			"admin.existingSecret=tidings-admin", "admin.existingSecretKey=token",
		}, ","))
		if strategy := find(t, objects, "Deployment", "")["spec"].(object)["strategy"].(object); strategy["rollingUpdate"].(object)["maxUnavailable"] != 0 {
			t.Fatalf("strategy %v", strategy)
		}
		return newPod(t, template(t, objects), objects).serve(name, address)
	}
	old := serve("tidings-rolling-old")
	var service atomic.Value // what a Service leads to
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
		}
		made <- ids
	}()
	next := serve("tidings-rolling-new")
	old.terminate()
	<-time.After(time.Second) // until every node has heard of it
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

//go:build container

package charts_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
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
	p := newPod(t, find(t, objects, "Deployment", "")["spec"].(object)["template"].(object)["spec"].(object), objects)
	for _, c := range p.containers("initContainers") {
		if out := podman(t, p.args(c)...); !strings.Contains(out, "up to date") {
			t.Errorf("%s: %s", c["name"], out)
		}
	}
	const name = "tidings-container-test"
	_ = podmanCommand("rm", "--force", name).Run() // of a run before
	var log syncBuffer
	server := podmanCommand(p.args(p.containers("containers")[0], "--name", name)...)
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
	ready(t, address)
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

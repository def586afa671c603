//go:build cluster

package charts_test

import (
	"database/sql"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/internal/testdb"
	"github.com/tidings-dev/tidings/internal/testtool"
)

// Every values file can be installed, upgraded, rolled back and uninstalled with both
// Helms. A real API server accepts every object, and nothing is left behind.
func TestLifeOfARelease(t *testing.T) {
	startDatabases(t)
	c := startCluster(t)
	for name, file := range valuesFiles(t) {
		for _, helm := range helms {
			t.Run(name+"/"+helm, func(t *testing.T) {
				c := &cluster{T: t, url: c.url, kubeconfig: c.kubeconfig, client: c.client}
				namespace := name + "-" + helm
				before := c.namespace(namespace)
				n := c.startNode(namespace)
				defer n.stop()
				on := []string{"--namespace", namespace}
				t.Log(c.must(helm, append([]string{"install", "release", "tidings", "--values", file}, on...)...))
				installed := c.everything(namespace)
				deployment := c.items("/apis/apps/v1/namespaces/"+namespace+"/deployments", "Deployment")[0]
				n.accepts(deployment["spec"].(object)["template"].(object))
				c.must(helm,
					append([]string{
						"upgrade", "release", "tidings", "--values", file, "--set",
						"podLabels.changed=yes",
					}, on...)...)
				if now := c.items("/apis/apps/v1/namespaces/"+namespace+"/deployments",
					"Deployment")[0]; !strings.Contains(text(now), "changed") {
					t.Error("the upgrade changed nothing")
				}
				c.must(helm, append([]string{"rollback", "release", "1"}, on...)...)
				if now := c.items("/apis/apps/v1/namespaces/"+namespace+"/deployments",
					"Deployment")[0]; strings.Contains(text(now["spec"].(object)), "changed") {
					t.Error("the rollback changed nothing")
				}
				c.must(helm, append([]string{"uninstall", "release"}, on...)...)
				c.deleteJob(namespace, "release-tidings-attach")
				c.same(namespace, before)
				t.Logf("%d objects were created and deleted", strings.Count(installed, "\n")-strings.Count(before, "\n"))
			})
		}
	}
}

// startDatabases starts the application databases that values files refer to.
func startDatabases(t *testing.T) {
	t.Helper()
	server := testdb.OwnServer(t)
	create := func(name, tables string) string {
		url, err := server.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		db, err := sql.Open("pgx", url)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if _, err := db.ExecContext(t.Context(), tables); err != nil {
			t.Fatal(err)
		}
		return url
	}
	tables, err := os.ReadFile("../outbox/capture/testdata/agentstack-2026-05.sql")
	if err != nil {
		t.Fatal(err)
	}
	elsewhere["agentstack-secret"]["sqlConnection"] = create("agentstack", string(tables))
	elsewhere["shop-database"]["url"] = create("shop", `CREATE TABLE orders (id int PRIMARY KEY, updated_at timestamptz);
		CREATE TABLE order_items (id int PRIMARY KEY, order_id int REFERENCES orders)`)
}

// deleteJob deletes a hook's job, if it exists: Kubernetes keeps it for an hour because
// of its log.
func (c *cluster) deleteJob(namespace, name string) bool {
	c.Helper()
	path := "/apis/batch/v1/namespaces/" + namespace + "/jobs/" + name
	if status, _ := c.do(http.MethodGet, path, "", ""); status == http.StatusNotFound {
		return false
	}
	if c.get(path)["spec"].(object)["ttlSecondsAfterFinished"] == nil {
		c.Errorf("the job %s never expires", name)
	}
	c.do(http.MethodDelete, path+"?propagationPolicy=Background", "", "")
	return true
}

// same waits until a namespace has the same objects as before.
func (c *cluster) same(namespace, before string) {
	c.Helper()
	within(c.T, func() string {
		if after := c.everything(namespace); after != before {
			return fmt.Sprintf("left behind; before:\n%s\nafter:\n%s", before, after)
		}
		return ""
	})
}

// A release moves from SQLite to PostgreSQL with the same volume. Several pods on that
// volume are rejected before anything changes; one pod can use it.
func TestFromSQLiteToPostgreSQLRelease(t *testing.T) {
	c := startCluster(t)
	const namespace = "moves"
	c.namespace(namespace)
	n := c.startNode(namespace)
	defer n.stop()
	on := []string{"--namespace", namespace, "--set", "config.log.level=info"}
	postgres := append(slices.Clone(on), "--set", "database.existingSecret=tidings-database")
	c.must("helm", append([]string{"install", "release", "tidings"}, on...)...)
	out, err := c.helm("helm", append([]string{"upgrade", "release", "tidings", "--set", "replicas=2"}, postgres...)...)
	if err == nil || !strings.Contains(out, `which ["ReadWriteOnce"] does not allow`) {
		t.Errorf("several pods on one volume: %v\n%s", err, out)
	}
	c.must("helm", append([]string{"upgrade", "release", "tidings"}, postgres...)...)
	deployment := c.get("/apis/apps/v1/namespaces/" + namespace + "/deployments/release-tidings")
	if kind := deployment["spec"].(object)["strategy"].(object)["type"]; kind != "Recreate" {
		t.Errorf("strategy %v, want Recreate: only one pod can mount the volume", kind)
	}
}

func text(o object) string {
	delete(o, "status")
	return strings.Join(strings.Fields(fmt.Sprint(o)), " ")
}

// An installed release works: "helm test" sends a webhook; a new endpoint takes effect
// without a restart; an invalid one is rejected and changes nothing; a rollback removes
// the new endpoint.
func TestReleaseServes(t *testing.T) {
	c := startCluster(t)
	for _, helm := range helms {
		t.Run(helm, func(t *testing.T) {
			c := &cluster{T: t, url: c.url, kubeconfig: c.kubeconfig, client: c.client}
			namespace := "serves-" + helm
			before := c.namespace(namespace)
			n := c.startNode(namespace, "release-tidings:127.0.0.1")
			defer n.stop()
			first, second := newReceiver(t), newReceiver(t)
			address := testtool.FreeAddress(t)
			_, port, err := net.SplitHostPort(address)
			if err != nil {
				t.Fatal(err)
			}
			on := []string{
				"--namespace", namespace, "--set", "config.listen=" + address, "--set", "service.port=" + port,
				"--set", "webhook.endpoints[0].name=first", "--set", "webhook.endpoints[0].url=" + first.URL,
			}
			c.must(helm, append([]string{"install", "release", "tidings"}, on...)...)
			server, pods := n.serve(address)
			defer server.kill()
			token := n.token("release-tidings")

			c.must(helm, "test", "release", "--namespace", namespace)
			first.wait(t, "webhook.ping")

			// Add an endpoint.
			more := append(on, "--set", "webhook.endpoints[1].name=second", "--set",
				"webhook.endpoints[1].url="+second.URL)
			c.must(helm, append([]string{"upgrade", "release", "tidings"}, more...)...)
			pods.update(n.secrets())
			server.logs("configuration reloaded", 1)
			c.must(helm, "test", "release", "--namespace", namespace)
			second.wait(t, "webhook.ping")

			// Add an invalid one.
			out, err := c.helm(helm,
				append([]string{"upgrade", "release", "tidings", "--set", "webhook.endpoints[2].url=ftp://x"},
					more...)...)
			if err == nil || !strings.Contains(out, "release-tidings-check") {
				t.Errorf("an invalid configuration was accepted: %v\n%s", err, out)
			}
			if !strings.Contains(n.log.String(), "webhook.endpoints[2].url: the URL must begin with") {
				t.Error("the check did not report the error")
			}
			pods.update(n.secrets())
			c.must(helm, "test", "release", "--namespace", namespace)

			c.must(helm, "rollback", "release", "1", "--namespace", namespace)
			pods.update(n.secrets())
			server.logs("configuration reloaded", 2)
			if strings.Contains(server.log.String(), "was not reloaded") {
				t.Error("an invalid configuration reached the server")
			}
			if got := n.token("release-tidings"); got != token {
				t.Error("the admin's token changed")
			}
			deployment := c.get("/apis/apps/v1/namespaces/" + namespace + "/deployments/release-tidings")
			if generation := deployment["metadata"].(object)["generation"]; generation != 1 {
				t.Errorf("the pods were replaced: generation %v", generation)
			}
			server.kill()
			c.must(helm, "uninstall", "release", "--namespace", namespace)
			// The job of a failed check stays for an hour because of its log.
			if !c.deleteJob(namespace, "release-tidings-check") {
				t.Error("the failed check left no job behind")
			}
			c.same(namespace, before)
		})
	}
}

// serve runs the pod of the release's Deployment.
func (n *node) serve(address string) (*server, *pod) {
	n.Helper()
	deployment := n.items("/apis/apps/v1/namespaces/"+n.namespace+"/deployments", "Deployment")[0]
	p := newPod(n.T, deployment["spec"].(object)["template"].(object)["spec"].(object), n.secrets())
	return p.serve("tidings-cluster-"+n.namespace, address), p
}

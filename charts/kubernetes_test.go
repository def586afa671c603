//go:build cluster

package charts_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/tidings-dev/tidings/internal/child"
	"github.com/tidings-dev/tidings/internal/testtool"
)

// cluster is a real Kubernetes API server with etcd, on loopback. It has no controllers
// and no nodes: a [node] takes their place.
type cluster struct {
	*testing.T
	url, kubeconfig string
	client          *http.Client
}

const clusterToken = "cluster-admin-token"

func startCluster(t *testing.T) *cluster {
	t.Helper()
	folder := t.TempDir()
	etcd, peers, address := testtool.FreeAddress(t), testtool.FreeAddress(t), testtool.FreeAddress(t)
	start(t, "etcd", exec.Command("etcd", "--data-dir", filepath.Join(folder, "etcd"),
		"--listen-client-urls", "http://"+etcd, "--advertise-client-urls", "http://"+etcd,
		"--listen-peer-urls", "http://"+peers, "--initial-advertise-peer-urls", "http://"+peers, "--initial-cluster",
		"default=http://"+peers))
	write := func(name string, text []byte) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	keyFile := write("service-accounts.pem", pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
	tokens := write("tokens.csv", []byte(clusterToken+",admin,admin,system:masters\n"))
	host, port, _ := strings.Cut(address, ":")
	start(t, "kube-apiserver", exec.Command(testtool.Path(t, "kube-apiserver"), "--etcd-servers", "http://"+etcd,
		"--bind-address", host, "--secure-port", port, "--cert-dir", filepath.Join(folder, "certificates"),
		"--token-auth-file", tokens,
		"--authorization-mode", "RBAC", "--service-cluster-ip-range", "10.96.0.0/16",
		"--service-account-issuer", "https://"+address, "--service-account-key-file", keyFile,
		"--service-account-signing-key-file", keyFile))
	c := &cluster{T: t, url: "https://" + address, client: &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // self-signed
	}}}
	c.kubeconfig = write("kubeconfig", fmt.Appendf(nil, `{apiVersion: v1, kind: Config, current-context: c,
clusters: [{name: c, cluster: {server: %q, insecure-skip-tls-verify: true}}],
users: [{name: u, user: {token: %s}}], contexts: [{name: c, context: {cluster: c, user: u}}]}`, c.url, clusterToken))
	within(t, func() string {
		if status, text := c.do(http.MethodGet, "/readyz", "", ""); status != http.StatusOK {
			return "the API server is not ready: " + text
		}
		return ""
	})
	for _, file := range []string{"servicemonitors", "prometheusrules", "httproutes"} {
		paths, err := filepath.Glob(filepath.Join("..", "bin", "crds", "*_"+file+".yaml"))
		if err != nil || len(paths) != 1 {
			t.Fatalf("definition of %s: %q, %v; 'make chart-e2e' installs it", file, paths, err)
		}
		text, err := os.ReadFile(paths[0])
		if err != nil {
			t.Fatal(err)
		}
		c.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", string(text))
	}
	within(t, func() string {
		for _, path := range []string{"monitoring.coreos.com/v1", "gateway.networking.k8s.io/v1"} {
			if status, text := c.do(http.MethodGet, "/apis/"+path, "", ""); status != http.StatusOK {
				return path + " is missing: " + text
			}
		}
		return ""
	})
	c.create("/apis/scheduling.k8s.io/v1/priorityclasses",
		`{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: tidings-high}, value: 1000}`)
	return c
}

// start runs a program until the test ends.
func start(t *testing.T, name string, cmd *exec.Cmd) {
	t.Helper()
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	child.EndWithUs(cmd, syscall.SIGKILL)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			text := log.String()
			t.Logf("end of the log of %s:\n%s", name, text[max(0, len(text)-4000):])
		}
	})
}

// do sends an API request.
func (c *cluster) do(method, path, contentType, body string) (status int, text string) {
	c.Helper()
	request, err := http.NewRequestWithContext(context.Background(), method, c.url+path, strings.NewReader(body))
	if err != nil {
		c.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+clusterToken)
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	response, err := c.client.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	out, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err.Error()
	}
	return response.StatusCode, string(out)
}

// create creates an object from YAML.
func (c *cluster) create(path, text string) {
	c.Helper()
	if status, answer := c.do(http.MethodPost, path, "application/yaml", text); status != http.StatusCreated {
		c.Fatalf("create in %s: %d %s", path, status, answer)
	}
}

// get returns an object or a list.
func (c *cluster) get(path string) object {
	c.Helper()
	status, text := c.do(http.MethodGet, path, "", "")
	if status != http.StatusOK {
		c.Fatalf("get %s: %d %s", path, status, text)
	}
	var o object
	if err := yaml.Unmarshal([]byte(text), &o); err != nil { // unlike JSON, keeps integers
		c.Fatal(err)
	}
	return o
}

func (c *cluster) items(path, kind string) []object {
	c.Helper()
	var all []object
	for _, i := range list(c.get(path)["items"]) {
		o := i.(object)
		o["kind"] = kind
		all = append(all, o)
	}
	return all
}

// namespace creates a namespace that enforces the restricted pod security standard, with
// the Secrets in elsewhere, and returns its objects.
func (c *cluster) namespace(name string) (before string) {
	c.Helper()
	c.create("/api/v1/namespaces",
		fmt.Sprintf(`{apiVersion: v1, kind: Namespace, metadata: {name: %s, labels: `+
			`{pod-security.kubernetes.io/enforce: restricted}}}`, name))
	for _, account := range []string{"default", "tidings"} {
		c.create("/api/v1/namespaces/"+name+"/serviceaccounts",
			"{apiVersion: v1, kind: ServiceAccount, metadata: {name: "+account+"}}")
	}
	for secret, data := range elsewhere {
		text, err := json.Marshal(object{
			"apiVersion": "v1", "kind": "Secret",
			"metadata": object{"name": secret}, "stringData": data,
		})
		if err != nil {
			c.Fatal(err)
		}
		c.create("/api/v1/namespaces/"+name+"/secrets", string(text))
	}
	c.create("/api/v1/namespaces/"+name+"/configmaps",
		"{apiVersion: v1, kind: ConfigMap, metadata: {name: company-ca}}")
	return c.everything(name)
}

// everything lists all objects in a namespace, of every kind.
func (c *cluster) everything(namespace string) string {
	c.Helper()
	groups := []string{"/api/v1"}
	for _, g := range list(c.get("/apis")["groups"]) {
		groups = append(groups, "/apis/"+g.(object)["preferredVersion"].(object)["groupVersion"].(string))
	}
	var all []string
	for _, group := range groups {
		for _, r := range list(c.get(group)["resources"]) {
			resource := r.(object)
			name := resource["name"].(string)
			if resource["namespaced"] != true || strings.Contains(name, "/") ||
				!strings.Contains(fmt.Sprint(resource["verbs"]), "list") || name == "events" {
				continue
			}
			for _, o := range c.items(group+"/namespaces/"+namespace+"/"+name, name) {
				all = append(all, name+"/"+objectName(o))
			}
		}
	}
	return strings.Join(all, "\n")
}

// helm runs a version of Helm on the cluster and returns its output.
func (c *cluster) helm(helm string, args ...string) (string, error) {
	c.Helper()
	cmd := exec.Command(testtool.Path(c.T, helm), args...)
	cmd.Env = []string{"HOME=" + c.TempDir(), "KUBECONFIG=" + c.kubeconfig}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// must runs a version of Helm and fails the test if it fails.
func (c *cluster) must(helm string, args ...string) string {
	c.Helper()
	out, err := c.helm(helm, args...)
	if err != nil {
		c.Fatalf("%s %s: %v\n%s", helm, strings.Join(args, " "), err, out)
	}
	return out
}

// node takes the place of the controllers and the kubelet of a namespace: it runs the
// containers of Jobs and Pods and sets their status.
type node struct {
	*cluster
	namespace string
	hosts     []string // for podman's --add-host
	log       syncBuffer
	done      map[string]bool
	cancel    context.CancelFunc
	ended     chan struct{}
}

func (c *cluster) startNode(namespace string, hosts ...string) *node {
	ctx, cancel := context.WithCancel(context.Background())
	n := &node{
		cluster: c, namespace: namespace, hosts: hosts, done: make(map[string]bool), cancel: cancel,
		ended: make(chan struct{}),
	}
	go func() {
		defer close(n.ended)
		for ctx.Err() == nil {
			n.look()
			<-time.After(100 * time.Millisecond)
		}
	}()
	return n
}

func (n *node) stop() {
	n.cancel()
	<-n.ended
	n.Logf("containers:\n%s", n.log.String())
}

// secrets returns the Secrets of the namespace.
func (n *node) secrets() []object {
	return n.items("/api/v1/namespaces/"+n.namespace+"/secrets", "Secret")
}

func (n *node) look() {
	n.release()
	jobs := "/apis/batch/v1/namespaces/" + n.namespace + "/jobs"
	for _, job := range n.items(jobs, "Job") {
		meta := job["metadata"].(object)
		if uid := meta["uid"].(string); !n.done[uid] {
			n.done[uid] = true
			template := job["spec"].(object)["template"].(object)
			n.accepts(template)
			failure := n.run(template["spec"].(object))
			n.status(jobs+"/"+objectName(job), jobStatus(failure))
		}
	}
	pods := "/api/v1/namespaces/" + n.namespace + "/pods"
	for _, pod := range n.items(pods, "Pod") {
		meta := pod["metadata"].(object)
		if uid := meta["uid"].(string); !n.done[uid] {
			n.done[uid] = true
			failure, phase := n.run(pod["spec"].(object)), "Succeeded"
			if failure != nil {
				phase = "Failed"
			}
			n.status(pods+"/"+objectName(pod), object{"phase": phase})
		}
	}
}

// release removes the finalizers of deleted claims, as the controller that protects
// claims in use does.
func (n *node) release() {
	claims := "/api/v1/namespaces/" + n.namespace + "/persistentvolumeclaims"
	for _, claim := range n.items(claims, "PersistentVolumeClaim") {
		if claim["metadata"].(object)["deletionTimestamp"] == nil {
			continue
		}
		path := claims + "/" + objectName(claim)
		if code, answer := n.do(http.MethodPatch, path, "application/merge-patch+json",
			`{"metadata": {"finalizers": null}}`); code != http.StatusOK && code != http.StatusNotFound {
			n.Errorf("release %s: %d %s", path, code, answer)
		}
	}
}

// run runs the containers of a pod, one after another.
func (n *node) run(spec object) error {
	p := newPod(n.T, spec, n.secrets())
	var hosts []string
	for _, h := range n.hosts {
		hosts = append(hosts, "--add-host", h)
	}
	for _, container := range append(p.containers("initContainers"), p.containers("containers")...) {
		out, err := podmanCommand(p.args(container, hosts...)...).CombinedOutput()
		fmt.Fprintf(&n.log, "%v: %s(%v)\n", container["args"], out, err)
		if err != nil {
			return err
		}
	}
	return nil
}

// accepts checks with a dry run that the server accepts the pods of a template.
func (n *node) accepts(template object) {
	text, err := json.Marshal(object{
		"apiVersion": "v1", "kind": "Pod", "metadata": object{"name": "probe"},
		"spec": template["spec"],
	})
	if err != nil {
		n.Error(err)
		return
	}
	if status, answer := n.do(http.MethodPost, "/api/v1/namespaces/"+n.namespace+"/pods?dryRun=All", "application/json",
		string(text)); status != http.StatusCreated {
		n.Errorf("a pod was rejected: %s", answer)
	}
}

func (n *node) status(path string, status object) {
	text, err := json.Marshal(object{"status": status})
	if err != nil {
		n.Error(err)
		return
	}
	if code, answer := n.do(http.MethodPatch, path+"/status", "application/merge-patch+json",
		string(text)); code != http.StatusOK && code != http.StatusNotFound {
		n.Errorf("status of %s: %d %s", path, code, answer)
	}
}

func jobStatus(failure error) object {
	now := time.Now().UTC().Format(time.RFC3339)
	conditions := func(kinds ...string) (all []object) {
		for _, kind := range kinds {
			all = append(all, object{
				"type": kind, "status": "True", "reason": "BackoffLimitExceeded",
				"lastTransitionTime": now,
			})
		}
		return all
	}
	if failure != nil {
		return object{"startTime": now, "failed": 1, "conditions": conditions("FailureTarget", "Failed")}
	}
	return object{
		"startTime": now, "completionTime": now, "succeeded": 1,
		"conditions": conditions("SuccessCriteriaMet", "Complete"),
	}
}

// token returns the token of the release's admin.
func (n *node) token(secret string) string {
	data := n.get("/api/v1/namespaces/" + n.namespace + "/secrets/" + secret)["data"].(object)
	text, err := base64.StdEncoding.DecodeString(data["admin-token"].(string))
	if err != nil {
		n.Fatal(err)
	}
	return string(text)
}

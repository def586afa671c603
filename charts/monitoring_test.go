package charts_test

// promtool checks the alert rules and the dashboard. Their queries run on a Prometheus
// that scrapes a running server.

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/tidings-dev/tidings/internal/app"
	"github.com/tidings-dev/tidings/internal/child"
	"github.com/tidings-dev/tidings/internal/config"
	"github.com/tidings-dev/tidings/internal/testtool"
)

const (
	patience = 30 * time.Second
	alerts   = "tidings/files/alerts.yaml"
)

func promtool(t *testing.T, stdin io.Reader, args ...string) string {
	t.Helper()
	cmd := exec.Command(testtool.Path(t, "promtool"), args...)
	cmd.Stdin = stdin
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestAlertRules(t *testing.T) {
	promtool(t, nil, "check", "rules", alerts)
	promtool(t, nil, "test", "rules", "testdata/alerts_test.yaml")
}

// Each alert keeps the labels job and namespace, has a unit test, and links to its
// section in the documentation.
func TestRunbooks(t *testing.T) {
	text, err := os.ReadFile(alerts)
	if err != nil {
		t.Fatal(err)
	}
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr string
				Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal(text, &rules); err != nil {
		t.Fatal(err)
	}
	tests, err := os.ReadFile("testdata/alerts_test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	docs, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules.Groups[0].Rules {
		if aggregates := strings.Contains(r.Expr, " by ("); aggregates &&
			!strings.Contains(r.Expr, " by (job, namespace") {
			t.Errorf("%s loses the job or the namespace", r.Alert)
		}
		if !strings.Contains(string(tests), "alertname: "+r.Alert+"\n        exp_alerts") {
			t.Errorf("%s has no unit test", r.Alert)
		}
		_, anchor, _ := strings.Cut(r.Annotations["runbook_url"], "docs/operations.md#")
		if anchor != strings.ToLower(r.Alert) || !strings.Contains(string(docs), "\n### "+r.Alert+"\n") {
			t.Errorf("%s: the runbook is %q; docs/operations.md must have that section", r.Alert,
				r.Annotations["runbook_url"])
		}
	}
}

// queries returns the expressions of the alert rules and the dashboard.
func queries(t *testing.T) []string {
	t.Helper()
	var rules struct {
		Groups []struct {
			Rules []struct{ Expr string }
		}
	}
	text, err := os.ReadFile(alerts)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &rules); err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Targets []struct{ Expr string }
		}
	}
	if text, err = os.ReadFile("tidings/files/dashboard.json"); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			all = append(all, r.Expr)
		}
	}
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			all = append(all, target.Expr)
		}
	}
	if len(all) < 20 {
		t.Fatalf("%d queries, want at least 20", len(all))
	}
	return all
}

// startServer runs a server with one healthy receiver and one that is down.
func startServer(t *testing.T) (address string) {
	t.Helper()
	healthy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter,
		_ *http.Request,
	) {
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(healthy.Close)
	file := filepath.Join(t.TempDir(), "tidings.yaml")
	text := fmt.Sprintf("listen: 127.0.0.1:0\ndata_dir: %s\nauth: {disabled: true}\nwebhook: {endpoints: [{name: "+
		"healthy, url: %q}, {name: down, url: 'http://127.0.0.1:1'}]}\n", t.TempDir(), healthy.URL)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(config.Input{Files: []string{file}})
	if err != nil {
		t.Fatal(err)
	}
	server, err := app.New(t.Context(), cfg, app.Options{Logger: slog.New(slog.DiscardHandler), Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return server.Addr()
}

func get(t *testing.T, url string) string {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var byLabels = regexp.MustCompile(`(?:by|on) \(([^)]*)\)`)

var metricName = regexp.MustCompile(`(?:tidings|process)_\w+`)

func TestQueriesAgainstARunningServer(t *testing.T) {
	address := startServer(t)
	response, err := http.Post("http://"+address+"/api/v1/contexts", "application/json", strings.NewReader("{}"))
	if err != nil || response.StatusCode != http.StatusCreated {
		t.Fatalf("create a context: %v, %v", response, err)
	}
	response.Body.Close()
	deadline := time.Now().Add(patience)
	metrics := ""
	for !strings.Contains(metrics, `tidings_webhook_delay_seconds_count{endpoint="healthy"}`) ||
		!strings.Contains(metrics, `state="down"`) {
		if time.Now().After(deadline) {
			t.Fatalf("nothing was delivered:\n%s", metrics)
		}
		<-time.After(20 * time.Millisecond)
		metrics = get(t, "http://"+address+"/metrics")
	}
	if out := promtool(t, strings.NewReader(metrics), "check", "metrics"); strings.Contains(out, "tidings_") {
		t.Errorf("promtool check metrics:\n%s", out)
	}
	unseen := []string{
		"tidings_webhook_merged_total", "tidings_webhook_missed_total", // absent until one occurs
		"tidings_table_attached", "tidings_table_last_gap_timestamp_seconds", // only in a relay
	}
	for _, q := range queries(t) {
		for _, name := range metricName.FindAllString(q, -1) {
			if !strings.Contains(metrics, "\n"+name) && !strings.Contains(strings.Join(unseen, " "), name) {
				t.Errorf("%s uses %s, which the server does not export", q, name)
			}
		}
	}
	for _, q := range queries(t) {
		for _, by := range byLabels.FindAllStringSubmatch(q, -1) {
			for label := range strings.SplitSeq(by[1], ", ") {
				ofPrometheus := slices.Contains([]string{"job", "namespace", "instance", "pod"}, label)
				if !ofPrometheus && label != "table" && !strings.Contains(metrics, label+`="`) {
					t.Errorf("%s uses the label %s, which no metric has", q, label)
				}
			}
		}
	}
	prometheus := startPrometheus(t, address)
	for !strings.Contains(get(t, prometheus+"/api/v1/query?query=max(tidings_endpoint_state)"), `"1"`) {
		if time.Now().After(deadline) {
			t.Fatal("prometheus did not scrape the server")
		}
		<-time.After(50 * time.Millisecond)
	}
	for _, q := range queries(t) {
		promtool(t, nil, "query", "instant", prometheus, q)
	}
}

func startPrometheus(t *testing.T, target string) (url string) {
	t.Helper()
	folder := t.TempDir()
	rules, err := filepath.Abs(alerts)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(folder, "prometheus.yaml")
	text := fmt.Sprintf("global: {scrape_interval: 200ms, evaluation_interval: 1s}\nrule_files: "+
		"[%s]\nscrape_configs: [{job_name: tidings, static_configs: [{targets: ['%s']}]}]\n", rules, target)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	address := testtool.FreeAddress(t)
	var log bytes.Buffer
	cmd := exec.Command(testtool.Path(t, "prometheus"), "--config.file", file, "--storage.tsdb.path",
		filepath.Join(folder, "data"), "--web.listen-address", address)
	cmd.Stderr = &log
	child.EndWithUs(cmd, syscall.SIGKILL)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("prometheus:\n%s", log.String())
		}
	})
	deadline := time.Now().Add(patience)
	for {
		response, err := http.Get("http://" + address + "/-/ready")
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return "http://" + address
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("prometheus is not ready: %v\n%s", err, log.String())
		}
		<-time.After(50 * time.Millisecond)
	}
}

package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/internal/config"
)

func TestEndpointFiles(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var before *config.Config
	load := func(names, problem, stale string) {
		t.Helper()
		cfg, err := config.Load(config.Input{Files: []string{filepath.Join(folder, "main")}, Before: before})
		got := ""
		if err != nil {
			got = strings.ReplaceAll(err.Error(), folder+"/", "")
		}
		if diff := cmp.Diff(problem, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if err != nil {
			return
		}
		var have []string
		for _, e := range cfg.Webhook.Endpoints {
			have = append(have, e.Name)
		}
		if got := strings.Join(have, " "); got != names {
			t.Errorf("endpoints %s, want %s", got, names)
		}
		if got := strings.ReplaceAll(cfg.Stale().Error(), folder+"/", ""); got != stale {
			t.Errorf("stale: %s\nwant %s", got, stale)
		}
		if before != nil && before.Digest() == "" {
			t.Error("no digest")
		}
		before = &cfg
	}
	write("main", "webhook:\n  endpoint_files: ['"+folder+"/*.yaml']\n  endpoints: [{url: https://main}]\n")
	load("main", "", "")
	first := before.Digest()
	write("b.yaml", "- {url: https://b}\n")
	write("a.yaml", "endpoints:\n  - {url: https://a}\n  - {url: https://a/2}\n")
	if before.Digest() == first {
		t.Error("new files don't change the digest")
	}
	load("main a a/2 b", "", "")

	// A broken file, or one with a duplicate name, keeps its last good version.
	write("a.yaml", "- {url: https://a}\n- {url: https://a/3, timeout: soon}\n")
	write("b.yaml", "- {url: https://b}\n- {url: https://main}\n")
	load("main a a/2 b", "",
		`a.yaml:2:31: webhook.endpoints[2].timeout: expected a duration such as "30s", "5m" or "7d"`+"\n"+
			"b.yaml:2:9: webhook.endpoints[4].url: webhook.endpoints[0] has the same URL; give one of them a name")
	write("c.yaml", "") // has no good version
	write("a.yaml", "[]")
	write("b.yaml", "- {url: https://b/2}\n")
	load("main b/2", "", "c.yaml:1:1: webhook.endpoints: is empty; write [] for no endpoints")

	// A problem elsewhere is an error, and so is a broken file at startup.
	write("main", "webhook:\n  endpoint_files: ['"+folder+"/*.yaml']\n  retention: 0s\n")
	load("", "c.yaml:1:1: webhook.endpoints: is empty; write [] for no endpoints\nmain:3:14: webhook.retention: must "+
		"be more than 0", "")
	write("main", "webhook:\n  endpoint_files: ['"+folder+"/[.yaml', '"+folder+"/*.yaml']\n")
	before = nil
	load("", "c.yaml:1:1: webhook.endpoints: is empty; write [] for no endpoints\n"+
		"main:2:20: webhook.endpoint_files: expected a glob pattern, such as /etc/tidings/endpoints.d/*.yaml", "")
}

// URLs that differ only in their query are different endpoints, whose names do not contain
// the query.
func TestQueriesDistinguishEndpoints(t *testing.T) {
	file := filepath.Join(t.TempDir(), "t.yaml")
	text := `webhook: {endpoints: [{url: "https://a.example/hook?key=hunter2"},
  {url: "https://a.example/hook?key=hunter3"},
  {url: "https://a.example/hook"}, {url: "https://a.example/?key=hunter2"}]}`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(config.Input{Files: []string{file}})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range cfg.Webhook.Endpoints {
		names = append(names, e.Name)
	}
	want := []string{"a.example/hook?8525ed", "a.example/hook?c75b72", "a.example/hook", "a.example?8525ed"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := os.WriteFile(file, []byte(text[:len(text)-2]+`, {url: "https://a.example/hook?key=hunter2"}]}`),
		0o600); err != nil {
		t.Fatal(err)
	}
	_, err = config.Load(config.Input{Files: []string{file}})
	if err == nil || !strings.Contains(err.Error(), "webhook.endpoints[4].url: webhook.endpoints[0] has the same URL") {
		t.Errorf("the same URL twice: %v", err)
	}
}

package config_test

import (
	"cmp"
	"os"
	"path/filepath"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/internal/config"
)

const (
	stays   = "its last good version stays in effect"
	skipped = "the file is skipped, since it has no good version yet"
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
		if diff := gocmp.Diff(problem, got); diff != "" {
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
		`a.yaml:2:31: webhook.endpoints[2].timeout: expected a duration such as "30s", "5m" or "7d"; `+stays+"\n"+
			"b.yaml:2:9: webhook.endpoints[4].url: webhook.endpoints[0] has the same URL; give one of them a name; "+stays)
	write("c.yaml", "") // has no good version
	write("a.yaml", "[]")
	write("b.yaml", "- {url: https://b/2}\n")
	load("main b/2", "", "c.yaml:1:1: webhook.endpoints: is empty; write [] for no endpoints; "+skipped)

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
	if diff := gocmp.Diff(want, names); diff != "" {
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

// Whatever is wrong with one file holds back that file only: it is the one that is broken,
// or that claims what another file had before.
func TestOneBrokenFileHoldsBackNoOther(t *testing.T) {
	t.Parallel()
	const good = "- {url: https://a, name: a}\n- {url: https://old, name: old}\n"
	for name, tt := range map[string]struct {
		text, file string // of the broken file; other than b.yaml if set
		main, a    string // other changes
		want       string // the endpoints
		stale      string // files held back
	}{
		"syntax":        {text: "- {url: ["},
		"unknown key":   {text: "- {url: https://b, name: b, nonsense: 1}\n"},
		"wrong type":    {text: "- {url: https://b, name: b, timeout: soon}\n"},
		"wrong value":   {text: "- {url: https://b, name: b, partitions: 99}\n"},
		"no list":       {text: "webhook: {}\n"},
		"too large":     {text: "# " + strings.Repeat("x", 4<<20) + "\n[]\n"},
		"unknown event": {text: "- {url: https://b, name: b, events: [nothing.happened]}\n"},
		"new event":     {text: "- {url: https://b, name: b, events: [refund.*]}\n", main: "types: {refund: [made]}\n"},
		"a new file takes a name": {
			file: "0.yaml", text: "- {url: https://other, name: b}\n", want: "main a new b", stale: "0.yaml",
		},
		"takes a name": {text: "- {url: https://b, name: b}\n- {url: https://b/2, name: a}\n"},
		"takes a name that another file gives up, but is broken": {
			a: good + "- {url: https://new, name: new, nonsense: 1}\n", text: "- {url: https://b, name: old}\n",
			want: "main a old b", stale: "a.yaml b.yaml",
		},
		"takes the name of the main file": {text: "- {url: https://b, name: main}\n"},
		"takes a cursor twice": {
			file: "0.yaml", text: "- {url: https://other, name: c, cursor_from: left}\n", want: "main a new b", stale: "0.yaml",
		},
		"takes a cursor that is in use": {text: "- {url: https://b, name: b, cursor_from: a}\n"},
		"returns a name whose cursor is taken": {
			file: "0.yaml", text: "- {url: https://other, name: left}\n", want: "main a new b", stale: "0.yaml",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			write := func(name, text string) {
				if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			load := func(before *config.Config) *config.Config {
				t.Helper()
				cfg, err := config.Load(config.Input{Files: []string{filepath.Join(folder, "main")}, Before: before})
				if err != nil {
					t.Fatal(err)
				}
				return &cfg
			}
			main := "webhook:\n  endpoint_files: ['" + folder + "/*.yaml']\n  endpoints: [{url: https://main, name: main}]\n"
			write("main", main)
			write("a.yaml", good)
			write("b.yaml", "- {url: https://b, name: b, cursor_from: left}\n")
			before := load(nil)
			write("main", main+tt.main)
			write("a.yaml", cmp.Or(tt.a, "- {url: https://a, name: a}\n- {url: https://new, name: new}\n"))
			write(cmp.Or(tt.file, "b.yaml"), tt.text)
			cfg := load(before)
			var names, files []string
			for _, e := range cfg.Webhook.Endpoints {
				names = append(names, e.Name)
			}
			for _, p := range cfg.Stale() {
				files = append(files, filepath.Base(p.Source))
			}
			if got, want := strings.Join(names, " "), cmp.Or(tt.want, "main a new b"); got != want {
				t.Errorf("endpoints %s, want %s; %v", got, want, cfg.Stale())
			}
			if got, want := strings.Join(files, " "), cmp.Or(tt.stale, "b.yaml"); got != want {
				t.Errorf("held back %s, want %s: %v", got, want, cfg.Stale())
			}
		})
	}
}

// The digest of a configuration is that of the contents that were loaded, even if the files
// have changed since.
func TestLoadedDigest(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("main", "webhook: {endpoint_files: ['"+folder+"/*.yaml']}\n")
	write("a.yaml", "- {url: https://a, secret: {file: "+folder+"/secret}}\n")
	write("secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	cfg, err := config.Load(config.Input{Files: []string{filepath.Join(folder, "main")}})
	if err != nil {
		t.Fatal(err)
	}
	if cfg.LoadedDigest() != cfg.Digest() {
		t.Error("nothing has changed, but the digests differ")
	}
	for _, file := range []string{"secret", "a.yaml", "b.yaml"} {
		before := cfg.Digest()
		write(file, "[]")
		if cfg.Digest() == before || cfg.Digest() == cfg.LoadedDigest() {
			t.Errorf("a change of %s does not change the digest", file)
		}
	}
}

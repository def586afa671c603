// Package charts_test renders the chart with the oldest supported Helm and with a
// current one.
package charts_test

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/tidings-dev/tidings/internal/config"
	"github.com/tidings-dev/tidings/internal/testtool"
)

var update = flag.Bool("update", false, "write the golden files, the schema and the README")

// openChart opens every file of the chart, so that cached test results depend on them:
// Helm reads them in another process.
var openChart = sync.OnceValue(func() error {
	return fs.WalkDir(os.DirFS("tidings"), ".", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			_, err = os.ReadFile(filepath.Join("tidings", path))
		}
		return err
	})
})

// helms are the programs that render the chart.
var helms = []string{"helm3", "helm"}

// run runs a program and returns its standard output and standard error.
func run(t *testing.T, name string, args ...string) (out, problem string, err error) {
	t.Helper()
	if err := openChart(); err != nil {
		t.Fatal(err)
	}
	home := t.TempDir() // without the user's settings
	cmd := exec.CommandContext(t.Context(), testtool.Path(t, name), args...)
	cmd.Env = []string{"HOME=" + home, "KUBECONFIG=" + filepath.Join(home, "none")}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	return stdout.String(), stderr.String(), err
}

// valuesFiles returns the files in ci by name.
func valuesFiles(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob("tidings/ci/*-values.yaml")
	if err != nil || len(paths) < 5 {
		t.Fatalf("values files: %q, %v", paths, err)
	}
	files := make(map[string]string)
	for _, path := range paths {
		files[strings.TrimSuffix(filepath.Base(path), "-values.yaml")] = path
	}
	files["beside"] = "../examples/beside/values.yaml"
	return files
}

// render returns the objects of a release, including hooks.
func render(t *testing.T, helm string, args ...string) []object {
	t.Helper()
	out, problem, err := run(t, helm,
		append([]string{"template", "release", "tidings", "--namespace", "tidings"}, args...)...)
	if err != nil {
		t.Fatalf("%s template %q: %v\n%s", helm, args, err, problem)
	}
	objects := documents(t, out)
	slices.SortFunc(objects, func(a, b object) int {
		return cmp.Or(cmp.Compare(kind(a), kind(b)), cmp.Compare(objectName(a), objectName(b)))
	})
	return objects
}

// documents returns the objects in YAML documents.
func documents(t *testing.T, text string) (objects []object) {
	t.Helper()
	decoder := yaml.NewDecoder(strings.NewReader(text))
	for {
		var o object
		err := decoder.Decode(&o)
		if errors.Is(err, io.EOF) {
			return objects
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if len(o) > 0 {
			objects = append(objects, o)
		}
	}
}

func kind(o object) string       { return o["kind"].(string) }
func objectName(o object) string { return o["metadata"].(object)["name"].(string) }

func find(t *testing.T, objects []object, kindWanted, suffix string) object {
	t.Helper()
	for _, o := range objects {
		if kind(o) == kindWanted && strings.HasSuffix(objectName(o), suffix) {
			return o
		}
	}
	t.Fatalf("no %s %s", kindWanted, suffix)
	return nil
}

// secretData decodes the data of a Secret.
func secretData(t *testing.T, secret object) map[string]string {
	t.Helper()
	data := make(map[string]string)
	for key, value := range secret["data"].(object) {
		text, err := base64.StdEncoding.DecodeString(value.(string))
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		data[key] = string(text)
	}
	return data
}

func TestLint(t *testing.T) {
	for name, file := range valuesFiles(t) {
		for _, helm := range helms {
			t.Run(name+"/"+helm, func(t *testing.T) {
				t.Parallel()
				if out, problem, err := run(t, helm, "lint", "--strict", "tidings", "--values", file); err != nil {
					t.Errorf("%v\n%s%s", err, out, problem)
				}
			})
		}
	}
}

// Every field of the objects that the chart and the example beside it create exists in
// Kubernetes' API. On a real API server, chart-e2e checks other kinds, too.
func TestManifestsAreStrict(t *testing.T) {
	example, err := os.ReadFile("../examples/beside/receiver.yaml")
	if err != nil {
		t.Fatal(err)
	}
	manifests := map[string]string{"receiver": string(example)}
	for name, file := range valuesFiles(t) {
		out, problem, err := run(t, "helm", "template", "release", "tidings", "--values", file)
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, problem)
		}
		manifests[name] = out
	}
	for name, text := range manifests {
		others, problem, err := decodeStrictly(t, text)
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, problem)
		}
		for kind := range strings.FieldsSeq(others) {
			if !slices.Contains([]string{"HTTPRoute", "PrometheusRule", "ServiceMonitor"}, kind) {
				t.Errorf("%s: %s is no kind of Kubernetes", name, kind)
			}
		}
	}
	for _, spoil := range [][2]string{{"targetPort:", "targetport:"}, {"replicas: 1", "replicas: 1\n  replicas: 1"}} {
		if _, _, err := decodeStrictly(t, strings.Replace(string(example), spoil[0], spoil[1], 1)); err == nil {
			t.Errorf("%q is accepted, so this test shows nothing", spoil[1])
		}
	}
}

func decodeStrictly(t *testing.T, text string) (others, problem string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), testtool.Path(t, "manifests"))
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(text), &stdout, &stderr
	err = cmd.Run()
	return stdout.String(), stderr.String(), err
}

// Both Helms render the same objects from each values file. Secrets are decoded.
func TestRenderedObjects(t *testing.T) {
	for name, file := range valuesFiles(t) {
		for _, helm := range helms {
			t.Run(name+"/"+helm, func(t *testing.T) {
				var out bytes.Buffer
				encoder := yaml.NewEncoder(&out)
				encoder.SetIndent(2)
				for _, o := range render(t, helm, "--values", file) {
					if kind(o) == "Secret" {
						data := secretData(t, o)
						if _, generated := data["admin-token"]; generated {
							data["admin-token"] = "generated"
						}
						o["data"] = data
					}
					if err := encoder.Encode(o); err != nil {
						t.Fatal(err)
					}
				}
				golden(t, name+".yaml", out.Bytes())
			})
		}
	}
}

func TestNotes(t *testing.T) { // Helm 3 renders them only with a cluster
	for name, file := range valuesFiles(t) {
		t.Run(name, func(t *testing.T) {
			out, problem, err := run(t, "helm", "install", "release", "tidings", "--namespace", "tidings",
				"--dry-run=client", "--values", file)
			if err != nil {
				t.Fatalf("%v\n%s", err, problem)
			}
			_, notes, _ := strings.Cut(out, "NOTES:\n")
			golden(t, name+"-notes.txt", []byte(strings.TrimSpace(notes)+"\n"))
		})
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s; run 'go test ./charts -update':\n%s", path, diff)
	}
}

// The configuration that pods and jobs read is valid.
func TestRenderedConfigurationIsValid(t *testing.T) {
	t.Setenv("TIDINGS_ENCRYPTION", elsewhere["tidings-encryption"]["key"])
	for name, file := range valuesFiles(t) {
		objects := render(t, "helm", "--values", file)
		for _, o := range objects {
			if kind(o) != "Deployment" && kind(o) != "Job" {
				continue
			}
			t.Run(name+"/"+objectName(o), func(t *testing.T) {
				spec := o["spec"].(object)["template"].(object)["spec"].(object)
				args := spec["containers"].([]any)[0].(object)["args"].([]any)
				files := readable(t, volumeFiles(t, objects, spec), spec, args)
				if len(files) == 0 {
					t.Fatalf("no configuration files in %q", args)
				}
				relay := slices.ContainsFunc(args,
					func(a any) bool { return a == "relay" || a == "--relay" || a == "attach" })
				cfg, err := config.Load(config.Input{Files: files, Relay: relay})
				if err != nil {
					t.Fatal(err)
				}
				if got, want := len(cfg.Webhook.Endpoints) > 0, name != "default"; got != want {
					t.Errorf("endpoints: %v, want %v", got, want)
				}
				for _, team := range []string{"billing", "reporting"} { // in files of their own
					has := func(e config.Endpoint) bool { return e.Name == team }
					if got, want := slices.ContainsFunc(cfg.Webhook.Endpoints, has), name == "endpoints"; got != want {
						t.Errorf("endpoint %s: %v, want %v", team, got, want)
					}
				}
			})
		}
	}
}

// Secrets appear only in Secret objects.
func TestSecretsAreInSecretsOnly(t *testing.T) {
	for _, name := range []string{"endpoints", "external-database"} {
		seen := false
		for _, o := range render(t, "helm", "--values", valuesFiles(t)[name]) {
			if kind(o) == "Secret" {
				o["data"] = secretData(t, o)
			}
			text := fmt.Sprint(o)
			for _, secret := range []string{"my-secret-token", "whsec_", "hunter2"} {
				if !strings.Contains(text, secret) {
					continue
				}
				if seen = kind(o) == "Secret"; !seen {
					t.Errorf("%s: the %s %s contains a secret", name, kind(o), objectName(o))
				}
			}
		}
		if !seen {
			t.Errorf("%s: no secrets were rendered", name)
		}
	}
}

// A change of a setting that is reloaded does not replace the pods; other changes do.
func TestWhatReplacesPods(t *testing.T) {
	pods := func(args ...string) any {
		return find(t, render(t, "helm", append([]string{"--values", valuesFiles(t)["endpoints"]}, args...)...),
			"Deployment", "")["spec"].(object)["template"]
	}
	before := pods()
	for _, setting := range []string{
		"webhook.endpoints[1].url=https://example.com/other", "webhook.retention=3d", "config.log.level=debug",
		"config.auth.admin_emails[1]=you@example.com",
	} {
		if diff := gocmp.Diff(before, pods("--set", setting)); diff != "" {
			t.Errorf("%s replaces the pods:\n%s", setting, diff)
		}
	}
	for _, setting := range []string{
		"config.log.format=text", "config.listen=:9000", "config.files.max_size=1GiB",
		"database.url=postgres://a/b",
	} {
		if gocmp.Equal(before, pods("--set", setting)) {
			t.Errorf("%s does not replace the pods", setting)
		}
	}
}

func TestWrongValuesAreRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		set  string   // for --set
		want []string // with Helm 3.14 and Helm 4, or one for both
	}{
		"unknown value": {
			"replica=2",
			[]string{`Additional property replica is not allowed`, `additional properties 'replica' not allowed`},
		},
		"unknown setting": {"config.lisen=x", []string{
			`config: Additional property lisen is not allowed`,
			`at '/config': additional properties 'lisen' not allowed`,
		}},
		"unknown key of an endpoint": {"webhook.endpoints[0].ulr=https://example.com", []string{
			`webhook.endpoints.0: Additional property ulr is not allowed`,
			`at '/webhook/endpoints/0': additional properties 'ulr' not allowed`,
		}},
		"endpoints from nowhere": {"webhook.endpointFilesFrom[0].name=crm", []string{
			`webhook.endpointFilesFrom.0`, `at '/webhook/endpointFilesFrom/0': 'oneOf' failed`,
		}},
		"endpoint without a URL": {"webhook.endpoints[0].name=crm", []string{
			`webhook.endpoints.0: url is required`, `at '/webhook/endpoints/0': missing property 'url'`,
		}},
		"wrong type": {"webhook.endpoints[0].url=https://example.com,webhook.endpoints[0].events=all", []string{
			`webhook.endpoints.0.events: Invalid type. Expected: array, given: string`,
			`at '/webhook/endpoints/0/events': got string, want array`,
		}},
		"unknown key of the HTTP client": {"webhook.endpoints[0].url=https://example.com," +
			"webhook.endpoints[0].http.tls_config.ca=x,webhook.endpoints[0].http.proxy=x", []string{
			`webhook.endpoints.0.http: Additional property proxy is not allowed`,
			`at '/webhook/endpoints/0/http': additional properties 'proxy' not allowed`,
		}},
		"secretRef without a key": {"config.encryption_key.secretRef.name=x", []string{
			`config.encryption_key: Must validate at least one schema (anyOf)`,
			`at '/config/encryption_key/secretRef': missing property 'key'`,
		}},
		"replicas on SQLite": {"replicas=2", []string{
			"replicas, autoscaling: SQLite supports only one pod. For several, configure PostgreSQL in " +
				"database.url or database.existingSecret; for SQLite, set replicas: 1 and " +
				"autoscaling.enabled: false",
		}},
		"autoscaling on SQLite": {
			"autoscaling.enabled=true",
			[]string{"replicas, autoscaling: SQLite supports only one pod."},
		},
		"replicas on a volume for one": {"replicas=2,database.url=postgres://a/b," +
			"persistence.accessModes={ReadWriteOnce}", []string{
			`persistence.accessModes: several pods read the file contents, which ["ReadWriteOnce"] does not ` +
				`allow. Use a [ReadWriteMany] volume, or set config.files.s3 or replicas: 1`,
		}},
		"replicas without a volume": {"replicas=2,database.url=postgres://a/b,persistence.enabled=false", []string{
			"persistence.enabled: without a volume, pods would not share file contents. Set it to true, or set " +
				"config.files.s3 or replicas: 1",
		}},
		"empty section": {
			"webhook=null",
			[]string{"webhook: the section is empty. Remove the line or add settings below it"},
		},
		"two databases": {
			"database.url=postgres://a/b,database.existingSecret=x",
			[]string{"database: set either url or existingSecret, not both"},
		},
		"two places of endpoints": {"webhook.existingSecret=x,webhook.endpoints[0].url=https://example.com", []string{
			"webhook: set either endpoints or existingSecret, not both; the Secret would override the endpoints",
		}},
		"webhook in config": {
			"config.webhook.source=/x",
			[]string{"config.webhook: move webhook out of config to the top level"},
		},
		"database in config": {
			"config.database_url=x",
			[]string{"config.database_url: set database.url or database.existingSecret instead"},
		},
		"preset of a server": {"config.preset=agent_stack,database.url=postgres://a/b", []string{
			"relay.enabled: config.preset and config.sources require it to be true",
		}},
		"tables on SQLite": {"relay.enabled=true,config.sources.tables.orders.type=order", []string{
			"database: config.preset and config.sources.tables require the application's PostgreSQL database in " +
				"database.url or database.existingSecret",
		}},
		"ingress without a host": {"ingress.enabled=true", []string{"ingress.hosts: at least one host is required"}},
		"route without a gateway": {
			"httpRoute.enabled=true",
			[]string{"httpRoute.parentRefs: at least one gateway is required"},
		},
		"digest that is none": {
			"image.digest=latest",
			[]string{`image.digest: Does not match pattern`, `at '/image/digest': 'latest' does not match pattern`},
		},
		"service of an unknown kind": {
			"service.type=External",
			[]string{
				`service.type: service.type must be one of the following`,
				`at '/service/type': value must be one of`,
			},
		},
	} {
		for i, helm := range helms {
			t.Run(name+"/"+helm, func(t *testing.T) {
				t.Parallel()
				_, problem, err := run(t, helm, "template", "release", "tidings", "--set", tt.set)
				if err == nil {
					t.Fatal("accepted")
				}
				if want := tt.want[min(i, len(tt.want)-1)]; !strings.Contains(problem, want) {
					t.Errorf("got:\n%s\nwant: %s", problem, want)
				}
			})
		}
	}
}

// The check before an upgrade reports what the schema can't express.
func TestWrongConfigurationIsRefusedByTheCheck(t *testing.T) {
	objects := render(t, "helm", "--set",
		"webhook.endpoints[0].url=ftp://example.com,webhook.endpoints[0].events={provider.create}")
	spec := find(t, objects, "Job", "-check")["spec"].(object)["template"].(object)["spec"].(object)
	files := readable(t, volumeFiles(t, objects, spec), spec, spec["containers"].([]any)[0].(object)["args"].([]any))
	_, err := config.Load(config.Input{Files: files})
	for _, want := range []string{
		"webhook.endpoints[0].url: the URL must begin with",
		`did you mean "provider.created"`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// README.md is generated from the comments in values.yaml.
func TestReadmeIsUpToDate(t *testing.T) {
	out, problem, err := run(t, "helm-docs", "--chart-search-root", "tidings", "--dry-run", "--log-level", "warning",
		"--sort-values-order", "file")
	if err != nil {
		t.Fatalf("%v\n%s", err, problem)
	}
	const file = "tidings/README.md"
	if *update {
		if err := os.WriteFile(file, []byte(out), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(string(text), out); diff != "" {
		t.Errorf("%s; run 'go test ./charts -update':\n%s", file, diff)
	}
}

var undocumented = regexp.MustCompile(`(?m)^\| [^|]+ \| [^|]* \| [^|]* \|\s*\|$`)

func TestEveryValueIsDescribed(t *testing.T) {
	text, err := os.ReadFile("tidings/README.md")
	if err != nil {
		t.Fatal(err)
	}
	if lines := undocumented.FindAllString(string(text), -1); len(lines) > 0 {
		t.Errorf("values without a comment:\n%s", strings.Join(lines, "\n"))
	}
}

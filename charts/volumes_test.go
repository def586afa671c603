package charts_test

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// elsewhere are the existing Secrets and ConfigMaps that the values files refer to.
var elsewhere = map[string]map[string]string{
	"billing-endpoints": {"billing.yaml": `[{name: billing, url: "https://billing.example.com/hooks"}]`},
	"reporting-endpoints": {
		"a.yaml": `endpoints: [{name: reporting, url: "https://reporting.example.com"}]`,
		"README": "-",
	},
	"tidings-endpoints":  {"webhook.yaml": "webhook: {endpoints: [{url: 'https://example.com/webhook'}]}"},
	"tidings-database":   {"url": "postgres://tidings@postgres.example.com/tidings"},
	"tidings-admin":      {"token": "tdg_0123456789abcdef"},
	"tidings-encryption": {"key": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="},
	"crm": {
		"authorization": "Bearer x", "signing": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
		"password": "x",
	},
	"agentstack-secret": {"sqlConnection": "postgresql+asyncpg://agentstack@postgres.example.com/agentstack"},
	"shop-database":     {"url": "postgres://shop@postgres.example.com/shop"},
	"shop":              {"token": "0123456789abcdef0123456789abcdef"},
	"shop-webhooks": {
		"secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
		"shop":   "tdg_0123456789abcdef0123456789", "receiver": "tdg_fedcba9876543210fedcba9876",
	},
	"s3":  {"access": "x", "secret": "x"},
	"mcp": {"key": "x", "secret": "x"},
}

// secretsOf returns the Secrets among objects, and those in elsewhere.
func secretsOf(t *testing.T, objects []object) map[string]map[string]string {
	t.Helper()
	secrets := maps.Clone(elsewhere)
	for _, o := range objects {
		if kind(o) == "Secret" {
			secrets[objectName(o)] = secretData(t, o)
		}
	}
	return secrets
}

// volumeFiles returns the files in a pod's volumes, by volume and name, as a kubelet
// creates them from Secrets.
func volumeFiles(t *testing.T, objects []object, podSpec object) map[string]map[string]string {
	t.Helper()
	secrets := secretsOf(t, objects)
	volumes := make(map[string]map[string]string)
	for _, v := range podSpec["volumes"].([]any) {
		volume := v.(object)
		files := make(map[string]string)
		if secret, ok := volume["secret"].(object); ok {
			project(files, secret, secrets[secret["secretName"].(string)])
		}
		if configMap, ok := volume["configMap"].(object); ok {
			project(files, configMap, secrets[configMap["name"].(string)])
		}
		if projected, ok := volume["projected"].(object); ok {
			for _, s := range projected["sources"].([]any) {
				source := s.(object)["secret"].(object)
				project(files, source, secrets[source["name"].(string)])
			}
		}
		volumes[volume["name"].(string)] = files
	}
	return volumes
}

// project copies the items of a Secret that a source lists, or all, into files.
func project(files map[string]string, source object, data map[string]string) {
	items, ok := source["items"].([]any)
	if !ok {
		maps.Copy(files, data)
	}
	for _, i := range items {
		item := i.(object)
		files[item["path"].(string)] = data[item["key"].(string)]
	}
}

// readable writes the volumes into a folder and returns the paths of the container's
// configuration files there. Paths in those files point into the folder.
func readable(t *testing.T, volumes map[string]map[string]string, podSpec object, args []any) (files []string) {
	t.Helper()
	root := t.TempDir()
	container := podSpec["containers"].([]any)[0].(object)
	for _, m := range container["volumeMounts"].([]any) {
		at := m.(object)
		folder := filepath.Join(root, at["mountPath"].(string))
		if err := os.MkdirAll(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		for name, text := range volumes[at["name"].(string)] {
			text = strings.ReplaceAll(text, `"/etc/`, `"`+root+`/etc/`)
			if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, a := range args {
		if path, ok := strings.CutPrefix(a.(string), "--config="); ok || strings.HasPrefix(path, "/") {
			files = append(files, filepath.Join(root, path))
		}
	}
	return files
}

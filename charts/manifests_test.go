//go:build cluster

package charts_test

import (
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"
)

// A real API server accepts every manifest of the chart, and of the receiver beside a
// release, without an unknown or duplicate field, and their pods under the restricted pod
// security standard.
func TestManifestsOfReleases(t *testing.T) {
	c := startCluster(t)
	c.namespace("tidings")
	if c.accepts("Service", object{
		"apiVersion": "v1", "kind": "Service", "metadata": object{"name": "misspelt"},
		"spec": object{"ports": []any{object{"port": 80, "targetport": "http"}}},
	}) == "" {
		t.Error("an unknown field is accepted, so this shows nothing")
	}
	text, err := os.ReadFile("../examples/beside/receiver.yaml")
	if err != nil {
		t.Fatal(err)
	}
	manifests := map[string][]object{"receiver": documents(t, string(text))}
	for name, file := range valuesFiles(t) {
		for _, helm := range helms {
			manifests[name+" with "+helm] = render(t, helm, "--values", file)
		}
	}
	for name, objects := range manifests {
		if len(objects) == 0 {
			t.Errorf("%s has no objects", name)
		}
		for _, o := range objects {
			if problem := c.accepts(kind(o), o); problem != "" {
				t.Errorf("%s: %s %s: %s", name, kind(o), objectName(o), problem)
			}
			if spec, ok := o["spec"].(object); ok {
				if template, ok := spec["template"].(object); ok {
					pod := object{
						"apiVersion": "v1", "kind": "Pod", "metadata": object{"name": "probe"}, "spec": template["spec"],
					}
					if problem := c.accepts("Pod", pod); problem != "" {
						t.Errorf("%s: pod of %s %s: %s", name, kind(o), objectName(o), problem)
					}
				}
			}
		}
	}
}

// accepts returns why a strict dry run refuses an object; "" if it does not.
func (c *cluster) accepts(kind string, o object) string {
	c.Helper()
	version := o["apiVersion"].(string)
	group := "/apis/" + version
	if version == "v1" {
		group = "/api/v1"
	}
	for _, r := range list(c.get(group)["resources"]) {
		name := r.(object)["name"].(string)
		if r.(object)["kind"] != kind || strings.Contains(name, "/") {
			continue
		}
		text, err := json.Marshal(o)
		if err != nil {
			return err.Error()
		}
		status, answer := c.do(http.MethodPost,
			group+"/namespaces/tidings/"+name+"?dryRun=All&fieldValidation=Strict", "application/json", string(text))
		if status != http.StatusCreated {
			return answer
		}
		return ""
	}
	return version + " has no such kind"
}

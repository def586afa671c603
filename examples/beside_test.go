package examples_test

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

type object = map[string]any

// documents returns the YAML documents of a file.
func documents(t *testing.T, file string) (all []object) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for d := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var o object
		err := d.Decode(&o)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all = append(all, o)
	}
}

// endpointURL returns the URL of the only endpoint in a configuration.
func endpointURL(t *testing.T, config object) *url.URL {
	t.Helper()
	endpoints := config["webhook"].(object)["endpoints"].([]any)
	u, err := url.Parse(endpoints[0].(object)["url"].(string))
	if err != nil || len(endpoints) != 1 {
		t.Fatalf("%v: %v", endpoints, err)
	}
	return u
}

// With the relay's configuration, the application can publish, the webhook arrives, and
// the receiver can read the feed.
func TestBeside(t *testing.T) {
	for _, name := range []string{"ADMIN_TOKEN", "SHOP_TOKEN", "RECEIVER_TOKEN"} {
		t.Setenv(name, "tdg_of_"+name)
	}
	api, webhooks := relay(t, "beside")
	request := func(token, method, body string) int {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, api+"/api/v1/events", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer tdg_of_"+token)
		r.Header.Set("Content-Type", "application/json")
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		return response.StatusCode
	}
	const paid = `{"event": "order.paid", "resource_id": "4711"}`
	if status := request("RECEIVER_TOKEN", http.MethodPost, paid); status != http.StatusForbidden {
		t.Errorf("publish as the receiver: status %d", status)
	}
	if status := request("SHOP_TOKEN", http.MethodPost, paid); status != http.StatusAccepted {
		t.Errorf("publish as the application: status %d", status)
	}
	expect(t, webhooks, "order.paid /order/4711")
	if status := request("RECEIVER_TOKEN", http.MethodGet, ""); status != http.StatusOK {
		t.Errorf("read the feed as the receiver: status %d", status)
	}
}

// The services in the Compose file refer to each other, and the files they mount exist.
func TestBesideWithCompose(t *testing.T) {
	text, err := os.ReadFile("beside/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	// podman-compose 1.0 takes "${NAME:?}" for the value itself, so that everybody knew the tokens.
	if strings.Contains(string(text), ":?}") {
		t.Error("a required variable lacks its message")
	}
	services := documents(t, "beside/compose.yaml")[0]["services"].(object)
	u := endpointURL(t, documents(t, "beside/tidings.yaml")[0])
	receiver, found := services[u.Hostname()].(object)
	if !found {
		t.Fatalf("no service %s", u.Hostname())
	}
	env := receiver["environment"].(object)
	if got := env["LISTEN"]; got != "0.0.0.0:"+u.Port() {
		t.Errorf("the receiver listens on %s, but the endpoint is %s", got, u)
	}
	relay, err := url.Parse(env["TIDINGS_URL"].(string))
	if err != nil || services[relay.Hostname()] == nil || relay.Port() != "8333" {
		t.Errorf("the receiver reads the feed of %v: %v", relay, err)
	}
	for name, service := range services {
		for _, volume := range service.(object)["volumes"].([]any) {
			from, _, _ := strings.Cut(volume.(string), ":")
			if _, err := os.Stat(filepath.Join("beside", from)); strings.HasPrefix(from, ".") && err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// The receiver's objects match the values of the relay's chart.
func TestBesideWithHelm(t *testing.T) {
	values := documents(t, "beside/values.yaml")[0]
	u := endpointURL(t, values)
	keys := make(map[string]bool)
	tokens := values["config"].(object)["auth"].(object)["tokens"].([]any)
	for _, token := range tokens {
		keys[token.(object)["token"].(object)["secretRef"].(object)["key"].(string)] = true
	}
	keys["secret"] = true // the endpoint's
	readme, err := os.ReadFile("beside/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if !strings.Contains(string(readme), "--from-literal="+key+"=") {
			t.Errorf("the page creates no key %s", key)
		}
	}
	for _, o := range documents(t, "beside/receiver.yaml") {
		if name := o["metadata"].(object)["name"]; name != u.Hostname() {
			t.Errorf("%s %s does not match the endpoint %s", o["kind"], name, u)
		}
		if o["kind"] != "Deployment" {
			continue
		}
		pod := o["spec"].(object)["template"].(object)["spec"].(object)
		for _, variable := range pod["containers"].([]any)[0].(object)["env"].([]any) {
			from, ok := variable.(object)["valueFrom"].(object)
			if key := from["secretKeyRef"]; ok && !keys[key.(object)["key"].(string)] {
				t.Errorf("the receiver reads %v, which the relay does not have", key)
			}
		}
	}
}

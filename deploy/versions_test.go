// Package deploy_test follows the pages in docs with the files in this folder.
package deploy_test

import (
	"os"
	"testing"

	"go.yaml.in/yaml/v3"
)

// version returns the chart's version.
func version(t *testing.T) string {
	t.Helper()
	var chart struct{ Version string }
	read(t, "../charts/tidings/Chart.yaml", &chart)
	return chart.Version
}

func read(t *testing.T, file string, into any) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatal(err)
	}
}

// The chart, the server and the Compose files have the same version.
func TestVersionsAgree(t *testing.T) {
	var chart struct {
		AppVersion string `yaml:"appVersion"`
	}
	var compose struct {
		Services struct {
			Tidings struct{ Image string }
		}
	}
	read(t, "../charts/tidings/Chart.yaml", &chart)
	read(t, "compose.yaml", &compose)
	var beside struct {
		Services struct{ Relay struct{ Image string } }
	}
	read(t, "../examples/beside/compose.yaml", &beside)
	if got, want := beside.Services.Relay.Image, compose.Services.Tidings.Image; got != want {
		t.Errorf("image of the example %s, want %s", got, want)
	}
	if want := version(t); chart.AppVersion != want || compose.Services.Tidings.Image != "tidings-dev/tidings:"+want {
		t.Errorf("chart %s, server %s, image of Compose %s", want, chart.AppVersion, compose.Services.Tidings.Image)
	}
}

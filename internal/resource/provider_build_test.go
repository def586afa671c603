package resource

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseBuildSource(t *testing.T) {
	version, path := "v1.2", "agents/weather"
	tests := map[string]BuildSource{
		"https://github.com/org/repo":                              {Host: "github.com", Org: "org", Repo: "repo"},
		"git+https://github.com/org/repo.git":                      {Host: "github.com", Org: "org", Repo: "repo"},
		"https://git.example.com/org/repo@v1.2":                    {Host: "git.example.com", Org: "org", Repo: "repo", Version: &version},
		"https://github.com/org/repo.git@v1.2#path=agents/weather": {Host: "github.com", Org: "org", Repo: "repo", Version: &version, Path: &path},
		"":                                   {},
		"github.com/org/repo":                {},
		"http://github.com/org/repo":         {},
		"https://github.com/org":             {},
		"https://github.com/org/repo/more":   {},
		"https://github.com/org/repo@":       {},
		"https://github.com/org/repo#path=":  {},
		"https://github.com/org/repo#branch": {},
		"https://a:b@github.com/org/repo":    {},
	}
	for location, want := range tests {
		got, err := parseBuildSource(location)
		if diff := cmp.Diff(want, got); diff != "" || (err == nil) != (want.Host != "") {
			t.Errorf("%q: %v (-want +got):\n%s", location, err, diff)
		}
	}
}

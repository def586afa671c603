package resource

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseBuildSource(t *testing.T) {
	path, commit := "agents/weather", "0123456789abcdef0123456789abcdef01234567"
	source := func(host, version, commit string, path *string) BuildSource {
		return BuildSource{
			Host: host, Org: "org", Repo: "repo", Version: version, VersionType: "head",
			CommitHash: commit, Path: path,
		}
	}
	tests := map[string]BuildSource{
		"https://github.com/org/repo":                              source("github.com", "HEAD", "", nil),
		"git+https://github.com/org/repo.git":                      source("github.com", "HEAD", "", nil),
		"https://git.example.com/org/repo@v1.2":                    source("git.example.com", "v1.2", "", nil),
		"https://github.com/org/repo@feature/x":                    source("github.com", "feature/x", "", nil),
		"https://github.com/org/repo.git@v1.2#path=agents/weather": source("github.com", "v1.2", "", &path),
		"https://github.com/org/repo@" + commit:                    source("github.com", commit, commit, nil),
		"":                                                         {},
		"github.com/org/repo":                                      {},
		"http://github.com/org/repo":                               {},
		"https://github.com/org":                                   {},
		"https://github.com/org/repo/more":                         {},
		"https://github.com/org/repo@":                             {},
		"https://github.com/org/repo#path=":                        {},
		"https://github.com/org/repo#branch":                       {},
		"https://a:b@github.com/org/repo":                          {},
	}
	for location, want := range tests {
		got, err := parseBuildSource(location)
		if diff := cmp.Diff(want, got); diff != "" || (err == nil) != (want.Host != "") {
			t.Errorf("%q: %v (-want +got):\n%s", location, err, diff)
		}
	}
}

package tidings_test

import (
	"strings"
	"testing"

	"github.com/tidings-dev/tidings"
)

func TestPatternMatches(t *testing.T) {
	tests := []struct {
		pattern string
		event   string
		want    bool
	}{
		{"*", "provider.created", true},
		{"provider.*", "provider.deleted", true},
		{"provider.*", "provider_build.created", false},
		{"provider.created", "provider.created", true},
		{"provider.created", "provider.updated", false},
		{"*.deleted", "file.deleted", true},
		{"*.deleted", "file.updated", false},
		{"*.*", "file.updated", true},
	}
	for _, tt := range tests {
		p, err := tidings.ParsePattern(tt.pattern, tidings.ServerTypes())
		if err != nil {
			t.Fatal(err)
		}
		typ, action, _ := strings.Cut(tt.event, ".")
		if got := p.Match(tidings.ResourceType(typ), tidings.Action(action)); got != tt.want {
			t.Errorf("%s matches %s = %v, want %v", tt.pattern, tt.event, got, tt.want)
		}
	}
	if (tidings.Pattern{}).Match(tidings.Provider, tidings.Created) {
		t.Error("the zero pattern matches")
	}
}

func TestPatternThatMatchesNothingNamesTheNearest(t *testing.T) {
	for pattern, want := range map[string]string{
		"provider":          "provider.*",
		"providers.*":       "provider.*",
		"provider.create":   "provider.created",
		"*.delete":          "*.deleted",
		"":                  "*",
		"vectorstore.*":     "vector_store.*",
		"provider.created.": "provider.created",
	} {
		_, err := tidings.ParsePattern(pattern, tidings.ServerTypes())
		if err == nil || !strings.HasSuffix(err.Error(), `did you mean "`+want+`"?`) {
			t.Errorf("%q: error = %v, want one that names %s", pattern, err, want)
		}
	}
}

func FuzzPattern(f *testing.F) {
	f.Add("*")
	f.Add("provider.*")
	f.Add("*.deleted")
	f.Add("providr.created")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := tidings.ParsePattern(text, tidings.ServerTypes())
		matches := 0
		for _, typ := range tidings.ServerTypes() {
			for _, action := range tidings.Actions() {
				if p.Match(typ, action) {
					matches++
				}
			}
		}
		if (err == nil) != (matches > 0) {
			t.Errorf("%q: error %v, but it matches %d events", text, err, matches)
		}
	})
}

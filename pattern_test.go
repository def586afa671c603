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
		{"invoice.paid", "invoice.paid", true},
		{"*.paid", "invoice.paid", true},
	}
	for _, tt := range tests {
		p, err := tidings.ParsePattern(tt.pattern)
		if err != nil {
			t.Fatal(err)
		}
		typ, action, _ := strings.Cut(tt.event, ".")
		if got := p.Match(tidings.ResourceType(typ), tidings.Action(action)); got != tt.want {
			t.Errorf("%s matches %s = %v, want %v", tt.pattern, tt.event, got, tt.want)
		}
	}
	if (tidings.Pattern{}).Match("provider", tidings.Created) {
		t.Error("the zero pattern matches")
	}
}

func TestPatternOfTheWrongForm(t *testing.T) {
	for _, text := range []string{
		"", "provider", "provider.", ".created", "Provider.*", "provider.created.",
		"provider.Created", "1st.*", "a-b.*",
		"*.paid!", "a b.*", "**", "*x.*", strings.Repeat("a", 64) + ".*", "a." + strings.Repeat("b", 10_000),
	} {
		_, err := tidings.ParsePattern(text)
		if err == nil || !strings.Contains(err.Error(), "expected") {
			t.Errorf("%q: error = %v, want one that says what is expected", text, err)
		} else if len(err.Error()) > 400 {
			t.Errorf("the error has %d bytes", len(err.Error()))
		}
	}
}

func FuzzPattern(f *testing.F) {
	f.Add("*")
	f.Add("provider.*")
	f.Add("*.deleted")
	f.Add("providr.created")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := tidings.ParsePattern(text)
		if err != nil {
			return
		}
		if text == "*" {
			text = "*.*"
		}
		typ, action, _ := strings.Cut(text, ".")
		if typ == "*" {
			typ = "some_type"
		}
		if action == "*" {
			action = "some_action"
		}
		if !p.Match(tidings.ResourceType(typ), tidings.Action(action)) {
			t.Errorf("%q does not match %s.%s", text, typ, action)
		}
	})
}

package vocabulary_test

import (
	"strings"
	"testing"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/vocabulary"
)

var types = vocabulary.Types{
	"provider": nil, "provider_build": nil, "vector_store": nil, "invoice": {tidings.Created, "paid"},
}

func TestPatternThatCanMatch(t *testing.T) {
	for _, text := range []string{
		"*", "*.*", "provider.*", "provider.updated", "*.deleted", "invoice.*", "invoice.paid", "*.paid",
	} {
		if p, err := types.Parse(text); err != nil || p.String() != text {
			t.Errorf("%q: %v, %v", text, p, err)
		}
	}
}

func TestPatternThatMatchesNothingNamesTheNearest(t *testing.T) {
	for text, want := range map[string]string{
		"provider":          "provider.*",
		"providers.*":       "provider.*",
		"provider.create":   "provider.created",
		"*.delete":          "*.deleted",
		"":                  "*",
		"vectorstore.*":     "vector_store.*",
		"provider.created.": "provider.created",
		"Provider.*":        "provider.*",
		"provider.paid":     "provider.*",
		"invoice.deleted":   "invoice.created",
		"*.payed":           "*.paid",
	} {
		_, err := types.Parse(text)
		if err == nil || !strings.HasSuffix(err.Error(), `did you mean "`+want+`"?`) {
			t.Errorf("%q: error = %v, want one that names %s", text, err, want)
		}
	}
}

func TestResource(t *testing.T) {
	for text, want := range map[string]string{
		"provider/1": "", "invoice/2026/11": "", "provider": "TYPE/ID", "provider/": "TYPE/ID", "": "TYPE/ID",
		"provders/1": `"provider"`,
	} {
		err := types.CheckResource(text)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error = %v, want %q", text, err, want)
		}
	}
}

func TestTypesOfTheWrongForm(t *testing.T) {
	for _, bad := range []vocabulary.Types{{"Order": nil}, {"": nil}, {"order": {"Paid!"}}} {
		if err := bad.Check(); err == nil || !strings.Contains(err.Error(), "expected") {
			t.Errorf("%v: error = %v", bad, err)
		}
	}
	if err := types.Check(); err != nil {
		t.Error(err)
	}
	if !types.Has("invoice", "paid") || types.Has("invoice", "deleted") || types.Has("order", "created") {
		t.Error("Has is wrong")
	}
}

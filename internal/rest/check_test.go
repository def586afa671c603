package rest_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"pgregory.net/rapid"

	"github.com/tidings-dev/tidings/internal/rest"
)

// sample has a member of every kind that bodies have.
type sample struct {
	Name    string             `json:"name" minLength:"1" maxLength:"3"`
	Kind    *string            `json:"kind" required:"false" enum:"a,b"`
	ID      string             `json:"id" required:"false" format:"uuid"`
	Rating  int                `json:"rating" required:"false" enum:"1,-1"`
	Count   int                `json:"count" required:"false" minimum:"2" maximum:"4"`
	Whole   float64            `json:"whole" required:"false" multipleOf:"1"`
	Hash    string             `json:"hash" required:"false" pattern:"^[a-c]+$"`
	Yes     bool               `json:"yes" required:"false"`
	Vector  []float32          `json:"vector" nullable:"false" required:"false" maxItems:"3"`
	Tags    []string           `json:"tags" required:"false" nullable:"true" maxItems:"2" maxLength:"2"`
	Map     map[string]*string `json:"map" required:"false" nullable:"true" maxProperties:"2"`
	Texts   map[string]string  `json:"texts" required:"false" nullable:"true"`
	Any     json.RawMessage    `json:"any" required:"false"`
	Nested  *nested            `json:"nested" required:"false"`
	Several []nested           `json:"several" required:"false" maxItems:"2"`
}

type nested struct {
	Score float64 `json:"score" minimum:"0"`
	Big   int     `json:"big" required:"false"`
}

func sampleSchema() (huma.Registry, *huma.Schema) {
	registry := huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)
	return registry, registry.Schema(reflect.TypeFor[sample](), true, "sample")
}

// refused returns the error of huma's validation or decoding; both must accept
// whatever the check accepts.
func refused(registry huma.Registry, schema *huma.Schema, body []byte) string {
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		return err.Error()
	}
	result := new(huma.ValidateResult)
	huma.Validate(registry, schema, huma.NewPathBuffer([]byte("body"), 4), huma.ModeWriteToServer, v, result)
	if len(result.Errors) > 0 {
		return result.Errors[0].Error()
	}
	if err := json.Unmarshal(body, new(sample)); err != nil {
		return err.Error()
	}
	return ""
}

// The check accepts the same bodies as huma, which decodes before it validates.
func TestCheckAgreesWithHuma(t *testing.T) {
	registry, schema := sampleSchema()
	for body, taken := range map[string]bool{
		`{"name":"a","kind":null,"map":null,"texts":null}`: true,
		`{"name":"a","map":{"k":null}}`:                    true,
		`{"name":"a","texts":{"k":null}}`:                  false,
		`{"name":null}`:                                    false,
	} {
		_, problem := rest.CheckBody(registry, schema, []byte(body))
		want := refused(registry, schema, []byte(body))
		if (problem == nil) != taken || (want == "") != taken {
			t.Errorf("%s:\n  check: %v\n  huma:  %q", body, problem, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		body, err := json.Marshal(sampleBody(t))
		if err != nil {
			t.Fatal(err)
		}
		_, problem := rest.CheckBody(registry, schema, body)
		want := refused(registry, schema, body)
		if (problem != nil) != (want != "") {
			t.Fatalf("%s:\n  check: %v\n  huma:  %q", body, problem, want)
		}
	})
}

// sampleBody draws a body that is almost valid.
func sampleBody(t *rapid.T) any {
	scalar := rapid.SampledFrom([]any{
		nil, true, "", "a", "bc", "long", "é…", json.Number("1"), json.Number("-1"), json.Number("3"),
		json.Number("1.5"), json.Number("1.0"),
		json.Number("1e39"), json.Number("99999999999999999999"), "550e8400-e29b-41d4-a716-446655440000",
	})
	var value func(depth int) any
	value = func(depth int) any {
		kinds := 8
		if depth == 3 {
			kinds = 6
		}
		switch rapid.IntRange(0, kinds).Draw(t, "kind") {
		case 7:
			list := []any{}
			for range rapid.IntRange(0, 4).Draw(t, "items") {
				list = append(list, value(depth+1))
			}
			return list
		case 8:
			members := map[string]any{}
			for range rapid.IntRange(0, 3).Draw(t, "members") {
				members[rapid.SampledFrom([]string{"a", "b.c", "score", "big", "Score"}).Draw(t, "key")] = value(depth +
					1)
			}
			return members
		}
		return scalar.Draw(t, "scalar")
	}
	if rapid.IntRange(0, 20).Draw(t, "shape") == 0 {
		return value(0)
	}
	good := map[string]any{
		"name": "a", "kind": "b", "id": "550e8400-e29b-41d4-a716-446655440000", "rating": -1, "count": 3, "whole": 2,
		"hash": "abc", "yes": true, "vector": []any{1, 2.5},
		"tags": []any{"x"}, "map": map[string]any{"k": "v", "l": nil}, "texts": map[string]any{"k": "v"},
		"any": []any{map[string]any{}}, "nested": map[string]any{"score": 1},
		"several": []any{map[string]any{"score": 0, "big": 7}},
	}
	names := []string{"other", "Count"}
	for name := range good {
		names = append(names, name)
	}
	slices.Sort(names)
	for range rapid.IntRange(0, 2).Draw(t, "changes") {
		name := rapid.SampledFrom(names).Draw(t, "name")
		if rapid.IntRange(0, 3).Draw(t, "remove") == 0 {
			delete(good, name)
		} else {
			good[name] = value(1)
		}
		if _, ok := good["Count"]; ok { // huma looks at one of them only
			delete(good, "count")
		}
	}
	return good
}

// The check terminates on any input, and whatever it accepts can be decoded.
func FuzzCheckBody(f *testing.F) {
	registry, schema := sampleSchema()
	for _, seed := range []string{
		`{"name":"a"}`, `{"name":"\u0000"}`, `{"name":"C:\\u0000"}`, ` { "name" : "a" , "tags" : [ "b" ] } `,
		`{"name":"a"`, `{"name":"a\`, `{"name"`, `{,}`,
		`[`, ``, ` `, `"`, `{"name":"a"}x`, `{"name":"a",}`, `{"name":"a","any":[1 2]}`, "{\"name\":\"\xff\"}",
		`{"na\u006de":"a"}`, `nul`, `{"any":{"":{}}}`,
		`{"name":"a","id":"{550E8400-e29b-41d4-a716-446655440000}"}`,
		`{"id" : "550e8400e29b41d4a716446655440000" ,"name":"a"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if checked, problem := rest.CheckBody(registry, schema, body); problem == nil {
			if why := refused(registry, schema, checked); why != "" {
				t.Errorf("%q passes the check as %q, but: %s", body, checked, why)
			}
		}
	})
}

func TestCheckBody(t *testing.T) {
	registry, schema := sampleSchema()
	for _, test := range []struct {
		body   string
		status int
		want   []string // the problems
		detail string
	}{
		{`{"name":"ok"}`, 0, nil, ""},
		{`{"NAME":"ok","kind":null,"tags":null}`, 0, nil, ""},
		{
			`{"name":"ok","count":3,"Count":1}`, 422,
			[]string{"body.count: expected number >= 2"},
			"",
		}, // the last one wins
		{`{"name":"C:\\u0000"}`, 422, []string{"body.name: expected length <= 3"}, ""},
		{`{"name":"\u0000"}`, 422, []string{"body.name: contains a NUL character (U+0000), which cannot be stored"}, ""},
		{
			`{"name":"ok","any":{"\u0000":1}}`, 422,
			[]string{"body.any: contains a NUL character (U+0000), which cannot be stored"},
			"",
		},
		{`{"vector":"x","map":{"a.b":1,"c":2},"x":3}`, 422, []string{
			"body.vector: expected array", "body.map.a.b: expected string", "body.map.c: expected string",
			"body.x: unexpected property",
			"body: expected required property name to be present",
		}, ""},
		{`{"several":[{"score":-1},{"big":1.5}],"name":"ok"}`, 422, []string{
			"body.several[0].score: expected number >= 0", "body.several[1].big: expected integer",
			"body.several[1]: expected required property score to be present",
		}, ""},
		{`{"vector":[1e39],"rating":2,"name":"ok"}`, 422, []string{
			"body.vector[0]: expected a number that fits into 32 bits",
			`body.rating: expected value to be one of "1, -1"`,
		}, ""},
		// A limit is reported before elements, and before anything else.
		{`{"other":1,"vector":["a","b","c","d"]}`, 422, []string{"body.vector: expected at most 3 items"}, ""},
		{`{"map":{"a":1,"b":2,"c":3}}`, 422, []string{"body.map: expected at most 2 members"}, ""},
		{`{"name":"ok","any":` + strings.Repeat("[", 64) + strings.Repeat("]", 64) + `}`, 422, []string{
			"body.any" + strings.Repeat("[0]", 63) + ": expected at most 64 levels of arrays and objects",
		}, ""},
		{`{"name":"ok","any":` + strings.Repeat("[", 63) + strings.Repeat("]", 63) + `}`, 0, nil, ""},
		{`{"any":[` + strings.Repeat("0,", 100_000) + `0]}`, 422, []string{
			"body.any[100000]: expected at most 100000 values in free-form JSON",
		}, ""},
		// Many problems are counted.
		{
			`{` + strings.Repeat(`"x":0,`, 50) + `"name":"ok"}`, 422,
			slices.Repeat([]string{"body.x: unexpected property"}, 20),
			"validation failed: showing the first 20 problems; 30 more are not shown",
		},
		{`{"name":"ok"`, 400, nil, "the body is not valid JSON: unexpected end of JSON input at byte 12"},
		{
			`{"name":"ok",}`, 400, nil,
			"the body is not valid JSON: invalid character '}' looking for beginning of object key string at byte 14",
		},
		{"\ufeff{\"name\":\"ok\"}", 400, nil, "the body begins with a byte order mark; send UTF-8 without one"},
		{"{\"name\":\"\xff\"}", 400, nil, "the body is not valid UTF-8"},
	} {
		_, problem := rest.CheckBody(registry, schema, []byte(test.body))
		name := test.body[:min(len(test.body), 60)]
		if problem == nil {
			if test.status != 0 {
				t.Errorf("%s: accepted", name)
			}
			continue
		}
		var got []string
		for _, e := range problem.Errors {
			got = append(got, fmt.Sprintf("%s: %s", e.Location, e.Message))
		}
		if problem.Status != test.status || !slices.Equal(got, test.want) || test.detail != "" &&
			problem.Detail != test.detail {
			t.Errorf("%s: %d %q\n got %q\nwant %q", name, problem.Status, problem.Detail, got, test.want)
		}
	}
}

package app_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

// draw draws random requests.
type draw struct {
	*rand.Rand
	*owned         // owns the resources in the requests
	odd    float64 // probability that a value does not match its schema
	nulls  float64 // probability that a value is null
}

func (d *draw) chance(p float64) bool { return d.Float64() < p }

func pick[T any](d *draw, from []T) T { return from[d.IntN(len(from))] }

// oddTexts are unusual texts, besides [texts].
var oddTexts = []string{
	"", " ", ".", "..", "../../etc/passwd", "null", "true", "-1", "0", "1.5", "1e5", "٣", "0x10", "NaN",
	"Infinity", "+1", " 1",
	"9223372036854775807", "9223372036854775808", "18446744073709551616", "2026-02-30T00:00:00Z", "2026-01-01",
	"2026-01-01T00:00:00",
	"2026-01-01T00:00:00+99:99", "0000-01-01T00:00:00Z", "9999-12-31T23:59:60Z",
	"00000000-0000-0000-0000-000000000000", "{}", "[]",
	"*", "*.*", "provider.*,", ",,,", "provider.create", "provider/", "/", "//", "a/b/c", "%", "%25", "%2f",
	"a\tb", "a\nb", "a\r\nX: y",
	"\u202e", "\ufeff", "\u2028", "<script>alert(1)</script>", "'; DROP TABLE files; --", `"`, `\`, "_%", "${a}",
	"http://[::1", "http://a b",
	"javascript:alert(1)", "file:///etc/passwd", "//example.com", "https://user:pass@example.com",
	"http://169.254.169.254/", "HTTP://EXAMPLE.COM:99999",
	"https://" + strings.Repeat("a", 3000), "https://é.example/ü?#", "https://github.com/a/b@v1#path=../..", "1ns",
	"-5s", "5", "1e3s", strings.Repeat("provider.*,", 101),
}

func (d *draw) oddText() string {
	switch n := d.IntN(10); {
	case n < 4:
		return pick(d, texts).raw
	case n < 9:
		return pick(d, oddTexts)
	}
	return strings.Repeat(pick(d, []string{"a", "é", "\u0001", "<", `"`, "\xff"}),
		pick(d, []int{256, 257, 2049, 10_001}))
}

// oddJSON are values of unexpected types, besides [literals].
var oddJSON = []string{
	"null", "true", "false", "0", "-0", "-1", "1", "1.5", "1e999", "1e-999", "9223372036854775807",
	"9223372036854775808", "-9223372036854775809",
	"3.4e38", "3.5e38", "1e308", `""`, `"a"`, "{}", "[]", "[[]]", "[null]", `{"":null}`, `{"a":{}}`, "NaN", "tru",
	"nul", "01", "+1", ".5", "1.", "'a'",
	`"\x"`, `"\u12"`, `"`, "[1,]", `{"a"}`, "{,}", "]", "", "//", `"\ud83d\ude00"`, `{"__proto__":{}}`, `{"$ref":"#"}`,
}

func (d *draw) oddJSON() string {
	switch n := d.IntN(20); {
	case n < 8:
		return pick(d, oddJSON)
	case n < 12:
		return pick(d, literals).raw
	case n < 16:
		return quote(d.oddText())
	case n == 16:
		depth := pick(d, []int{60, 63, 64, 65, 10_000})
		return strings.Repeat(pick(d, []string{
			"[", `{"a":`,
		}), depth) + "0" + strings.Repeat(pick(d, []string{"]", "}"}), depth)
	case n == 17:
		return "[" + strings.Repeat(pick(d, []string{
			"0", "{}", `""`, "null", "[]", "1e999",
		})+",", pick(d, []int{16, 100, 5000, 100_001})) + "0]"
	case n == 18:
		var b strings.Builder
		for i := range pick(d, []int{17, 33, 101, 20_000}) {
			fmt.Fprintf(&b, `"k%d":%s,`, i, pick(d, oddJSON[:8]))
		}
		return "{" + b.String() + `"k":"v"}`
	}
	return quote(strings.Repeat(pick(d, []string{"a", "é", `\u0001`}), pick(d, []int{1025, 10_001, 100_001, 600_000})))
}

func quote(text string) string {
	b, _ := json.Marshal(text) // replaces invalid UTF-8 by U+FFFD
	return string(b)
}

// id returns an id for a slot, usually an existing one.
func (d *draw) id(s slot) string {
	if d.chance(d.odd) {
		switch d.IntN(5) {
		case 0:
			return pick(d, spellings).of(uuid.NewString())
		case 1:
			return uuid.NewString()
		case 2:
			kinds := slices.Sorted(maps.Values(pathKinds))
			s.kind = pick(d, kinds) // of another list
		default:
			return d.oddText()
		}
	}
	id := d.owned.id(s.kind)
	if s.kind == "location" {
		id, _ = url.PathUnescape(id)
	}
	if d.chance(0.05) && len(id) == 36 {
		id = pick(d, spellings[:4]).of(id)
	}
	return id
}

// text returns a text for a parameter or member that matches its schema.
func (d *draw) text(name string, s *schema) string {
	switch {
	case s == nil:
	case len(s.Enum) > 0:
		return fmt.Sprint(pick(d, s.Enum))
	case s.Format == "uuid":
		return uuid.NewString()
	case s.Format == "date-time":
		return pick(d, []string{"2026-01-01T00:00:00Z", "2100-01-01T00:00:00.123456789+05:30", "1970-01-01T00:00:00Z"})
	case s.is("integer"), s.is("number"):
		return fmt.Sprint(d.number(s))
	case s.is("boolean"):
		return pick(d, []string{"true", "false"})
	}
	switch name {
	case "types", "events":
		return pick(d, []string{"*", "provider.*", "*.deleted", "context.created,file.updated"})
	case "wait":
		return pick(d, []string{"0s", "1ms", "20ms"})
	case "resource":
		return "context/" + d.owned.id("context")
	case "endpoint":
		return "receiver"
	case "event", "after", "before":
		return strconv.Itoa(d.IntN(20))
	case "location", "url", "base_url":
		return d.agent.url + "/" + uuid.NewString()
	}
	return pick(d, []string{"a", "notes", "text/markdown", "Ünïcode", "a b"})
}

func (d *draw) number(s *schema) any {
	low, high := 0.0, 1000.0
	if s.Minimum != nil {
		low = *s.Minimum
	}
	if s.Maximum != nil {
		high = *s.Maximum
	}
	if d.chance(d.odd) { // just out of range
		return pick(d, []any{low - 1, high + 1, low + 0.5})
	}
	if s.is("integer") || s.MultipleOf != nil {
		return int64(low) + d.Int64N(int64(high-low)+1)
	}
	return low + d.Float64()*(high-low)
}

func (s *schema) is(kind string) bool { return strings.Contains(fmt.Sprint(s.Type), kind) }

// json returns a valid body with random changes.
func (d *draw) json(doc *document, name string, v any, s *schema) string {
	s = doc.resolve(s)
	if d.chance(d.odd) {
		return d.oddJSON()
	}
	if d.chance(d.nulls) {
		return "null"
	}
	switch v := v.(type) {
	case map[string]any:
		var members []string
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if d.chance(0.15) {
				continue
			}
			member := quote(name) + ":" + d.json(doc, name, v[name], s.member(name))
			members = append(members, member)
			if d.chance(d.odd / 2) { // a duplicate
				members = append(members, pick(d, []string{
					member, quote(name) + ":" + d.oddJSON(), quote(strings.ToUpper(name)) + ":1",
				}))
			}
		}
		if d.chance(d.odd / 2) {
			members = append(members, quote(pick(d, []string{
				"id", "", "created_by", "version", "metadata", d.oddText(),
			}))+":"+d.oddJSON())
		}
		return "{" + strings.Join(members, ",") + "}"
	case []any:
		var elements []string
		for range min(d.IntN(3), len(v)) {
			elements = append(elements, d.json(doc, name, pick(d, v), s.element()))
		}
		return "[" + strings.Join(elements, ",") + "]"
	case string:
		if s != nil && s.Format != "uuid" && d.chance(0.2) {
			return quote(d.text(name, s))
		}
	case float64:
		if s != nil && s.Type != nil && len(s.Enum) == 0 && d.chance(0.3) {
			return fmt.Sprint(d.number(s))
		}
	}
	text, _ := json.Marshal(v) // cannot fail
	return string(text)
}

// member returns the schema of a member, or nil.
func (s *schema) member(name string) *schema {
	if s == nil {
		return nil
	}
	return s.Properties[name]
}

func (s *schema) element() *schema {
	if s == nil {
		return nil
	}
	return s.Items
}

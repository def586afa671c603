package valid_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/tidings-dev/tidings/internal/valid"
)

func TestText(t *testing.T) {
	for text, want := range map[string]error{
		"": nil,
		"Grüße, 世界 \U0001F600 \ufffd \u0001\x7f": nil,
		"a\x00":            valid.ErrZero,
		"\xff":             valid.ErrUTF8,
		"\xed\xa0\x80":     valid.ErrUTF8, // a surrogate
		"\xc0\x80":         valid.ErrUTF8, // an overlong NUL
		"\xf4\x90\x80\x80": valid.ErrUTF8, // beyond Unicode
		"caf\xe9":          valid.ErrUTF8,
	} {
		if err := valid.Text(text); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", text, err, want)
		}
	}
}

func TestJSON(t *testing.T) {
	notJSON := valid.JSON([]byte("{"))
	for document, want := range map[string]error{
		`"C:\\u0000"`:                nil,
		`"\\\\u0000"`:                nil,
		`"\\\u0000"`:                 valid.ErrZero,
		`"\u0000"`:                   valid.ErrZero,
		`{"a\u0000b":1}`:             valid.ErrZero,
		`[{"a":["x","\u0000"]}]`:     valid.ErrZero,
		`"\u000000"`:                 valid.ErrZero,
		`"\u00001"`:                  valid.ErrZero,
		`"\u0001"`:                   nil,
		`"\ud83d\ude00"`:             nil,
		`"\uD83D\uDE00\ud83d\ude00"`: nil,
		`"\ud83d"`:                   valid.ErrSurrogate,
		`"\ud83dx\ude00"`:            valid.ErrSurrogate,
		`"\ude00\ud83d"`:             valid.ErrSurrogate,
		`"\ud83d\ud83d\ude00"`:       valid.ErrSurrogate,
		`"\\ud83d"`:                  nil,
		`{"\udead":null}`:            valid.ErrSurrogate,
		"\"\xff\"":                   valid.ErrUTF8,
		"\"\x00\"":                   notJSON,
		`1e999`:                      nil,
		`{"a":1,"a":2}`:              nil,
		"[\"[[[\\\"{{{\"]":           nil,
		"":                           notJSON,
		`"\u12"`:                     notJSON,
		strings.Repeat("[", 64) + strings.Repeat("]", 64):       nil,
		strings.Repeat("[", 65) + strings.Repeat("]", 65):       valid.ErrDepth,
		strings.Repeat(`{"a":[`, 33) + strings.Repeat("]}", 33): valid.ErrDepth,
		"[" + strings.Repeat("[],{},", 100) + "[]]":             nil,
	} {
		err := valid.JSON([]byte(document))
		if want == notJSON && err != nil && err.Error() == notJSON.Error() { //nolint:errorlint // it is not a sentinel
			continue
		}
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", document, err, want)
		}
	}
}

func TestUUID(t *testing.T) {
	const id = "550e8400-e29b-41d4-a716-44665544abcd"
	for text, want := range map[string]string{
		id: id, strings.ToUpper(id): id, "550E8400-e29b-41D4-a716-44665544aBcD": id,
		"urn:uuid:" + id: id, "URN:UUID:" + strings.ToUpper(id): id, "{" + id + "}": id,
		strings.ReplaceAll(id, "-", ""): id,
		"(" + id + ")":                  "", "{" + id + ")": "", "{" + strings.ReplaceAll(id, "-", "") +
			"}": "", "urn:uid::" + id: "",
		id + " ": "", " " + id: "", "": "",
		"550e8400-e29b-41d4-a716-44665544abcg": "", "550e8400e-29b-41d4-a716-44665544abcd": "", id[:35]: "",
		"５50e8400-e29b-41d4-a716-44665544ab": "",
	} {
		if got, ok := valid.UUID(text); got != want || ok != (want != "") {
			t.Errorf("%q: %q, %v; want %q", text, got, ok, want)
		}
	}
}

// Accepted documents contain no NUL character and no string that Go would alter.
func FuzzJSON(f *testing.F) {
	for _, seed := range []string{`"C:\\u0000"`, `"\ud83d\ude00"`, `{"a":["\u0000",1e999]}`, `"\ud83d\\"`, "\"\xff\""} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, document []byte) {
		if valid.JSON(document) != nil {
			return
		}
		decoder := json.NewDecoder(strings.NewReader(string(document)))
		decoder.UseNumber()
		replaced := 0
		for {
			token, err := decoder.Token()
			if err != nil {
				break
			}
			if text, ok := token.(string); ok {
				if err := valid.Text(text); err != nil {
					t.Fatalf("accepted %q, but its string %q %v", document, text, err)
				}
				replaced += strings.Count(text, string(utf8.RuneError))
			}
		}
		given := strings.Count(string(document), string(utf8.RuneError)) +
			strings.Count(strings.ToLower(string(document)), `\ufffd`)
		if replaced > given {
			t.Fatalf("accepted %q, but Go replaced %d characters", document, replaced-given)
		}
	})
}

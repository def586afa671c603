// Package valid says which text from outside may come in: what PostgreSQL and
// SQLite both keep, and give back as it was. Whoever lets text in asks it once, at
// the door, so that nothing behind has to.
package valid

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/google/uuid"
)

// What text must not be.
var (
	ErrUTF8      = errors.New("is not valid UTF-8")
	ErrZero      = errors.New("holds a zero byte (U+0000), which can't be kept")
	ErrSurrogate = errors.New(`holds half of a surrogate pair (\ud800 to \udfff), which stands for no character`)
	ErrDepth     = fmt.Errorf("has more than %d levels of arrays and objects", MaxDepth)
)

// MaxDepth is how many arrays and objects of a JSON document may be nested.
const MaxDepth = 64

// Text returns an error, which reads on after the name of what holds the text,
// unless it is valid UTF-8 without a zero byte.
func Text(s string) error {
	for i := 0; i < len(s); i++ {
		if s[i] == 0 {
			return ErrZero
		}
	}
	if !utf8.ValidString(s) {
		return ErrUTF8
	}
	return nil
}

// Quoted returns an error if a JSON string, with its quotes, has an escape for
// what is no text.
func Quoted(s []byte) error {
	for {
		i := bytes.IndexByte(s, '\\')
		if i < 0 {
			return nil
		}
		r := escaped(s[i:])
		switch {
		case r == 0:
			return ErrZero
		case !utf16.IsSurrogate(r):
			s = s[min(i+2, len(s)):]
		case utf16.DecodeRune(r, escaped(s[i+6:])) == utf8.RuneError:
			return ErrSurrogate
		default:
			s = s[i+12:]
		}
	}
}

// escaped returns what an escape \uXXXX at the beginning stands for; -1 if there
// is none.
func escaped(s []byte) rune {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return -1
	}
	r, err := strconv.ParseUint(string(s[2:6]), 16, 16)
	if err != nil {
		return -1
	}
	return rune(r)
}

// JSON returns an error, which reads on like that of [Text], unless a document is
// JSON whose strings are text, and not nested too deeply.
func JSON(document []byte) error {
	if !utf8.Valid(document) {
		return ErrUTF8
	}
	if !json.Valid(document) {
		return errors.New("is not JSON")
	}
	depth := 0
	for i := 0; i < len(document); i++ {
		switch document[i] {
		case '[', '{':
			if depth++; depth > MaxDepth {
				return ErrDepth
			}
		case ']', '}':
			depth--
		case '"':
			start := i
			for i++; document[i] != '"'; i++ {
				if document[i] == '\\' {
					i++
				}
			}
			if err := Quoted(document[start : i+1]); err != nil {
				return err
			}
		}
	}
	return nil
}

// UUID returns a UUID as it is kept: in the spelling of RFC 9562, section 4, in
// lower case. It takes the other spellings that are about: upper case, without
// dashes, in braces, as a URN.
func UUID(s string) (kept string, ok bool) {
	if uuid.Validate(s) != nil {
		return "", false
	}
	id, err := uuid.Parse(s)
	return id.String(), err == nil
}

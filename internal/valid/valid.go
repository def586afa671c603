// Package valid defines which text the server accepts: text that both PostgreSQL
// and SQLite store and return unchanged. Input is checked once, so that no other
// code has to check it.
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

// Reasons for rejecting text.
var (
	ErrUTF8      = errors.New("is not valid UTF-8")
	ErrZero      = errors.New("contains a NUL character (U+0000), which cannot be stored")
	ErrSurrogate = errors.New(`contains an unpaired surrogate (\ud800 to \udfff)`)
	ErrMark      = errors.New("begins with a byte order mark; send UTF-8 without one")
	ErrDepth     = fmt.Errorf("has more than %d levels of arrays and objects", MaxDepth)
)

// ByteOrderMark begins UTF-8 files of some editors. It means nothing in a file, and JSON
// may not have it.
const ByteOrderMark = "\uFEFF"

// MaxDepth is the maximum nesting of arrays and objects in a JSON document.
const MaxDepth = 64

// Text returns an error unless s is valid UTF-8 without NUL characters. The
// error's message is a predicate, such as "is not valid UTF-8".
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

// Quoted returns an error if a quoted JSON string contains an escape that is
// not valid text.
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

// escaped returns the code unit of a leading \uXXXX escape, or -1 if there is none.
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

// JSON returns an error, like [Text], unless the document is valid JSON, its strings
// are valid text and it is nested at most [MaxDepth] levels deep.
func JSON(document []byte) error {
	if !utf8.Valid(document) {
		return ErrUTF8
	}
	if !json.Valid(document) {
		return errors.New("is not valid JSON")
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

// UUID returns a UUID in canonical form: lower case with dashes (RFC 9562,
// section 4). It accepts the other common forms: upper case, without dashes, in
// braces, and as a URN.
func UUID(s string) (canonical string, ok bool) {
	if uuid.Validate(s) != nil {
		return "", false
	}
	id, err := uuid.Parse(s)
	return id.String(), err == nil
}

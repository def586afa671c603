// Package jsontext encodes JSON strings without reflection, for the bodies and
// records that are written for every delivery.
package jsontext

import (
	"fmt"
	"unicode/utf8"
)

// AppendString appends s to b as a JSON string. Unlike [encoding/json.Marshal] it does
// not escape <, > and &, so that URLs remain readable.
func AppendString(b []byte, s string) []byte {
	b = append(b, '"')
	plain := 0 // start of the text to be copied unchanged
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		b = append(b, s[plain:i]...)
		size := 1
		switch {
		case c >= utf8.RuneSelf:
			var r rune
			r, size = utf8.DecodeRuneInString(s[i:])
			b = utf8.AppendRune(b, r)
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		default:
			b = fmt.Appendf(b, `\u%04x`, c)
		}
		i += size
		plain = i
	}
	b = append(b, s[plain:]...)
	return append(b, '"')
}

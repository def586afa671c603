package sender

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// excerptLength is how many characters of a response are kept.
const excerptLength = 200

// excerpt returns the first characters of a response as valid UTF-8, with characters
// that do not print replaced by spaces.
func excerpt(response []byte) []byte {
	if len(response) == 0 {
		return nil
	}
	text := strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, string(response))
	runes := []rune(strings.TrimSpace(text))
	return []byte(string(runes[:min(len(runes), excerptLength)]))
}

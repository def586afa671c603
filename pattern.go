package tidings

import (
	"fmt"
	"slices"
	"strings"
)

// Pattern selects events by name: "*" is every event, "provider.*" every event
// of that type, "provider.created" that event and "*.deleted" every deletion.
// The zero value matches nothing; [ParsePattern] makes one.
type Pattern struct {
	resourceType ResourceType // empty: any
	action       Action       // empty: any
	text         string
}

// ParsePattern reads a pattern that can match an event of the types given. The
// error of one that can't names the nearest pattern that can. Without types, that
// of a program of its own may be any.
func ParsePattern(text string, types []ResourceType) (Pattern, error) {
	if text == "*" {
		return Pattern{text: text}, nil
	}
	typ, action, ok := strings.Cut(text, ".")
	p := Pattern{text: text}
	typeKnown := typ == "*" || slices.Contains(types, ResourceType(typ)) || types == nil && typ != ""
	actionKnown := action == "*" || validAction(Action(action))
	if !ok || !typeKnown || !actionKnown {
		return Pattern{}, fmt.Errorf("pattern %q matches no event; did you mean %q?", text, nearestPattern(text, types))
	}
	if typ != "*" {
		p.resourceType = ResourceType(typ)
	}
	if action != "*" {
		p.action = Action(action)
	}
	return p, nil
}

// String returns the pattern as it was written.
func (p Pattern) String() string { return p.text }

// Match reports whether the pattern selects events of this type and action.
func (p Pattern) Match(t ResourceType, a Action) bool {
	return p.text != "" &&
		(p.resourceType == "" || p.resourceType == t) &&
		(p.action == "" || p.action == a)
}

// nearestPattern returns the valid pattern that takes the fewest edits from text.
func nearestPattern(text string, types []ResourceType) string {
	candidates := []string{"*"}
	for _, t := range append([]ResourceType{"*"}, types...) {
		candidates = append(candidates, string(t)+".*")
		for _, a := range Actions() {
			candidates = append(candidates, string(t)+"."+string(a))
		}
	}
	if slices.Contains(types, ResourceType(text)) {
		return text + ".*"
	}
	return Nearest(text, candidates)
}

// Nearest returns the candidate that takes the fewest edits (Levenshtein) from
// text, the earlier of equals, and "" where there is no candidate. Error
// messages use it to suggest what was meant. Only the first 64 bytes of text
// count.
func Nearest(text string, candidates []string) string {
	best, bestDistance := "", -1
	for _, c := range candidates {
		if d := editDistance(text[:min(len(text), 64)], c); bestDistance < 0 || d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			substitute := diagonal
			if a[i-1] != b[j-1] {
				substitute++
			}
			diagonal = row[j]
			row[j] = min(substitute, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}

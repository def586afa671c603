package tidings

import (
	"fmt"
	"strings"
)

// Pattern selects events by name: "*" matches all events, "order.*" all events
// of that type, "order.created" that event, and "*.deleted" all deletions. The
// zero value matches nothing; use [ParsePattern].
type Pattern struct {
	resourceType ResourceType // empty: any
	action       Action       // empty: any
	text         string
}

// ParsePattern parses a pattern. Package vocabulary checks whether any event
// can match it.
func ParsePattern(text string) (Pattern, error) {
	if text == "*" {
		return Pattern{text: text}, nil
	}
	typ, action, ok := strings.Cut(text, ".")
	if !ok {
		return Pattern{}, fmt.Errorf(`pattern %s: expected "*", "TYPE.*", "TYPE.ACTION" or "*.ACTION"`, quoted(text))
	}
	p := Pattern{text: text}
	if typ != "*" {
		p.resourceType = ResourceType(typ)
		if err := p.resourceType.Check(); err != nil {
			return Pattern{}, fmt.Errorf("pattern %s: %w", quoted(text), err)
		}
	}
	if action != "*" {
		p.action = Action(action)
		if err := p.action.Check(); err != nil {
			return Pattern{}, fmt.Errorf("pattern %s: %w", quoted(text), err)
		}
	}
	return p, nil
}

// String returns the pattern as written.
func (p Pattern) String() string { return p.text }

// Match reports whether the pattern selects events of this type and action.
func (p Pattern) Match(t ResourceType, a Action) bool {
	return p.text != "" &&
		(p.resourceType == "" || p.resourceType == t) &&
		(p.action == "" || p.action == a)
}

// Package vocabulary defines which events can occur, so that a pattern that can
// match none of them is an error instead of an endpoint that receives nothing.
package vocabulary

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tidings-dev/tidings"
)

// Types maps the resource types to their actions. A type without actions has
// those of [tidings.Actions].
type Types map[tidings.ResourceType][]tidings.Action

// Check returns an error unless every type and action is well-formed.
func (t Types) Check() error {
	for _, typ := range t.Names() {
		if err := typ.Check(); err != nil {
			return err
		}
		for _, action := range t[typ] {
			if err := action.Check(); err != nil {
				return fmt.Errorf("resource type %s: %w", typ, err)
			}
		}
	}
	return nil
}

// Names returns the types, sorted.
func (t Types) Names() []tidings.ResourceType { return slices.Sorted(maps.Keys(t)) }

// Actions returns the actions of a type, or none if the type is unknown.
func (t Types) Actions(typ tidings.ResourceType) []tidings.Action {
	actions, known := t[typ]
	if known && len(actions) == 0 {
		return tidings.Actions()
	}
	return actions
}

// Has reports whether there are events of this type and action.
func (t Types) Has(typ tidings.ResourceType, action tidings.Action) bool {
	return slices.Contains(t.Actions(typ), action)
}

// Parse parses a pattern. If it can match no event, the error suggests the
// closest one that can.
func (t Types) Parse(text string) (tidings.Pattern, error) {
	p, err := tidings.ParsePattern(text)
	if err == nil && t.canMatch(p) {
		return p, nil
	}
	return tidings.Pattern{}, fmt.Errorf("pattern %q matches no event; did you mean %q?", text, t.nearest(text))
}

func (t Types) canMatch(p tidings.Pattern) bool {
	for typ := range t {
		for _, action := range t.Actions(typ) {
			if p.Match(typ, action) {
				return true
			}
		}
	}
	return p.String() == "*"
}

// nearest returns the valid pattern with the fewest edits from text.
func (t Types) nearest(text string) string {
	if _, known := t[tidings.ResourceType(text)]; known {
		return text + ".*"
	}
	candidates := []string{"*"}
	for _, typ := range t.Names() {
		for _, action := range t.Actions(typ) {
			if of := "*." + string(action); !slices.Contains(candidates, of) {
				candidates = append(candidates, of)
			}
		}
	}
	for _, typ := range t.Names() {
		candidates = append(candidates, string(typ)+".*")
		for _, action := range t.Actions(typ) {
			candidates = append(candidates, string(typ)+"."+string(action))
		}
	}
	return Nearest(text, candidates)
}

// CheckResource returns an error unless resource is a known type, a slash and
// an id, as returned by [tidings.Event.Resource].
func (t Types) CheckResource(resource string) error {
	typ, id, ok := strings.Cut(resource, "/")
	if !ok || id == "" {
		return fmt.Errorf("expected TYPE/ID, such as %s/<id>",
			slices.Concat(t.Names(), []tidings.ResourceType{"order"})[0])
	}
	if _, known := t[tidings.ResourceType(typ)]; !known {
		var names []string
		for _, name := range t.Names() {
			names = append(names, string(name))
		}
		return fmt.Errorf("unknown resource type; did you mean %q?", Nearest(typ, names))
	}
	return nil
}

package tidings

import "fmt"

// ResourceType names a kind of resource, such as "order". It matches
// [a-z][a-z0-9_]{0,62}.
type ResourceType string

// Action says what happened to a resource. It matches [a-z][a-z0-9_]{0,62}.
type Action string

// The actions that every resource has. A program may tell of others, such as
// "paid"; only these three are ever merged with each other.
const (
	Created Action = "created"
	Updated Action = "updated"
	Deleted Action = "deleted"
)

// Actions returns the three actions in the order of a resource's life.
func Actions() []Action { return []Action{Created, Updated, Deleted} }

// Check returns an error unless the type has the right form.
func (t ResourceType) Check() error { return checkName("resource type", string(t)) }

// Check returns an error unless the action has the right form.
func (a Action) Check() error { return checkName("action", string(a)) }

const nameLimit = 63

func checkName(what, name string) error {
	valid := name != "" && len(name) <= nameLimit
	for i := 0; i < len(name) && valid; i++ {
		c := name[i]
		valid = c >= 'a' && c <= 'z' || i > 0 && (c >= '0' && c <= '9' || c == '_')
	}
	if valid {
		return nil
	}
	return fmt.Errorf("%s %s: expected at most %d of a-z, 0-9 and _, a letter first", what, quoted(name), nameLimit)
}

// quoted is a text of any length, as an error shows it.
func quoted(text string) string {
	if len(text) > nameLimit+1 {
		return fmt.Sprintf("%q…", text[:nameLimit+1])
	}
	return fmt.Sprintf("%q", text)
}

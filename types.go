package tidings

import "fmt"

// ResourceType names a kind of resource, such as "order". It matches
// [a-z][a-z0-9_]{0,62}.
type ResourceType string

// Action is what happened to a resource. It matches [a-z][a-z0-9_]{0,62}.
type Action string

// The actions of every resource. A program may define others, such as "paid";
// only these three are ever merged.
const (
	Created Action = "created"
	Updated Action = "updated"
	Deleted Action = "deleted"
)

// Actions returns the three actions in the order of a resource's life.
func Actions() []Action { return []Action{Created, Updated, Deleted} }

// Check returns an error unless the type is well-formed.
func (t ResourceType) Check() error { return checkName("resource type", string(t)) }

// Check returns an error unless the action is well-formed.
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
	return fmt.Errorf("%s %s: expected a letter followed by a-z, 0-9 and _, at most %d characters", what,
		quoted(name), nameLimit)
}

// quoted quotes a text for an error message, truncated if it is long.
func quoted(text string) string {
	if len(text) > nameLimit+1 {
		return fmt.Sprintf("%q…", text[:nameLimit+1])
	}
	return fmt.Sprintf("%q", text)
}

package resource

import "github.com/tidings-dev/tidings/internal/store"

// Role is what somebody may do; each role may do what those before it may.
type Role string

// The roles.
const (
	RoleUser      Role = "user"
	RoleDeveloper Role = "developer"
	RoleAdmin     Role = "admin"
)

var ranks = map[Role]int{RoleUser: 1, RoleDeveloper: 2, RoleAdmin: 3}

// Lower returns the role that may do less.
func Lower(a, b Role) Role {
	if ranks[a] < ranks[b] {
		return a
	}
	return b
}

// Caller is whoever makes a request.
type Caller struct {
	UserID string
	Role   Role
	// ContextID limits the request to files and vector stores of one context, in
	// which it also creates new ones; empty for no limit.
	ContextID string
}

// context is the id of the context that the request is limited to; nil for none.
func (c Caller) context() *string {
	if c.ContextID == "" {
		return nil
	}
	return &c.ContextID
}

func (c Caller) is(r Role) bool { return ranks[c.Role] >= ranks[r] }

// Need returns an error unless the caller has a role.
func (c Caller) Need(r Role) error {
	if c.is(r) {
		return nil
	}
	return fail(Forbidden, "", "this needs the role %s; yours is %s", r, c.Role)
}

// owner is the caller of a job: whoever owns the resource, or nobody.
func owner(row Row) Caller {
	c := Caller{Role: RoleAdmin}
	if by := row.base().CreatedBy; by != nil {
		c.UserID = *by
	}
	return c
}

// verb is what somebody does with a resource.
type verb int

// The verbs.
const (
	reading verb = iota
	creating
	updating
	deleting
)

// policy says who may do what with resources of one type. A role that is too low
// is refused whatever resource is named; to everybody who may not touch it,
// somebody else's resource does not exist.
type policy struct {
	// Needs returns the lowest role that may do it.
	Needs func(do verb) Role
	// Others reports whether a caller may do it with other people's resources.
	Others func(who Caller, do verb) bool
	// InContext is set for resources that may belong to a context.
	InContext bool
}

// permit returns an error if the caller's role is too low. It comes before any
// look-up, so that a refusal says nothing about what exists.
func (p policy) permit(who Caller, do verb) error { return who.Need(p.Needs(do)) }

// visible narrows a query to the rows that the caller may do something with. The
// query decides, so that a stranger's row is neither read nor locked, and
// answers no later than one that does not exist.
func (p policy) visible(who Caller, do verb) []store.Filter {
	var filters []store.Filter
	if !p.Others(who, do) {
		filters = append(filters, ownedBy(who))
	}
	if p.InContext && who.ContextID != "" {
		filters = append(filters, ofContext(who.ContextID))
	}
	return filters
}

func anybody(verb) Role { return RoleUser }

// readersAndWriters needs one role to read and another for everything else.
func readersAndWriters(readers, writers Role) func(verb) Role {
	return func(do verb) Role {
		if do == reading {
			return readers
		}
		return writers
	}
}

// private resources are their owner's alone, not even admins see them.
var private = policy{
	Needs:  anybody,
	Others: func(Caller, verb) bool { return false },
}

// privateInContext resources are private and may belong to a context.
var privateInContext = policy{Needs: private.Needs, Others: private.Others, InContext: true}

// personal resources are their owner's and the admins'.
var personal = policy{
	Needs:  anybody,
	Others: func(who Caller, _ verb) bool { return who.is(RoleAdmin) },
}

// published resources are read by a role, and written by developers, each their
// own, and by admins.
func published(readers Role) policy {
	return policy{
		Needs:  readersAndWriters(readers, RoleDeveloper),
		Others: func(who Caller, do verb) bool { return do == reading || who.is(RoleAdmin) },
	}
}

// administered resources are read by a role and written by admins.
func administered(readers Role) policy {
	return policy{
		Needs:  readersAndWriters(readers, RoleAdmin),
		Others: func(Caller, verb) bool { return true },
	}
}

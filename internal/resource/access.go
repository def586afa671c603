package resource

import "github.com/tidings-dev/tidings/internal/store"

// Role is a user's role; each role includes the permissions of the lower ones.
type Role string

// The roles, from lowest to highest.
const (
	RoleUser      Role = "user"
	RoleDeveloper Role = "developer"
	RoleAdmin     Role = "admin"
)

// RoleReader reads the resources of all users, except for contents of files, texts in
// vector stores, and variables, and changes nothing. Tokens may have it, but users do
// not: it ranks below the others.
const RoleReader Role = "reader"

var ranks = map[Role]int{RoleUser: 1, RoleDeveloper: 2, RoleAdmin: 3}

// Lower returns the lower of two roles.
func Lower(a, b Role) Role {
	if ranks[a] < ranks[b] {
		return a
	}
	return b
}

// Caller is the user who makes a request.
type Caller struct {
	UserID string
	Role   Role
	// ContextID restricts the request to the files and vector stores of one
	// context, in which new ones are created, too. If it is empty, there is no
	// restriction.
	ContextID string
}

// context returns the id of the context that the request is restricted to, or
// nil.
func (c Caller) context() *string {
	if c.ContextID == "" {
		return nil
	}
	return &c.ContextID
}

func (c Caller) is(r Role) bool { return ranks[c.Role] >= ranks[r] }

// Need returns an error unless the caller has the role.
func (c Caller) Need(r Role) error {
	if c.is(r) {
		return nil
	}
	return fail(Forbidden, "", "requires the role %s; yours is %s", r, c.Role)
}

// owner returns the owner of a resource as a caller; a job acts on the owner's
// behalf. An unowned resource yields an empty caller.
func owner(row Row) Caller {
	c := Caller{Role: RoleAdmin}
	if by := row.base().CreatedBy; by != nil {
		c.UserID = *by
	}
	return c
}

// verb is an operation on a resource.
type verb int

// The verbs.
const (
	reading verb = iota
	creating
	updating
	deleting
)

// policy defines who may do what with the resources of one type. An
// insufficient role is refused no matter which resource is named; a resource
// that the caller may not access does not exist as far as the caller can tell.
type policy struct {
	// Needs returns the lowest role that may perform a verb.
	Needs func(do verb) Role
	// Others reports whether the caller may perform a verb on other users'
	// resources. A [RoleReader] may read all.
	Others func(who Caller, do verb) bool
	// InContext is set for resources that may belong to a context.
	InContext bool
}

// permit returns an error if the caller's role is insufficient. It runs before
// any look-up, so that a refusal reveals nothing about what exists.
func (p policy) permit(who Caller, do verb) error {
	if do == reading && who.Role == RoleReader {
		return nil
	}
	return who.Need(p.Needs(do))
}

// others reports whether the caller may perform the verb on other users' resources.
func (p policy) others(who Caller, do verb) bool {
	return do == reading && who.Role == RoleReader || p.Others(who, do)
}

// visible restricts a query to the rows on which the caller may perform the
// verb. The query itself decides, so that other users' rows are neither read
// nor locked, and response times do not reveal whether they exist.
func (p policy) visible(who Caller, do verb) []store.Filter {
	var filters []store.Filter
	if !p.others(who, do) {
		filters = append(filters, ownedBy(who))
	}
	if p.InContext && who.ContextID != "" {
		filters = append(filters, ofContext(who.ContextID))
	}
	return filters
}

func anybody(verb) Role { return RoleUser }

// readersAndWriters requires one role for reading and another for everything
// else.
func readersAndWriters(readers, writers Role) func(verb) Role {
	return func(do verb) Role {
		if do == reading {
			return readers
		}
		return writers
	}
}

// private resources are accessible to their owners only, not even to admins.
var private = policy{
	Needs:  anybody,
	Others: func(Caller, verb) bool { return false },
}

// privateInContext resources are private and may belong to a context.
var privateInContext = policy{Needs: private.Needs, Others: private.Others, InContext: true}

// personal resources are accessible to their owners and to admins.
var personal = policy{
	Needs:  anybody,
	Others: func(who Caller, _ verb) bool { return who.is(RoleAdmin) },
}

// published resources are readable by a role. Developers may write their own,
// admins all.
func published(readers Role) policy {
	return policy{
		Needs:  readersAndWriters(readers, RoleDeveloper),
		Others: func(who Caller, do verb) bool { return do == reading || who.is(RoleAdmin) },
	}
}

// administered resources are readable by a role and writable by admins.
func administered(readers Role) policy {
	return policy{
		Needs:  readersAndWriters(readers, RoleAdmin),
		Others: func(Caller, verb) bool { return true },
	}
}

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

// Caller is whoever makes a change.
type Caller struct {
	UserID string
	Role   Role
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

func owns(who Caller, b *Base) bool { return b.CreatedBy != nil && *b.CreatedBy == who.UserID }

// Verb is what somebody does with a resource.
type Verb int

// The verbs.
const (
	Reading Verb = iota
	Creating
	Updating
	Deleting
)

// Policy says who may do what with resources of one type. Somebody else's
// resource is one that is not there; only a role that is too low is told so.
type Policy struct {
	// Allow returns an error if the caller may not. When creating, the row is
	// still without an owner.
	Allow func(who Caller, do Verb, b *Base) error
	// Sees narrows a list to what the caller may read.
	Sees func(who Caller) []store.Filter
}

var errNotYours = fail(NotFound, "", "there is no such resource")

func seesOwn(who Caller) []store.Filter {
	return []store.Filter{{Column: "created_by", Op: store.Equal, Value: who.UserID}}
}

func seesAll(Caller) []store.Filter { return nil }

// private resources are their owner's alone, also before admins.
var private = Policy{
	Allow: func(who Caller, do Verb, b *Base) error {
		if do == Creating || owns(who, b) {
			return nil
		}
		return errNotYours
	},
	Sees: seesOwn,
}

// personal resources are their owner's and the admins'.
var personal = Policy{
	Allow: func(who Caller, do Verb, b *Base) error {
		if do == Creating || owns(who, b) || who.is(RoleAdmin) {
			return nil
		}
		return errNotYours
	},
	Sees: func(who Caller) []store.Filter {
		if who.is(RoleAdmin) {
			return nil
		}
		return seesOwn(who)
	},
}

// published resources are read by a role, and written by developers, each their
// own, and by admins.
func published(readers Role) Policy {
	return Policy{
		Allow: func(who Caller, do Verb, b *Base) error {
			if do == Reading {
				return who.Need(readers)
			}
			if err := who.Need(RoleDeveloper); err != nil {
				return err
			}
			if do == Creating || owns(who, b) || who.is(RoleAdmin) {
				return nil
			}
			return errNotYours
		},
		Sees: seesAll,
	}
}

// administered resources are read by a role and written by admins.
func administered(readers Role) Policy {
	return Policy{
		Allow: func(who Caller, do Verb, _ *Base) error {
			if do == Reading {
				return who.Need(readers)
			}
			return who.Need(RoleAdmin)
		},
		Sees: seesAll,
	}
}

package resource

import (
	"context"
	"errors"
	"strings"

	"github.com/uptrace/bun"

	"github.com/tidings-dev/tidings/internal/store"
)

// User is somebody, known by an e-mail address: the owner of everything else.
type User struct {
	bun.BaseModel `bun:"table:users"`
	Base

	Email string `json:"email"`
	Role  Role   `json:"role" enum:"user,developer,admin"`
}

func userKind(owns ...Owned) Kind[*User] {
	return Kind[*User]{
		Type:    UserType,
		URL:     "/api/v1/users/{id}",
		New:     func() *User { return new(User) },
		Policy:  administered(RoleAdmin),
		Self:    true,
		Unowned: true,
		Owns:    owns,
		Guard: func(ctx context.Context, tx *store.Tx, do Verb, row *User) error {
			if do == Deleting && row.Role == RoleAdmin {
				return anotherAdmin(ctx, tx, row.ID)
			}
			return nil
		},
	}
}

// anotherAdmin returns an error if a user is the only admin. It holds the
// admins, so that two of them can't go at once.
func anotherAdmin(ctx context.Context, tx *store.Tx, id string) error {
	var admins []*User
	err := tx.Find(ctx, &admins, 2, store.Filter{Column: "role", Op: store.Equal, Value: RoleAdmin})
	if err != nil {
		return err
	}
	for _, a := range admins {
		if a.ID != id {
			return nil
		}
	}
	return fail(Conflict, "role", "this is the last admin; make another user admin first")
}

// Identity is what credentials say about whoever holds them.
type Identity struct {
	Email string
	// Role is the most that these credentials allow.
	Role Role
	// NewRole is the role of a user who is seen for the first time.
	NewRole Role
	// Promote makes a user who is known an admin, too.
	Promote bool
}

// Seen returns the caller behind an identity; the first time, it makes the user.
func (r *Resources) Seen(ctx context.Context, id Identity) (Caller, error) {
	email := strings.ToLower(id.Email)
	user, err := r.userByEmail(ctx, email)
	if errors.Is(err, store.ErrNotFound) {
		user, err = r.firstSight(ctx, email, id.NewRole)
	}
	if err != nil {
		return Caller{}, err
	}
	if id.Promote && user.Role != RoleAdmin {
		self := Caller{UserID: user.ID, Role: RoleAdmin}
		user, err = r.Users.Update(ctx, self, user.ID, 0, func(u *User) error {
			u.Role = RoleAdmin
			return nil
		})
		if err != nil {
			return Caller{}, err
		}
	}
	return Caller{UserID: user.ID, Role: Lower(user.Role, id.Role)}, nil
}

// Known returns the caller behind an identity that was seen before; one whose user
// was deleted since is unauthenticated.
func (r *Resources) Known(ctx context.Context, id Identity) (Caller, error) {
	user, err := r.userByEmail(ctx, strings.ToLower(id.Email))
	if errors.Is(err, store.ErrNotFound) {
		return Caller{}, fail(Unauthenticated, "Authorization", "the user was deleted")
	}
	if err != nil {
		return Caller{}, err
	}
	if id.Promote {
		user.Role = RoleAdmin
	}
	return Caller{UserID: user.ID, Role: Lower(user.Role, id.Role)}, nil
}

func (r *Resources) userByEmail(ctx context.Context, email string) (*User, error) {
	user := new(User)
	return user, r.store.First(ctx, user, store.Filter{Column: "email", Op: store.Equal, Value: email})
}

func (r *Resources) firstSight(ctx context.Context, email string, role Role) (*User, error) {
	user := &User{Base: Base{ID: newID()}, Email: email, Role: role}
	user, err := r.Users.Create(ctx, Caller{UserID: user.ID, Role: RoleAdmin}, user)
	if isCode(err, Conflict) { // somebody else saw them at the same moment
		return r.userByEmail(ctx, email)
	}
	return user, err
}

// Me returns the caller's own user.
func (r *Resources) Me(ctx context.Context, who Caller) (*User, error) {
	return r.Users.Get(ctx, Caller{UserID: who.UserID, Role: RoleAdmin}, who.UserID)
}

// UserPatch changes a user.
type UserPatch struct {
	Role Role `json:"role" enum:"user,developer,admin"`
}

// PatchUser changes a user's role. The last admin stays one.
func (r *Resources) PatchUser(ctx context.Context, who Caller, id string, ifMatch int64, in UserPatch) (*User, error) {
	return r.Users.update(ctx, who, id, ifMatch, func(tx *store.Tx, u *User) error {
		if u.Role == RoleAdmin && in.Role != RoleAdmin {
			if err := anotherAdmin(ctx, tx, u.ID); err != nil {
				return err
			}
		}
		u.Role = in.Role
		return nil
	})
}

// MyVariables returns the caller's variables.
func (r *Resources) MyVariables(ctx context.Context, who Caller) (map[string]string, error) {
	return r.variables(ctx, who.UserID)
}

// PutMyVariables merges changes into the caller's variables; nil removes one.
func (r *Resources) PutMyVariables(ctx context.Context, who Caller, changes VariableChanges) error {
	self := Caller{UserID: who.UserID, Role: RoleAdmin}
	_, err := r.Users.update(ctx, self, who.UserID, 0, func(tx *store.Tx, u *User) (err error) {
		u.touched, err = r.setVariables(ctx, tx, u.ID, changes)
		return err
	})
	return err
}

// ListUsers returns a part of the users, those whose e-mail address holds a text
// if one is given.
func (r *Resources) ListUsers(ctx context.Context, who Caller, page Page, email string) (*Items[*User], error) {
	var filters []store.Filter
	if email != "" {
		filters = append(filters, store.Filter{Column: "email", Op: store.Contains, Value: email})
	}
	return r.Users.List(ctx, who, page, filters...)
}

package resource

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"github.com/tidings-dev/tidings/internal/store"
)

// User is identified by an e-mail address and owns all other resources.
type User struct {
	bun.BaseModel `bun:"table:users"`
	Base

	Email string `json:"email"`
	Role  Role   `json:"role" enum:"user,developer,admin"`
}

// Users is the type of the users.
type Users struct {
	*collection[*User]
	variables variableStore
	callers   callers
}

func newUsers(variables variableStore) *Users {
	return &Users{variables: variables, collection: newCollection(kind[*User]{
		Type:    UserType,
		URL:     "/api/v1/users/{id}",
		New:     func() *User { return new(User) },
		policy:  administered(RoleAdmin),
		Details: []detail{{new(variable), "owner_id"}},
		Guard: func(ctx context.Context, tx *store.Tx, do verb, row *User) error {
			if do == deleting && row.Role == RoleAdmin {
				return anotherAdmin(ctx, tx, row.ID)
			}
			return nil
		},
		Unowned:   true,
		Unlimited: true,
		Self:      true,
	})}
}

// Get returns a user.
func (u *Users) Get(ctx context.Context, who Caller, id string) (*User, error) {
	return u.get(ctx, who, id)
}

// Delete deletes a user and everything that the user owns. ifMatch is the
// expected version, or 0 for any.
func (u *Users) Delete(ctx context.Context, who Caller, id string, ifMatch int64) error {
	return u.delete(ctx, who, id, ifMatch)
}

// anotherAdmin returns an error if the user is the only admin. It locks the
// admins, so that two of them cannot be removed at once.
func anotherAdmin(ctx context.Context, tx *store.Tx, id string) error {
	var admins []*User
	err := tx.Find(ctx, &admins, 2, equal("role", RoleAdmin))
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

// Identity is what credentials attest about their bearer.
type Identity struct {
	Email string
	// Role is the highest role that the credentials grant.
	Role Role
	// NewRole is the role of a newly created user.
	NewRole Role
	// Promote makes an existing user an admin.
	Promote bool
}

// SignIn returns the caller with an identity, and creates the user on the first
// call. A change of the user by another process may take half a second to take effect.
func (u *Users) SignIn(ctx context.Context, id Identity) (Caller, error) {
	who, known, forgotten := u.callers.find(id)
	if known {
		return who, nil
	}
	now := time.Now()
	who, err := u.signIn(ctx, id)
	if err == nil {
		u.callers.remember(id, who, now, forgotten)
	}
	return who, err
}

func (u *Users) signIn(ctx context.Context, id Identity) (Caller, error) {
	email := strings.ToLower(id.Email)
	user, err := u.byEmail(ctx, email)
	if errors.Is(err, store.ErrNotFound) {
		user, err = u.signUp(ctx, email, id.NewRole)
	}
	if err != nil {
		return Caller{}, err
	}
	if id.Promote && user.Role != RoleAdmin {
		self := Caller{UserID: user.ID, Role: RoleAdmin}
		user, err = u.update(ctx, self, user.ID, 0, func(_ *store.Tx, row *User) (bool, error) {
			row.Role = RoleAdmin
			return false, nil
		})
		if err != nil {
			return Caller{}, err
		}
	}
	return Caller{UserID: user.ID, Role: Lower(user.Role, id.Role)}, nil
}

// Lookup returns the caller with an identity that has signed in before. If the
// user has since been deleted, the error is Unauthenticated.
func (u *Users) Lookup(ctx context.Context, id Identity) (Caller, error) {
	user, err := u.byEmail(ctx, strings.ToLower(id.Email))
	if errors.Is(err, store.ErrNotFound) {
		return Caller{}, errDeleted
	}
	if err != nil {
		return Caller{}, err
	}
	if id.Promote {
		user.Role = RoleAdmin
	}
	return Caller{UserID: user.ID, Role: Lower(user.Role, id.Role)}, nil
}

var errDeleted = fail(Unauthenticated, "Authorization", "the user was deleted")

// stillThere returns the error of an operation on the caller's own user, which another
// process may have deleted while the caller was remembered.
func (u *Users) stillThere(err error) error {
	if isCode(err, NotFound) {
		u.callers.forget()
		return errDeleted
	}
	return err
}

func (u *Users) byEmail(ctx context.Context, email string) (*User, error) {
	user := new(User)
	return user, u.store.First(ctx, user, equal("email", email))
}

func (u *Users) signUp(ctx context.Context, email string, role Role) (*User, error) {
	user := &User{Base: Base{ID: newID()}, Email: email, Role: role}
	user, err := u.create(ctx, Caller{UserID: user.ID, Role: RoleAdmin}, user)
	if isCode(err, Conflict) { // a concurrent request created the user
		return u.byEmail(ctx, email)
	}
	return user, err
}

// Me returns the caller's own user.
func (u *Users) Me(ctx context.Context, who Caller) (*User, error) {
	user, err := u.get(ctx, Caller{UserID: who.UserID, Role: RoleAdmin}, who.UserID)
	return user, u.stillThere(err)
}

// UserPatch changes a user.
type UserPatch struct {
	Role Role `json:"role" enum:"user,developer,admin"`
}

// Patch changes a user's role. The last admin cannot be demoted.
func (u *Users) Patch(ctx context.Context, who Caller, id string, ifMatch int64, in UserPatch) (*User, error) {
	return u.update(ctx, who, id, ifMatch, func(tx *store.Tx, row *User) (bool, error) {
		if row.Role == RoleAdmin && in.Role != RoleAdmin {
			if err := anotherAdmin(ctx, tx, row.ID); err != nil {
				return false, err
			}
		}
		row.Role = in.Role
		return false, nil
	})
}

// Variables returns the caller's variables.
func (u *Users) Variables(ctx context.Context, who Caller) (map[string]string, error) {
	if err := who.Need(RoleUser); err != nil { // not a reader
		return nil, err
	}
	return u.variables.of(ctx, who.UserID)
}

// PutVariables merges changes into the caller's variables; nil removes a
// variable.
func (u *Users) PutVariables(ctx context.Context, who Caller, changes VariableChanges) error {
	if err := who.Need(RoleUser); err != nil { // not a reader
		return err
	}
	self := Caller{UserID: who.UserID, Role: RoleAdmin}
	_, err := u.update(ctx, self, who.UserID, 0, func(tx *store.Tx, row *User) (bool, error) {
		return u.variables.merge(ctx, tx, row.ID, changes)
	})
	return u.stillThere(err)
}

// List returns a page of the users. If email is not empty, only users whose
// e-mail address contains it are listed.
func (u *Users) List(ctx context.Context, who Caller, page Page, email string) (*Items[*User], error) {
	var filters []store.Filter
	if email != "" {
		filters = append(filters, store.Filter{Column: "email", Op: store.Contains, Value: email})
	}
	return u.list(ctx, who, page, filters...)
}

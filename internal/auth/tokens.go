// Package auth finds out who makes a request. API tokens are kept as hashes and
// compared in constant time.
package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tidings-dev/tidings/internal/datadir"
	"github.com/tidings-dev/tidings/internal/regular"
	"github.com/tidings-dev/tidings/internal/resource"
)

// Token is an API token: its SHA-256 hash in hexadecimal, whose it is, and the
// most that it may do.
type Token struct {
	SHA256 string
	User   string
	Role   resource.Role
}

// LocalAdmin is the user of the first start's admin token, and everybody where
// authentication is disabled.
const LocalAdmin = "admin@localhost"

// Users finds the user behind an identity; the first time, it makes one.
type Users interface {
	SignIn(ctx context.Context, id resource.Identity) (resource.Caller, error)
	// Known is Seen without making a user.
	Lookup(ctx context.Context, id resource.Identity) (resource.Caller, error)
}

// Authenticator finds out who makes a request.
type Authenticator struct {
	users    Users
	tokens   []token
	disabled bool
}

type token struct {
	hash     [sha256.Size]byte
	identity resource.Identity
}

// Options say who may come in.
type Options struct {
	Tokens []Token
	// AdminEmails become admins when they are seen.
	AdminEmails []string
	// Disabled makes everybody [LocalAdmin].
	Disabled bool
}

// New returns an authenticator.
func New(users Users, o Options) (*Authenticator, error) {
	a := &Authenticator{users: users, disabled: o.Disabled}
	for i, t := range o.Tokens {
		raw, err := hex.DecodeString(t.SHA256)
		if err != nil || len(raw) != sha256.Size {
			return nil, fmt.Errorf("token %d: not a SHA-256 hash in hexadecimal", i)
		}
		id := resource.Identity{Email: t.User, Role: t.Role, NewRole: highest(o.Tokens, t.User)}
		if slices.ContainsFunc(o.AdminEmails, func(e string) bool { return strings.EqualFold(e, t.User) }) {
			id.NewRole, id.Promote = resource.RoleAdmin, true
		}
		a.tokens = append(a.tokens, token{hash: [sha256.Size]byte(raw), identity: id})
	}
	return a, nil
}

// highest is the role of a new user: the most that any of their tokens allows.
func highest(tokens []Token, user string) resource.Role {
	role := resource.RoleUser
	for _, t := range tokens {
		if strings.EqualFold(t.User, user) && resource.Lower(role, t.Role) == role {
			role = t.Role
		}
	}
	return role
}

var errUnauthenticated = &resource.Error{
	Code: resource.Unauthenticated, Field: "Authorization",
	Message: `expected "Bearer" and an API token that this server knows`,
}

// Caller returns the caller behind an identity that [Authenticator.Identify]
// returned.
func (a *Authenticator) Caller(ctx context.Context, id resource.Identity) (resource.Caller, error) {
	return a.users.SignIn(ctx, id)
}

// Recheck returns what a caller who was authenticated with a header may do now.
// It is an error if the header counts no longer or the user is gone, even if there
// is a new one with the same e-mail address.
func (a *Authenticator) Recheck(ctx context.Context, header string, who resource.Caller) (resource.Caller, error) {
	id, err := a.Identify(header)
	if err != nil {
		return resource.Caller{}, err
	}
	now, err := a.users.Lookup(ctx, id)
	if err == nil && now.UserID != who.UserID {
		err = errUnauthenticated
	}
	return now, err
}

// maxToken bounds what is hashed to find out whose token it is, in bytes.
const maxToken = 4096

// Identify returns whose the credentials in an Authorization header are. It does
// not ask the database.
func (a *Authenticator) Identify(header string) (resource.Identity, error) {
	if a.disabled {
		return resource.Identity{Email: LocalAdmin, Role: resource.RoleAdmin, NewRole: resource.RoleAdmin}, nil
	}
	scheme, secret, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") || secret == "" || len(secret) > maxToken {
		return resource.Identity{}, errUnauthenticated
	}
	hash := sha256.Sum256([]byte(strings.TrimSpace(secret)))
	found := -1
	for i := range a.tokens { // all of them, so that the time says nothing
		if subtle.ConstantTimeCompare(hash[:], a.tokens[i].hash[:]) == 1 {
			found = i
		}
	}
	if found < 0 {
		return resource.Identity{}, errUnauthenticated
	}
	return a.tokens[found].identity, nil
}

// NewToken returns a new API token and its hash in hexadecimal.
func NewToken() (secret, hash string) {
	secret = "tdg_" + rand.Text()
	return secret, Hash(secret)
}

// Hash is the hash of a token, in hexadecimal.
func Hash(secret string) string {
	hash := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(hash[:])
}

// AdminToken is the token of a server for which none is configured: it reads the
// file "admin-token" in a folder, or makes it, readable by its owner only.
func AdminToken(folder string) (t Token, file string, created bool, err error) {
	file = filepath.Join(folder, datadir.AdminToken)
	text, err := regular.Read(file)
	if errors.Is(err, fs.ErrNotExist) {
		secret, _ := NewToken()
		text, created = []byte(secret+"\n"), true
		if err = datadir.WriteNew(file, text); errors.Is(err, fs.ErrExist) { // by another process
			text, err = regular.Read(file)
			created = false
		}
	}
	if err != nil {
		return Token{}, file, false, fmt.Errorf("admin token: %w", err)
	}
	secret := strings.TrimSpace(string(text))
	if secret == "" {
		return Token{}, file, false,
			fmt.Errorf("admin token: %s is empty; remove it, and the next start makes a new one", file)
	}
	return Token{SHA256: Hash(secret), User: LocalAdmin, Role: resource.RoleAdmin}, file, created, nil
}

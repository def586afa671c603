// Package auth authenticates requests. API tokens are stored as hashes and
// compared in constant time.
package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tidings-dev/tidings/internal/datadir"
	"github.com/tidings-dev/tidings/internal/resource"
)

// Token is an API token: its SHA-256 hash in hexadecimal, its user and the
// highest role it grants.
type Token struct {
	SHA256 string
	User   string
	Role   resource.Role
}

// LocalAdmin is the user of the initial admin token, and of every request if
// authentication is disabled.
const LocalAdmin = "admin@localhost"

// Users finds or creates the users of identities.
type Users interface {
	SignIn(ctx context.Context, id resource.Identity) (resource.Caller, error)
	// Lookup is like SignIn but never creates a user.
	Lookup(ctx context.Context, id resource.Identity) (resource.Caller, error)
}

// Authenticator authenticates requests.
type Authenticator struct {
	users    Users
	tokens   []token
	disabled bool
}

type token struct {
	hash     [sha256.Size]byte
	identity resource.Identity
}

// Options configures authentication.
type Options struct {
	Tokens []Token
	// AdminEmails become admins when they sign in.
	AdminEmails []string
	// Disabled makes every caller [LocalAdmin].
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

// highest returns a new user's role, the highest that their tokens grant.
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
	Message: `expected "Bearer" and a valid API token`,
}

// Caller signs in the identity returned by [Authenticator.Identify].
func (a *Authenticator) Caller(ctx context.Context, id resource.Identity) (resource.Caller, error) {
	return a.users.SignIn(ctx, id)
}

// Recheck returns the current permissions of a caller who was authenticated by a
// header. It fails if the header is no longer valid or the user was deleted, even
// if a new user has the same e-mail address.
func (a *Authenticator) Recheck(ctx context.Context, header string, who resource.Caller) (resource.Caller, error) {
	id, err := a.Identify(header)
	if err != nil {
		return resource.Caller{}, err
	}
	return a.lookup(ctx, id, who)
}

func (a *Authenticator) lookup(
	ctx context.Context, id resource.Identity, who resource.Caller,
) (resource.Caller, error) {
	now, err := a.users.Lookup(ctx, id)
	if err == nil && now.UserID != who.UserID {
		err = errUnauthenticated
	}
	return now, err
}

// maxToken limits the length of tokens that are hashed, in bytes.
const maxToken = 4096

// Identify returns the identity of an Authorization header. It does not query
// the database.
func (a *Authenticator) Identify(header string) (resource.Identity, error) {
	if a.disabled {
		return resource.Identity{Email: LocalAdmin, Role: resource.RoleAdmin, NewRole: resource.RoleAdmin}, nil
	}
	t, err := a.find(header)
	if err != nil {
		return resource.Identity{}, err
	}
	return t.identity, nil
}

// Prove returns a proof that the holder of a secret, such as a cookie, also has the token
// of an Authorization header. The proof reveals neither.
func (a *Authenticator) Prove(header, secret string) (proof string, err error) {
	t, err := a.find(header)
	if err != nil {
		return "", err
	}
	return t.proof(secret), nil
}

func (t *token) proof(secret string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(t.hash[:])
	return hex.EncodeToString(mac.Sum(nil))
}

// Resume returns the current permissions of a caller, given their secret and a proof
// from [Authenticator.Prove]. It fails like [Authenticator.Recheck].
func (a *Authenticator) Resume(
	ctx context.Context, secret, proof string, who resource.Caller,
) (resource.Caller, error) {
	for i := range a.tokens {
		if hmac.Equal([]byte(a.tokens[i].proof(secret)), []byte(proof)) {
			return a.lookup(ctx, a.tokens[i].identity, who)
		}
	}
	return resource.Caller{}, errUnauthenticated
}

// find returns the token of an Authorization header.
func (a *Authenticator) find(header string) (*token, error) {
	scheme, secret, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") || secret == "" || len(secret) > maxToken {
		return nil, errUnauthenticated
	}
	hash := sha256.Sum256([]byte(strings.TrimSpace(secret)))
	found := -1
	for i := range a.tokens { // checks all, so that timing reveals nothing
		if subtle.ConstantTimeCompare(hash[:], a.tokens[i].hash[:]) == 1 {
			found = i
		}
	}
	if found < 0 {
		return nil, errUnauthenticated
	}
	return &a.tokens[found], nil
}

// NewToken returns a new API token and its hash in hexadecimal.
func NewToken() (secret, hash string) {
	secret = "tdg_" + rand.Text()
	return secret, Hash(secret)
}

// Hash returns the SHA-256 hash of a token in hexadecimal.
func Hash(secret string) string {
	hash := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(hash[:])
}

// AdminToken returns the admin token of a server without configured tokens. It
// reads the file "admin-token" in a directory. If the file is missing, it creates
// one that only the owner can read.
func AdminToken(folder string) (t Token, file string, created bool, err error) {
	file = filepath.Join(folder, datadir.AdminToken)
	fresh, _ := NewToken()
	text, created, err := datadir.ReadOrCreate(file, fresh+"\n")
	if err != nil {
		return Token{}, file, false, fmt.Errorf("admin token: %w", err)
	}
	secret := strings.TrimSpace(text)
	if secret == "" {
		return Token{}, file, false,
			fmt.Errorf("admin token: %s is empty; remove it, and restart to create a new one", file)
	}
	return Token{SHA256: Hash(secret), User: LocalAdmin, Role: resource.RoleAdmin}, file, created, nil
}

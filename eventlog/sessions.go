package eventlog

import (
	"context"
	"time"
)

// Session is the session of an operator who signed in to the console.
type Session struct {
	// Key is a hash of the browser's cookie.
	Key string
	// Proof can only be made from the cookie and the token together; it ends the session
	// with the token. Neither can be derived from it.
	Proof string
	// User is the display name of who signed in; UserID and Role are as of that time.
	User, UserID, Role string
	// Address is the client's address.
	Address     string
	Since, Used time.Time
}

// Sessions stores who is signed in to the console, for all replicas.
type Sessions interface {
	// AddSession adds a session, and removes those that were last used before idle or
	// that began before since.
	AddSession(ctx context.Context, s Session, idle, since time.Time) error
	// SessionOf returns the session with a key; false if there is none.
	SessionOf(ctx context.Context, key string) (Session, bool, error)
	// Sessions returns the sessions, those used last first, at most limit.
	Sessions(ctx context.Context, limit int) ([]Session, error)
	// UseSession records that a session was used.
	UseSession(ctx context.Context, key string, at time.Time) error
	// EndSession removes a session; false if there is none.
	EndSession(ctx context.Context, key string) (bool, error)
}

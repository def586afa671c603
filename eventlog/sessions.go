package eventlog

import (
	"context"
	"time"
)

// Session is the session of somebody who signed in to the console.
type Session struct {
	// Key is a hash of the browser's cookie.
	Key string
	// Proof is what only the cookie and the token together make; it ends the session
	// with the token. Neither of them follows from it.
	Proof string
	// User is who signed in, as people know them; UserID and Role are those of the time.
	User, UserID, Role string
	// Address is where from.
	Address     string
	Since, Used time.Time
}

// Sessions keeps who is signed in to the console, for all replicas.
type Sessions interface {
	// AddSession adds a session, and removes those that were last used before idle or
	// that began before since.
	AddSession(ctx context.Context, s Session, idle, since time.Time) error
	// SessionOf returns the session with a key; false if there is none.
	SessionOf(ctx context.Context, key string) (Session, bool, error)
	// Sessions returns the sessions, those used last first, at most limit.
	Sessions(ctx context.Context, limit int) ([]Session, error)
	// UseSession notes that a session was used.
	UseSession(ctx context.Context, key string, at time.Time) error
	// EndSession removes a session; false if there is none.
	EndSession(ctx context.Context, key string) (bool, error)
}

package httpapi

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/operator"
)

// Limits of sessions.
const (
	sessionIdle = 12 * time.Hour
	sessionLife = 7 * 24 * time.Hour
	// sessionUse is the precision of the time when a session was last used.
	sessionUse = time.Minute
	// sessionsOfUser and sessionLimit bound the sessions of one user and of all; the
	// least recently used one makes room.
	sessionsOfUser = 20
	sessionLimit   = 2000
)

// sessions are the sessions of the console. The database has hashes of their cookies, so
// that every replica knows them, and nobody who reads it can use them.
type sessions struct{ kept eventlog.Sessions }

// visit is the session of a request.
type visit struct {
	eventlog.Session
	cookie string
}

// keyOf returns the key that a session is stored under.
func keyOf(cookie string) string {
	sum := sha256.Sum256([]byte(cookie))
	return hex.EncodeToString(sum[:])
}

// shown returns what others may see of a session.
func shown(s eventlog.Session) operator.ConsoleSession {
	return operator.ConsoleSession{ID: s.Key[:16], User: s.User, Address: s.Address, Since: s.Since, Used: s.Used}
}

// over reports whether a session is past its limits.
func over(s eventlog.Session, now time.Time) bool {
	return now.Sub(s.Used) > sessionIdle || now.Sub(s.Since) > sessionLife
}

// begin keeps the session of a cookie.
func (s sessions) begin(ctx context.Context, cookie, remote string, begun eventlog.Session) error {
	all, err := s.kept.Sessions(ctx, sessionLimit)
	if err != nil {
		return err
	}
	ofUser := 0
	for i, other := range all { // most recently used first
		if other.User == begun.User {
			ofUser++
		}
		if i == sessionLimit-1 || other.User == begun.User && ofUser >= sessionsOfUser {
			if _, err := s.kept.EndSession(ctx, other.Key); err != nil {
				return err
			}
		}
	}
	host, _, _ := net.SplitHostPort(remote)
	begun.Key, begun.Address, begun.Since = keyOf(cookie), cmp.Or(host, remote), time.Now()
	begun.Used = begun.Since
	return s.kept.AddSession(ctx, begun, begun.Since.Add(-sessionIdle), begun.Since.Add(-sessionLife))
}

// find returns the session of a request, or [operator.ErrSignedOut].
func (s sessions) find(r *http.Request) (visit, error) {
	cookie, err := r.Cookie(sessionCookie(r))
	if err != nil || cookie.Value == "" {
		return visit{}, operator.ErrSignedOut
	}
	found, ok, err := s.kept.SessionOf(r.Context(), keyOf(cookie.Value))
	now := time.Now()
	switch {
	case err != nil:
		return visit{}, err
	case !ok || over(found, now):
		return visit{}, operator.ErrSignedOut
	case now.Sub(found.Used) > sessionUse:
		if err := s.kept.UseSession(r.Context(), found.Key, now); err != nil {
			return visit{}, err
		}
	}
	return visit{found, cookie.Value}, nil
}

// list returns the sessions, most recently used first.
func (s sessions) list(ctx context.Context) ([]operator.ConsoleSession, error) {
	all, err := s.kept.Sessions(ctx, sessionLimit)
	if err != nil {
		return nil, err
	}
	now, visible := time.Now(), make([]operator.ConsoleSession, 0, len(all))
	for _, session := range all {
		if !over(session, now) {
			visible = append(visible, shown(session))
		}
	}
	return visible, nil
}

func (s sessions) end(ctx context.Context, key string) (bool, error) {
	return s.kept.EndSession(ctx, key)
}

// endShown ends a session, given the id that others see.
func (s sessions) endShown(ctx context.Context, id string) (bool, error) {
	all, err := s.kept.Sessions(ctx, sessionLimit)
	if err != nil {
		return false, err
	}
	for _, session := range all {
		if shown(session).ID == id {
			return s.end(ctx, session.Key)
		}
	}
	return false, nil
}

// behindTLS reports whether the browser uses HTTPS. A proxy says so; a client that lies
// about it gets a cookie that its browser does not send.
func behindTLS(r *http.Request) bool {
	return r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https")
}

func sessionCookie(r *http.Request) string {
	if behindTLS(r) {
		return "__Host-tidings"
	}
	return "tidings"
}

// setSession sets the cookie of a session, or removes it.
func setSession(w http.ResponseWriter, r *http.Request, value string) {
	c := &http.Cookie{
		Name: sessionCookie(r), Value: value, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode,
		Secure: behindTLS(r), MaxAge: int(sessionLife / time.Second),
	}
	if value == "" {
		c.MaxAge = -1
	}
	http.SetCookie(w, c)
}

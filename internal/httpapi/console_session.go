package httpapi

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/operator"
)

// Limits of sessions.
const (
	sessionIdle = 12 * time.Hour
	sessionLife = 7 * 24 * time.Hour
	// sessionsOfUser and sessionLimit bound the sessions of one user and of all; the
	// oldest makes room.
	sessionsOfUser = 20
	sessionLimit   = 2000
)

// visit is the session of somebody who signed in to the console.
type visit struct {
	operator.ConsoleSession
	caller *session
}

// sessions are those who are signed in to the console of this replica.
type sessions struct {
	mu     sync.Mutex
	visits map[[sha256.Size]byte]*visit // by the hash of the cookie
	now    func() time.Time
}

func newSessions() *sessions {
	return &sessions{visits: make(map[[sha256.Size]byte]*visit), now: time.Now}
}

// begin makes a session, and returns its cookie.
func (s *sessions) begin(caller *session, user, remote string) (cookie string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	address, _, err := net.SplitHostPort(remote)
	if err != nil {
		address = remote
	}
	cookie, now := rand.Text()+rand.Text(), s.now()
	key := sha256.Sum256([]byte(cookie))
	s.makeRoom(sessionLimit, func(*visit) bool { return true })
	s.makeRoom(sessionsOfUser, func(v *visit) bool { return v.User == user })
	s.visits[key] = &visit{
		operator.ConsoleSession{
			ID: hex.EncodeToString(key[:8]), User: user, Address: address, Since: now, Used: now,
		}, caller,
	}
	return cookie
}

// makeRoom ends the session that was used least recently, if there are too many that
// count.
func (s *sessions) makeRoom(most int, counts func(*visit) bool) {
	var oldest [sha256.Size]byte
	n := 0
	for key, v := range s.visits {
		if !counts(v) {
			continue
		}
		if n++; n == 1 || v.Used.Before(s.visits[oldest].Used) {
			oldest = key
		}
	}
	if n >= most {
		delete(s.visits, oldest)
	}
}

// expire ends the sessions that are past their limits.
func (s *sessions) expire() {
	now := s.now()
	for key, v := range s.visits {
		if now.Sub(v.Used) > sessionIdle || now.Sub(v.Since) > sessionLife {
			delete(s.visits, key)
		}
	}
}

// find returns the session of a request.
func (s *sessions) find(r *http.Request) (visit, bool) {
	cookie, err := r.Cookie(sessionCookie(r))
	if err != nil {
		return visit{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	v := s.visits[sha256.Sum256([]byte(cookie.Value))]
	if v == nil {
		return visit{}, false
	}
	v.Used = s.now()
	return *v, true
}

// list returns the sessions, those used last first.
func (s *sessions) list() []operator.ConsoleSession {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	all := make([]operator.ConsoleSession, 0, len(s.visits))
	for _, v := range s.visits {
		all = append(all, v.ConsoleSession)
	}
	slices.SortFunc(all, func(x, y operator.ConsoleSession) int { return y.Used.Compare(x.Used) })
	return all
}

// end ends a session.
func (s *sessions) end(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, v := range s.visits {
		if v.ID == id {
			delete(s.visits, key)
			return true
		}
	}
	return false
}

// behindTLS reports whether the browser came by HTTPS. A proxy says so; whoever lies
// about it gets a cookie that their browser doesn't send.
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

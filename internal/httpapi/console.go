package httpapi

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/internal/console"
	"github.com/tidings-dev/tidings/internal/limit"
	"github.com/tidings-dev/tidings/internal/resource"
	"github.com/tidings-dev/tidings/internal/rest"
	"github.com/tidings-dev/tidings/operator"
)

// TrustedHeader is a header by which a proxy that signs people in names them.
type TrustedHeader struct {
	Name string
	// Networks are the addresses of such proxies; from others the header is ignored.
	Networks []netip.Prefix
	// Roles are the roles of users, and of all others under "*": reader, operator or
	// admin.
	Roles map[string]string
}

// consolePath is where the console is.
const consolePath = "/console"

// awayPause is how long browsers are told to wait while the database is unavailable.
const awayPause = 5 * time.Second

// signIns limits failed attempts to sign in, by address.
func signIns() *limit.Rate {
	return limit.NewRate(limit.RateOptions{PerSecond: 0.2, Burst: 20, Who: "signing in from one address"})
}

// consoleRoutes adds the console, and how people sign in to it.
func (a *api) consoleRoutes() {
	a.sessions = sessions{a.Sessions}
	mux, tries := a.mux.ServeMux, signIns()
	signIn := consolePath + "/sign-in"
	operator.RegisterConsole(mux, a.API, a.Webhooks, operator.ConsoleOptions{
		Path: consolePath, API: root + "/docs", Version: a.Version, Admit: a.admitVisitor, SignIn: signIn,
		Reload: func(ctx context.Context) error {
			_, err := a.Reload(ctx)
			return err
		}, Sessions: a.sessions.list, EndSession: a.sessions.endShown,
	})
	mux.HandleFunc("GET "+signIn, func(w http.ResponseWriter, r *http.Request) {
		status, problem, query := http.StatusOK, "", r.URL.Query()
		for name := range query {
			if name != "to" {
				status, problem = http.StatusUnprocessableEntity, "The address has a parameter that this page does not take."
			}
		}
		a.signInPage(w, status, backTo(query.Get("to")), problem, a.hasEnded(r))
	})
	mux.HandleFunc("POST "+signIn, func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, signInLimit)
		to := backTo(r.PostFormValue("to"))
		status, problem := a.signIn(w, r, strings.TrimSpace(r.PostFormValue("token")))
		if status == http.StatusUnauthorized { // others behind the same proxy are not locked out
			_, err := tries.Take(network(r.RemoteAddr))
			if limited, ok := errors.AsType[*limit.RateError](err); ok {
				w.Header().Set("Retry-After", rest.Seconds(limited.RetryAfter))
				status, problem = http.StatusTooManyRequests, "Too many attempts from your address; wait a minute."
			}
		}
		if problem != "" {
			a.signInPage(w, status, to, problem, false)
			return
		}
		console.Protect(w.Header())
		http.Redirect(w, r, to, http.StatusSeeOther)
	})
	mux.HandleFunc("POST "+consolePath+"/sign-out", func(w http.ResponseWriter, r *http.Request) {
		if s, err := a.sessions.find(r); err == nil {
			_, err = a.sessions.end(r.Context(), s.Key)
			if err != nil {
				a.Logger.ErrorContext(r.Context(), "console: sign out", "error", err)
			}
		}
		setSession(w, r, "")
		console.Protect(w.Header())
		http.Redirect(w, r, signIn, http.StatusSeeOther)
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.Header.Get("Accept"), "text/html") {
			rest.NoSuchRoute(a.mux, root+"/docs")(w, r)
			return
		}
		http.Redirect(w, r, consolePath+"/", http.StatusSeeOther)
	})
}

const signInLimit = 64 << 10

// backTo returns the page of the console that somebody requested, and never another site's.
func backTo(to string) string {
	u, err := url.Parse(to)
	if err != nil || u.Host != "" || u.Scheme != "" || !strings.HasPrefix(u.Path, consolePath+"/") ||
		strings.HasPrefix(u.Path, consolePath+"/sign-") || strings.Contains(to, "\\") {
		return consolePath + "/"
	}
	return to
}

type signInBody struct{ To, Wrong string }

// hasEnded reports whether somebody comes with a session that has ended.
func (a *api) hasEnded(r *http.Request) bool {
	cookie, err := r.Cookie(sessionCookie(r))
	if err != nil || cookie.Value == "" {
		return false
	}
	_, err = a.sessions.find(r)
	return errors.Is(err, operator.ErrSignedOut)
}

func (a *api) signInPage(w http.ResponseWriter, status int, to, wrong string, ended bool) {
	p := &console.Page{
		Title: "Sign in", Base: consolePath + "/", Version: a.Version, Now: time.Now(), Zone: time.UTC, Alone: true,
		Body: signInBody{to, wrong},
	}
	if ended {
		p.Note = &console.Note{
			Kind: "warn", Strong: "Your session has ended.",
			Rest: "Sign in again: you come back to the page that you asked for.",
		}
	}
	if err := console.Render(w, status, "signin", p); err != nil {
		a.Logger.Error("console", "error", err)
	}
}

// signIn begins a session with a token. If it can't, it returns the status and the reason.
func (a *api) signIn(w http.ResponseWriter, r *http.Request, token string) (status int, problem string) {
	authorization := "Bearer " + token
	id, err := a.Authenticator.Identify(authorization)
	if err != nil || token == "" {
		return http.StatusUnauthorized,
			"This token is not valid. It may have been removed, or not copied completely."
	}
	away := func(err error) (int, string) {
		a.Logger.ErrorContext(r.Context(), "console: sign in", "error", err)
		w.Header().Set("Retry-After", rest.Seconds(awayPause))
		return http.StatusServiceUnavailable, "Nobody can sign in at the moment; see the server's log for the reason."
	}
	who, err := a.Authenticator.Caller(r.Context(), id)
	if err != nil {
		return away(err)
	}
	if err := (&session{a, authorization, id.Email, who}).MayLook(); err != nil {
		return http.StatusForbidden, "The role of this token, " + string(who.Role) + ", has no access to the console."
	}
	cookie := rand.Text() + rand.Text()
	proof, err := a.Authenticator.Prove(authorization, cookie)
	if err == nil {
		if old, err := a.sessions.find(r); err == nil {
			_, _ = a.sessions.end(r.Context(), old.Key) // else it ends by itself
		}
		err = a.sessions.begin(r.Context(), cookie, r.RemoteAddr, eventlog.Session{
			Proof: proof, User: id.Email, UserID: who.UserID, Role: string(who.Role),
		})
	}
	if err != nil {
		return away(err)
	}
	setSession(w, r, cookie)
	a.Logger.InfoContext(r.Context(), "console: signed in", "user_id", who.UserID, "address", r.RemoteAddr)
	return 0, ""
}

// admitVisitor returns the user of a request to the console: the one that the proxy names,
// or else the one with the session.
func (a *api) admitVisitor(_ http.ResponseWriter, r *http.Request) (operator.ConsoleUser, error) {
	if user, ok := a.TrustedHeader.user(r); ok {
		_, err := a.Rates.Callers.Take(strings.ToLower(user.ID))
		return user, err
	}
	if id, err := a.Authenticator.Identify(""); err == nil { // authentication is disabled
		who, err := a.Authenticator.Caller(r.Context(), id)
		user := a.visitor(&session{a, "", id.Email, who}, id.Email)
		user.RoleName += "; authentication is disabled"
		return user, err
	}
	s, err := a.sessions.find(r)
	if errors.Is(err, operator.ErrSignedOut) {
		if _, err := a.Rates.Strangers.Take(network(r.RemoteAddr)); err != nil {
			return operator.ConsoleUser{}, err
		}
		return operator.ConsoleUser{}, operator.ErrSignedOut
	}
	if err != nil {
		return operator.ConsoleUser{}, err
	}
	if _, err := a.Rates.Callers.Take(strings.ToLower(s.User)); err != nil {
		return operator.ConsoleUser{}, err
	}
	who, err := a.Authenticator.Resume(r.Context(), s.cookie, s.Proof, resource.Caller{UserID: s.UserID})
	if refused, ok := errors.AsType[*resource.Error](err); ok || err == nil && string(who.Role) != s.Role {
		if _, err := a.sessions.end(r.Context(), s.Key); err != nil {
			return operator.ConsoleUser{}, err
		}
		a.Logger.InfoContext(r.Context(), "console: session ended", "user_id", s.UserID, "error", refused)
		return operator.ConsoleUser{}, operator.ErrSignedOut
	}
	if err != nil {
		return operator.ConsoleUser{}, err
	}
	user := a.visitor(&session{a, "", s.User, who}, s.User)
	user.Session = shown(s.Session).ID
	return user, nil
}

// visitor returns what a caller may do in the console.
func (a *api) visitor(s *session, name string) operator.ConsoleUser {
	user := operator.ConsoleUser{
		Caller: operator.Caller{ID: s.who.UserID, Name: name}, RoleName: string(s.who.Role),
		Admin: s.who.Role == resource.RoleAdmin,
	}
	if s.MayLook() == nil {
		user.Role = operator.Viewer
	}
	if s.MayAct() == nil {
		user.Role = operator.Manager
	}
	return user
}

// user returns whom a trusted proxy names.
func (t *TrustedHeader) user(r *http.Request) (operator.ConsoleUser, bool) {
	if t == nil {
		return operator.ConsoleUser{}, false
	}
	given := r.Header.Values(t.Name)
	address, err := netip.ParseAddrPort(r.RemoteAddr)
	trusted := func(p netip.Prefix) bool { return p.Contains(address.Addr().Unmap()) }
	if err != nil || len(given) != 1 || given[0] == "" || !slices.ContainsFunc(t.Networks, trusted) {
		return operator.ConsoleUser{}, false
	}
	name := given[0]
	role, ok := t.Roles[name]
	if !ok {
		role = t.Roles["*"]
	}
	user := operator.ConsoleUser{Caller: operator.Caller{ID: name, Name: name}, RoleName: role}
	switch role {
	case "reader":
		user.Role = operator.Viewer
	case "operator":
		user.Role = operator.Manager
	case "admin":
		user.Role, user.Admin = operator.Manager, true
	default:
		user.RoleName = "none"
	}
	return user, true
}

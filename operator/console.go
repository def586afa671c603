package operator

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/internal/console"
	"github.com/tidings-dev/tidings/internal/limit"
	"github.com/tidings-dev/tidings/internal/rest"
	"github.com/tidings-dev/tidings/internal/valid"
)

// ConsoleUser is a person who uses the console.
type ConsoleUser struct {
	Caller
	// RoleName is shown as the role; empty means that of the Caller.
	RoleName string
	// Admin may reload the configuration and end sessions.
	Admin bool
	// Session identifies the session of a person who signed in; may be empty.
	Session string
}

// ConsoleSession is the session of a person who signed in.
type ConsoleSession struct {
	ID            string
	User, Address string
	Since, Used   time.Time
}

// ConsoleOptions configures the console of Tidings' own server; a [Handler] needs none.
type ConsoleOptions struct {
	// Path is where the console is, such as "/console"; API is the address of the API's
	// documentation.
	Path, API string
	Version   string
	// Admit returns the user who makes a request. If nobody is signed in ([ErrSignedOut]), pages
	// redirect to the path SignIn, or are refused if it is empty.
	Admit  func(w http.ResponseWriter, r *http.Request) (ConsoleUser, error)
	SignIn string
	// Reload reloads the configuration; nil if that is impossible.
	Reload func(context.Context) error
	// Sessions lists who is signed in, and EndSession ends a session; both may be nil.
	Sessions   func(ctx context.Context) ([]ConsoleSession, error)
	EndSession func(ctx context.Context, id string) (bool, error)
}

// ui serves the console.
type ui struct {
	*Service
	api     *rest.API
	options ConsoleOptions
	base    string // path of the console, with a slash at the end
}

// asked is a request for a page.
type asked struct {
	*http.Request
	w    http.ResponseWriter
	user ConsoleUser
	page *console.Page
}

// RegisterConsole adds the console to a mux, for Tidings' own server; other programs get
// it from [Handler].
func RegisterConsole(mux *http.ServeMux, api *rest.API, s *Service, o ConsoleOptions) {
	u := &ui{Service: s, api: api, options: o, base: o.Path + "/"}
	mux.HandleFunc("GET "+u.base+"assets/{file}", func(w http.ResponseWriter, r *http.Request) {
		console.ServeAsset(w, r, r.PathValue("file"))
	})
	for _, r := range u.routes() {
		mux.HandleFunc(r.method+" "+u.base+r.pattern, u.serve(r))
	}
	mux.HandleFunc("GET "+u.base+"live", u.live)
	mux.HandleFunc("GET "+o.Path, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, u.base, http.StatusMovedPermanently)
	})
	mux.HandleFunc(u.base, u.serve(route{method: http.MethodGet, takes: anything, do: func(a *asked) error {
		return notFound("there is no page %s", strings.TrimPrefix(a.URL.Path, u.base))
	}}))
}

// route is a page, or a form that acts.
type route struct {
	method, pattern string
	// takes are the names of the query parameters of a page, or of the fields of a form,
	// separated by spaces. Others are refused: one that is misspelled would select more
	// than was meant.
	takes string
	do    func(*asked) error
}

// anything makes a route take every parameter.
const anything = "*"

const (
	rangeParameters  = "types resource since until"
	parkedParameters = "endpoint dead reason types resource"
)

func (u *ui) routes() []route {
	const get, post = http.MethodGet, http.MethodPost
	return []route{
		{get, "{$}", "sort range page", u.overview},
		{get, "endpoints/{name}", "range", u.endpoint},
		{get, "endpoints/{name}/{verb}", "", u.askControl},
		{get, "events", rangeParameters + " before after", u.eventList},
		{get, "events/{event}", "page endpoint", u.event},
		{get, "attempts", "endpoint outcome " + rangeParameters + " before", u.attemptList},
		{get, "parked", parkedParameters + " after all", u.parkedList},
		{get, "parked/{verb}", parkedParameters + " event", u.askParked},
		{get, "parked/changes/{id}/cancel", "", u.askCancelChange},
		{get, "replays", "endpoint event what plan " + rangeParameters, u.replayList},
		{get, "replays/{id}/cancel", "", u.askCancel},
		{get, "status", "", u.status},
		{get, "find", "q", u.find},
		{post, "endpoints/{name}/{verb}", "seen comment until", u.control},
		{post, "parked/{verb}", parkedParameters + " event count comment", u.actOnParked},
		{post, "parked/changes/{id}/cancel", "", u.cancelChange},
		{post, "replays", "endpoint event what " + rangeParameters, u.beginReplay},
		{post, "replays/{id}/cancel", "", u.cancelReplay},
		{post, "reload", "", u.reload},
		{post, "sessions/{id}/end", "", u.endSession},
	}
}

// check returns an error if a request has a parameter or field that the route does not
// take.
func (r *route) check(a *asked) error {
	takes, values, what := strings.Fields(r.takes), a.URL.Query(), "page"
	if r.takes == anything {
		return nil
	}
	if r.method == http.MethodPost {
		if len(values) > 0 {
			return invalid("parameter", "this form takes none in its address")
		}
		values, what = a.PostForm, "form"
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if !slices.Contains(takes, name) {
			return invalid("parameter", "%q is unknown; this %s takes %s", clip(name), what,
				cmp.Or(strings.Join(takes, ", "), "none"))
		}
	}
	return nil
}

// formLimit bounds the body of a form.
const formLimit = 256 << 10

// serve handles requests for a page or a submitted form.
func (u *ui) serve(route route) http.HandlerFunc {
	acts := route.method == http.MethodPost
	return func(w http.ResponseWriter, r *http.Request) {
		user, err := u.options.Admit(w, r)
		a := &asked{Request: r, w: w, user: user}
		a.page = u.newPage(a)
		if err == nil && user.Role < Viewer {
			err = errForbidden
		}
		if err != nil {
			u.refuse(a, err)
			return
		}
		if acts {
			r.Body = http.MaxBytesReader(w, r.Body, formLimit)
			if err = r.ParseForm(); err != nil {
				err = invalid("form", "the form could not be read: %v", err)
			} else if user.Role < Manager {
				err = errForbidden
			}
		}
		if err == nil {
			err = checkText(r)
		}
		if err == nil {
			err = route.check(a)
		}
		var leave func()
		if err == nil {
			leave, err = u.api.Limits.Requests.Enter(r.Context(), user.ID, 1)
		}
		if err == nil {
			defer leave()
			err = route.do(a)
		}
		if err != nil {
			u.fail(a, err)
		}
	}
}

// checkText returns an error if a request contains text that no database can store.
func checkText(r *http.Request) error {
	if err := valid.Text(r.URL.Path); err != nil {
		return invalid("path", "%v", err)
	}
	for _, values := range []url.Values{r.URL.Query(), r.PostForm} {
		for name, texts := range values {
			for _, text := range append(texts, name) {
				if err := valid.Text(text); err != nil {
					return invalid("parameter", "%v", err)
				}
			}
		}
	}
	return nil
}

func (u *ui) newPage(a *asked) *console.Page {
	p := &console.Page{
		Title: "Tidings", Base: u.base, API: u.options.API, Version: u.options.Version, Now: time.Now(), Zone: time.UTC,
		Self: a.URL.RequestURI(),
		Who: console.Who{
			Name: cmp.Or(a.user.Name, a.user.ID), Role: a.user.RoleName, Admin: a.user.Admin, SignOut: a.user.Session != "",
		},
	}
	if p.Who.Role == "" {
		p.Who.Role = map[Role]string{Viewer: "reader", Manager: "operator"}[a.user.Role]
	}
	if a.user.Role < Manager {
		p.Who.Blocked = "Your role is " + p.Who.Role + ", which is read-only. Ask an admin"
		if a.user.Session != "" { // else nobody signs in here: a proxy or the embedding program does that
			p.Who.Blocked += ", or sign in with another token"
		}
		p.Who.Blocked += "."
	}
	if c, err := a.Cookie(zoneCookie); err == nil {
		if name, err := url.QueryUnescape(c.Value); err == nil && len(name) < 64 {
			if zone, err := time.LoadLocation(name); err == nil && zone != time.Local {
				p.Zone = zone
			}
		}
	}
	return p
}

// The cookies of the console, besides that of a session.
const (
	zoneCookie = "tidings-zone" // the visitor's time zone, set by the script
	noteCookie = "tidings-note" // how the last action ended
)

// show renders a page.
func (u *ui) show(a *asked, status int, name, tab, title string, body any) error {
	p := a.page
	p.Title, p.Tab, p.Body = title, tab, body
	if counts, err := u.log().ParkedCounts(a.Context()); err == nil {
		for _, n := range counts {
			p.Parked += n.Live
		}
	}
	if c, err := a.Cookie(noteCookie); err == nil && p.Note == nil {
		if text, err := base64.RawURLEncoding.DecodeString(c.Value); err == nil {
			p.Note = new(console.Note)
			if json.Unmarshal(text, p.Note) != nil {
				p.Note = nil
			}
		}
		http.SetCookie(a.w, &http.Cookie{Name: noteCookie, Path: u.base, MaxAge: -1})
	}
	return console.Render(a.w, status, name, p)
}

// done answers a form with a redirect to a page that shows a note.
func (u *ui) done(a *asked, to string, n console.Note) error {
	n.Strong, n.Rest = clip(n.Strong), clip(n.Rest)
	text, err := json.Marshal(n)
	if err != nil {
		return err
	}
	http.SetCookie(a.w, &http.Cookie{
		Name: noteCookie, Value: base64.RawURLEncoding.EncodeToString(text), Path: u.base, MaxAge: 60, HttpOnly: true,
		SameSite: http.SameSiteStrictMode, Secure: a.TLS != nil,
	})
	console.Protect(a.w.Header())
	http.Redirect(a.w, a.Request, to, http.StatusSeeOther)
	return nil
}

// clip truncates a text for a cookie.
func clip(text string) string {
	if runes := []rune(text); len(runes) > 300 {
		return string(runes[:300]) + "…"
	}
	return text
}

// back returns the page that a form was on, or the given one if the form does not say.
func (u *ui) back(a *asked, other string) string {
	if from, err := url.Parse(a.Referer()); err == nil && from.Host == a.Host && strings.HasPrefix(from.Path, u.base) &&
		from.Path != other {
		return from.RequestURI()
	}
	return other
}

// ErrSignedOut means that nobody is signed in.
var ErrSignedOut = errors.New("nobody is signed in")

// refuse answers a visitor who is unknown or has no access.
func (u *ui) refuse(a *asked, err error) {
	limited, isLimited := errors.AsType[*limit.RateError](err)
	_, away := errors.AsType[*eventlog.UnavailableError](err)
	switch {
	case isLimited:
		a.w.Header().Set("Retry-After", rest.Seconds(limited.RetryAfter))
		u.plain(a, http.StatusTooManyRequests, "Too many requests", limited.Error())
	case errors.Is(err, errForbidden):
		u.plain(a, http.StatusForbidden, "No access", "The role "+a.page.Who.Role+" has no access to the console.")
	case away, u.options.SignIn != "" && !errors.Is(err, ErrSignedOut):
		u.fail(a, err)
	case u.options.SignIn != "":
		to := a.page.Self
		if a.Method != http.MethodGet {
			to = u.back(a, u.base)
		}
		console.Protect(a.w.Header())
		http.Redirect(a.w, a.Request, u.options.SignIn+"?to="+url.QueryEscape(to), http.StatusSeeOther)
	default:
		a.w.Header().Set("WWW-Authenticate", `Basic realm="Tidings", charset="UTF-8"`)
		u.plain(a, http.StatusUnauthorized, "Sign in first", "Valid credentials are required.")
	}
}

// missing is the body of a page that explains why there is nothing to show.
type missing struct{ Heading, Text, Link, LinkText string }

// plain answers with a page that contains only a message.
func (u *ui) plain(a *asked, status int, heading, text string) {
	a.page.Alone = a.user.ID == ""
	body := missing{heading, text, u.base, "Overview"}
	a.page.Title, a.page.Body = heading, body
	if err := console.Render(a.w, status, "missing", a.page); err != nil {
		u.api.Logger.ErrorContext(a.Context(), "console", "error", err)
	}
}

// fail answers with a page that says what went wrong.
func (u *ui) fail(a *asked, err error) {
	e, ours := errors.AsType[*Error](err)
	busy, isBusy := errors.AsType[*limit.BusyError](err)
	_, away := errors.AsType[*eventlog.UnavailableError](err)
	switch {
	case errors.Is(err, errForbidden):
		u.plain(a, http.StatusForbidden, "Not allowed", a.page.Who.Blocked)
	case ours && e.NotFound:
		u.plain(a, http.StatusNotFound, "Not found", sentence(e.Message))
	case ours && a.Method == http.MethodPost:
		if err := u.done(a, u.back(a, u.base), console.Note{Kind: "warn", Strong: "Not done:", Rest: e.Error()}); err != nil {
			u.api.Logger.ErrorContext(a.Context(), "console", "error", err)
		}
	case ours && e.Field != "":
		u.plain(a, http.StatusUnprocessableEntity, "Invalid request", sentence(e.Error()))
	case ours:
		u.plain(a, http.StatusConflict, "Not possible now", sentence(e.Error()))
	case isBusy:
		a.w.Header().Set("Retry-After", rest.Seconds(busy.RetryAfter))
		u.plain(a, http.StatusServiceUnavailable, "Tidings is busy", sentence(busy.Error()))
	case away:
		a.w.Header().Set("Retry-After", "5")
		u.plain(a, http.StatusServiceUnavailable, "The database does not answer", "Tidings is running, and nothing is lost: "+
			"requests that change a resource fail. Deliveries resume by themselves.")
	default:
		u.api.Logger.ErrorContext(a.Context(), "console: request failed", "path", a.URL.Path, "error", err)
		u.plain(a, http.StatusInternalServerError, "Something went wrong", "See the server's log for details.")
	}
}

// sentence begins a message with a capital letter and ends it with a full stop.
func sentence(text string) string {
	if text == "" {
		return ""
	}
	return strings.ToUpper(text[:1]) + text[1:] + "."
}

// actor is the context of what the person does.
func (a *asked) actor() context.Context {
	return WithActor(a.Context(), cmp.Or(a.user.Name, a.user.ID))
}

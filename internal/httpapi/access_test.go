package httpapi

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/internal/publish"
	"github.com/tidings-dev/tidings/internal/resource"
	"github.com/tidings-dev/tidings/operator"
)

func TestRoles(t *testing.T) {
	server := &api{Options: Options{Resources: new(resource.Resources)}}
	relay := new(api)
	for _, c := range []struct {
		api                        *api
		role                       resource.Role
		look, act, publish, follow bool
	}{
		{server, resource.RoleUser, false, false, false, true},
		{server, resource.RoleDeveloper, false, false, false, true},
		{server, resource.RoleReader, true, false, false, true},
		{server, resource.RoleAdmin, true, true, true, true},
		{relay, rolePublisher, false, false, true, false},
		{relay, resource.RoleReader, true, false, false, true},
		{relay, roleOperator, true, true, false, true},
		{relay, resource.RoleAdmin, true, true, true, true},
	} {
		s := &session{api: c.api, who: resource.Caller{Role: c.role}}
		for name, check := range map[string]struct {
			err  error
			want bool
		}{
			"look": {s.MayLook(), c.look}, "act": {s.MayAct(), c.act}, "publish": {s.mayPublish(), c.publish},
			"follow": {s.MayFollow(), c.follow},
		} {
			if got := check.err == nil; got != check.want {
				t.Errorf("%s (relay: %v): may %s: got %v, want %v", c.role, c.api == relay, name, check.err, check.want)
			}
			if e := new(resource.Error); check.err != nil && (!errors.As(check.err, &e) || e.Code != resource.Forbidden) {
				t.Errorf("%s: may not %s: %v is not forbidden", c.role, name, check.err)
			}
		}
	}
}

func TestTrustedHeader(t *testing.T) {
	header := &TrustedHeader{
		Name: "X-Forwarded-User", Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
		Roles: map[string]string{"ann": "admin", "bob": "operator", "*": "reader"},
	}
	strict := *header
	strict.Roles = map[string]string{"ann": "admin"}
	for name, c := range map[string]struct {
		header *TrustedHeader
		remote string
		given  []string
		role   string // empty: names nobody
		may    operator.Role
		admin  bool
	}{
		"no trusted header":      {nil, "10.1.2.3:4", []string{"ann"}, "", 0, false},
		"an admin":               {header, "10.1.2.3:4", []string{"ann"}, "admin", operator.Manager, true},
		"mapped to IPv6":         {header, "[::ffff:10.1.2.3]:4", []string{"ann"}, "admin", operator.Manager, true},
		"an operator":            {header, "10.1.2.3:4", []string{"bob"}, "operator", operator.Manager, false},
		"anybody else":           {header, "10.1.2.3:4", []string{"eve"}, "reader", operator.Viewer, false},
		"anybody without a role": {&strict, "10.1.2.3:4", []string{"eve"}, "none", 0, false},
		"another network":        {header, "192.0.2.1:4", []string{"ann"}, "", 0, false},
		"no header":              {header, "10.1.2.3:4", nil, "", 0, false},
		"an empty header":        {header, "10.1.2.3:4", []string{""}, "", 0, false},
		"a header of both":       {header, "10.1.2.3:4", []string{"ann", "bob"}, "", 0, false},
		"a malformed address":    {header, "@", []string{"ann"}, "", 0, false},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr, r.Header["X-Forwarded-User"] = c.remote, c.given
		user, ok := c.header.user(r)
		if ok != (c.role != "") || user.RoleName != c.role || user.Role != c.may || user.Admin != c.admin {
			t.Errorf("%s: got %+v, %v; want the role %q", name, user, ok, c.role)
		}
	}
}

// Signing in redirects only to pages of the console.
func TestBackTo(t *testing.T) {
	const home = "/console/"
	for to, want := range map[string]string{
		"/console/endpoints/a?since=1h":    "/console/endpoints/a?since=1h",
		"":                                 home,
		"/":                                home,
		"/api/v1/contexts":                 home,
		"/consoleX":                        home,
		"https://evil.example/console/":    home,
		"//evil.example/console/":          home,
		`/\evil.example/console/`:          home,
		`/console/\evil`:                   home,
		"javascript:alert(1)//console/":    home,
		"/console/sign-out":                home,
		"/console/%zz":                     home,
		"http:///console/":                 home,
		"/console/../api/v1/contexts/../x": "/console/../api/v1/contexts/../x", // this server's, and read-only
	} {
		if got := backTo(to); got != want {
			t.Errorf("backTo(%q): got %q, want %q", to, got, want)
		}
	}
}

func TestPrecondition(t *testing.T) {
	for header, want := range map[string]int64{
		"": 0, "*": 0, `"3"`: 3, "3": 3, `"0"`: -1, `"-1"`: -1, `W/"3"`: -1, `"3", "4"`: -1, `"x"`: -1,
		`"99999999999999999999"`: -1,
	} {
		if got := (Precondition{header}).version(); got != want {
			t.Errorf("If-Match: %s: got %d, want %d", header, got, want)
		}
	}
}

func TestErrorsHaveTheirStatus(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{&resource.Error{Code: resource.Invalid}, http.StatusUnprocessableEntity},
		{&resource.Error{Code: resource.NotFound}, http.StatusNotFound},
		{&resource.Error{Code: resource.Changed}, http.StatusPreconditionFailed},
		{fmt.Errorf("wrapped: %w", &resource.Error{Code: resource.Busy}), http.StatusServiceUnavailable},
		{publish.ErrContentType, http.StatusUnsupportedMediaType},
		{fmt.Errorf("publish: %w", eventlog.ErrKeyReused), http.StatusConflict},
		{publish.Problems{{Location: "body.id", Message: "is missing"}}, http.StatusUnprocessableEntity},
		{errors.New("another"), 0},
	} {
		got := 0
		if p := explain(c.err); p != nil {
			got = p.Status
		}
		if got != c.want {
			t.Errorf("%v: got status %d, want %d", c.err, got, c.want)
		}
	}
}

func TestSessionCookie(t *testing.T) {
	const plain, secure = "tidings=x; Path=/; Max-Age=604800; HttpOnly; SameSite=Strict",
		"__Host-tidings=x; Path=/; Max-Age=604800; HttpOnly; Secure; SameSite=Strict"
	for name, c := range map[string]struct {
		forwarded string
		tls       bool
		want      string
	}{
		"plain":                {"", false, plain},
		"TLS":                  {"", true, secure},
		"TLS before a proxy":   {"HTTPS", false, secure},
		"plain before a proxy": {"http", false, plain},
	} {
		r, w := httptest.NewRequest(http.MethodGet, "/", nil), httptest.NewRecorder()
		r.Header.Set("X-Forwarded-Proto", c.forwarded)
		if c.tls {
			r.TLS = new(tls.ConnectionState)
		}
		setSession(w, r, "x")
		if diff := cmp.Diff(c.want, w.Header().Get("Set-Cookie")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

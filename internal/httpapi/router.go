package httpapi

import (
	"net/http"
	"strings"
)

const byLocation = "/providers/by-location/"

// router is a ServeMux, plus a second one for the path by-location, which
// conflicts with provider ids in a single ServeMux.
type router struct {
	*http.ServeMux
	locations *http.ServeMux
}

func newRouter() *router { return &router{http.NewServeMux(), http.NewServeMux()} }

// HandleFunc implements humago.Mux.
func (m *router) HandleFunc(pattern string, handler func(http.ResponseWriter, *http.Request)) {
	if strings.Contains(pattern, byLocation) {
		m.locations.HandleFunc(pattern, handler)
		return
	}
	m.ServeMux.HandleFunc(pattern, handler)
}

// ServeHTTP accepts a location that is not percent-encoded: the rest of the
// path is the location.
func (m *router) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	location, ok := strings.CutPrefix(r.URL.EscapedPath(), root+byLocation)
	if !ok || r.Method != http.MethodGet {
		m.ServeMux.ServeHTTP(w, r)
		return
	}
	r.URL.RawPath = root + byLocation + strings.ReplaceAll(location, "/", "%2F")
	m.locations.ServeHTTP(w, r)
}

package httpapi

import (
	"net/http"
	"strings"
)

const byLocation = "/providers/by-location/"

// router is a ServeMux, and one more for the path by-location: to a single
// ServeMux, by-location could be the id of a provider.
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

// ServeHTTP takes a location that was not percent-encoded as it was meant: all
// that follows is one.
func (m *router) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	location, ok := strings.CutPrefix(r.URL.EscapedPath(), root+byLocation)
	if !ok || r.Method != http.MethodGet {
		m.ServeMux.ServeHTTP(w, r)
		return
	}
	r.URL.RawPath = root + byLocation + strings.ReplaceAll(location, "/", "%2F")
	m.locations.ServeHTTP(w, r)
}

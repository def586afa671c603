// Package console renders the operator's console: its pages, style sheet and scripts,
// the charts, and the words for numbers and times. It knows nothing of webhooks; package
// operator fills the pages.
package console

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"
)

//go:embed assets/*.css assets/*.js assets/*.svg
var assetFiles embed.FS

//go:embed templates/*.html
var templateFiles embed.FS

// Policy is the Content-Security-Policy of every page.
const Policy = "default-src 'self'; frame-ancestors 'none'; form-action 'self'; base-uri 'none'"

// asset is a file under a name that changes with its content.
type asset struct {
	name, kind string
	content    []byte
}

var (
	assets = make(map[string]asset)  // by hashed name
	hashed = make(map[string]string) // hashed names, by plain name
	kinds  = map[string]string{
		".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
	}
	pages = make(map[string]*template.Template)
)

func init() {
	files, _ := fs.Glob(assetFiles, "assets/*") // the pattern is valid
	for _, file := range files {
		content, _ := assetFiles.ReadFile(file)
		sum := sha256.Sum256(content)
		name, ext := path.Base(file), path.Ext(file)
		full := fmt.Sprintf("%s.%s%s", strings.TrimSuffix(name, ext), hex.EncodeToString(sum[:6]), ext)
		assets[full], hashed[name] = asset{full, kinds[ext], content}, full
	}
	shared := template.Must(template.New("").Funcs(functions).ParseFS(templateFiles, "templates/_*.html"))
	screens, _ := fs.Glob(templateFiles, "templates/[a-z]*.html")
	for _, file := range screens {
		t := template.Must(template.Must(shared.Clone()).ParseFS(templateFiles, file))
		pages[strings.TrimSuffix(path.Base(file), ".html")] = t
	}
}

// Who is the person a page is for.
type Who struct {
	// Name is shown: an e-mail address or an id.
	Name, Role string
	// Blocked says why the person may not act; empty if they may.
	Blocked string
	// Admin may reload the configuration and end sessions.
	Admin bool
	// SignOut is true if there is a session to end.
	SignOut bool
}

// Short returns the name without the domain of an e-mail address.
func (w Who) Short() string {
	name, _, _ := strings.Cut(w.Name, "@")
	return name
}

// Note is a message across the page: how an action ended, or what is wrong.
type Note struct {
	Kind   string `json:"k,omitempty"` // good, warn or bad
	State  string `json:"s,omitempty"` // a state, such as delivered
	Strong string `json:"t,omitempty"`
	Rest   string `json:"r,omitempty"`
}

// Page is a page to be rendered.
type Page struct {
	// Title is the title of the window, such as "billing is down".
	Title string
	// Tab is the tab that is current.
	Tab string
	// Base is the path of the console, such as "/console/", and API that of the API.
	Base, API string
	Version   string
	Now       time.Time
	Zone      *time.Location
	Who       Who
	// Parked is the number beside the tab.
	Parked int64
	// Ill selects the icon.
	Ill bool
	// Alone leaves out the tabs, for the sign-in page.
	Alone bool
	// Live means that parts of the page are refreshed.
	Live bool
	// Self is the path and query of the page.
	Self string
	Note *Note
	Body any
}

// URL returns the address of a page of the console; each part is escaped.
func (p *Page) URL(parts ...string) string {
	for i, part := range parts {
		parts[i] = url.PathEscape(part)
	}
	return p.Base + strings.Join(parts, "/")
}

// Asset returns the address of an asset.
func (p *Page) Asset(name string) string { return p.Base + "assets/" + hashed[name] }

// Render writes a page.
func Render(w http.ResponseWriter, status int, name string, p *Page) error {
	var out bytes.Buffer
	if err := pages[name].ExecuteTemplate(&out, "layout", p); err != nil {
		return fmt.Errorf("render page %s: %w", name, err)
	}
	write(w, status, out.Bytes())
	return nil
}

// Static renders a page once, and returns the handler that serves it.
func Static(name string, p *Page) http.HandlerFunc {
	var out bytes.Buffer
	if err := pages[name].ExecuteTemplate(&out, "layout", p); err != nil {
		panic(err) // it depends on the program alone
	}
	return func(w http.ResponseWriter, _ *http.Request) { write(w, http.StatusOK, out.Bytes()) }
}

func write(w http.ResponseWriter, status int, page []byte) {
	Protect(w.Header())
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(page) // the client may be gone
}

// Protect sets the headers that every page has.
func Protect(h http.Header) {
	h.Set("Content-Security-Policy", Policy)
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("X-Content-Type-Options", "nosniff")
}

// ServeAsset serves an asset by its hashed name.
func ServeAsset(w http.ResponseWriter, r *http.Request, name string) {
	a, ok := assets[name]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", a.kind)
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(a.content) // the client may be gone
}

// on is what a partial gets: the page, and what it shows.
type on struct {
	P *Page
	V any
}

var functions = template.FuncMap{
	"on":    func(p *Page, v any) on { return on{p, v} },
	"num":   Number,
	"lower": strings.ToLower,
	"join":  strings.Join,
	"word":  Word,
	"short": shortResource,
	"event": breakable,
	"cut":   cut,
	"list":  func(items ...any) []any { return items },
	"ms":    Micros,
	"spark": Spark,
}

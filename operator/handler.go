// Package operator is the operator's interface to a program's webhooks: the state
// of endpoints and events, pausing, testing, redelivery and replay, the feed of
// events, and metrics for Prometheus. Tidings' own server is built on it.
//
//	mux.Handle("/ops/", operator.Handler(hooks, mayOperate, operator.Options{Path: "/ops"}))
//	prometheus.MustRegister(operator.Collector(hooks))
//
// [Handler] serves the operations described in docs/operations.md, with problem
// documents (RFC 9457), and its OpenAPI description at /openapi.json below its
// path. A [Service] offers the same to Go code. Only programs that import this
// package depend on huma and the Prometheus client.
package operator

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/limit"
	"github.com/tidings-dev/tidings/internal/rest"
	"github.com/tidings-dev/tidings/outbox"
)

// Role is what a caller may do. Each role includes those before it.
type Role int

// The roles.
const (
	Nobody  Role = iota // is refused everything
	Reader              // reads the feed
	Viewer              // sees endpoints, events, attempts and replays
	Manager             // pauses, tests, resends and discards
)

// Caller is the caller of a request.
type Caller struct {
	// ID identifies the caller. It is logged, saved with replays, sent with pings,
	// and used for per-caller limits.
	ID string
	// Name is the name that is recorded with what the caller does; empty means the
	// ID.
	Name string
	Role Role
	// MayRead reports whether the caller may read an event in the feed; nil means
	// all events.
	MayRead func(tidings.Event) bool
}

// Authorize returns the caller of a request. An error, whose text is not shown, is
// answered with 401, and the role [Nobody] with 403. While a request waits for
// events it is called again every 15 seconds, so it must not read the request's
// body.
type Authorize func(*http.Request) (Caller, error)

// Options configures a [Service] or a [Handler]. The zero value is usable.
type Options struct {
	// Path is where the handler is mounted, such as "/ops"; empty means the root.
	// With a path that ends in /api/v1, the tidings command can be used; its --url
	// is the part before that.
	Path string
	// ParseID returns the id of a resource in the form that the log uses, or an
	// error if it is invalid; nil accepts every id unchanged.
	ParseID func(string) (string, error)
	// Logger logs what operators do and requests that fail; nil means
	// [slog.Default].
	Logger *slog.Logger
	// Config and Sources are shown in the status, if they are not nil: the configuration,
	// and the tables whose changes make events. Written returns what the configuration says
	// of an endpoint; it may be nil.
	Config  func() *ConfigStatus
	Sources func() []SourceStatus
	Written func(endpoint string) *Written
	// Activity counts the events that Sources made; it may be nil.
	Activity func(context.Context) (Activity, error)
	// Stopping ends requests that wait for events when it is closed, so that a
	// server can shut down; may be nil.
	Stopping <-chan struct{}
}

// Limits of a handler, for all callers and for each one.
const (
	maxRequests, maxRequestsOfOne = 64, 16
	maxStreams, maxStreamsOfOne   = 1000, 100
	maxScans, maxScansOfOne       = 8, 4
	placeWait                     = 5 * time.Second
)

// Handler returns the operator API of an outbox: the operations under /webhooks, the
// feed at /events and the console at /console/, below Options.Path. authorize decides who
// may call it.
// Handler panics if it is nil.
func Handler(hooks *outbox.Outbox, authorize Authorize, o Options) http.Handler {
	s := New(hooks, o)
	mux := http.NewServeMux()
	return s.handler(mux, authorize, func(api *rest.API) func(http.Handler) http.Handler { return Register(api, s) })
}

func (s *Service) handler(
	mux *http.ServeMux, authorize Authorize, register func(*rest.API) func(http.Handler) http.Handler,
) http.Handler {
	if authorize == nil {
		panic("operator.Handler: authorize is nil; say who may look and who may act")
	}
	of := func(what string, total, perUser int64) *limit.Places {
		return limit.NewPlaces(limit.Options{What: what, Total: total, PerUser: perUser, Wait: placeWait})
	}
	root := strings.TrimSuffix(s.options.Path, "/")
	config := huma.DefaultConfig("Webhooks", "1")
	config.Info.Description = "The state of events and endpoints, and operations on them."
	api := rest.New(mux, config, rest.Options{
		Root: root, Logger: cmp.Or(s.options.Logger, slog.Default()), Stopping: s.options.Stopping,
		Explain: Explain,
		Admit: func(_ http.ResponseWriter, r *http.Request) (rest.Session, error) {
			who, err := admit(authorize, r)
			if err == nil && s.hooks != nil && s.relay() == nil {
				err = errNoEndpoints
			}
			return who, err
		},
		Limits: rest.Limits{
			Requests: of("requests", maxRequests, maxRequestsOfOne),
			Streams:  of("event streams and requests that wait for events", maxStreams, maxStreamsOfOne),
			Scans:    of("searches and other long reads", maxScans, maxScansOfOne),
		},
	})
	streams := register(api)
	RegisterConsole(mux, api, s, ConsoleOptions{
		Path: root + "/console", API: root + "/openapi.json",
		Admit: func(_ http.ResponseWriter, r *http.Request) (ConsoleUser, error) {
			who, err := authorize(r)
			return ConsoleUser{Caller: who}, err
		},
	})
	mux.HandleFunc("/", rest.NoSuchRoute(mux, root+"/openapi.json"))
	return api.Wrap(streams(mux))
}

// session is the caller of a request to a [Handler].
type session struct {
	Caller
	authorize Authorize
	request   *http.Request
}

var (
	errUnauthorized = &rest.Error{Status: http.StatusUnauthorized, Message: "valid credentials are required"}
	errForbidden    = &rest.Error{Status: http.StatusForbidden, Message: "your role does not allow this"}
)

func admit(authorize Authorize, r *http.Request) (rest.Session, error) {
	who, err := authorize(r)
	switch {
	case err != nil:
		return nil, errUnauthorized
	case who.Role < Reader:
		return nil, errForbidden
	}
	return &session{who, authorize, r}, nil
}

// ID implements [rest.Session].
func (s *session) ID() string { return s.Caller.ID }

// Name implements [rest.Session].
func (s *session) Name() string { return cmp.Or(s.Caller.Name, s.Caller.ID) }

func (s *session) need(role Role) error {
	if s.Role < role {
		return errForbidden
	}
	return nil
}

// MayLook implements [rest.Session].
func (s *session) MayLook() error { return s.need(Viewer) }

// MayAct implements [rest.Session].
func (s *session) MayAct() error { return s.need(Manager) }

// MayFollow implements [rest.Session].
func (s *session) MayFollow() error { return s.need(Reader) }

// MayRead implements [rest.Session].
func (s *session) MayRead(e tidings.Event) bool {
	return s.Caller.MayRead == nil || s.Caller.MayRead(e)
}

// Changes implements [rest.Session].
func (*session) Changes(tidings.Event) bool { return false }

// Changed implements [rest.Session].
func (*session) Changed() <-chan struct{} { return nil }

// Recheck implements [rest.Session].
func (s *session) Recheck(context.Context) (rest.Session, error) {
	return admit(s.authorize, s.request)
}

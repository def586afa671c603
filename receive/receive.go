// Package receive is for programs that receive webhooks from Tidings: it
// verifies signatures, decodes events, and drops duplicates and stale events.
//
//	verifier, err := receive.NewVerifier(os.Getenv("WEBHOOK_SECRET"))
//	…
//	storage, err := receive.NewSQL(ctx, db) // or leave it out: memory
//	…
//	handler := receive.New(verifier, func(ctx context.Context, e tidings.Event) error {
//		return refresh(ctx, e.ResourceURL) // an error makes Tidings retry
//	}, receive.Options{Storage: storage, Logger: slog.Default()})
//	feed := receive.Feed{URL: os.Getenv("TIDINGS_URL"), Token: os.Getenv("TIDINGS_TOKEN")}
//	if _, err := feed.CatchUp(ctx, handler); err != nil { // what was missed while the program was down
//		…
//	}
//	http.Handle("/webhook", handler)
package receive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/tidings-dev/tidings"
)

// bodyLimit is far larger than any webhook.
const bodyLimit = 64 << 10

// idLimit is far longer than any webhook id.
const idLimit = 256

// Decode decodes a webhook in the thin format. It requires the six members of
// the contract and ignores others, so that later versions of Tidings can add
// some.
//
// The id comes from the webhook-id header, which is covered by the signature.
// Sequence and ResourceVersion come from unsigned headers, and are 0 if these
// are missing or malformed. They are useful for logs, but anybody who can alter
// headers in transit can alter them: do not drop events because of them, and do
// not use the sequence as the cursor of a catch-up.
func Decode(header http.Header, body []byte) (tidings.Event, error) {
	known, err := knownMembers(body)
	if err != nil {
		return tidings.Event{}, err
	}
	var e tidings.Event
	if err := e.UnmarshalJSON(known); err != nil {
		return tidings.Event{}, err
	}
	e.ID = header.Get("webhook-id")
	if len(e.ID) > idLimit {
		return tidings.Event{}, fmt.Errorf("header webhook-id is longer than %d bytes", idLimit)
	}
	e.Sequence, e.ResourceVersion = count(header.Get("tidings-sequence")), count(header.Get("tidings-resource-version"))
	return e, nil
}

// knownMembers removes members that are not part of the contract.
func knownMembers(body []byte) ([]byte, error) {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(body, &all); err != nil {
		return nil, fmt.Errorf("event body: %w", err)
	}
	known := make(map[string]json.RawMessage)
	for _, name := range []string{"event", "resource_type", "resource_id", "resource_url", "user_id", "timestamp"} {
		if value, ok := all[name]; ok {
			known[name] = value
		}
	}
	return json.Marshal(known)
}

// count returns the number in an informational header, or 0.
func count(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// Options configures a handler; the zero value is valid.
type Options struct {
	// Storage remembers which events were handled; the default is a [Memory] of
	// 10,000 ids and resources.
	Storage Storage
	// Logger gets failures and refused webhooks as warnings, and everything else
	// at debug level; nil for no logs.
	Logger *slog.Logger
	// Observe is called after each webhook and each event of the feed, for
	// metrics; it must be quick and safe for concurrent use.
	Observe func(Observation)
}

// Observation is what became of a webhook or an event of the feed.
type Observation struct {
	Result Result
	Event  tidings.Event // zero if it was refused
	Status int           // the response; 0 for an event of the feed
	// Err is why it was refused or failed.
	Err      error
	Duration time.Duration
}

// Handler is an [http.Handler] that receives webhooks. Use [New] or [NewHandler].
type Handler struct {
	verifier *Verifier
	handle   func(context.Context, tidings.Event) error
	options  Options
}

// memorySize is how many webhook ids and resources are remembered by default.
const memorySize = 10_000

// New returns a handler that calls handle for each authentic webhook, except for
// pings ([tidings.PingEvent]), those handled before and those that are older than
// another of the same resource. It responds with 204 if handle returns nil; 500
// if handle returns an error, so that Tidings retries; 401 if the signature is
// invalid; and 400 to anything else that is not a webhook. With a nil verifier it
// accepts unsigned webhooks.
//
// The same webhook delivered again while handle is still busy with it waits for
// the outcome: handle is not called twice for a webhook that it has handled.
func New(v *Verifier, handle func(context.Context, tidings.Event) error, o Options) *Handler {
	if o.Storage == nil {
		o.Storage = NewMemory(memorySize)
	}
	return &Handler{verifier: v, handle: handle, options: o}
}

// NewHandler is like [New], but remembers only the last 10,000 ids, and so calls
// handle for events in whatever order they arrive.
func NewHandler(v *Verifier, handle func(context.Context, tidings.Event) error) *Handler {
	return New(v, handle, Options{Storage: &Memory{recent: NewRecent(memorySize)}})
}

// ServeHTTP takes one webhook.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	o := h.receive(w, r)
	switch {
	case o.Status == http.StatusNoContent:
		w.WriteHeader(o.Status)
	case o.Result == Failed:
		http.Error(w, "the event could not be handled", o.Status)
	default:
		http.Error(w, o.Err.Error(), o.Status)
	}
	o.Duration = time.Since(began)
	h.report(r.Context(), o)
}

func (h *Handler) receive(w http.ResponseWriter, r *http.Request) Observation {
	refuse := func(status int, err error) Observation { return Observation{Result: Refused, Status: status, Err: err} }
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return refuse(http.StatusMethodNotAllowed, errors.New("method not allowed; use POST"))
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyLimit))
	if err != nil {
		status := http.StatusBadRequest
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			status = http.StatusRequestEntityTooLarge
		}
		return refuse(status, errors.New("cannot read the body"))
	}
	if h.verifier != nil {
		if err := h.verifier.Verify(r.Header, body); err != nil {
			return refuse(http.StatusUnauthorized, err)
		}
	}
	event, err := Decode(r.Header, body)
	if err != nil {
		return refuse(http.StatusBadRequest, err)
	}
	result, err := h.once(r.Context(), event)
	if err != nil {
		return Observation{Result: Failed, Event: event, Status: http.StatusInternalServerError, Err: err}
	}
	return Observation{Result: result, Event: event, Status: http.StatusNoContent}
}

// Handle handles an event that did not arrive as a webhook, but for instance from
// a [Feed], with the same memory.
func (h *Handler) Handle(ctx context.Context, e tidings.Event) (Result, error) {
	began := time.Now()
	result, err := h.once(ctx, e)
	h.report(ctx, Observation{Result: result, Event: e, Err: err, Duration: time.Since(began)})
	return result, err
}

func (h *Handler) once(ctx context.Context, e tidings.Event) (Result, error) {
	if e.Name() == tidings.PingEvent {
		return Pinged, nil
	}
	return h.options.Storage.Once(ctx, e, func(ctx context.Context) error { return h.handle(ctx, e) })
}

// report tells the hooks.
func (h *Handler) report(ctx context.Context, o Observation) {
	if h.options.Observe != nil {
		h.options.Observe(o)
	}
	if h.options.Logger == nil {
		return
	}
	level := slog.LevelDebug
	attributes := []slog.Attr{slog.String("result", string(o.Result)), slog.Duration("took", o.Duration)}
	if o.Result != Refused {
		attributes = append(attributes, slog.String("event", o.Event.Name()), slog.String("id", o.Event.ID),
			slog.String("resource", o.Event.Resource()))
	}
	if o.Err != nil {
		level = slog.LevelWarn
		attributes = append(attributes, slog.String("error", o.Err.Error()))
	}
	h.options.Logger.LogAttrs(ctx, level, "webhook", attributes...)
}

// Package receive is for programs that get webhooks from Tidings: it verifies
// their signatures, decodes them, and drops duplicates and stale news.
//
//	verifier, err := receive.NewVerifier(os.Getenv("WEBHOOK_SECRET"))
//	…
//	http.Handle("/webhook", receive.NewHandler(verifier, func(ctx context.Context, e tidings.Event) error {
//		return refresh(ctx, e.ResourceURL)
//	}))
package receive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/tidings-dev/tidings"
)

// bodyLimit is far above the size of any webhook.
const bodyLimit = 64 << 10

// idLimit is far above the length of any webhook id.
const idLimit = 256

// Decode reads a webhook in the thin format. It is strict about the six members
// of the contract and ignores others, so that a later version of Tidings can add
// one.
//
// The id comes from the header webhook-id, which the signature covers. Sequence
// and ResourceVersion come from headers that no signature covers, and are 0 if
// these are missing or make no sense: good for logs, but whoever can alter
// headers on the way can alter them. Don't drop an event because of them, and
// don't use the sequence as the cursor of a catch-up.
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

// knownMembers leaves out the members that are not part of the contract.
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

// count is the number in an informational header; 0 if there is none.
func count(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// Handler is an http.Handler that takes webhooks. Make one with [NewHandler].
type Handler struct {
	verifier *Verifier
	handle   func(context.Context, tidings.Event) error
	recent   *Recent
}

// NewHandler returns a handler that calls handle for each genuine webhook that
// it has not handled before, but for the one that only tries the endpoint
// ([tidings.PingEvent]). It answers 204 when handle returns nil, 500 when it
// returns an error, so that Tidings tries again, 401 to a bad signature and 400
// to anything else that is no webhook. A nil verifier takes unsigned webhooks.
//
// The same webhook delivered again while handle is still busy with it waits for
// the outcome: handle is not called twice for a webhook that it has handled.
// The memory is that of this process, and holds the last 10,000 ids.
func NewHandler(v *Verifier, handle func(context.Context, tidings.Event) error) *Handler {
	return &Handler{verifier: v, handle: handle, recent: NewRecent(10_000)}
}

// ServeHTTP takes one webhook.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "webhooks are posted", http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyLimit))
	if err != nil {
		status := http.StatusBadRequest
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			status = http.StatusRequestEntityTooLarge
		}
		http.Error(w, "the body cannot be read", status)
		return
	}
	if h.verifier != nil {
		if err := h.verifier.Verify(r.Header, body); err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
	}
	event, err := Decode(r.Header, body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if event.Name() != tidings.PingEvent {
		err := h.recent.Do(r.Context(), event.ID, func() error { return h.handle(r.Context(), event) })
		if err != nil {
			http.Error(w, "the event could not be handled", http.StatusInternalServerError)
			return
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

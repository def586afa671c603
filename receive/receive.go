// Package receive is for programs that receive webhooks from Tidings: it
// verifies signatures, decodes events, and drops duplicates and stale events.
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

// Handler is an [http.Handler] that receives webhooks. Use [NewHandler].
type Handler struct {
	verifier *Verifier
	handle   func(context.Context, tidings.Event) error
	recent   *Recent
}

// NewHandler returns a handler that calls handle for each authentic webhook
// that it has not handled yet, except for pings ([tidings.PingEvent]). It
// responds with 204 if handle returns nil; 500 if handle returns an error, so
// that Tidings retries; 401 if the signature is invalid; and 400 to anything
// else that is not a webhook. With a nil verifier it accepts unsigned webhooks.
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
		http.Error(w, "method not allowed; use POST", http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyLimit))
	if err != nil {
		status := http.StatusBadRequest
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			status = http.StatusRequestEntityTooLarge
		}
		http.Error(w, "cannot read the body", status)
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

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
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/tidings-dev/tidings"
)

// bodyLimit is far above the size of any webhook.
const bodyLimit = 64 << 10

// Decode reads a webhook in the thin format. The id, sequence and resource
// version come from the headers, where they are.
func Decode(header http.Header, body []byte) (tidings.Event, error) {
	var e tidings.Event
	if err := e.UnmarshalJSON(body); err != nil {
		return tidings.Event{}, err
	}
	e.ID = header.Get("webhook-id")
	for name, target := range map[string]*int64{
		"tidings-sequence": &e.Sequence, "tidings-resource-version": &e.ResourceVersion,
	} {
		text := header.Get(name)
		if text == "" {
			continue
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 {
			return tidings.Event{}, fmt.Errorf("header %s is not a count", name)
		}
		*target = n
	}
	return e, nil
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
	if event.Name() != tidings.PingEvent && (event.ID == "" || !h.recent.Has(event.ID)) {
		if err := h.handle(r.Context(), event); err != nil {
			http.Error(w, "the event could not be handled", http.StatusInternalServerError)
			return
		}
		h.recent.Add(event.ID)
	}
	w.WriteHeader(http.StatusNoContent)
}

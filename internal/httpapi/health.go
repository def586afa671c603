package httpapi

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/tidings-dev/tidings/internal/rest"
)

const readyTime = 2 * time.Second

// health registers the health and metrics endpoints.
func (a *api) health() {
	alive := func(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, `"OK"`) }
	a.mux.HandleFunc("GET /healthz", alive)
	a.mux.HandleFunc("GET /healthcheck", alive)
	a.mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), readyTime)
		defer cancel()
		if err := a.Ready(ctx); err != nil {
			status := http.StatusServiceUnavailable
			if r.Context().Err() != nil {
				status = rest.StatusClientGone
			}
			rest.Refuse(w, status, err.Error())
			return
		}
		if r.URL.Query().Has("verbose") && a.Tables != nil {
			text, _ := json.Marshal(map[string]any{"ready": true, "tables": a.Tables()}) // of texts
			writeText(w, http.StatusOK, string(text))
			return
		}
		writeText(w, http.StatusOK, `"OK"`)
	})
	a.mux.Handle("GET /metrics", a.Metrics)
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text + "\n")) // the client may be gone
}

package cli_test

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"sync"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/receive"
)

// receiver is a program for scripts: "receiver ADDRESS SECRET [FILE]" verifies
// webhooks at /webhook and prints each event to FILE or standard output. /handled
// returns the ids of the events that it acted on.
func receiver() {
	verifier, err := receive.NewVerifier(os.Args[2])
	if err != nil {
		panic(err)
	}
	out := os.Stdout
	if len(os.Args) > 3 {
		if out, err = os.OpenFile(os.Args[3], os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
			panic(err)
		}
	}
	var mu sync.Mutex
	handled, latest := []string{}, receive.NewLatest(10_000)
	http.Handle("/webhook", receive.NewHandler(verifier, func(_ context.Context, e tidings.Event) error {
		if !latest.Newer(e) {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		handled = append(handled, e.ID)
		_, err := out.WriteString(e.Name() + " " + e.ResourceURL + "\n")
		return err
	}))
	http.HandleFunc("/handled", func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		_ = json.NewEncoder(w).Encode(map[string][]string{"handled": handled})
	})
	http.HandleFunc("/readyz", func(http.ResponseWriter, *http.Request) {})
	http.HandleFunc("/accepts-all", func(http.ResponseWriter, *http.Request) {})
	if err := http.ListenAndServe(os.Args[1], nil); err != nil {
		panic(err)
	}
}

// Command go is a receiver of Tidings' webhooks.
//
//	WEBHOOK_SECRET=whsec_… TIDINGS_URL=https://… TIDINGS_TOKEN=… go run .
//
// It verifies each webhook, acts on it once, ignores what is older than what it
// knows, and at the start (and every five minutes) reads what it missed.
package main

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"log"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	_ "modernc.org/sqlite" // or another driver for SQLite or PostgreSQL

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/receive"
)

func main() {
	ctx := context.Background()
	// Several secrets, separated by spaces, while one is being replaced.
	verifier, err := receive.NewVerifier(strings.Fields(os.Getenv("WEBHOOK_SECRET"))...)
	if err != nil {
		log.Fatal(err)
	}
	// Storage: replace it by your database.
	db, err := sql.Open("sqlite", "file:"+cmp.Or(os.Getenv("STATE"), "receiver.db")+"?_pragma=busy_timeout(10000)")
	if err != nil {
		log.Fatal(err)
	}
	db.SetMaxOpenConns(1) // SQLite has one writer
	storage, err := receive.NewSQL(ctx, db)
	if err != nil {
		log.Fatal(err)
	}
	handler := receive.New(verifier, act, receive.Options{Storage: storage, Logger: slog.Default()})
	if url := os.Getenv("TIDINGS_URL"); url != "" {
		feed := &receive.Feed{URL: url, Token: os.Getenv("TIDINGS_TOKEN")}
		go catchUpForever(ctx, feed, handler, storage)
	}
	http.Handle("POST /webhook", handler)
	if os.Getenv("OBSERVE") != "" { // for tests alone
		http.HandleFunc("GET /handled", observed.serve)
	}
	log.Fatal(http.ListenAndServe(cmp.Or(os.Getenv("LISTEN"), "127.0.0.1:8080"), nil))
}

// act is your work. Be quick (write with receive.Tx(ctx), or put it into a queue);
// an error makes Tidings try again.
func act(_ context.Context, e tidings.Event) error {
	observed.add(e.ID)
	if e.Action == tidings.Deleted {
		log.Printf("forget %s", e.ResourceURL)
		return nil
	}
	log.Printf("look again at %s", e.ResourceURL) // GET it with your token
	return nil
}

// catchUpForever reads what was missed, now and every five minutes.
func catchUpForever(ctx context.Context, feed *receive.Feed, handler *receive.Handler, storage receive.Storage) {
	for {
		_, err := feed.CatchUp(ctx, handler)
		if expired, ok := errors.AsType[*receive.ExpiredError](err); ok {
			log.Print("read all resources again")
			if err = storage.SetCursor(ctx, expired.After); err == nil {
				continue
			}
		}
		if err != nil {
			log.Printf("catching up: %v", err)
		}
		<-time.After(5 * time.Minute)
	}
}

// observed is what act was called with; for tests.
var observed handled

type handled struct {
	mu  sync.Mutex
	ids []string
}

func (h *handled) add(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ids = append(h.ids, id)
}

func (h *handled) serve(w http.ResponseWriter, _ *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	_ = json.NewEncoder(w).Encode(map[string][]string{"handled": h.ids})
}

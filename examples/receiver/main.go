// Command receiver takes webhooks, verifies their signature, and says what
// changed.
package main

import (
	"context"
	"log"
	"net/http"
	"os"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/receive"
)

func main() {
	handler, err := receiver(os.Getenv("WEBHOOK_SECRET"), log.Default())
	if err != nil {
		log.Fatal(err)
	}
	http.Handle("/webhook", handler)
	log.Fatal(http.ListenAndServe("127.0.0.1:8080", nil))
}

// receiver takes webhooks that were signed with a secret.
func receiver(secret string, logger *log.Logger) (http.Handler, error) {
	verifier, err := receive.NewVerifier(secret)
	if err != nil {
		return nil, err
	}
	return receive.NewHandler(verifier, func(_ context.Context, e tidings.Event) error {
		logger.Printf("%s: look at %s again", e.Name(), e.ResourceURL)
		return nil // an error makes Tidings try again
	}), nil
}

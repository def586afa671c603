package receive_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/receive"
	"github.com/tidings-dev/tidings/sender"
)

// A receiver that verifies each webhook and handles it once.
func ExampleNewHandler() {
	const secret = "whsec_ZXhhbXBsZS1zZWNyZXQtb2YtMzItYnl0ZXMtbG9uZyE="
	verifier, err := receive.NewVerifier(secret)
	if err != nil {
		log.Fatal(err)
	}
	server := httptest.NewServer(receive.NewHandler(verifier, func(_ context.Context, e tidings.Event) error {
		fmt.Println(e.Name(), e.ResourceURL)
		return nil // an error makes Tidings retry
	}))
	defer server.Close()

	send(server.URL, secret) // as Tidings does
	send(server.URL, secret) // a duplicate
	send(server.URL, "whsec_c29tZWJvZHkgZWxzZSdzIHNlY3JldCBrZXkh")
	// Output:
	// order.created /orders/7
	// delivered
	// delivered
	// http_401
}

func send(url, secret string) {
	s, err := sender.New(tidings.Endpoint{Name: "example", URL: url, Secrets: []string{secret}},
		http.DefaultClient, sender.Options{})
	if err != nil {
		log.Fatal(err)
	}
	o := s.Send(context.Background(), tidings.Attempt{Number: 1, Event: tidings.Event{
		ID: "01a215ad-0cc8-7765-8084-0218e85ffac9", Type: "order", Action: "created", ResourceID: "7",
		ResourceURL: "/orders/7", Time: time.Now(),
	}})
	if o.Verdict == tidings.Delivered {
		fmt.Println(o.Verdict)
		return
	}
	fmt.Println(o.Reason)
}

// Verify also verifies webhooks from other senders of Standard Webhooks.
func ExampleVerifier_Verify() {
	verifier, err := receive.NewVerifier("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		log.Fatal(err)
	}
	verifier.Now = func() time.Time { return time.Unix(1614265330, 0) } // for this example only
	header := http.Header{}
	header.Set("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek")
	header.Set("webhook-timestamp", "1614265330")
	header.Set("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
	fmt.Println(verifier.Verify(header, []byte(`{"test": 2432232314}`)))
	fmt.Println(verifier.Verify(header, []byte(`{"test": 2432232315}`)))
	// Output:
	// <nil>
	// no signature matches
}

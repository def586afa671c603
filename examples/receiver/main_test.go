package main

import (
	"bytes"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/sender"
)

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

func TestReceiver(t *testing.T) {
	var out bytes.Buffer
	handler, err := receiver(secret, log.New(&out, "", 0))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler)
	defer server.Close()
	event := tidings.Event{
		ID: "1", Type: "provider", Action: tidings.Created, ResourceID: "p",
		ResourceURL: "/api/v1/providers/p", Time: time.Now(),
	}
	for _, test := range []struct {
		secret string
		want   tidings.Verdict
	}{
		{secret, tidings.Delivered},
		{"whsec_" + strings.Repeat("A", 32), tidings.Unauthorized},
	} {
		s, err := sender.New(tidings.Endpoint{Name: "receiver", URL: server.URL, Secrets: []string{test.secret}},
			http.DefaultClient, sender.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if o := s.Send(t.Context(), tidings.Attempt{Event: event, Number: 1}); o.Verdict != test.want {
			t.Errorf("signed with %s: %v, want %v", test.secret, o.Verdict, test.want)
		}
	}
	if got := out.String(); got != "provider.created: look at /api/v1/providers/p again\n" {
		t.Errorf("printed %q", got)
	}
}

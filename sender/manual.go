package sender

import (
	"time"

	"github.com/tidings-dev/tidings"
)

// Encode returns the body of a webhook in the endpoint's format, and its
// Content-Type, for programs that send webhooks to test a receiver.
func Encode(e tidings.Endpoint, event tidings.Event, options Options) (body []byte, contentType string, err error) {
	if options.Source == "" {
		options.Source = "/"
	}
	encoder, err := encoderFor(e, options)
	if err != nil {
		return nil, "", err
	}
	return encoder.encode(make([]byte, 0, 512), event), encoder.contentType, nil
}

// Sign returns the webhook-signature header of a body: an entry for each
// secret, or "" if there is none. See [CheckSecret] for the form of secrets.
func Sign(secrets []string, id string, at time.Time, body []byte) (string, error) {
	signers, err := newSigners(secrets)
	if err != nil {
		return "", err
	}
	return sign(signers, id, at, body), nil
}

package remote

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"

	"github.com/tidings-dev/tidings/internal/resource"
	"github.com/tidings-dev/tidings/sender"
)

// causeLimit limits how much of an error is logged, because it may quote the
// server.
const causeLimit = 300

func failed(reason resource.RemoteReason, cause error) error {
	if wrapped, ok := errors.AsType[*url.Error](cause); ok { // its text contains the URL
		cause = wrapped.Err
	}
	if text := cause.Error(); len(text) > causeLimit {
		cause = fmt.Errorf("%.*q…", causeLimit, text)
	}
	return &resource.RemoteError{Reason: reason, Cause: cause}
}

func unusable(cause error) error { return failed(resource.RemoteUnusable, cause) }

// refusal returns the reason for an unexpected status.
func refusal(status int) error {
	cause := fmt.Errorf("it answered %d %s", status, http.StatusText(status))
	if status == http.StatusUnauthorized || status == http.StatusForbidden {
		return failed(resource.RemoteUnauthorized, cause)
	}
	return failed(resource.RemoteRefuses, cause)
}

// noAnswer returns the reason why a request failed.
func noAnswer(err error) error {
	var (
		blocked     *sender.BlockedError
		certificate *tls.CertificateVerificationError
	)
	switch {
	case errors.As(err, &blocked):
		return failed(resource.RemoteBlocked, blocked)
	case errors.Is(err, errRedirect):
		return failed(resource.RemoteRedirects, errRedirect)
	case errors.Is(err, errSwitch):
		return failed(resource.RemoteRefuses, errSwitch)
	case errors.Is(err, errTooLarge), errors.Is(err, errTooManyRequests):
		return unusable(err)
	case errors.As(err, &certificate):
		return failed(resource.RemoteUntrusted, certificate)
	case isTimeout(err):
		return failed(resource.RemoteSlow, err)
	}
	return failed(resource.RemoteUnreachable, err)
}

// brokenAnswer returns the reason why a body could not be read.
func brokenAnswer(err error) error {
	if isTimeout(err) {
		return failed(resource.RemoteSlow, err)
	}
	return unusable(err)
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}

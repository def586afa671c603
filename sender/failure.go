package sender

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/tidings-dev/tidings"
)

// failure classifies a request without a response. Failures on the way to the
// receiver are [tidings.Unreachable]; only a request that was sent and not
// answered in time is [tidings.Failed].
func (s *steps) failure(err error, timeout time.Duration) tidings.Outcome {
	p := s.reached()
	if blocked, ok := errors.AsType[*BlockedError](err); ok {
		return tidings.Outcome{Verdict: tidings.Blocked, Reason: tidings.ReasonBlockedAddress, Detail: blocked.Error()}
	}
	o := tidings.Outcome{Verdict: tidings.Unreachable, Detail: describe(err)}
	timedOut := isTimeout(err)
	if timedOut {
		o.Detail = fmt.Sprintf("no response within %v", timeout)
	}
	_, dns := errors.AsType[*net.DNSError](err)
	switch {
	case !p.asked:
		o.Reason, o.Detail = tidings.ReasonCredentials, printable(inner(err).Error()) // says whose fault it is
		if timedOut {
			o.Detail = fmt.Sprintf("no credentials within %v", timeout)
		}
	case p.tries > 2 && (timedOut || errors.Is(err, context.Canceled)):
		// The first retry may be due to a dead connection; later ones are due
		// to HTTP/2's GOAWAY or REFUSED_STREAM.
		o.Reason, o.Detail = tidings.ReasonReset, "the receiver refused the request repeatedly"
	case dns:
		o.Reason, o.Detail = tidings.ReasonDNS, describe(err)
	case isTLS(err):
		o.Reason = tidings.ReasonTLS
	case !p.connected:
		o.Reason = p.step
		if timedOut {
			o.Detail = "no connection in time"
		}
	case timedOut:
		o.Verdict, o.Reason = tidings.Failed, tidings.ReasonTimeout
	default:
		o.Reason = tidings.ReasonReset
		if alert := s.alert(); alert != nil {
			o.Reason, o.Detail = tidings.ReasonTLS, describe(alert)
		}
	}
	return o
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}

// isTLS reports whether TLS failed. With TLS 1.3, an alert may arrive after the
// handshake: a client learns on its first read that its certificate was
// rejected.
func isTLS(err error) bool {
	var (
		certificate *tls.CertificateVerificationError
		record      tls.RecordHeaderError
		alert       tls.AlertError
		authority   x509.UnknownAuthorityError
		operation   *net.OpError
	)
	switch {
	case errors.As(err, &certificate), errors.As(err, &record), errors.As(err, &alert), errors.As(err, &authority):
		return true
	case errors.Is(err, http.ErrSchemeMismatch):
		return true
	}
	// crypto/tls has no exported type for alerts.
	return errors.As(err, &operation) && (operation.Op == "remote error" || operation.Op == "local error")
}

// detailLimit limits the text of an error, part of which the receiver may have
// chosen.
const detailLimit = 200

// describe returns the text of an error, without the URL, which may contain a secret: a
// fixed phrase where the type of the error is known.
func describe(err error) string {
	if text := phrase(err); text != "" {
		return printable(text)
	}
	return printable(inner(err).Error())
}

// printable replaces control characters and shortens a text.
func printable(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(text, "?"))
	if len(text) > detailLimit {
		text = strings.ToValidUTF8(text[:detailLimit], "") + "…"
	}
	return text
}

// inner returns an error without the URL or the operation around it.
func inner(err error) error {
	for {
		outer, ok := errors.AsType[*url.Error](err)
		if !ok {
			break
		}
		err = outer.Err
	}
	if file, ok := errors.AsType[*fs.PathError](err); ok {
		return file
	}
	return err
}

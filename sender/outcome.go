package sender

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tidings-dev/tidings"
)

// longestRetryAfter caps the pause that a receiver may ask for.
const longestRetryAfter = time.Hour

// Classify says what an HTTP answer means; protocol.md has the table.
func Classify(status int, retryAfter string, now time.Time) tidings.Outcome {
	outcome := tidings.Outcome{Status: status, Reason: "http_" + strconv.Itoa(status)}
	pause, asked := parseRetryAfter(retryAfter, now)
	switch {
	case status >= 200 && status < 300:
		outcome.Verdict, outcome.Reason = tidings.Delivered, ""
	case status == http.StatusGone:
		outcome.Verdict = tidings.Gone
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable && asked:
		outcome.Verdict, outcome.RetryAfter = tidings.Throttled, pause
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		outcome.Verdict = tidings.Unauthorized
	case status == http.StatusRequestEntityTooLarge, status == http.StatusUnsupportedMediaType:
		outcome.Verdict = tidings.Rejected
	case status >= 300 && status < 400:
		outcome.Verdict, outcome.Reason = tidings.Refused, tidings.ReasonRedirect
	case status >= 400 && status < 500:
		outcome.Verdict = tidings.Refused
	default:
		outcome.Verdict = tidings.Failed
	}
	return outcome
}

// parseRetryAfter reads seconds or an HTTP date (RFC 9110, section 10.2.3).
func parseRetryAfter(text string, now time.Time) (time.Duration, bool) {
	if text == "" {
		return 0, false
	}
	if seconds, err := strconv.ParseUint(text, 10, 32); err == nil {
		return min(time.Duration(seconds)*time.Second, longestRetryAfter), true
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(max(at.Sub(now), 0), longestRetryAfter), true
	}
	return 0, false
}

// failure says what it means that there was no answer. The text of the error,
// which may hold the URL, goes no further.
func failure(err error) tidings.Outcome {
	var (
		blocked     *BlockedError
		dns         *net.DNSError
		operation   *net.OpError
		certificate *tls.CertificateVerificationError
		record      tls.RecordHeaderError
		alert       tls.AlertError
		authority   x509.UnknownAuthorityError
		timeout     interface{ Timeout() bool }
	)
	unreachable := func(reason string) tidings.Outcome {
		return tidings.Outcome{Verdict: tidings.Unreachable, Reason: reason}
	}
	failed := func(reason string) tidings.Outcome {
		return tidings.Outcome{Verdict: tidings.Failed, Reason: reason}
	}
	switch {
	case errors.As(err, &blocked):
		return tidings.Outcome{Verdict: tidings.Blocked, Reason: tidings.ReasonBlockedAddress, Detail: blocked.Error()}
	case errors.As(err, &dns):
		return unreachable(tidings.ReasonDNS)
	case errors.As(err, &certificate), errors.As(err, &record), errors.As(err, &alert), errors.As(err, &authority),
		strings.Contains(err.Error(), "TLS handshake"), strings.Contains(err.Error(), "HTTP response to HTTPS client"):
		return unreachable(tidings.ReasonTLS)
	case errors.As(err, &operation) && (operation.Op == "dial" || operation.Op == "proxyconnect"):
		return unreachable(tidings.ReasonConnect)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return failed(tidings.ReasonTimeout)
	default:
		return failed(tidings.ReasonReset)
	}
}

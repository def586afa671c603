package sender

import (
	"net/http"
	"strconv"
	"time"

	"github.com/tidings-dev/tidings"
)

// longestRetryAfter limits the delay that a receiver may request.
const longestRetryAfter = time.Hour

// Classify classifies an HTTP response; see the table in docs/protocol.md.
func Classify(status int, retryAfter string, now time.Time) tidings.Outcome {
	outcome := tidings.Outcome{Status: status, Reason: "http_" + strconv.Itoa(status)}
	pause := parseRetryAfter(retryAfter, now)
	switch {
	case status >= 200 && status < 300:
		outcome.Verdict, outcome.Reason = tidings.Delivered, ""
	case status == http.StatusGone:
		outcome.Verdict = tidings.Gone
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable:
		outcome.Verdict, outcome.RetryAfter = tidings.Throttled, pause
	case status == http.StatusUnauthorized, status == http.StatusForbidden, status == http.StatusProxyAuthRequired:
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

// parseRetryAfter parses seconds or an HTTP date (RFC 9110, section 10.2.3),
// and returns 0 for anything else.
func parseRetryAfter(text string, now time.Time) time.Duration {
	if text == "" {
		return 0
	}
	if seconds, err := strconv.ParseUint(text, 10, 32); err == nil {
		return min(time.Duration(seconds)*time.Second, longestRetryAfter)
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(max(at.Sub(now), 0), longestRetryAfter)
	}
	return 0
}

package tidings

import "time"

// Attempt is one try to deliver an event to an endpoint.
type Attempt struct {
	Event Event
	// Number counts the attempts that used up a place in the retry schedule,
	// from 1.
	Number int
	// Replay says that an operator sends it again.
	Replay bool
	// Trace is the traceparent to send; empty for the event's own.
	Trace string
}

// Verdict says what an answer means for the event and for its endpoint.
type Verdict int

// The verdicts, in the order of the table in docs/protocol.md.
const (
	// Delivered: the receiver took it (2xx).
	Delivered Verdict = iota
	// Gone: the receiver wants no more webhooks (410).
	Gone
	// Throttled: the receiver has too much to do (429, 503).
	Throttled
	// Unauthorized: the credentials are wrong (401, 403, and 407 of a proxy).
	Unauthorized
	// Rejected: this event can never be delivered (413, 415).
	Rejected
	// Refused: an answer that no retry is likely to change, but may (3xx, 4xx).
	Refused
	// Failed: the receiver is in trouble (5xx, timeout, an answer that breaks off).
	Failed
	// Unreachable: something on the way to the receiver failed (DNS, connection,
	// TLS, proxy, credentials), or the connection broke before any answer. It is
	// the endpoint's outage and uses up no attempt of the event.
	Unreachable
	// Blocked: the egress rule forbids the address.
	Blocked
	// Interrupted: this program stopped before there was an answer.
	Interrupted
)

// String returns the verdict as a word.
func (v Verdict) String() string {
	words := [...]string{
		"delivered", "gone", "throttled", "unauthorized", "rejected",
		"refused", "failed", "unreachable", "blocked", "interrupted",
	}
	if v < 0 || int(v) >= len(words) {
		return "unknown"
	}
	return words[v]
}

// The reasons of failures that have no HTTP status. A status is the reason
// "http_500", except that a redirect is "redirect".
const (
	ReasonDNS             = "dns"
	ReasonConnect         = "connect"
	ReasonTLS             = "tls"
	ReasonTimeout         = "timeout"
	ReasonReset           = "reset"
	ReasonCredentials     = "credentials" // a token file, or an OAuth2 token endpoint
	ReasonBlockedAddress  = "blocked_address"
	ReasonRedirect        = "redirect"
	ReasonResponseTooSlow = "response_too_slow"
)

// Outcome is how an attempt ended.
type Outcome struct {
	Verdict Verdict
	// Reason is one of a closed list of words; empty where it was delivered.
	Reason string
	// Status is the HTTP status, 0 where there was none.
	Status int
	// RetryAfter is the pause the receiver asked for, at most an hour.
	RetryAfter time.Duration
	// Duration is how long the attempt took.
	Duration time.Duration
	// Timing is what the time was spent on.
	Timing Timing
	// Address is the one that was connected to; empty where there was none.
	Address string
	// Resent says that the request was sent twice: the connection that it went out on
	// first had been used before, and died before any answer.
	Resent bool
	// Response is the beginning of the response body, at most 1 KiB.
	Response []byte
	// Detail is a sentence for the log where the reason needs one, such as the
	// setting that blocked an address. It holds no URL, header or secret.
	Detail string
}

// Timing is when the steps of an attempt were over: how long each took, except
// for FirstByte, which counts from the beginning. A step that was not needed,
// since a connection was used again, is 0.
type Timing struct {
	DNS, Connect, TLS, FirstByte time.Duration
}

package tidings

import "time"

// Attempt is one attempt to deliver an event to an endpoint.
type Attempt struct {
	Event Event
	// Number counts the attempts that used the retry schedule, from 1.
	Number int
	// Replay is set if an operator resends the event.
	Replay bool
	// Probe is set for a request with which an endpoint that is down is tried.
	Probe bool
	// Trace is the traceparent to send; if it is empty, the event's own is
	// used.
	Trace string
}

// Verdict classifies the result of an attempt, for the event and its endpoint.
type Verdict int

// The verdicts, in the order of the table in docs/protocol.md.
const (
	// Delivered: the receiver accepted the event (2xx).
	Delivered Verdict = iota
	// Gone: the receiver wants no more webhooks (410).
	Gone
	// Throttled: the receiver is overloaded (429, 503).
	Throttled
	// Unauthorized: the credentials are wrong (401, 403, or 407 from a proxy).
	Unauthorized
	// Rejected: this event can never be delivered (413, 415).
	Rejected
	// Refused: a retry may, but is unlikely to, succeed (3xx, 4xx).
	Refused
	// Failed: the receiver has a problem (5xx, timeout, incomplete response).
	Failed
	// Unreachable: the request failed on the way to the receiver (DNS,
	// connection, TLS, proxy, credentials), or the connection broke before any
	// response. It is an outage of the endpoint and does not count as an
	// attempt.
	Unreachable
	// Blocked: the egress rule forbids the address.
	Blocked
	// Interrupted: this program stopped before there was a response.
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

// Reasons of failures without an HTTP status. Otherwise the reason is derived
// from the status, such as "http_500", or is "redirect".
const (
	ReasonDNS             = "dns"
	ReasonConnect         = "connect"
	ReasonTLS             = "tls"
	ReasonTimeout         = "timeout"
	ReasonReset           = "reset"
	ReasonCredentials     = "credentials" // a token file or an OAuth2 token endpoint
	ReasonBlockedAddress  = "blocked_address"
	ReasonRedirect        = "redirect"
	ReasonResponseTooSlow = "response_too_slow"
)

// Outcome is the result of an attempt.
type Outcome struct {
	Verdict Verdict
	// Reason is one of a fixed set of words; empty if the event was delivered.
	Reason string
	// Status is the HTTP status, or 0 if there is none.
	Status int
	// RetryAfter is the delay that the receiver requested, at most an hour.
	RetryAfter time.Duration
	// Duration is how long the attempt took.
	Duration time.Duration
	// Timing breaks down the duration.
	Timing Timing
	// Address is the address connected to; empty if there was no connection.
	Address string
	// Resent is set if the request was sent twice: the reused connection on
	// which it was sent first died before any response.
	Resent bool
	// Response is the beginning of the response body: at most 200 characters, without
	// control characters and without the endpoint's secrets.
	Response []byte
	// Detail explains the reason in the log where necessary, for example with
	// the setting that blocked an address. It contains no URL, header or
	// secret.
	Detail string
}

// Timing holds the durations of an attempt's steps, except for FirstByte, which
// is measured from the beginning. A step skipped because a connection was
// reused is 0.
type Timing struct {
	DNS, Connect, TLS, FirstByte time.Duration
}

package operator

import (
	"cmp"
	"net/textproto"
	"slices"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/relay"
)

// Settings is the effective configuration of an endpoint, without secrets.
type Settings struct {
	Format      string   `json:"format"`
	Timeout     float64  `json:"timeout_seconds"`
	MaxInFlight int      `json:"max_in_flight"`
	RateLimit   float64  `json:"rate_limit,omitempty" doc:"Requests a second; omitted for no limit."`
	Burst       int      `json:"burst,omitempty"`
	Partitions  int      `json:"partitions"`
	Coalesce    string   `json:"coalesce"`
	History     string   `json:"history"`
	Delays      []string `json:"retry_schedule" nullable:"false" doc:"The pauses after the first, second, … attempt."`
	MaxAttempts int      `json:"retry_max_attempts"`
	MaxAge      string   `json:"retry_max_age,omitempty"`
	Headers     []string `json:"headers" nullable:"false" doc:"Names of headers that are set."`
	Signatures  int      `json:"signatures" doc:"How many secrets sign requests."`
	NoInfo      bool     `json:"no_info_headers,omitempty"`
	EventPrefix string   `json:"event_prefix,omitempty"`
}

func settings(e relay.Endpoint) *Settings {
	out := &Settings{
		Format: string(cmp.Or(e.Format, tidings.Thin)), Timeout: e.Timeout.Seconds(), MaxInFlight: e.MaxInFlight,
		RateLimit: e.RateLimit, Burst: e.Burst, Partitions: max(e.Partitions, 1),
		Coalesce: string(cmp.Or(e.Coalesce, tidings.CoalesceOff)), History: string(cmp.Or(e.History, relay.HistoryAll)),
		Delays: []string{}, MaxAttempts: e.Retry.MaxAttempts, Headers: []string{}, Signatures: len(e.Secrets),
		NoInfo: e.NoInfoHeaders, EventPrefix: e.EventPrefix,
	}
	delays := e.Retry.Delays
	if len(delays) == 0 {
		delays = relay.DefaultDelays()
	}
	for _, d := range delays {
		out.Delays = append(out.Delays, d.Round(time.Millisecond).String())
	}
	out.MaxAttempts = cmp.Or(out.MaxAttempts, len(delays)+1)
	if e.Retry.MaxAge > 0 {
		out.MaxAge = e.Retry.MaxAge.String()
	}
	for name := range e.Headers {
		out.Headers = append(out.Headers, textproto.CanonicalMIMEHeaderKey(name))
	}
	slices.Sort(out.Headers)
	return out
}

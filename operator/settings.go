package operator

import (
	"cmp"
	"fmt"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
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
	// Place, ReadAt and List are set only for a single endpoint.
	Place  string    `json:"place,omitempty" doc:"Where the endpoint is configured; only in the answer for one endpoint, like the next two."`
	ReadAt string    `json:"read_at,omitempty" doc:"When the configuration was read."`
	List   []Setting `json:"settings,omitempty" doc:"Every setting, and where it comes from."`
}

// Setting is an effective setting of an endpoint.
type Setting struct {
	Key    string `json:"key"`
	Value  string `json:"value,omitempty" doc:"Of a secret, only that it is set; omitted if there is none."`
	Secret bool   `json:"secret,omitempty"`
	Origin string `json:"origin,omitempty" doc:"Such as /etc/tidings.yaml:18, an environment variable, a Helm value, or default; omitted if the program sets it."`
}

// OriginDefault is the origin of a setting that is not configured.
const OriginDefault = "default"

// Written is what a configuration says of an endpoint.
type Written struct {
	// Place is where the endpoint is configured.
	Place string
	// Settings are those that do not have their defaults.
	Settings []Setting
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

// listSettings returns every setting of an endpoint, and where it comes from if written is
// not nil.
func listSettings(e relay.Endpoint, written *Written) (list []Setting) {
	s := settings(e)
	unless := func(value string, isDefault bool) string {
		if isDefault {
			return ""
		}
		return value
	}
	add := func(key, value string) { list = append(list, Setting{Key: key, Value: value}) }
	add("url", plainURL(e.URL))
	add("events", strings.Join(patterns(e.Patterns), ", "))
	for _, name := range s.Headers {
		list = append(list, Setting{Key: "headers." + name, Value: "set", Secret: true})
	}
	if s.Signatures > 0 {
		list = append(list, Setting{Key: "secrets", Value: fmt.Sprintf("%d set", s.Signatures), Secret: true})
	}
	short := strings.NewReplacer("h0m0s", "h", "m0s", "m") // 5m rather than 5m0s
	add("timeout", unless(fmt.Sprintf("%gs", s.Timeout), s.Timeout == 0))
	add("max_in_flight", strconv.Itoa(s.MaxInFlight))
	add("retry.schedule", short.Replace(strings.Join(s.Delays, ", ")))
	add("retry.max_attempts", strconv.Itoa(s.MaxAttempts))
	add("retry.max_age", short.Replace(s.MaxAge))
	add("format", s.Format)
	add("event_prefix", s.EventPrefix)
	add("info_headers", strconv.FormatBool(!s.NoInfo))
	add("coalesce", s.Coalesce)
	add("rate_limit.per_second", unless(fmt.Sprintf("%g", s.RateLimit), s.RateLimit == 0))
	add("rate_limit.burst", unless(strconv.Itoa(s.Burst), s.Burst == 0))
	add("partitions", strconv.Itoa(s.Partitions))
	add("history", s.History)
	if written != nil {
		list = withOrigins(list, written.Settings)
	}
	return list
}

// withOrigins sets the origins of settings, and adds those that are missing in the list.
func withOrigins(list, written []Setting) []Setting {
	for i := range list {
		list[i].Origin = OriginDefault
	}
	for _, w := range written {
		key := w.Key
		if key == "secret" { // the same as a list of one
			key = "secrets"
		}
		i := slices.IndexFunc(list, func(s Setting) bool { return strings.EqualFold(s.Key, key) })
		if i < 0 {
			list = append(list, w)
			continue
		}
		list[i].Origin = w.Origin
	}
	return list
}

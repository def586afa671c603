package operator

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/internal/rest"
	"github.com/tidings-dev/tidings/relay"
)

type actorKey struct{}

// WithActor returns a context for what somebody does; the name is recorded. A request
// to a [Handler] has the name of its [Caller].
func WithActor(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, actorKey{}, name)
}

func actor(ctx context.Context) string {
	if name, ok := ctx.Value(actorKey{}).(string); ok {
		return name
	}
	if who := rest.SessionOf(ctx); who != nil {
		return who.Name()
	}
	return ""
}

// Action is something that an operator did.
type Action struct {
	ID       int64  `json:"id"`
	At       string `json:"at"`
	By       string `json:"by,omitempty" doc:"Who did it."`
	Action   string `json:"action" doc:"What was done: pause, resume, enable, test, replay, cancel, retry, discard, reload."`
	Endpoint string `json:"endpoint,omitempty"`
	Subject  string `json:"subject,omitempty" doc:"What else it concerned: an event, a replay, a number of events, the end of a pause."`
	Comment  string `json:"comment,omitempty"`
}

// Record records and logs what an operator did: the caller of the context's request, or
// the one of [WithActor]. Methods of a Service that change anything do so themselves.
func (s *Service) Record(ctx context.Context, a Action) {
	by := actor(ctx)
	line := []any{"by", by}
	for _, part := range [][2]string{{"endpoint", a.Endpoint}, {"subject", a.Subject}, {"comment", a.Comment}} {
		if part[1] != "" {
			line = append(line, part[0], part[1])
		}
	}
	logger := cmp.Or(s.options.Logger, slog.Default())
	logger.InfoContext(ctx, "operator: "+a.Action, line...)
	err := s.log().AddAction(ctx, eventlog.Action{
		At: time.Now(), By: by, Action: a.Action, Endpoint: a.Endpoint, Subject: a.Subject, Comment: a.Comment,
	})
	if err != nil {
		logger.WarnContext(ctx, "an action of an operator could not be recorded", "action", a.Action, "error", err)
	}
}

// Actions returns what operators did, newest first: all, or what concerned an endpoint.
// before is the Next of the previous page; 0 for the first page.
func (s *Service) Actions(ctx context.Context, endpoint string, before int64, limit int) (*Page[Action], error) {
	if err := s.checkEndpoint(ctx, endpoint); err != nil {
		return nil, err
	}
	rows, err := s.log().Actions(ctx, eventlog.ActionFilter{Endpoint: endpoint, Before: before, Limit: limit + 1})
	if err != nil {
		return nil, err
	}
	page := &Page[Action]{Items: []Action{}}
	for i, a := range rows {
		if i == limit {
			page.Next = rows[i-1].ID
			break
		}
		page.Items = append(page.Items, Action{
			ID: a.ID, At: stamp(a.At), By: a.By, Action: a.Action, Endpoint: a.Endpoint, Subject: a.Subject,
			Comment: a.Comment,
		})
	}
	return page, nil
}

// Range is a time span up to now.
type Range string

// The ranges.
const (
	Hour Range = "1h"
	Day  Range = "24h"
	Week Range = "7d"
)

// span returns the length of a range and that of one point.
func (r Range) span() (length, step time.Duration) {
	switch r {
	case Hour:
		return time.Hour, time.Minute
	case Week:
		return 7 * 24 * time.Hour, 70 * time.Minute
	}
	return 24 * time.Hour, 10 * time.Minute
}

// State is a state that an endpoint was in for a while.
type State struct {
	State   string `json:"state"`
	Reason  string `json:"reason,omitempty"`
	Detail  string `json:"detail,omitempty"`
	From    string `json:"from" doc:"When it began, which may be before the range."`
	To      string `json:"to,omitempty" doc:"When it ended; omitted for the current one."`
	By      string `json:"by,omitempty" doc:"Who paused, resumed or enabled the endpoint."`
	Comment string `json:"comment,omitempty"`
}

// stateLimit is the maximum number of changes in an answer.
const stateLimit = 1000

// States returns the states that an endpoint was in, oldest first. With many changes, the
// oldest are left out. Of several partitions, the worst state counts.
func (s *Service) States(ctx context.Context, endpoint string, over Range) (*Page[State], error) {
	if err := s.checkNamed(ctx, endpoint); err != nil {
		return nil, err
	}
	length, _ := over.span()
	changes, err := s.log().States(ctx, endpoint, time.Now().Add(-length), stateLimit)
	if err != nil {
		return nil, err
	}
	page := &Page[State]{Items: []State{}}
	current := make(map[int]eventlog.StateChange)
	var shown eventlog.StateChange
	for _, c := range changes {
		current[c.Index] = c
		worst := c
		for _, other := range current {
			if severity[other.State] > severity[worst.State] {
				worst = other
			}
		}
		n := len(page.Items)
		if n > 0 && worst.State == shown.State && worst.Reason == shown.Reason {
			continue
		}
		if n > 0 {
			page.Items[n-1].To = stamp(c.At)
		}
		shown = worst
		page.Items = append(page.Items, State{
			State: worst.State, Reason: worst.Reason, Detail: worst.Detail, From: stamp(c.At), By: worst.By,
			Comment: worst.Comment,
		})
	}
	return page, nil
}

// checkNamed is checkEndpoint for an endpoint in a path.
func (s *Service) checkNamed(ctx context.Context, name string) error {
	err := s.checkEndpoint(ctx, name)
	if e, ok := errors.AsType[*Error](err); ok {
		return notFound("%s", e.Message)
	}
	return err
}

// Point is a point of a chart: what happened within a step.
type Point struct {
	At        string  `json:"at" doc:"The beginning of the step."`
	Delivered int64   `json:"delivered"`
	Failed    int64   `json:"failed" doc:"Attempts that failed."`
	Waiting   int64   `json:"waiting" doc:"The largest number of waiting events, estimated if there were many."`
	Oldest    float64 `json:"oldest_seconds" doc:"The age of the oldest of them."`
	P50       int64   `json:"p50_us" doc:"The median duration of attempts, estimated from a histogram."`
	P99       int64   `json:"p99_us"`
	DelayP50  int64   `json:"delay_p50_us" doc:"The median age of events when they were delivered."`
	DelayP99  int64   `json:"delay_p99_us"`
}

// Series is a chart of an endpoint.
type Series struct {
	Endpoint string  `json:"endpoint,omitempty" doc:"Omitted for all endpoints together."`
	Step     int64   `json:"step_seconds"`
	Items    []Point `json:"items" nullable:"false" doc:"Oldest first, without gaps, at most 144."`
}

// Series returns the chart of an endpoint, or of all together if the name is empty.
func (s *Service) Series(ctx context.Context, endpoint string, over Range) (*Series, error) {
	if err := s.checkEndpoint(ctx, endpoint); err != nil {
		return nil, err
	}
	all, err := s.SeriesOf(ctx, over, endpoint)
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// SeriesOf returns the charts of several endpoints in the order of their names, with one
// query.
func (s *Service) SeriesOf(ctx context.Context, over Range, endpoints ...string) ([]*Series, error) {
	length, step := over.span()
	// The last point is of the step that has begun.
	seconds := int64(step / time.Second)
	last := time.Unix(time.Now().Unix()/seconds*seconds, 0)
	first := last.Add(step - length)
	samples, err := s.log().Series(ctx, endpoints, first, step)
	if err != nil {
		return nil, err
	}
	all := make([]*Series, len(endpoints))
	for i, name := range endpoints {
		all[i] = &Series{Endpoint: name, Step: seconds}
		for at := first; !at.After(last); at = at.Add(step) {
			all[i].Items = append(all[i].Items, Point{At: stamp(at)})
		}
	}
	for _, sample := range samples {
		at := int(sample.At.Sub(first) / step)
		for i := range all {
			if endpoints[i] == sample.Endpoint && at >= 0 && at < len(all[i].Items) {
				all[i].Items[at] = point(sample)
			}
		}
	}
	return all, nil
}

func point(s eventlog.Sample) Point {
	return Point{
		At: stamp(s.At), Delivered: s.Delivered, Failed: s.Failed, Waiting: max(s.Waiting, 0),
		Oldest: s.Oldest.Seconds(),
		P50:    s.Answer.Quantile(0.5).Microseconds(), P99: s.Answer.Quantile(0.99).Microseconds(),
		DelayP50: s.Delay.Quantile(0.5).Microseconds(), DelayP99: s.Delay.Quantile(0.99).Microseconds(),
	}
}

// NewPause says why and for how long an endpoint is paused.
type NewPause struct {
	Comment string     `json:"comment,omitempty" maxLength:"500" doc:"Why; others see it."`
	Until   *time.Time `json:"until,omitempty" doc:"When the pause ends by itself; if omitted, it lasts until somebody ends it."`
}

// longestPause bounds a pause that ends by itself.
const longestPause = 366 * 24 * time.Hour

func (p *NewPause) check(now time.Time) error {
	switch {
	case p.Until == nil:
	case !p.Until.After(now):
		return invalid("until", "must be in the future")
	case p.Until.After(now.Add(longestPause)):
		return invalid("until", "must be within a year")
	}
	return nil
}

// Control is what an operator, or the receiver by a 410, said about an endpoint that is
// disabled.
type Control struct {
	By      string `json:"by,omitempty" doc:"Who paused it; omitted for the receiver, which answered 410."`
	Comment string `json:"comment,omitempty"`
	At      string `json:"at"`
	Until   string `json:"until,omitempty" doc:"When the pause ends by itself."`
}

// control shows the control of a disabled endpoint.
func (e *Endpoint) control(c eventlog.Control, now time.Time) {
	reason := c.DisabledAt(now)
	if reason == "" || e.State != string(relay.Disabled) || reason != e.Reason {
		return
	}
	e.Control = &Control{By: c.By, Comment: c.Comment, At: stamp(c.Since), Until: stamp(c.Until)}
	e.Until = cmp.Or(e.Control.Until, e.Until)
}

func (o *operations) addJournal() {
	look(o.api, rest.Operation(http.MethodGet, "/webhooks/actions", "listActions", "List operator actions, newest first"),
		func(ctx context.Context, in *struct {
			Endpoint string `query:"endpoint"`
			Before   int64  `query:"before" minimum:"1" doc:"The value of next from the previous page."`
			Limit    int    `query:"limit" minimum:"1" maximum:"1000" default:"40"`
		},
		) (*Page[Action], error) {
			return o.Actions(ctx, in.Endpoint, in.Before, in.Limit)
		})
	look(o.api, rest.Operation(http.MethodGet, "/webhooks/endpoints/{name}/states", "listStates",
		"List the states that an endpoint was in, oldest first"),
		func(ctx context.Context, in *struct {
			Name  string `path:"name" doc:"The endpoint's name, percent-encoded."`
			Range Range  `query:"range" enum:"1h,24h,7d" default:"24h"`
		},
		) (*Page[State], error) {
			return o.States(ctx, in.Name, in.Range)
		})
	look(o.api, rest.Operation(http.MethodGet, "/webhooks/series", "getSeries",
		"Get how many events were delivered, failed and waited over time, for charts"),
		func(ctx context.Context, in *struct {
			Endpoint string `query:"endpoint" doc:"If omitted, all endpoints together."`
			Range    Range  `query:"range" enum:"1h,24h,7d" default:"24h"`
		},
		) (*Series, error) {
			return o.Series(ctx, in.Endpoint, in.Range)
		})
}

package operator

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/relay"
)

// Parked is a parked event in the operator API.
type Parked struct {
	Event
	Endpoint string `json:"endpoint"`
	Attempts int    `json:"attempts"`
	Next     string `json:"next,omitempty" doc:"When it is tried again; omitted for one that waits behind another, and for a dead letter."`
	Dead     string `json:"dead,omitempty" doc:"When it was given up."`
	Behind   int64  `json:"behind,omitempty" doc:"The position of the event that it waits for."`
	Reason   string `json:"reason,omitempty"`
	Detail   string `json:"detail,omitempty" doc:"Explains the reason."`
	Response string `json:"response,omitempty" doc:"The beginning of the receiver's last answer."`
	LastAt   string `json:"last_at,omitempty" doc:"When it was tried last."`
}

// ParkedPage is a page of parked events, in log order.
type ParkedPage struct {
	Items []Parked `json:"items" nullable:"false"`
	// Next is the value of after for the next page.
	Next string `json:"next,omitempty" doc:"The value of after for the next page; omitted on the last. Its form may change."`
}

// ParkedFilter selects parked events and dead letters. The zero value selects all.
type ParkedFilter struct {
	Endpoint string
	// Dead selects only dead letters.
	Dead bool
	// Reason is that of the last failure, such as "http_422".
	Reason   string
	Patterns []tidings.Pattern
	// Resource is "provider/<id>", or an id alone.
	Resource string
	// Event is the id or position of one event.
	Event string
}

// narrow reports whether the filter selects only some events of its endpoint.
func (f *ParkedFilter) narrow() bool {
	return f.Dead || f.Reason != "" || len(f.Patterns) > 0 || f.Resource != "" || f.Event != ""
}

// parkedFilter converts a filter, or returns an error if it can match nothing.
func (s *Service) parkedFilter(ctx context.Context, f ParkedFilter) (eventlog.ParkedFilter, error) {
	out := eventlog.ParkedFilter{Endpoint: f.Endpoint, Dead: f.Dead, Reason: f.Reason, Patterns: f.Patterns}
	var err error
	if out.Resource, err = s.checkResource(f.Resource, true); err != nil {
		return out, err
	}
	if f.Event != "" {
		if out.Sequence, err = strconv.ParseInt(f.Event, 10, 64); err != nil {
			out.ID = f.Event
		} else if out.Sequence < 1 { // 0 would mean any
			return out, invalid("event", "there is no position %s; the first is 1", f.Event)
		}
	}
	return out, s.checkEndpoint(ctx, f.Endpoint)
}

// Parked returns parked events and dead letters in log order. after is the Next of the
// previous page, or a position, and may be empty.
func (s *Service) Parked(ctx context.Context, filter ParkedFilter, after string, limit int) (*ParkedPage, error) {
	f, err := s.parkedFilter(ctx, filter)
	if err != nil {
		return nil, err
	}
	f.Limit = limit + 1
	if after != "" {
		var position string
		position, f.AfterEndpoint, _ = strings.Cut(after, "-")
		if f.After, err = strconv.ParseInt(position, 10, 64); err != nil || f.After < 0 {
			return nil, invalid("after", "expected the value of next from a page, or a position: a whole number")
		}
		head, err := s.newest(ctx)
		if err != nil {
			return nil, err
		}
		if f.After > head {
			return nil, invalid("after", "the log ends at %d", head)
		}
	}
	rows, err := s.log().Parked(ctx, f)
	if err != nil {
		return nil, err
	}
	page := &ParkedPage{Items: []Parked{}}
	for i, r := range rows {
		if i == limit {
			last := rows[i-1]
			page.Next = fmt.Sprintf("%d-%s", last.Event.Sequence, last.Endpoint)
			break
		}
		page.Items = append(page.Items, Parked{
			Event: newEvent(r.Event), Endpoint: r.Endpoint, Attempts: r.Attempts, Next: stamp(r.Next),
			Dead: stamp(r.Dead), Behind: r.Behind, Reason: r.Reason, Detail: r.Detail, Response: r.Response,
			LastAt: stamp(r.Last),
		})
	}
	return page, nil
}

// ParkedGroup counts parked events of an endpoint that failed alike.
type ParkedGroup struct {
	Endpoint string `json:"endpoint"`
	Reason   string `json:"reason" doc:"Empty for events that wait behind others."`
	Response string `json:"response,omitempty" doc:"The beginning of the receiver's answer."`
	Count    int64  `json:"count"`
	Dead     int64  `json:"dead" doc:"How many of them are dead letters."`
	First    int64  `json:"first" doc:"The lowest position."`
	Last     int64  `json:"last" doc:"The highest position."`
	FirstAt  string `json:"first_at,omitempty" doc:"When the first of them failed first."`
	LastAt   string `json:"last_at,omitempty" doc:"When one of them failed last."`
	NextAt   string `json:"next_at,omitempty" doc:"When the next of them is tried again."`
}

// ParkedGroups returns the parked events grouped by endpoint, reason and response, the
// largest groups first.
func (s *Service) ParkedGroups(ctx context.Context, filter ParkedFilter, limit int) (*Page[ParkedGroup], error) {
	f, err := s.parkedFilter(ctx, filter)
	if err != nil {
		return nil, err
	}
	groups, err := s.log().ParkedGroups(ctx, f, limit)
	if err != nil {
		return nil, err
	}
	page := &Page[ParkedGroup]{Items: []ParkedGroup{}}
	for _, g := range groups {
		page.Items = append(page.Items, ParkedGroup{
			g.Endpoint, g.Reason, g.Response, g.Count, g.Dead, g.First, g.Last, stamp(g.FirstAt), stamp(g.LastAt),
			stamp(g.Next),
		})
	}
	return page, nil
}

// countParked returns how many parked events and dead letters a filter selects.
func (s *Service) countParked(ctx context.Context, filter ParkedFilter) (int64, error) {
	f, err := s.parkedFilter(ctx, filter)
	if err != nil {
		return 0, err
	}
	count, err := s.log().CountParked(ctx, f)
	return count.Events, err
}

// ParkedSelection selects parked events of an endpoint in order to do something with
// them.
type ParkedSelection struct {
	Endpoint string   `json:"endpoint" minLength:"1"`
	Dead     bool     `json:"dead,omitempty" doc:"Dead letters only."`
	Reason   string   `json:"reason,omitempty" minLength:"1" doc:"Those whose last attempt failed for that reason, such as http_422."`
	Types    []string `json:"types,omitempty" maxItems:"100" doc:"Patterns of events."`
	Resource string   `json:"resource,omitempty" minLength:"1" doc:"An id, or a type and an id such as provider/<id>."`
	Event    string   `json:"event,omitempty" minLength:"1" doc:"The id or position of one event."`
	Count    int64    `json:"count,omitempty" minimum:"1" doc:"How many there were when the caller looked. If there are now over a tenth more, nothing is done."`
	DryRun   bool     `json:"dry_run,omitempty" doc:"Only count them."`
}

// RetryParked selects the parked events to retry.
type RetryParked struct{ ParkedSelection }

// DiscardParked selects the parked events to discard. The history keeps the comment.
type DiscardParked struct {
	ParkedSelection
	All     bool   `json:"all,omitempty" doc:"Everything that is parked for the endpoint; needed if nothing else narrows the selection."`
	Comment string `json:"comment" maxLength:"500" doc:"Why; the history keeps it."`
}

// ParkedDone is the result of a retry or a discard.
type ParkedDone struct {
	Endpoint     string `json:"endpoint"`
	Count        int64  `json:"count" doc:"How many events."`
	DryRun       bool   `json:"dry_run,omitempty" doc:"Nothing was done."`
	WaitsBecause string `json:"waits_because,omitempty" doc:"Why they are not sent at once."`
	// Change runs in the background; nil if everything was done at once.
	Change *ParkedChange `json:"change,omitempty" doc:"The change that runs in the background, if there are more than 1000 events; left out if everything was done at once."`
}

// subject describes in the history what was acted on.
func (d *ParkedDone) subject() string {
	return fmt.Sprintf("%d parked %s", d.Count, plural(d.Count, "event", "events"))
}

// parkedPage is how many parked events are read at once, and changed within a request.
const parkedPage = 1000

// selected returns how many events are selected, and these if they are few enough for a
// request. It returns an error if there are more than the caller expects.
func (s *Service) selected(
	ctx context.Context, in *ParkedSelection, f eventlog.ParkedFilter,
) (n int64, rows []eventlog.Retry, err error) {
	count, err := s.log().CountParked(ctx, f)
	switch n = count.Events; {
	case err != nil:
		return 0, nil, err
	case !in.DryRun && in.Count > 0 && n > in.Count+in.Count/10:
		return 0, nil, conflict("there are now %d, not %d; look again before you decide", n, in.Count)
	case in.DryRun || n > parkedPage:
		return n, nil, nil
	}
	f.Limit = parkedPage
	rows, err = s.log().Parked(ctx, f)
	return int64(len(rows)), rows, err
}

// selection returns the filter of a selection.
func (s *Service) selection(ctx context.Context, in *ParkedSelection) (eventlog.ParkedFilter, error) {
	if in.Types != nil && len(in.Types) == 0 {
		return eventlog.ParkedFilter{}, invalid("types", "lists no pattern; leave it out for every event")
	}
	var patterns []tidings.Pattern
	for _, text := range in.Types {
		p, err := s.types().Parse(text)
		if err != nil {
			return eventlog.ParkedFilter{}, invalid("types", "%v", err)
		}
		patterns = append(patterns, p)
	}
	return s.parkedFilter(ctx, in.filter(patterns))
}

func (in *ParkedSelection) filter(patterns []tidings.Pattern) ParkedFilter {
	return ParkedFilter{in.Endpoint, in.Dead, in.Reason, patterns, in.Resource, in.Event}
}

// none returns an error that says that nothing is selected, if the caller named
// something.
func (in *ParkedSelection) none() error {
	what := "parked event"
	if in.Dead {
		what = "dead letter"
	}
	if in.Event != "" {
		return notFound("endpoint %s has no %s %s; 'tidings parked --endpoint %s' lists them",
			in.Endpoint, what, in.Event, in.Endpoint)
	}
	return nil
}

// RetryParked makes parked events due at once. One that waits behind another of its
// resource follows that one, which becomes due. A dead letter is parked again, with a
// new schedule. More than 1000 events are retried in the background.
func (s *Service) RetryParked(ctx context.Context, in RetryParked) (*ParkedDone, error) {
	f, err := s.selection(ctx, &in.ParkedSelection)
	if err != nil {
		return nil, err
	}
	if _, err := s.configured(in.Endpoint); err != nil {
		return nil, invalid("endpoint", "%v", err)
	}
	out := &ParkedDone{Endpoint: in.Endpoint, DryRun: in.DryRun}
	var rows []eventlog.Retry
	if out.Count, rows, err = s.selected(ctx, &in.ParkedSelection, f); err == nil && out.Count == 0 {
		err = in.none()
	}
	switch {
	case err != nil, in.DryRun, out.Count == 0:
	case out.Count > parkedPage:
		out.Change, err = s.begin(ctx, eventlog.RetryAction, &in.ParkedSelection, f, out.Count, "")
	default:
		events := make([]tidings.Event, len(rows))
		for i, r := range rows {
			events[i] = r.Event
		}
		err = s.log().RetryParked(ctx, in.Endpoint, events, time.Now())
	}
	if err != nil {
		return nil, err
	}
	if !in.DryRun && out.Count > 0 {
		s.Record(ctx, Action{
			Action: "retry", Endpoint: in.Endpoint, Subject: out.subject(),
		})
		if err := s.log().Nudge(ctx); err != nil {
			return nil, err
		}
	}
	out.WaitsBecause, err = s.waitsBecause(ctx, in.Endpoint)
	return out, err
}

// DiscardParked removes parked events and dead letters of an endpoint, which need no longer
// be configured. The history keeps who did it, and the comment. More than 1000 events are
// removed in the background. With an error, it returns how many it has removed so far.
func (s *Service) DiscardParked(ctx context.Context, in DiscardParked) (*ParkedDone, error) {
	out := &ParkedDone{Endpoint: in.Endpoint, DryRun: in.DryRun}
	f, err := s.selection(ctx, &in.ParkedSelection)
	if err != nil {
		return out, err
	}
	filter := in.filter(f.Patterns)
	switch {
	case in.All == filter.narrow():
		return out, invalid("all", "select events by event, types, resource, reason or dead, or set all")
	case strings.TrimSpace(in.Comment) == "" && !in.DryRun:
		return out, invalid("comment", "say why; the history keeps it")
	}
	comment := strings.TrimSpace(in.Comment)
	matched, rows, err := s.selected(ctx, &in.ParkedSelection, f)
	switch {
	case err != nil:
		return out, err
	case matched == 0 && in.none() != nil:
		return out, in.none()
	case in.DryRun, matched == 0:
		out.Count = matched
		return out, nil
	case matched > parkedPage:
		out.Count = matched
		out.Change, err = s.begin(ctx, eventlog.DiscardAction, &in.ParkedSelection, f, matched, comment)
		if err != nil {
			return &ParkedDone{Endpoint: in.Endpoint}, err
		}
	default:
		sequences := make([]int64, len(rows))
		for i, r := range rows {
			sequences[i] = r.Event.Sequence
		}
		out.Count, err = s.hooks.Discard(ctx, in.Endpoint, sequences,
			eventlog.Discard{At: time.Now(), By: actor(ctx), Comment: comment})
	}
	if out.Count > 0 {
		s.Record(ctx, Action{Action: "discard", Endpoint: in.Endpoint, Subject: out.subject(), Comment: comment})
	}
	return out, errors.Join(err, s.log().Nudge(ctx))
}

// waitsBecause says why what is sent to an endpoint waits; empty if it does not.
func (s *Service) waitsBecause(ctx context.Context, name string) (string, error) {
	e, err := s.Endpoint(ctx, name)
	if err != nil {
		return "", err
	}
	return e.waitsBecause(), nil
}

func (e *Endpoint) waitsBecause() string {
	text := fmt.Sprintf("endpoint %s is %s", e.Name, e.State)
	switch {
	case e.State == string(relay.Disabled) && e.Reason == relay.PausedReason:
		return fmt.Sprintf("endpoint %s is paused; resume it", e.Name)
	case e.State == string(relay.Disabled):
		return fmt.Sprintf("endpoint %s wants no more webhooks (%s); enable it", e.Name, e.Reason)
	case e.State == string(relay.Probing):
		text = fmt.Sprintf("endpoint %s is %s", e.Name, relay.Down)
	case e.State == "waiting":
		return fmt.Sprintf("no replica delivers to endpoint %s at the moment", e.Name)
	case e.State != string(relay.Down) && e.State != string(relay.Throttled):
		return ""
	}
	if e.Reason != "" {
		text += " (" + e.Reason + ")"
	}
	if e.Until != "" {
		text += "; it is tried next at " + e.Until
	}
	return text
}

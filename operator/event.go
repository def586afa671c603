package operator

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
)

// Event is an event in the operator API and the feed: the body of the webhook and
// its position.
type Event struct {
	ID              string  `json:"id" doc:"The webhook-id."`
	Sequence        int64   `json:"sequence" doc:"Its position in the log."`
	ResourceVersion int64   `json:"resource_version"`
	Event           string  `json:"event"`
	ResourceType    string  `json:"resource_type"`
	ResourceID      string  `json:"resource_id"`
	ResourceURL     string  `json:"resource_url"`
	UserID          *string `json:"user_id"`
	Timestamp       string  `json:"timestamp"`
}

// newEvent converts an event of the log.
func newEvent(e tidings.Event) Event {
	out := Event{
		ID: e.ID, Sequence: e.Sequence, ResourceVersion: e.ResourceVersion, Event: e.Name(),
		ResourceType: string(e.Type),
		ResourceID:   e.ResourceID, ResourceURL: e.ResourceURL, Timestamp: stamp(e.Time),
	}
	if e.UserID != "" {
		out.UserID = &e.UserID
	}
	return out
}

// Listed is an event in a list.
type Listed struct {
	Event
	UndeliveredTo []string `json:"undelivered_to,omitempty" doc:"Endpoints that want it but have not received it, even if it is parked or a dead letter."`
}

// Filter selects events and attempts. The zero value selects all.
type Filter struct {
	Endpoint string
	Patterns []tidings.Pattern
	// Resource is "provider/<id>", or an id alone.
	Resource string
	// Outcome is an outcome, or "failures" for everything neither delivered nor
	// merged.
	Outcome      string
	Since, Until time.Time
	// Event is the id or position of one event.
	Event string
	// Before is the Next of the previous page; 0 for the first page.
	Before int64
	Limit  int
}

// Page is a part of a list, newest first.
type Page[T any] struct {
	Items []T `json:"items" nullable:"false"`
	// Next is the value of before for the next page.
	Next int64 `json:"next,omitempty" doc:"The value of before for the next page; omitted on the last."`
	// Total is how many items all pages have, if that is known.
	Total      *int64 `json:"total,omitempty" doc:"How many items all pages have, at most 10000; omitted if unknown."`
	TotalExact bool   `json:"total_exact,omitempty" doc:"False if there are more than total."`
	// SearchedTo is how far back the search went that ended before the page was full.
	SearchedTo string `json:"searched_to,omitempty" doc:"Set if the search for this page ended before it was full: there is nothing else to find after this time; next continues before it."`
}

// maxTotal is the highest exact total.
const maxTotal = 10_000

func (p *Page[T]) count(n int64) {
	p.Total, p.TotalExact = new(min(n, maxTotal)), n <= maxTotal
}

// countWhole sets the total of a page that is the only one.
func (p *Page[T]) countWhole(before int64) {
	if before == 0 && p.Next == 0 {
		p.count(int64(len(p.Items)))
	}
}

// eventBatch is how many events are read at once.
const eventBatch = 500

// Limits on what is examined for one page or plan: scanLimit is the number of events
// or attempts that are read, searchLimit the number of positions that the database
// compares, searchStep of them in each statement.
var (
	scanLimit   = 50_000
	searchLimit = int64(500_000)
	searchStep  = int64(50_000)
)

// Events returns events of the log, newest first.
func (s *Service) Events(ctx context.Context, f Filter) (*Page[Listed], error) {
	page, events, err := s.events(ctx, f)
	if err == nil {
		err = s.undelivered(ctx, page, events)
	}
	if err != nil {
		return nil, err
	}
	page.countWhole(f.Before)
	return page, nil
}

// parkedOfPage bounds the parked events that are compared with a page of events.
const parkedOfPage = 2000

// undelivered sets which endpoints have not received the events of a page.
func (s *Service) undelivered(ctx context.Context, page *Page[Listed], events []tidings.Event) error {
	if len(events) == 0 || s.relay() == nil {
		return nil
	}
	partitions, err := s.relay().Statuses(ctx)
	if err != nil {
		return err
	}
	oldest := events[len(events)-1].Sequence
	rows, err := s.log().Parked(ctx, eventlog.ParkedFilter{After: oldest - 1, Limit: parkedOfPage})
	if err != nil {
		return err
	}
	type key struct {
		endpoint string
		sequence int64
	}
	parked := make(map[key]bool)
	for _, r := range rows {
		parked[key{r.Endpoint, r.Event.Sequence}] = true
	}
	waits := func(endpoint string, e tidings.Event) bool {
		for _, p := range partitions {
			if c := p.Cursor; c.Endpoint == endpoint && c.Has(e) {
				return e.Sequence > c.Sequence && !c.Marks.Settled(e)
			}
		}
		return false
	}
	for _, endpoint := range s.endpoints() {
		for i, e := range events {
			if endpoint.Matches(e) && (parked[key{endpoint.Name, e.Sequence}] || waits(endpoint.Name, e)) {
				page.Items[i].UndeliveredTo = append(page.Items[i].UndeliveredTo, endpoint.Name)
			}
		}
	}
	return nil
}

func (s *Service) events(ctx context.Context, f Filter) (page *Page[Listed], found []tidings.Event, err error) {
	if err := s.check(ctx, &f); err != nil {
		return nil, nil, err
	}
	page = &Page[Listed]{Items: []Listed{}}
	oldest, err := s.log().Oldest(ctx)
	if err != nil {
		return nil, nil, err
	}
	head, err := s.newest(ctx)
	if err != nil {
		return nil, nil, err
	}
	if len(f.Patterns) == 0 && f.Resource == "" && f.Since.IsZero() && f.Until.IsZero() {
		page.count(max(head-oldest+1, 0))
	}
	end := head
	if f.Before > 0 {
		end = f.Before - 1
	}
	if end > head {
		return nil, nil, invalid("before", "the log ends at %d", head)
	}
	if oldest, end, err = s.within(ctx, f, oldest, end); err != nil {
		return nil, nil, err
	}
	search := eventlog.EventFilter{Patterns: f.Patterns, Resource: f.Resource, Since: f.Since, Until: f.Until}
	for least := max(end-searchLimit+1, oldest); end >= least; {
		search.From, search.To = max(end-searchStep+1, least), end
		events, err := s.log().Search(ctx, search, f.Limit-len(found))
		if err != nil {
			return nil, nil, err
		}
		for _, e := range events {
			page.Items, found = append(page.Items, Listed{Event: newEvent(e)}), append(found, e)
		}
		if len(found) == f.Limit {
			page.Next = found[len(found)-1].Sequence
			return page, found, nil
		}
		end = search.From - 1
	}
	if end < oldest {
		return page, found, nil
	}
	page.Next = end + 1
	last, err := s.log().Read(ctx, end, 1)
	if len(last) > 0 {
		page.SearchedTo = stamp(last[0].Time)
	}
	return page, found, err
}

// within narrows a range of positions to the times of a filter.
func (s *Service) within(ctx context.Context, f Filter, from, to int64) (int64, int64, error) {
	if !f.Since.IsZero() {
		at, err := s.log().SequenceAt(ctx, f.Since)
		if err != nil {
			return 0, 0, err
		}
		from = max(from, at)
	}
	if !f.Until.IsZero() { // an event may be that much out of order, in either direction
		at, err := s.log().SequenceAt(ctx, f.Until.Add(2*eventlog.TimeSlack))
		if err != nil {
			return 0, 0, err
		}
		to = min(to, at)
	}
	return from, to, nil
}

// find returns the event with an id or position, from the log or, if it has expired
// there, from the parked events.
func (s *Service) find(ctx context.Context, id string) (tidings.Event, error) {
	parked := eventlog.ParkedFilter{Limit: 1}
	missing := notFound("the log has no event %s: it never existed, has expired, or was lost by the database", id)
	if sequence, err := strconv.ParseInt(id, 10, 64); err == nil {
		missing = notFound("the log has no event at position %d: it has expired or does not exist yet", sequence)
		if sequence < 1 { // for a filter, 0 would mean any
			return tidings.Event{}, missing
		}
		events, err := s.log().Read(ctx, sequence-1, 1)
		if err != nil || len(events) > 0 && events[0].Sequence == sequence {
			return first(events), err
		}
		oldest, err := s.log().Oldest(ctx)
		if err != nil {
			return tidings.Event{}, err
		}
		parked.Sequence = sequence
		missing = notFound("the log has no event at position %d: it has expired or does not exist yet; the log begins at %d",
			sequence, oldest)
	} else {
		e, found, err := s.log().Find(ctx, id)
		if err != nil || found {
			return e, err
		}
		parked.ID = id
	}
	rows, err := s.log().Parked(ctx, parked)
	if err != nil || len(rows) > 0 {
		return first(rows).Event, err
	}
	return tidings.Event{}, missing
}

func first[T any](list []T) (one T) {
	if len(list) > 0 {
		one = list[0]
	}
	return one
}

// Attempt is an attempt or a merge in the operator API.
type Attempt struct {
	Endpoint string `json:"endpoint"`
	eventlog.Record
}

// Attempts returns the history, newest first.
func (s *Service) Attempts(ctx context.Context, f Filter) (*Page[Attempt], error) {
	if err := s.check(ctx, &f); err != nil {
		return nil, err
	}
	blocks := eventlog.HistoryFilter{Endpoint: f.Endpoint, Since: f.Since, Until: f.Until, Limit: 1}
	blocks.Failures = f.Outcome != "" &&
		!slices.Contains([]string{tidings.Delivered.String(), eventlog.Merged, eventlog.Discarded}, f.Outcome)
	from := attemptCursor{f.Before / eventlog.BlockRecords, int(f.Before % eventlog.BlockRecords)}
	if f.Before > 0 {
		_, newest, err := s.log().ReadHistory(ctx, eventlog.HistoryFilter{Limit: 1})
		if err != nil {
			return nil, err
		}
		if from.block > newest {
			return nil, invalid("before", "expected the value of next from a page; the history ends before this")
		}
		if blocks.Before = from.block; from.left > 0 {
			blocks.Before++
		}
	}
	if f.Event != "" {
		e, err := s.find(ctx, f.Event)
		if err != nil {
			return nil, err
		}
		blocks.Sequence, blocks.EventID, f.Event = e.Sequence, e.ID, e.ID
	}
	page := &Page[Attempt]{Items: []Attempt{}}
	for looked := 0; looked < scanLimit; {
		records, oldest, examined, err := s.block(ctx, blocks, f.Resource)
		if err != nil {
			return nil, err
		}
		if oldest == 0 {
			page.SearchedTo = ""
			page.countWhole(f.Before)
			return page, nil
		}
		if len(records) > 0 {
			page.SearchedTo = stamp(records[0].At)
		}
		if oldest == from.block && from.left > 0 {
			records = records[:min(from.left, len(records))]
		}
		if f.Event == "" { // else, every block has an attempt of it
			looked += examined
		}
		for i, r := range slices.Backward(records) {
			if !f.wantsRecord(r) {
				continue
			}
			page.Items = append(page.Items, Attempt{r.Endpoint, r})
			if len(page.Items) == f.Limit {
				page.Next, page.SearchedTo = attemptCursor{oldest, i}.before(), ""
				return page, nil
			}
		}
		blocks.Before = oldest
	}
	page.Next = attemptCursor{block: blocks.Before}.before()
	return page, nil
}

// blockSpan is how many blocks of the history a search for a resource covers in one
// statement. That counts as much as reading spanCost records.
var blockSpan = int64(500)

const spanCost = 5000

// block returns the records of the newest block that may match, the id of the oldest
// block examined, or 0 if there is none, and how many records that is worth.
func (s *Service) block(
	ctx context.Context, f eventlog.HistoryFilter, resource string,
) (records []eventlog.Record, oldest int64, cost int, err error) {
	records, oldest, err = s.log().ReadHistory(ctx, f)
	if err != nil || oldest == 0 || resource == "" {
		return records, oldest, len(records), err
	}
	f.Resource, f.Before, f.After = resource, oldest+1, max(oldest-blockSpan, 0)
	if records, oldest, err = s.log().ReadHistory(ctx, f); oldest == 0 {
		oldest = f.After + 1
	}
	return records, oldest, len(records) + spanCost, err
}

// attemptCursor is the end of a page of the history. The next page has the first
// left records of a block, then older blocks.
type attemptCursor struct {
	block int64
	left  int
}

func (c attemptCursor) before() int64 { return c.block*eventlog.BlockRecords + int64(c.left) }

// wantsRecord reports whether the filter matches a record. Its event must be an id.
func (f *Filter) wantsRecord(r eventlog.Record) bool {
	typ, action, _ := strings.Cut(r.Event, ".")
	_, id, _ := strings.Cut(r.Resource, "/")
	of := eventlog.EventFilter{Patterns: f.Patterns, Resource: f.Resource, Since: f.Since, Until: f.Until}
	return of.Matches(tidings.Event{
		Type: tidings.ResourceType(typ), Action: tidings.Action(action), ResourceID: id, Time: r.At,
	}) && (f.Event == "" || f.Event == r.EventID) &&
		(f.Outcome == "" || f.Outcome == r.Outcome || f.Outcome == "failures" && r.Failed())
}

// Explanation is what happened to an event, for every endpoint.
type Explanation struct {
	Event     Event       `json:"event"`
	Endpoints []Explained `json:"endpoints" nullable:"false"`
}

// Explained is what happened to an event for one endpoint.
type Explained struct {
	Endpoint string `json:"endpoint"`
	// Pattern is the pattern that matched.
	Pattern string `json:"pattern,omitempty"`
	Fate    string `json:"fate" enum:"not_matched,delivered,merged,parked,behind,dead,discarded,waiting,expired,settled" doc:"settled: finished before the retained history begins."`
	// Because explains it in a sentence.
	Because    string    `json:"because"`
	At         string    `json:"settled_at,omitempty" doc:"When it was delivered or given up."`
	Attempt    int       `json:"attempt,omitempty" doc:"The attempt that delivered it, or the last one that failed."`
	Reason     string    `json:"reason,omitempty" doc:"Why that attempt failed, or why the endpoint does not deliver."`
	State      string    `json:"state,omitempty" doc:"The endpoint's state, if the event waits for it."`
	Ahead      int64     `json:"positions_ahead,omitempty" doc:"How far the event is behind the cursor, if it waits in the log."`
	MergedInto int64     `json:"merged_into,omitempty"`
	Behind     int64     `json:"behind,omitempty" doc:"The position of the parked event that it waits for."`
	Until      string    `json:"until,omitempty" doc:"When it is tried again."`
	Attempts   []Attempt `json:"attempts" nullable:"false" doc:"Oldest first."`
	// held is "paused" or "gone" if the endpoint gets nothing until an operator acts.
	held string
}

// Explain returns what happened to the event with an id or position, for every
// endpoint.
func (s *Service) Explain(ctx context.Context, id string) (*Explanation, error) {
	e, err := s.find(ctx, id)
	if err != nil {
		return nil, err
	}
	out := &Explanation{Event: newEvent(e), Endpoints: []Explained{}}
	states, err := s.Endpoints(ctx)
	if err != nil {
		return nil, err
	}
	gaps, err := s.log().Gaps(ctx, gapLimit)
	if err != nil {
		return nil, err
	}
	attempts, err := s.attemptsOf(ctx, e)
	if err != nil {
		return nil, err
	}
	rows, err := s.log().Parked(ctx, eventlog.ParkedFilter{Sequence: e.Sequence, Limit: max(len(states), 1)})
	if err != nil {
		return nil, err
	}
	parked := make(map[string]*eventlog.Retry)
	for i, r := range rows {
		parked[r.Endpoint] = &rows[i]
	}
	for _, endpoint := range s.endpoints() {
		x := Explained{Endpoint: endpoint.Name, Attempts: []Attempt{}}
		var ok bool
		if x.Pattern, ok = endpoint.MatchedBy(e); !ok {
			x.Fate, x.Because = "not_matched", fmt.Sprintf("none of its patterns matches %s", e.Name())
			if x.Pattern != "" {
				x.Because = "its filter refuses the event"
			}
			out.Endpoints = append(out.Endpoints, x)
			continue
		}
		i := slices.IndexFunc(states, func(s *Endpoint) bool { return s.Name == endpoint.Name })
		x.Attempts = append(x.Attempts, attempts[endpoint.Name]...)
		if states[i].State == "disabled" {
			x.held = shownState(states[i])
		}
		if err := s.explain(ctx, e, parked[endpoint.Name], states[i], gaps, &x); err != nil {
			return nil, err
		}
		out.Endpoints = append(out.Endpoints, x)
	}
	return out, nil
}

const (
	// attemptLimit is the maximum number of attempts of an endpoint in an explanation.
	attemptLimit = 200
	// attemptsAtOnce is how many attempts of an event are read at once; with more, each
	// endpoint's are read on their own.
	attemptsAtOnce = 10_000
)

// attemptsOf returns the latest attempts of an event by endpoint, oldest first.
func (s *Service) attemptsOf(ctx context.Context, e tidings.Event) (map[string][]Attempt, error) {
	all := make(map[string][]Attempt)
	f := Filter{Event: strconv.FormatInt(e.Sequence, 10), Limit: attemptsAtOnce}
	page, err := s.Attempts(ctx, f)
	if err != nil {
		return nil, err
	}
	if page.Next == 0 {
		for _, a := range page.Items {
			if len(all[a.Endpoint]) < attemptLimit {
				all[a.Endpoint] = append(all[a.Endpoint], a)
			}
		}
	} else {
		for _, endpoint := range s.endpoints() {
			f.Endpoint, f.Limit = endpoint.Name, attemptLimit
			if page, err = s.Attempts(ctx, f); err != nil {
				return nil, err
			}
			all[endpoint.Name] = page.Items
		}
	}
	for _, attempts := range all {
		slices.Reverse(attempts)
	}
	return all, nil
}

func (s *Service) explain(
	ctx context.Context, e tidings.Event, parked *eventlog.Retry, state *Endpoint, gaps []eventlog.Gap, x *Explained,
) error {
	switch {
	case parked != nil:
		return s.explainParked(ctx, *parked, x)
	case x.finished():
	case settled(e, state):
		x.Fate, x.Because = "settled", "the cursor has passed it, and its history is no longer kept"
		for _, g := range gaps {
			if g.Reason != eventlog.GapLost && g.Endpoint == x.Endpoint &&
				g.From <= e.Sequence && e.Sequence <= g.To {
				x.Fate, x.Because = "expired", "it expired before the endpoint received it"
			}
		}
	default:
		x.Fate, x.Until = "waiting", state.Until
		x.Ahead, x.State, x.Reason = e.Sequence-state.Cursor, state.State, state.Reason
		x.Because = fmt.Sprintf("it waits in the log, %d %s after the cursor; the endpoint is %s",
			x.Ahead, plural(x.Ahead, "position", "positions"), x.State)
		if state.Reason != "" {
			x.Because += " (" + state.Reason + ")"
		}
	}
	return nil
}

func settled(e tidings.Event, state *Endpoint) bool {
	for _, p := range state.Partitions {
		if (eventlog.Partition{Index: p.Index, Of: len(state.Partitions)}).Has(e) {
			return e.Sequence <= p.Cursor
		}
	}
	return false
}

// finished looks for a successful attempt, a merge or a discard.
func (x *Explained) finished() bool {
	for _, a := range x.Attempts {
		switch a.Outcome {
		case eventlog.Discarded:
			x.Fate, x.Because = "discarded", fmt.Sprintf("an operator discarded it at %s: %s", stamp(a.At), a.Comment)
			return true
		case tidings.Delivered.String():
			x.At, x.Attempt = stamp(a.At), a.Attempt
			x.Fate, x.Because = "delivered", fmt.Sprintf("delivered at %s, attempt %d", stamp(a.At), a.Attempt)
			return true
		case eventlog.Merged:
			x.Fate, x.MergedInto = "merged", a.MergedInto
			x.Because = fmt.Sprintf("merged: the event at position %d covers it, too", a.MergedInto)
			return true
		}
	}
	return false
}

func (s *Service) explainParked(ctx context.Context, r eventlog.Retry, x *Explained) error {
	x.At, x.Attempt, x.Reason = stamp(r.Dead), r.Attempts, r.Reason
	switch {
	case !r.Dead.IsZero():
		x.Fate = "dead"
		x.Because = fmt.Sprintf("given up at %s; attempt %d was the last and failed with %s",
			stamp(r.Dead), r.Attempts, whyFailed(r))
	case r.Attempts > 0:
		x.Fate, x.Until = "parked", stamp(r.Next)
		x.Because = fmt.Sprintf("attempt %d failed with %s; it is tried again at %s", r.Attempts,
			whyFailed(r), stamp(r.Next))
	default:
		x.Fate = "behind"
		first, err := s.log().NextParked(ctx, r.Endpoint, r.Event, 1)
		if err != nil {
			return err
		}
		if len(first) > 0 {
			x.Behind, x.Until = first[0].Event.Sequence, stamp(first[0].Next)
		}
		x.Because = fmt.Sprintf("it waits behind the event at position %d of the same resource", x.Behind)
	}
	return nil
}

// whyFailed returns the reason, the detail and the answer of a failure as text.
func whyFailed(r eventlog.Retry) string {
	text := r.Reason
	if r.Detail != "" {
		text += " (" + r.Detail + ")"
	}
	if r.Response != "" {
		text += fmt.Sprintf(", answered %q", r.Response)
	}
	return text
}

package operator

import (
	"context"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/console"
	"github.com/tidings-dev/tidings/internal/rest"
)

// option is a choice of a filter.
type option struct {
	Value, Text string
	Chosen      bool
}

// field is a field of a filter.
type field struct {
	Name, Label, Value, Hint, Wrong string
	Grow                            bool
	Options                         []option
}

func choice(name, label, value string, options ...option) field {
	known := value == ""
	for i := range options {
		options[i].Chosen = options[i].Value == value
		known = known || options[i].Chosen
	}
	if !known { // shown beside its error
		options = append(options, option{value, value, true})
	}
	return field{Name: name, Label: label, Value: value, Options: options}
}

// listPage is a page with a filter and a list.
type listPage struct {
	Heading, Sub string
	Fields       []field
	Events       []eventRow
	Attempts     attemptTable
	Tail         bool // new entries appear
	Whole        bool // it has every event
	Older, First string
	Shown        string // how many of how many
	Searched     string // how far back, if the search ended early
	None         []template.HTML
	Wrong        string // what is wrong with the filter, unless a field says it
}

type eventRow struct {
	Event
	Resource    string
	User        string
	Undelivered string
}

func newEventRow(e Event) eventRow {
	r := eventRow{Event: e, Resource: e.ResourceType + "/" + e.ResourceID}
	if e.UserID != nil {
		r.User = *e.UserID
	}
	return r
}

const listed = 40

// shown says how many of how many items a page has.
func (p *Page[T]) shown() string {
	n := console.Number(len(p.Items))
	switch {
	case p.Total == nil:
		return n + " shown"
	case !p.TotalExact:
		return n + " of more than " + console.Number(*p.Total)
	}
	return n + " of " + console.Number(*p.Total)
}

// filterOf reads the filter of a list from the query of a page.
func (u *ui) filterOf(a *asked) (Filter, error) {
	query := a.URL.Query()
	f := Filter{Resource: strings.TrimSpace(query.Get("resource")), Limit: listed}
	var err error
	if f.Patterns, err = parsePatterns(u.types(), "types", query.Get("types")); err != nil {
		return f, err
	}
	if f.Since, err = a.page.When(query.Get("since")); err != nil {
		return f, invalid("since", "%v", err)
	}
	if f.Until, err = a.page.When(query.Get("until")); err != nil {
		return f, invalid("until", "%v", err)
	}
	if before := query.Get("before"); before != "" {
		if f.Before, err = strconv.ParseInt(before, 10, 64); err != nil || f.Before < 1 {
			return f, invalid("before", "expected the value of next from a page")
		}
	}
	f.Endpoint, f.Outcome = query.Get("endpoint"), query.Get("outcome")
	return f, nil
}

// blame shows an error beside the field that it concerns; it returns other errors.
func (v *listPage) blame(err error) error {
	e, ours := errors.AsType[*Error](err)
	var name, message string
	if ours {
		name, message = e.Field, e.Message
	} else if r, ok := errorField(err); ok {
		name, message = r.Field, r.Message
	} else {
		return err
	}
	for i := range v.Fields {
		if v.Fields[i].Name == strings.TrimPrefix(name, "query.") {
			v.Fields[i].Wrong = sentence(message)
			return nil
		}
	}
	v.Wrong = sentence(strings.TrimPrefix(name+": "+message, ": "))
	return nil
}

func (v *listPage) status() int {
	for _, f := range v.Fields {
		if f.Wrong != "" {
			return http.StatusUnprocessableEntity
		}
	}
	if v.Wrong != "" {
		return http.StatusUnprocessableEntity
	}
	return http.StatusOK
}

// turn returns links to the next page and to the first one.
func (v *listPage) turn(a *asked, parameter, next string) {
	query := a.URL.Query()
	had := query.Has(parameter)
	if query.Del(parameter); had {
		v.First = a.URL.Path + "?" + query.Encode()
	}
	if next != "" {
		query.Set(parameter, next)
		v.Older = a.URL.Path + "?" + query.Encode()
	}
}

// keep returns the query without its empty parameters, which forms send.
func (a *asked) tidy() (to string, needed bool) {
	query := a.URL.Query()
	for name, values := range query {
		if values[0] == "" {
			query.Del(name)
			needed = true
		}
	}
	if len(query) == 0 {
		return a.URL.Path, needed
	}
	return a.URL.Path + "?" + query.Encode(), needed
}

func rangeFields(query url.Values) []field {
	return []field{
		{Name: "types", Label: "Event", Value: query.Get("types"), Hint: "provider.*, *.deleted", Grow: true},
		{Name: "resource", Label: "Resource", Value: query.Get("resource"), Hint: "provider/550e8400-…", Grow: true},
		{Name: "since", Label: "From", Value: query.Get("since"), Hint: "2h, 02:00, Tue 14:00"},
		{Name: "until", Label: "Until", Value: query.Get("until"), Hint: "now"},
	}
}

func (u *ui) eventList(a *asked) error {
	if to, needed := a.tidy(); needed {
		return u.lead(a, to)
	}
	v := &listPage{Heading: "Events", Fields: rangeFields(a.URL.Query())}
	ctx := a.Context()
	head, err := u.newest(ctx)
	if err != nil {
		return err
	}
	oldest, err := u.log().Oldest(ctx)
	if err != nil {
		return err
	}
	v.Sub = fmt.Sprintf("%s at the head, oldest %s", console.Number(head), console.Number(oldest))
	f, err := u.filterOf(a)
	var page *Page[Listed]
	if err == nil {
		page, err = u.scanEvents(a, f)
	}
	if err != nil {
		if err := v.blame(err); err != nil {
			return err
		}
		page = &Page[Listed]{}
	}
	for _, e := range page.Items {
		row := newEventRow(e.Event)
		row.Undelivered = strings.Join(e.UndeliveredTo, ", ")
		v.Events = append(v.Events, row)
	}
	v.Shown = page.shown()
	v.Tail = f.Before == 0 && f.Until.IsZero()
	v.Whole = len(a.URL.Query()) == 0
	a.page.Live = v.Tail
	v.turn(a, "before", nextPage(page.Next))
	v.None = []template.HTML{"<strong>No event matches</strong>", "The log holds positions " + number(oldest) + " to " +
		number(head) + "."}
	v.endEarly(page.SearchedTo)
	return u.show(a, v.status(), "events", "Events", "Events", v)
}

func (u *ui) scanEvents(a *asked, f Filter) (*Page[Listed], error) {
	leave, err := u.api.Limits.Scans.Enter(a.Context(), a.user.ID, 1)
	if err != nil {
		return nil, err
	}
	defer leave()
	return u.Events(a.Context(), f)
}

func nextPage(next int64) string {
	if next == 0 {
		return ""
	}
	return strconv.FormatInt(next, 10)
}

// lead redirects the browser to another page.
func (u *ui) lead(a *asked, to string) error {
	console.Protect(a.w.Header())
	http.Redirect(a.w, a.Request, to, http.StatusSeeOther)
	return nil
}

// endpointOptions are the choices of a filter by endpoint.
func (u *ui) endpointOptions(none string) []option {
	options := []option{{Text: none}}
	for _, e := range u.endpoints() {
		options = append(options, option{Value: e.Name, Text: e.Name})
	}
	slices.SortFunc(options[1:], func(x, y option) int { return strings.Compare(x.Value, y.Value) })
	return options
}

// outcomes are the choices of a filter by outcome.
var outcomes = []string{
	"failures", "delivered", "refused", "rejected", "unauthorized", "unreachable", "failed", "throttled", "blocked",
	"gone", "merged",
}

func (u *ui) attemptList(a *asked) error {
	if to, needed := a.tidy(); needed {
		return u.lead(a, to)
	}
	query := a.URL.Query()
	options := []option{{Text: "all"}}
	for _, o := range outcomes {
		options = append(options, option{Value: o, Text: o})
	}
	v := &listPage{Heading: "Attempts", Sub: "what was sent, and the outcome", Fields: append([]field{
		choice("endpoint", "Endpoint", query.Get("endpoint"), u.endpointOptions("all")...),
		choice("outcome", "Outcome", query.Get("outcome"), options...),
	}, rangeFields(query)...)}
	f, err := u.filterOf(a)
	if err == nil && f.Outcome != "" && !slices.Contains(outcomes, f.Outcome) {
		err = invalid("outcome", "expected one of %s", strings.Join(outcomes, ", "))
	}
	page := &Page[Attempt]{}
	if err == nil {
		page, err = u.scanAttempts(a, f)
	}
	if err != nil {
		if err := v.blame(err); err != nil {
			return err
		}
		page = &Page[Attempt]{}
	}
	v.Attempts = attemptTable{Label: "Attempts, newest first", Named: true}
	for _, at := range page.Items {
		v.Attempts.Rows = append(v.Attempts.Rows, newAttemptRow(at))
	}
	v.Shown = page.shown()
	v.Tail = f.Before == 0 && f.Until.IsZero()
	a.page.Live = v.Tail
	v.turn(a, "before", nextPage(page.Next))
	v.None = []template.HTML{"<strong>No attempt matches</strong>", "Attempts are kept as long as the history."}
	if f.Outcome != "" {
		query.Del("outcome")
		v.None[1] = text(`<a href="%s">Show those with any outcome</a>`, a.URL.Path+"?"+query.Encode())
	}
	v.endEarly(page.SearchedTo)
	return u.show(a, v.status(), "attempts", "Attempts", "Attempts", v)
}

// endEarly says how far back the search went, if it ended early.
func (v *listPage) endEarly(to string) {
	if v.Searched = to; to != "" {
		v.None = []template.HTML{"<strong>Nothing found yet</strong>", text(`<a href="%s">Look further back</a>`, v.Older)}
	}
}

func (u *ui) scanAttempts(a *asked, f Filter) (*Page[Attempt], error) {
	leave, err := u.api.Limits.Scans.Enter(a.Context(), a.user.ID, 1)
	if err != nil {
		return nil, err
	}
	defer leave()
	return u.Attempts(a.Context(), f)
}

// became is what became of an event for an endpoint.
type became struct {
	Explained
	State    string
	Sent     string
	Timing   *console.Timing
	Send     *button
	Sentence template.HTML
	Answer   string // of the receiver, to an attempt that failed
	Off      string // why Send can't be used
}

type eventPage struct {
	Event        eventRow
	Sum          string
	Became       []became
	More, First  string // pages of it
	Again        string
	Newer, Older string
	Same         []eventRow
	Request      *requestView
}

// requestView is an event as it is sent to an endpoint.
type requestView struct {
	Endpoint  string
	Endpoints []string
	Size      int
	Body      string
	Headers   string
	Curl      string
}

func (u *ui) event(a *asked) error {
	ctx := a.Context()
	leave, err := u.api.Limits.Scans.Enter(ctx, a.user.ID, 1)
	if err != nil {
		return err
	}
	defer leave()
	x, err := u.Explain(ctx, a.PathValue("event"))
	if err != nil {
		return err
	}
	v := &eventPage{Event: newEventRow(x.Event)}
	counts := make(map[string]int)
	var order []string
	for _, e := range x.Endpoints {
		b := u.newBecame(a.page, x.Event, e, len(v.Became))
		if counts[b.State]++; counts[b.State] == 1 {
			order = append(order, b.State)
		}
		v.Became = append(v.Became, b)
	}
	var parts []string
	for _, state := range order {
		parts = append(parts, fmt.Sprintf("%d %s", counts[state], console.Word(state)))
	}
	v.Sum = strings.Join(parts, ", ")
	page, _ := strconv.Atoi(a.URL.Query().Get("page"))
	page = min(max(page, 1), (len(v.Became)+rowsShown-1)/rowsShown+1)
	from := min((page-1)*rowsShown, len(v.Became))
	to := min(from+rowsShown, len(v.Became))
	if to < len(v.Became) {
		v.More = "?page=" + strconv.Itoa(page+1)
	}
	if from > 0 {
		v.First = a.URL.Path
	}
	x.Endpoints, v.Became = x.Endpoints[from:to], v.Became[from:to]
	v.Again = a.page.URL("replays") + "?event=" + url.QueryEscape(x.Event.ID)
	if x.Event.Sequence > 1 {
		v.Older = a.page.URL("events", strconv.FormatInt(x.Event.Sequence-1, 10))
	}
	if head, err := u.newest(ctx); err == nil && x.Event.Sequence < head {
		v.Newer = a.page.URL("events", strconv.FormatInt(x.Event.Sequence+1, 10))
	}
	same, err := u.Events(ctx, Filter{Resource: v.Event.Resource, Limit: 10})
	if err == nil {
		for _, e := range same.Items {
			v.Same = append(v.Same, newEventRow(e.Event))
		}
	}
	if v.Request, err = u.requestOf(ctx, x, a.URL.Query().Get("endpoint")); err != nil {
		return err
	}
	title := fmt.Sprintf("%s, position %s", x.Event.Event, console.Number(x.Event.Sequence))
	return u.show(a, http.StatusOK, "event", "Events", title, v)
}

// requestOf returns the event as it is sent to one of the endpoints that want it: that
// with the name, or the first. It is nil if none wants it.
func (u *ui) requestOf(ctx context.Context, x *Explanation, name string) (*requestView, error) {
	v := &requestView{Endpoint: name}
	for _, e := range x.Endpoints {
		if e.Pattern != "" {
			v.Endpoints = append(v.Endpoints, e.Endpoint)
		}
	}
	if !slices.Contains(v.Endpoints, name) {
		if len(v.Endpoints) == 0 {
			return nil, nil //nolint:nilnil // nothing to show
		}
		v.Endpoint = v.Endpoints[0]
	}
	r, err := u.Request(ctx, x.Event.ID, v.Endpoint)
	if _, ok := errors.AsType[*Error](err); ok { // a sender that can't show it
		return nil, nil //nolint:nilnil // nothing to show
	}
	if err != nil {
		return nil, err
	}
	v.Size, v.Body = len(r.Body), r.Body
	var headers, curl strings.Builder
	fmt.Fprintf(&headers, "%s %s\n", r.Method, r.URL)
	fmt.Fprintf(&curl, "curl -X %s %s", r.Method, quoted(r.URL))
	for _, h := range r.Headers {
		fmt.Fprintf(&headers, "%s: %s\n", h.Name, h.Value)
		value := quoted(h.Name + ": " + h.Value)
		if h.Masked {
			value = fmt.Sprintf("%q", h.Name+": $"+strings.ToUpper(strings.ReplaceAll(h.Name, "-", "_")))
		}
		fmt.Fprintf(&curl, " \\\n  -H %s", value)
	}
	fmt.Fprintf(&curl, " \\\n  --data-binary %s", quoted(r.Body))
	v.Headers, v.Curl = headers.String(), curl.String()
	return v, nil
}

// quoted quotes a text for a shell.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func (u *ui) newBecame(p *console.Page, e Event, x Explained, number int) became {
	b := became{Explained: x, State: x.Fate}
	switch x.Fate {
	case "not_matched":
		b.State = "unmatched"
	case "behind":
		b.State = "waiting"
	case "settled":
		b.State = "done"
	case "expired", "discarded":
		b.State = "removed"
	}
	b.Sentence, b.Answer = because(p, x)
	var sent []string
	for _, at := range x.Attempts {
		row := newAttemptRow(at)
		if at.Outcome == "merged" {
			continue
		}
		sent = append(sent, firstOf(row.Said, row.Code, at.Outcome))
		timing := row.Timing
		b.Timing = &timing
	}
	switch n := len(sent); {
	case n == 0:
		b.Sent = "none"
	case n <= 3:
		b.Sent = strings.Join(sent, ", then ")
	default:
		b.Sent = fmt.Sprintf("%d, the last %s", n, sent[n-1])
	}
	label := "Send again"
	switch x.Fate {
	case "waiting", "parked", "dead":
		label = "Send now"
	case "not_matched", "merged", "behind":
		return b
	case tidings.Delivered.String():
	}
	b.Send = &button{
		Text: label, Class: "tight", Page: p.URL("replays"),
		Hidden: []hidden{{"endpoint", x.Endpoint}, {"event", e.ID}},
	}
	if x.held != "" {
		b.Send.Off, b.Send.OffID = true, "off-"+strconv.Itoa(number)
		b.Off = map[string]string{"paused": "paused: resume it first", "gone": "gone: enable it first"}[x.held]
	}
	return b
}

// because says in a sentence why an event is where it is for an endpoint, with times that
// the browser can show in its own zone, and what the receiver answered to an attempt that
// failed.
func because(p *console.Page, x Explained) (sentence template.HTML, answer string) {
	var last Attempt
	if len(x.Attempts) > 0 {
		last = x.Attempts[len(x.Attempts)-1]
	}
	attempt := text("attempt %d", int64(x.Attempt))
	failed := attempt + " failed"
	if x.Reason != "" {
		failed += text(" with <code>%s</code>", x.Reason)
	}
	if last.Response == "" && last.Detail != "" {
		failed += text(" (%s)", last.Detail)
	}
	position := func(n int64) template.HTML {
		return text(`<a href="%s">position %s</a>`, p.URL("events", strconv.FormatInt(n, 10)), console.Number(n))
	}
	switch x.Fate {
	case tidings.Delivered.String():
		return "Delivered " + p.Clock(x.At) + ", " + attempt + ".", ""
	case "dead":
		return "Given up " + p.Clock(x.At) + ": " + failed + ".", last.Response
	case "parked":
		return "A" + failed[1:] + ".", last.Response
	case "behind":
		return "It waits behind the event at " + position(x.Behind) + " of the same resource.", ""
	case "merged":
		return "Merged: the event at " + position(x.MergedInto) + " covers it, too.", ""
	case "discarded":
		who := text("%s discarded it ", firstOf(last.By, "An operator"))
		return who + p.Clock(last.At) + text(": “%s”.", last.Comment), ""
	case "waiting":
		state := text("%s", console.Word(firstOf(x.held, x.State)))
		if x.Reason != "" && x.held != "paused" {
			state += text(" (<code>%s</code>)", x.Reason)
		}
		return text("It waits in the log, %s %s after the cursor; the endpoint is ", console.Number(x.Ahead),
			plural(x.Ahead, "position", "positions")) + state + ".", ""
	}
	return text("%s.", strings.ToUpper(x.Because[:1])+x.Because[1:]), ""
}

// errorField returns what an error of the shared API says about a field.
func errorField(err error) (*rest.Error, bool) { return errors.AsType[*rest.Error](err) }

package operator

import (
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
)

// groupsShown is how many groups of parked events a page lists.
const groupsShown = 100

type parkedGroupRow struct {
	ParkedGroup
	Link, Retry, Discard string
}

type parkedRow struct {
	Parked
	Resource, Value, State string
}

type parkedView struct {
	listPage
	Groups  []parkedGroupRow
	Rows    []parkedRow
	Total   int64
	All     bool     // all that match are chosen
	Filter  []hidden // of the list, for the forms
	AllLink string   // chooses all that match, or those of the page
	// AllOff says why all can't be chosen.
	AllOff  string
	Changes []changeRow
	Dialogs []confirm
}

// parkedFilterOf reads the filter of the page of parked events.
func (u *ui) parkedFilterOf(query url.Values) (ParkedFilter, error) {
	patterns, err := parsePatterns(u.types(), "types", query.Get("types"))
	f := ParkedFilter{
		Endpoint: query.Get("endpoint"), Dead: query.Get("dead") == "true", Reason: query.Get("reason"),
		Patterns: patterns, Resource: query.Get("resource"),
	}
	return f, err
}

func hiddenFilter(query url.Values) []hidden {
	var fields []hidden
	for name := range strings.FieldsSeq(parkedParameters) {
		if value := query.Get(name); value != "" {
			fields = append(fields, hidden{name, value})
		}
	}
	return fields
}

func (u *ui) parkedList(a *asked) error {
	if to, needed := a.tidy(); needed {
		return u.lead(a, to)
	}
	ctx, query := a.Context(), a.URL.Query()
	leave, err := u.api.Limits.Scans.Enter(ctx, a.user.ID, 1)
	if err != nil {
		return err
	}
	defer leave()
	v := &parkedView{Filter: hiddenFilter(query), All: query.Get("all") != ""}
	if err := u.parkedGroups(a, v); err != nil {
		return err
	}
	if err := u.changeRows(a, v); err != nil {
		return err
	}
	f, err := u.parkedFilterOf(query)
	page := &ParkedPage{}
	if err == nil {
		page, err = u.Parked(ctx, f, query.Get("after"), listed)
	}
	if err == nil {
		v.Total, err = u.countParked(ctx, f)
	}
	if err != nil {
		if err := v.blame(err); err != nil {
			return err
		}
		page = nil
	}
	if page != nil {
		for _, e := range page.Items {
			v.Rows = append(v.Rows, newParkedRow(e))
		}
		v.turn(a, "after", page.Next)
	}
	if f.Endpoint == "" {
		v.AllOff = "Choose an endpoint to act on all that match."
	}
	if query.Del("all"); !v.All {
		query.Set("all", "1")
	}
	query.Del("after")
	v.AllLink = a.URL.Path + "?" + query.Encode()
	v.None = []template.HTML{
		"<strong>Nothing is parked</strong>",
		"Each event was delivered, or waits for an endpoint that is down.",
	}
	if len(v.Filter) > 0 && len(v.Groups) > 0 {
		v.None = []template.HTML{
			"<strong>No parked event matches</strong>",
			text(`<a href="%s">Show all</a>`, a.URL.Path),
		}
	}
	return u.show(a, v.status(), "parked", "Parked", "Parked", v)
}

// parkedGroups fills in the groups, and the fields of the filter, which offer them.
func (u *ui) parkedGroups(a *asked, v *parkedView) error {
	query := a.URL.Query()
	groups, err := u.ParkedGroups(a.Context(), ParkedFilter{}, groupsShown)
	if err != nil {
		return err
	}
	reasons, endpoints := []option{{Text: "all"}}, []option{{Text: "all"}}
	add := func(options []option, value string) []option {
		if value == "" || slices.ContainsFunc(options, func(o option) bool { return o.Value == value }) {
			return options
		}
		return append(options, option{Value: value, Text: value})
	}
	var live, dead int64
	for _, g := range groups.Items {
		row := parkedGroupRow{ParkedGroup: g}
		only := url.Values{"endpoint": {g.Endpoint}}
		if g.Reason != "" {
			only.Set("reason", g.Reason)
		}
		if g.Dead == g.Count {
			only.Set("dead", "true")
		}
		row.Link = a.page.URL("parked") + "?" + only.Encode()
		row.Retry = a.page.URL("parked", "retry") + "?" + only.Encode()
		row.Discard = a.page.URL("parked", "discard") + "?" + only.Encode()
		v.Groups = append(v.Groups, row)
		reasons, endpoints = add(reasons, g.Reason), add(endpoints, g.Endpoint)
		live, dead = live+g.Count-g.Dead, dead+g.Dead
	}
	v.Heading = "Parked"
	v.Sub = fmt.Sprintf("%s %s for the next attempt, %s %s", console.Number(live), plural(live, "waits", "wait"),
		console.Number(dead), plural(dead, "is a dead letter", "are dead letters"))
	v.Fields = []field{
		choice("endpoint", "Endpoint", query.Get("endpoint"), endpoints...),
		choice("reason", "Reason", query.Get("reason"), reasons...),
		choice("dead", "Show", query.Get("dead"), option{Text: "parked and dead"},
			option{Value: "true", Text: "dead letters"}),
		{Name: "types", Label: "Event", Value: query.Get("types"), Hint: "provider.*, *.deleted", Grow: true},
		{Name: "resource", Label: "Resource", Value: query.Get("resource"), Hint: "provider/550e8400-…", Grow: true},
	}
	return nil
}

func newParkedRow(e Parked) parkedRow {
	r := parkedRow{
		Parked: e, Resource: e.ResourceType + "/" + e.ResourceID, State: "parked",
		Value: strconv.FormatInt(e.Sequence, 10) + "-" + e.Endpoint,
	}
	switch {
	case e.Dead != "":
		r.State = "dead"
	case e.Behind > 0:
		r.State = "waiting"
	}
	return r
}

// choiceOf returns what a form about parked events selects: some events, each with its
// endpoint, or all that match a filter.
func choiceOf(values url.Values) (selections []ParkedSelection, some bool) {
	for _, text := range values["event"] {
		if position, endpoint, ok := strings.Cut(text, "-"); ok && endpoint != "" && len(selections) < listed {
			selections = append(selections, ParkedSelection{Endpoint: endpoint, Event: position})
		}
	}
	if len(selections) > 0 {
		return selections, true
	}
	s := ParkedSelection{
		Endpoint: values.Get("endpoint"), Dead: values.Get("dead") == "true", Reason: values.Get("reason"),
		Resource: values.Get("resource"),
	}
	for pattern := range strings.SplitSeq(values.Get("types"), ",") {
		if pattern = strings.TrimSpace(pattern); pattern != "" {
			s.Types = append(s.Types, pattern)
		}
	}
	return []ParkedSelection{s}, false
}

// checkDead refuses a value that choiceOf would ignore: more would be selected than was
// meant.
func checkDead(values url.Values) error {
	if dead := values.Get("dead"); dead != "" && dead != "true" {
		return invalid("dead", "expected true, or nothing")
	}
	return nil
}

// askParked is the question before parked events are retried or discarded.
func (u *ui) askParked(a *asked) error {
	verb, query := a.PathValue("verb"), a.URL.Query()
	if verb != "retry" && verb != "discard" {
		return notFound("there is no action %q", verb)
	}
	if err := checkDead(query); err != nil {
		return err
	}
	selections, some := choiceOf(query)
	count := int64(len(selections))
	back := a.page.URL("parked")
	c := confirm{ID: verb, Page: a.page.URL("parked", verb)}
	if some {
		for _, text := range query["event"] {
			c.Hidden = append(c.Hidden, hidden{"event", text})
		}
	} else {
		s := selections[0]
		if s.Endpoint == "" {
			return u.done(a, back,
				console.Note{Kind: "warn", Strong: "Nothing is chosen.", Rest: "Choose events, or an endpoint."})
		}
		s.DryRun = true
		out, err := u.RetryParked(a.Context(), RetryParked{s})
		if err != nil {
			return err
		}
		if out.Count == 0 {
			return u.done(a, back, console.Note{Kind: "warn", Strong: "No parked event matches now."})
		}
		count, c.Against = out.Count, out.WaitsBecause
		c.Hidden = append(hiddenFilter(query), hidden{"count", strconv.FormatInt(count, 10)})
		back += "?endpoint=" + url.QueryEscape(s.Endpoint)
		c.Lines = append(c.Lines, text("Endpoint <strong>%s</strong>%s.", s.Endpoint, selectionText(s)))
	}
	if c.Against != "" {
		c.Against = sentence(c.Against)
	}
	c.Back = back
	what := fmt.Sprintf("%s parked %s", console.Number(count), plural(count, "event", "events"))
	if selections[0].Dead {
		what = fmt.Sprintf("%s dead %s", console.Number(count), plural(count, "letter", "letters"))
	}
	if verb == "retry" {
		c.Heading, c.Go = "Retry "+what+" now?", "Retry "+what
		c.Lines = append(c.Lines,
			"Each is tried once more, oldest first; those that fail again continue their schedule.")
	} else {
		c.Heading, c.Go, c.Grave = "Discard "+what+"?", "Discard "+what, true
		c.Lines = append(c.Lines, "They are never sent again. The history keeps them, with your name and your reason.")
		c.Comment, c.Required = "Reason", true
	}
	return u.show(a, http.StatusOK, "confirm", "Parked", c.Heading, c)
}

// selectionText describes a selection.
func selectionText(s ParkedSelection) string {
	var parts []string
	for _, p := range [][2]string{
		{"reason", s.Reason}, {"events", strings.Join(s.Types, ", ")}, {"resource", s.Resource},
	} {
		if p[1] != "" {
			parts = append(parts, p[0]+" "+p[1])
		}
	}
	if s.Dead {
		parts = append(parts, "dead letters only")
	}
	if len(parts) == 0 {
		return ", everything that is parked for it"
	}
	return ", " + strings.Join(parts, ", ")
}

// actOnParked retries or discards parked events.
func (u *ui) actOnParked(a *asked) error {
	ctx, verb := a.actor(), a.PathValue("verb")
	leave, err := u.api.Limits.Scans.Enter(ctx, a.user.ID, 1)
	if err != nil {
		return err
	}
	defer leave()
	if err := checkDead(a.PostForm); err != nil {
		return err
	}
	selections, some := choiceOf(a.PostForm)
	if !some {
		if selections[0].Endpoint == "" {
			return invalid("endpoint", "nothing is chosen")
		}
		count, err := strconv.ParseInt(a.PostForm.Get("count"), 10, 64)
		if selections[0].Count = count; err != nil || count < 1 {
			return invalid("count", "expected the number of events that the form showed, at least 1")
		}
	}
	n, gone, waits := int64(0), 0, ""
	var change *ParkedChange
	for _, s := range selections {
		var out *ParkedDone
		switch verb {
		case "retry":
			out, err = u.RetryParked(ctx, RetryParked{s})
		case "discard":
			in := DiscardParked{ParkedSelection: s, Comment: a.PostForm.Get("comment")}
			in.All = !s.narrow()
			out, err = u.DiscardParked(ctx, in)
		default:
			return notFound("there is no action %q", verb)
		}
		if e, ours := errors.AsType[*Error](err); ours && e.NotFound && some {
			gone, err = gone+1, nil // somebody else was faster, or a receiver
			continue
		}
		if err != nil {
			break
		}
		n, waits, change = n+out.Count, out.WaitsBecause, out.Change
	}
	if err != nil && n == 0 {
		return err
	}
	if n == 0 {
		return u.done(a, a.page.URL("parked"), console.Note{
			Kind: "warn", Strong: "Not done: none of the selection is still parked.",
			Rest: u.lastDid(ctx, selections[0].Endpoint, "discard", "retry"),
		})
	}
	note := console.Note{Kind: "good"}
	what := console.Number(n) + " " + plural(n, "event", "events")
	if note.Strong = what + " will be tried now."; verb == "discard" {
		note.Strong = what + " discarded."
	}
	if change != nil {
		note.Strong = fmt.Sprintf("The %s of %s has begun.", verb, what)
	}
	if gone > 0 {
		note.Kind, note.Rest = "warn", console.Number(gone)+" more "+plural(int64(gone), "is", "are")+" no longer parked."
	}
	if waits != "" && verb == "retry" {
		note.Kind, note.Rest = "warn", note.Rest+" They wait: "+sentence(waits)
	}
	if err != nil {
		note.Kind, note.Rest = "warn", note.Rest+" Then: "+err.Error()
	}
	return u.done(a, a.page.URL("parked"), note)
}

// narrow reports whether a selection has anything besides its endpoint.
func (in *ParkedSelection) narrow() bool {
	f := in.filter(make([]tidings.Pattern, len(in.Types)))
	return f.narrow()
}

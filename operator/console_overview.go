package operator

import (
	"cmp"
	"errors"
	"fmt"
	"html"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/tidings-dev/tidings/internal/console"
	"github.com/tidings-dev/tidings/relay"
)

// hidden is a hidden field of a form.
type hidden struct{ Name, Value string }

// button is a button that opens a dialog, or acts at once.
type button struct {
	ID, Text, Class, Page string
	Hidden                []hidden
	// Off is true if it can't be used now, for the reason that the element OffID says.
	Off   bool
	OffID string
}

// confirm is a question before an action: a dialog, or a page.
type confirm struct {
	ID, Page, Heading string
	Lines             []template.HTML
	Against           string
	Hidden            []hidden
	Comment           string // label of a field for a comment, if there is one
	Required          bool
	Until             bool // asks when a pause ends
	Cancel, Go        string
	Grave             bool
	Back              string // set on a page: where Cancel leads
}

// fact is a figure with a label.
type fact struct {
	Name         string
	Value, Small template.HTML
	Loud         bool
}

// problem is something that needs somebody's attention.
type problem struct {
	ID, Kind, State string
	Name            string // unless it is about an endpoint
	Endpoint        string
	Since           string
	Why, Answer     string
	Last            string
	Facts           []fact
	Test, Link      *button
	Open            *button
	lost            string // when its first event is lost
}

// row is an endpoint in a table.
type row struct {
	Name, Host, State, Reason, Since string
	Oldest, Lost, Next, NextText     string
	Waiting, Parked, Dead            int64
	Rate                             float64
	Bad, Held                        bool
	Spark                            *console.Sparks
	rank                             int
}

// shownState returns the word of the console for an endpoint's state: paused and gone
// are both "disabled" in the API, and a healthy endpoint with parked events refuses some.
func shownState(e *Endpoint) string {
	switch {
	case e.State == string(relay.Disabled) && e.Reason == relay.PausedReason:
		return "paused"
	case e.State == string(relay.Disabled):
		return "gone"
	case e.State == string(relay.Healthy) && (e.Parked > 0 || e.Dead > 0):
		return "refusing"
	}
	return e.State
}

// ranks order endpoints, the worst first.
var ranks = map[string]int{
	"down": 1, "paused": 2, "gone": 3, "refusing": 4, "probing": 1, "throttled": 6, "ramping": 7, "waiting": 8,
	"healthy": 9, "removed": 10,
}

func newRow(e *Endpoint) row {
	r := row{
		Name: e.Name, State: shownState(e), Since: e.Since, Waiting: e.LagEvents, Parked: e.Parked, Dead: e.Dead,
		Rate: e.Delivered, Lost: e.LostAt,
	}
	if r.State != "healthy" && r.State != "paused" {
		r.Reason = e.Reason
	}
	if u, err := url.Parse(e.URL); err == nil {
		r.Host = u.Host
	}
	if e.OldestUndelivered != nil {
		r.Oldest = e.OldestUndelivered.At
	}
	for _, p := range e.Partitions {
		r.Held = r.Held || p.Replica != ""
	}
	r.rank = ranks[r.State]
	r.Bad = r.rank <= 3
	switch {
	case e.Until != "" && (r.State == "down" || r.State == "probing"):
		r.Next, r.NextText = e.Until, "probe"
	case e.Until != "" && r.State == "paused":
		r.Next, r.NextText = e.Until, "resumes"
	case e.Until != "":
		r.Next, r.NextText = e.Until, "resumes"
	case r.State == "gone":
		r.NextText = "wants no more"
	case r.State == "paused":
		r.NextText = "until resumed"
	}
	return r
}

// text is HTML of a text and formatted values, which are escaped.
func text(format string, values ...any) template.HTML {
	for i, v := range values {
		if s, ok := v.(string); ok {
			values[i] = html.EscapeString(s)
		}
	}
	return template.HTML(fmt.Sprintf(format, values...)) //nolint:gosec // texts are escaped
}

func number(n int64) template.HTML { return template.HTML(console.Number(n)) } //nolint:gosec // digits

// plural returns the noun for a number of things.
func plural(n int64, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

const (
	// rowsShown is how many endpoints a page lists, and problemsShown how many problems.
	rowsShown     = 50
	problemsShown = 20
)

type overview struct {
	Heading  string
	Sentence template.HTML
	Problems []*problem
	Backs    []back
	Facts    []fact
	Rows     []row
	Total    int
	ByName   bool
	Older    string
	Newer    string
	Charts   []console.Chart
	Range    ranges
	Dialogs  []confirm
}

// ranges are the links to other ranges of charts.
type ranges struct {
	Now, At, Text, Anchor string
	All                   []string
}

func (u *ui) overview(a *asked) error {
	endpoints, err := u.Endpoints(a.Context())
	if err != nil && !errors.Is(err, errNoEndpoints) {
		return err
	}
	if !slices.ContainsFunc(endpoints, func(e *Endpoint) bool { return e.Configured }) {
		return u.welcome(a)
	}
	query := a.URL.Query()
	o := overview{ByName: query.Get("sort") == "name", Total: len(endpoints)}
	named := make(map[string]*Endpoint)
	for _, e := range endpoints {
		o.Rows = append(o.Rows, newRow(e))
		named[e.Name] = e
	}
	problems, err := u.problems(a.Context(), endpoints)
	if err != nil {
		return err
	}
	for i, p := range problems {
		if e := named[p.Endpoint]; e != nil {
			o.Problems = append(o.Problems, endpointProblem(a.page, p, e))
		} else {
			o.Problems = append(o.Problems, serverProblem(i, p))
		}
	}
	if !o.ByName {
		slices.SortStableFunc(o.Rows, func(x, y row) int { return cmp.Compare(x.rank, y.rank) })
	}
	if o.Backs, err = u.backs(a.Context(), endpoints); err != nil {
		return err
	}
	u.head(a.page, &o, endpoints)
	a.page.Ill, a.page.Live = len(o.Problems) > 0, true
	over := rangeOf(query.Get("range"))
	o.Range = ranges{string(over), u.base, over.text(), "day", allRanges}
	series, err := u.Series(a.Context(), "", over)
	if err != nil {
		return err
	}
	o.Charts = allCharts(series, over)
	number, _ := strconv.Atoi(query.Get("page"))
	number = min(max(number, 1), (len(o.Rows)+rowsShown-1)/rowsShown)
	at := func(n int) string {
		to := url.Values{"page": {strconv.Itoa(n)}}
		if o.ByName {
			to.Set("sort", "name")
		}
		return u.base + "?" + to.Encode()
	}
	if number > 1 {
		o.Newer = at(number - 1)
	}
	if number*rowsShown < len(o.Rows) {
		o.Older = at(number + 1)
	}
	o.Rows = o.Rows[(number-1)*rowsShown : min(number*rowsShown, len(o.Rows))]
	if err := u.sparks(a.Context(), o.Rows); err != nil {
		return err
	}
	for _, p := range o.Problems {
		if p.Open != nil {
			o.Dialogs = append(o.Dialogs, u.question(endpoints, p.Endpoint, p.Open)...)
		}
	}
	return u.show(a, http.StatusOK, "overview", "Overview", o.Heading, &o)
}

// head makes the heading, and the sentence that names what is lost soonest.
func (u *ui) head(p *console.Page, o *overview, endpoints []*Endpoint) {
	well := int64(0)
	var waiting, parked, dead int64
	var lost *problem
	for _, e := range endpoints {
		if e.Configured && shownState(e) == "healthy" {
			well++
		}
		waiting, parked, dead = waiting+e.LagEvents, parked+e.Parked, dead+e.Dead
	}
	for _, problem := range o.Problems {
		if problem.lost != "" && (lost == nil || problem.lost < lost.lost) {
			lost = problem
		}
	}
	n := int64(len(o.Problems))
	switch {
	case n == 0 && len(endpoints) == 1:
		o.Heading = endpoints[0].Name + " is healthy"
	case n == 0:
		o.Heading = fmt.Sprintf("All %d endpoints are healthy", len(endpoints))
	case n == 1:
		o.Heading = cmp.Or(o.Problems[0].Endpoint, "the "+o.Problems[0].Name) + " needs you"
	case slices.ContainsFunc(o.Problems, func(p *problem) bool { return p.Endpoint == "" }):
		o.Heading = fmt.Sprintf("%d things need you", n)
	default:
		o.Heading = fmt.Sprintf("%d endpoints need you", n)
	}
	switch {
	case lost != nil:
		class := "soft"
		if p.Soon(lost.lost) {
			class = "loud"
		}
		o.Sentence = text(`<a href="%s">%s</a> loses its first events to retention <span class="%s">%s</span>. `,
			p.URL("endpoints", lost.Endpoint), lost.Endpoint, class, p.In(lost.lost))
		fallthrough
	case n > 0:
		o.Sentence += text("%d of %d endpoints are healthy.", well, int64(len(endpoints)))
	case waiting == 0:
		o.Sentence = "Every event has been delivered."
	default:
		o.Sentence = text("%s %s on the way.", string(number(waiting)), plural(waiting, "event is", "events are"))
	}
	if n == 0 {
		rate := 0.0
		for _, e := range endpoints {
			rate += e.Delivered
		}
		o.Facts = []fact{
			{Name: "Delivered per second", Value: text("%s", console.Number(rate)), Small: "now"},
			{Name: "Waiting", Value: number(waiting), Small: "events"},
			{Name: "Parked, dead", Value: number(parked) + ", " + number(dead)},
		}
	}
	if n > problemsShown {
		o.Sentence += text(" The %d worst are below; all are in the table.", problemsShown)
		o.Problems = o.Problems[:problemsShown]
	}
}

// serverProblem is a problem that is not an endpoint's.
func serverProblem(i int, p Problem) *problem {
	what := map[string]string{ProblemConfig: "configuration", ProblemDrift: "table", ProblemReplicas: "configuration"}
	return &problem{
		ID: fmt.Sprintf("p-%d", i), Kind: "warn", State: "drift", Name: what[p.Kind], Since: p.Since, Why: sentence(p.Detail),
	}
}

// endpointProblem shows the problem of an endpoint, with the button that helps.
func endpointProblem(p *console.Page, of Problem, e *Endpoint) *problem {
	state := shownState(e)
	pr := &problem{
		ID: "p-" + url.PathEscape(e.Name), Kind: "warn", State: state, Endpoint: e.Name, Since: of.Since, lost: of.LostAt,
	}
	if of.Kind == ProblemLost || of.Kind == ProblemDown {
		pr.Kind = "bad"
	}
	switch {
	case state == "down" || state == "probing":
		pr.Why = whyOf(e)
		pr.Test = &button{Text: "Test now", Class: "first", Page: p.URL("endpoints", e.Name, "test")}
		pr.Open = opener(p, e.Name, "pause", "Pause…", "")
	case state == "paused":
		pr.Why = pausedBy(e) + "."
		pr.Open = opener(p, e.Name, "resume", "Resume…", "first")
	case state == "gone":
		pr.Why = "It answered 410, so it wants no more events. Enable it, or remove it from the configuration."
		pr.Open = opener(p, e.Name, "enable", "Enable…", "")
	case of.Kind == ProblemRefuses:
		state = "refusing"
		pr.Why = fmt.Sprintf("It refused %s; everything else gets through.", countOf(e))
		pr.Since = ""
		pr.Link = &button{
			Text: "Show " + console.Number(e.Parked+e.Dead) + " parked",
			Page: p.URL("parked") + "?endpoint=" + url.QueryEscape(e.Name),
		}
		if answer := e.LastAnswer; answer != nil {
			pr.Answer = strings.TrimSpace(fmt.Sprintf("%d %s", answer.Status, answer.Response))
		}
	case of.Kind == ProblemThrottled:
		pr.Why = "It keeps asking for fewer requests, so it gets events more slowly than it could."
		pr.Open = opener(p, e.Name, "pause", "Pause…", "")
	default: // lost
		pr.Why = "It gets events, but more slowly than they happen."
		pr.Open = opener(p, e.Name, "pause", "Pause…", "")
	}
	if of.Kind == ProblemThrottled || of.Kind == ProblemLost && pr.Test == nil && pr.Link == nil {
		pr.Link = &button{
			Text: "Show attempts", Page: p.URL("attempts") + "?endpoint=" + url.QueryEscape(e.Name),
		}
	}
	pr.Facts = problemFacts(p, e, state)
	return pr
}

// pausedBy says who paused an endpoint, and why.
func pausedBy(e *Endpoint) string {
	if e.Control == nil {
		return "An operator paused it"
	}
	why := firstOf(e.Control.By, "An operator") + " paused it"
	if e.Control.Comment != "" {
		why += ": “" + e.Control.Comment + "”"
	}
	return why
}

func countOf(e *Endpoint) string {
	n := e.Parked + e.Dead
	return console.Number(n) + " " + plural(n, "event", "events")
}

// whyOf says why an endpoint gets nothing.
func whyOf(e *Endpoint) string {
	if last := e.LastError; last != nil && last.Detail != "" {
		return sentence(last.Detail)
	}
	if e.Reason != "" {
		return "Its last answer: " + e.Reason + "."
	}
	return "It does not answer."
}

func opener(p *console.Page, name, verb, label, class string) *button {
	return &button{
		ID: verb + "-" + url.PathEscape(name), Text: label, Class: class,
		Page: p.URL("endpoints", name, verb),
	}
}

func problemFacts(p *console.Page, e *Endpoint, state string) []fact {
	lost := fact{Name: "Lost to retention", Value: "never"}
	if e.LostAt != "" {
		lost.Value, lost.Small, lost.Loud = p.In(e.LostAt), "from "+p.Clock(e.LostAt), p.Soon(e.LostAt)
	}
	if state == "refusing" {
		lost.Value, lost.Small, lost.Loud = "never", "parked, so kept", false
		return []fact{
			lost,
			{Name: "Parked", Value: number(e.Parked), Small: "and " + number(e.Dead) + " dead"},
			{Name: "Waiting", Value: number(e.LagEvents), Small: "events"},
		}
	}
	oldest := fact{Name: "Oldest undelivered", Value: "none"}
	if o := e.OldestUndelivered; o != nil {
		oldest.Value, oldest.Small = p.For(o.At), "position "+number(o.Position)
	}
	next := fact{Name: "Next", Value: "never", Small: "until resumed"}
	switch {
	case e.Until != "" && state == "paused":
		next = fact{Name: "Resumes", Value: p.In(e.Until)}
	case e.Until != "":
		next = fact{Name: "Next probe", Value: p.In(e.Until)}
	case state == "gone":
		next.Small = "until enabled"
	case state != "paused":
		next.Value, next.Small = "soon", ""
	}
	last := fact{Name: "Last answer", Value: "–"}
	if answer := e.LastAnswer; answer != nil {
		last.Value, last.Small = text("%d", answer.Status), p.Clock(answer.At)
	} else if e.LastError != nil {
		last.Value, last.Small = text("%s", e.LastError.Reason), p.Clock(e.LastError.At)
	}
	return []fact{lost, {Name: "Waiting", Value: number(e.LagEvents), Small: "events"}, oldest, last, next}
}

type welcome struct {
	Head  int64
	Files string
}

// welcome is the overview of a server without endpoints.
func (u *ui) welcome(a *asked) error {
	head, err := u.newest(a.Context())
	if err != nil {
		return err
	}
	v := &welcome{Head: head}
	if u.Service.options.Config != nil {
		v.Files = strings.Join(u.Service.options.Config().Files, ", ")
	}
	a.page.Live = true
	return u.show(a, http.StatusOK, "welcome", "Overview", "Welcome", v)
}

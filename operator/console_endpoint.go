package operator

import (
	"context"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/internal/console"
	"github.com/tidings-dev/tidings/relay"
)

// attemptRow is an attempt in a table.
type attemptRow struct {
	Attempt
	Number                      int
	State, Word, Code, Said, Of string
	Timing                      console.Timing
}

// Key identifies the attempt among those of a table.
func (r attemptRow) Key() string {
	return fmt.Sprintf("%d %s %s", r.At.UnixMicro(), r.EventID, r.Endpoint)
}

// attemptTable is a table of attempts.
type attemptTable struct {
	Label string
	Named bool // with a column for the endpoint
	Rows  []attemptRow
}

func newAttemptRow(at Attempt) attemptRow {
	r := attemptRow{
		Attempt: at, Number: at.Attempt, State: "failed", Word: at.Outcome, Code: at.Reason, Of: at.Detail,
	}
	switch at.Outcome {
	case tidings.Delivered.String(), eventlog.Merged:
		r.State, r.Code = at.Outcome, ""
	case tidings.Throttled.String():
		r.State = at.Outcome
	}
	if at.Status > 0 && r.Code == "" {
		r.Said = fmt.Sprint(at.Status)
	}
	if at.MergedInto > 0 {
		r.Of = "into position " + console.Number(at.MergedInto)
	}
	r.Timing = console.Timing{
		DNS: at.DNS, Connect: at.Connect, TLS: at.TLS, FirstByte: at.FirstByte, Total: at.Total,
		Failed: r.State != tidings.Delivered.String() && r.State != eventlog.Merged,
	}
	return r
}

type endpointPage struct {
	E        *Endpoint
	State    string
	Test     *button
	Openers  []*button
	Why      string
	Kind     string
	Probes   int64
	Before   string
	Facts    []fact
	States   *statesView
	Charts   []console.Chart
	Range    ranges
	Attempts attemptTable
	Settings []Setting
	Unset    []string
	Actions  []Action
	Dialogs  []confirm
}

// alwaysShown are the settings that are shown even if they have their defaults.
var alwaysShown = []string{"url", "events", "timeout", "max_in_flight", "retry.schedule", "retry.max_attempts"}

// endpointSettings returns the settings that somebody chose or wants to know, and the names
// of the others, which have their defaults.
func endpointSettings(e *Endpoint) (list []Setting, unset []string) {
	if e.Settings == nil {
		return []Setting{{Key: "url", Value: e.URL}, {Key: "events", Value: strings.Join(e.Events, ", ")}}, nil
	}
	defaults := listSettings(relay.Endpoint{}, nil)
	for _, s := range e.Settings.List {
		chosen := s.Origin != OriginDefault
		if s.Origin == "" {
			chosen = s.Value != "" && !slices.Contains(defaults, s)
		}
		if chosen || slices.Contains(alwaysShown, s.Key) && s.Value != "" {
			list = append(list, s)
		} else {
			unset = append(unset, s.Key)
		}
	}
	return list, unset
}

// statesView are the states of an endpoint over time.
type statesView struct {
	SVG   template.HTML
	Marks []string
	Rows  []stateRow
}

type stateRow struct{ State, Lasted, Reason, Why, From string }

const attemptsShown = 20

func (u *ui) endpoint(a *asked) error {
	name := a.PathValue("name")
	e, err := u.Endpoint(a.Context(), name)
	if err != nil {
		return err
	}
	v := &endpointPage{E: e, State: shownState(e), Facts: u.endpointFacts(a.page, e)}
	attempts, err := u.Attempts(a.Context(), Filter{Endpoint: name, Limit: attemptsShown})
	if err != nil {
		return err
	}
	v.Attempts.Label = "Last attempts to " + name + ", newest first"
	for _, at := range attempts.Items {
		v.Attempts.Rows = append(v.Attempts.Rows, newAttemptRow(at))
	}
	v.Settings, v.Unset = endpointSettings(e)
	if e.Configured {
		v.Test = &button{Text: "Test now", Class: "first", Page: a.page.URL("endpoints", name, "test")}
		switch v.State {
		case "paused":
			v.Openers = append(v.Openers, opener(a.page, name, "resume", "Resume…", "first"))
			v.Test.Class = ""
		case "gone":
			v.Openers = append(v.Openers, opener(a.page, name, "enable", "Enable…", ""))
		default:
			v.Openers = append(v.Openers, opener(a.page, name, "pause", "Pause…", ""))
		}
		for _, b := range v.Openers {
			v.Dialogs = append(v.Dialogs, u.question([]*Endpoint{e}, name, b)...)
		}
	}
	if err := u.endpointPast(a, v); err != nil {
		return err
	}
	heading := name + " is " + v.State
	switch v.State {
	case "down", "probing":
		v.Kind, v.Why = "bad", strings.TrimSuffix(whyOf(e), ".")
	case "paused":
		v.Kind, v.Why = "warn", pausedBy(e)
	case "gone":
		v.Kind, v.Why = "warn", "It answered 410, so it wants no more events"
	case "throttled":
		v.Kind, v.Why = "warn", "It asked for fewer requests"
	case "refusing":
		heading = name + " refuses some events"
	case "healthy":
		heading = name + " is healthy"
	}
	a.page.Ill, a.page.Live = v.Kind == "bad", true
	return u.show(a, http.StatusOK, "endpoint", "Overview", heading, v)
}

func (u *ui) endpointFacts(p *console.Page, e *Endpoint) []fact {
	facts := problemFacts(p, e, e.State)[:3]
	facts = append(facts,
		fact{Name: "Parked, dead", Value: number(e.Parked) + ", " + number(e.Dead)},
		fact{Name: "In flight", Value: text("%d of %d", e.InFlight, int64(e.Limit)), Small: "requests"},
		fact{
			Name: "Delivered per second", Value: text("%s", console.Number(e.Delivered)),
			Small: text("%s failed", console.Number(e.Failed)),
		})
	if e.Missed+e.Lost > 0 {
		facts = append(facts,
			fact{Name: "Missed", Value: number(e.Missed + e.Lost), Small: "lost before delivery", Loud: true})
	}
	held := fact{Name: "Held by", Value: "nobody"}
	for i, part := range e.Partitions {
		if part.Replica == "" {
			continue
		}
		if i == 0 || held.Value == "nobody" {
			held.Value, held.Small = text("%s", part.Replica), text("generation %d", part.Generation)
		}
	}
	if n := len(e.Partitions); n > 1 {
		held.Small = text("%d partitions", n)
	}
	return append(facts, held)
}

// question returns the dialog that a button opens.
func (u *ui) question(endpoints []*Endpoint, name string, b *button) []confirm {
	for _, e := range endpoints {
		if e.Name != name {
			continue
		}
		verb, _, _ := strings.Cut(b.ID, "-")
		c := controlQuestion(e, verb)
		c.ID, c.Page = b.ID, b.Page
		return []confirm{c}
	}
	return nil
}

// controlQuestion asks for confirmation before an endpoint is paused, resumed or enabled.
func controlQuestion(e *Endpoint, verb string) confirm {
	c := confirm{Hidden: []hidden{{"seen", seen(e)}}}
	waiting := text("%s %s.", console.Number(e.LagEvents), plural(e.LagEvents, "event waits", "events wait"))
	switch verb {
	case "pause":
		c.Heading, c.Go = "Pause "+e.Name+"?", "Pause "+e.Name
		lost := template.HTML(", and are lost once they are older than the retention.")
		if e.RetentionLeft > 0 {
			lost = text("; the first of them is lost in %s.", console.Duration(e.RetentionLeft))
		}
		c.Lines = []template.HTML{"Nothing is sent until somebody resumes it. Events wait in the log" + lost}
		c.Comment, c.Until = "Why? Your colleagues read this.", true
	case "resume":
		c.Heading, c.Go = "Resume "+e.Name+"?", "Resume "+e.Name
		c.Lines = []template.HTML{waiting + " They are sent in order, a few requests at a time at first."}
		if e.Control != nil && e.Control.By != "" {
			c.Lines = append(c.Lines, text("%s.", pausedBy(e)))
		}
	case "enable":
		c.Heading, c.Go = "Send to "+e.Name+" again?", "Enable "+e.Name
		c.Lines = []template.HTML{"It answered <strong>410 Gone</strong>, which means that it wants no more. " +
			waiting}
		c.Against = "If it is really gone, remove it from the configuration instead."
	}
	return c
}

// seen identifies the state of an endpoint that a form was made for.
func seen(e *Endpoint) string { return shownState(e) + " " + e.Since }

// askControl is the question before an action, as a page.
func (u *ui) askControl(a *asked) error {
	e, err := u.Endpoint(a.Context(), a.PathValue("name"))
	if err != nil {
		return err
	}
	verb := a.PathValue("verb")
	c := controlQuestion(e, verb)
	c.ID, c.Page, c.Back = verb, a.URL.Path, a.page.URL("endpoints", e.Name)
	if verb == "test" {
		c.Heading, c.Go = "Test "+e.Name+"?", "Test now"
		c.Lines = []template.HTML{"A <code>webhook.ping</code> is sent to it, whatever its state."}
	}
	if c.Heading == "" {
		return notFound("there is no action %q", verb)
	}
	return u.show(a, http.StatusOK, "confirm", "Overview", c.Heading, c)
}

// control performs the action of an endpoint's form.
func (u *ui) control(a *asked) error {
	ctx, name, verb := a.actor(), a.PathValue("name"), a.PathValue("verb")
	home := a.page.URL("endpoints", name)
	if verb == "test" {
		return u.test(a, name, home)
	}
	e, err := u.Endpoint(ctx, name)
	if err != nil {
		return err
	}
	if given := a.PostForm.Get("seen"); given != "" && strings.Fields(given)[0] != shownState(e) {
		strong := "Not done: " + name + " is " + console.Word(shownState(e)) + " by now."
		if did := u.lastDid(ctx, name, "pause", "resume", "enable"); did != "" {
			strong = "Not done: " + did
		}
		return u.done(a, u.back(a, home), console.Note{Kind: "warn", Strong: strong, Rest: "Its new state is shown below."})
	}
	word := map[string]string{"pause": "paused", "resume": "resumed", "enable": "enabled"}[verb]
	switch verb {
	case "pause":
		var pause NewPause
		if pause, err = a.pause(); err == nil {
			_, err = u.Pause(ctx, name, pause)
		}
	case "resume":
		_, err = u.Resume(ctx, name)
	case "enable":
		_, err = u.Enable(ctx, name)
	default:
		err = notFound("there is no action %q", verb)
	}
	if err != nil {
		return err
	}
	return u.done(a, u.back(a, home), console.Note{Kind: "good", Strong: name + " is " + word + "."})
}

// didWords are actions in the past tense.
var didWords = map[string]string{
	"pause": "paused", "resume": "resumed", "enable": "enabled", "discard": "discarded", "retry": "retried",
}

// lastDid describes the last action on an endpoint if it is one of those given and less
// than an hour ago; it is empty otherwise.
func (u *ui) lastDid(ctx context.Context, endpoint string, actions ...string) string {
	page, err := u.Actions(ctx, endpoint, 0, 1)
	if err != nil || len(page.Items) == 0 || !slices.Contains(actions, page.Items[0].Action) {
		return ""
	}
	last := page.Items[0]
	at, err := time.Parse(time.RFC3339Nano, last.At)
	if age := time.Since(at); err == nil && age < time.Hour {
		what := endpoint
		if last.Action == "discard" || last.Action == "retry" {
			what = last.Subject + " of " + endpoint
		}
		return fmt.Sprintf("%s %s %s %s ago.", firstOf(last.By, "somebody"), didWords[last.Action], what,
			console.Duration(max(age, 0)))
	}
	return ""
}

// pause reads why and until when an endpoint is paused.
func (a *asked) pause() (NewPause, error) {
	p := NewPause{Comment: strings.TrimSpace(a.PostForm.Get("comment"))}
	if after := a.PostForm.Get("until"); after != "" {
		d, err := time.ParseDuration(after)
		if err != nil {
			return p, invalid("until", "expected a duration such as 8h")
		}
		until := time.Now().Add(d)
		p.Until = &until
	}
	if utf8.RuneCountInString(p.Comment) > maxComment {
		return p, invalid("comment", "must not be longer than %d characters", maxComment)
	}
	return p, nil
}

// maxComment is the limit of a comment in the API.
const maxComment = 500

// test sends a ping and reports the outcome.
func (u *ui) test(a *asked, name, home string) error {
	tried, err := u.Test(a.actor(), name, a.user.ID)
	if err != nil {
		return err
	}
	n := console.Note{Kind: "good", State: tried.Outcome}
	took := console.Micros(int64(tried.Seconds * 1e6))
	if tried.Outcome == tidings.Delivered.String() {
		n.Strong = fmt.Sprintf("webhook.ping to %s answered %d in %s.", name, tried.Status, took)
	} else {
		n.Kind, n.State = "bad", "failed"
		n.Strong = fmt.Sprintf("webhook.ping to %s: %s after %s.", name, firstOf(tried.Detail, tried.Reason), took)
	}
	steps := tried.Steps()
	if tried.Address != "" {
		steps = append(steps, "by "+tried.Address)
	}
	if len(steps) > 0 {
		n.Rest = sentence(strings.Join(steps, ", ")) + " "
	}
	if tried.Response != "" {
		n.Rest += "Its response: " + tried.Response
	}
	return u.done(a, u.back(a, home), n)
}

func firstOf(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

// find redirects to the endpoint, event or resource that somebody searched for.
func (u *ui) find(a *asked) error {
	q := strings.TrimSpace(a.URL.Query().Get("q"))
	to := a.page.URL("events") + "?resource=" + url.QueryEscape(q)
	if _, err := u.configured(q); err == nil {
		to = a.page.URL("endpoints", q)
	} else if _, err := u.Service.find(a.Context(), q); err == nil && q != "" {
		to = a.page.URL("events", q)
	} else if !strings.Contains(q, "/") && (strings.Contains(q, "*") || strings.Contains(q, ".")) {
		to = a.page.URL("events") + "?types=" + url.QueryEscape(q)
	}
	console.Protect(a.w.Header())
	http.Redirect(a.w, a.Request, to, http.StatusSeeOther)
	return nil
}

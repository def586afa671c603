package operator

import (
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/internal/console"
)

type replayRow struct {
	*Replay
	Short, What, Shown, Progressed string
	Percent                        int
	Cancel                         *button
}

type replayPlan struct {
	Facts []fact
	Hint  string
	Send  *button
	Off   string // why it can't be sent
}

type replaysPage struct {
	listPage
	Kinds   []option
	Event   string
	Plan    *replayPlan
	Rows    []replayRow
	Dialogs []confirm
}

// replayOf reads a replay from the fields of a form.
func (u *ui) replayOf(p *console.Page, values url.Values) (NewReplay, error) {
	in := NewReplay{
		Endpoint: values.Get("endpoint"), Event: strings.TrimSpace(values.Get("event")),
		Resource: strings.TrimSpace(values.Get("resource")),
	}
	if in.Endpoint == "" {
		return in, invalid("endpoint", "choose one")
	}
	if in.Event != "" {
		return in, nil
	}
	for pattern := range strings.SplitSeq(values.Get("types"), ",") {
		if pattern = strings.TrimSpace(pattern); pattern != "" {
			in.Events = append(in.Events, pattern)
		}
	}
	for name, to := range map[string]**time.Time{"since": &in.Since, "until": &in.Until} {
		t, err := p.When(values.Get(name))
		if err != nil {
			return in, invalid(name, "%v", err)
		}
		if !t.IsZero() {
			*to = &t
		}
	}
	switch values.Get("what") {
	case "dead":
		in.Dead = true
	case "all":
		in.All = in.Since == nil && in.Until == nil && in.Events == nil && in.Resource == ""
		if in.All {
			return in, invalid("since", "everything needs a range, events or a resource")
		}
	default:
		in.Missed = true
	}
	return in, nil
}

func (u *ui) replayList(a *asked) error {
	ctx, query := a.Context(), a.URL.Query()
	what := firstOf(query.Get("what"), "missed")
	v := &replaysPage{Event: query.Get("event"), Kinds: []option{
		{"missed", "never delivered to it, whatever the reason", what == "missed"},
		{"dead", "given up after all attempts", what == "dead"},
		{"all", "delivered ones, too; the receiver sees them again with the same webhook-id", what == "all"},
	}}
	v.Fields = append([]field{choice("endpoint", "Endpoint", query.Get("endpoint"), u.endpointOptions("choose one")...)},
		rangeFields(query)...)
	if query.Has("plan") || v.Event != "" && query.Get("endpoint") != "" {
		leave, err := u.api.Limits.Scans.Enter(ctx, a.user.ID, 1)
		if err != nil {
			return err
		}
		err = u.planReplay(a, v)
		leave()
		if err != nil {
			return err
		}
	}
	page, err := u.Replays(ctx, listed)
	if err != nil {
		return err
	}
	for _, r := range page.Items {
		row, question := u.newReplayRow(a.page, r)
		v.Rows = append(v.Rows, row)
		if row.Cancel != nil {
			v.Dialogs = append(v.Dialogs, question)
		}
	}
	a.page.Live = true
	return u.show(a, v.status(), "replays", "Replays", "Replays", v)
}

// planReplay counts what a replay would send.
func (u *ui) planReplay(a *asked, v *replaysPage) error {
	query := a.URL.Query()
	in, err := u.replayOf(a.page, query)
	if err != nil {
		return v.blame(err)
	}
	plan, err := u.PlanReplay(a.Context(), in)
	if err != nil {
		return v.blame(err)
	}
	more := ""
	if !plan.Exact {
		more = "more than "
	}
	count := more + console.Number(plan.ToSend)
	v.Plan = &replayPlan{Facts: []fact{
		{Name: "To be sent", Value: text("%s", count), Small: "events"},
		{Name: "Left out", Value: number(plan.LeftOut), Small: "delivered already, or not wanted"},
	}}
	if plan.ToSend > 0 {
		v.Plan.Facts = append(v.Plan.Facts, fact{Name: "First", Value: number(plan.First), Small: "position"},
			fact{Name: "Last", Value: number(plan.Last), Small: "position"})
	}
	if plan.Seconds > 1 {
		v.Plan.Hint = "It takes about " + console.Duration(time.Duration(plan.Seconds*float64(time.Second))) + ". "
	}
	if plan.WaitsBecause != "" {
		v.Plan.Hint += sentence("It waits: " + plan.WaitsBecause)
	}
	if plan.ToSend == 0 && plan.Exact {
		v.Plan.Off = "There is nothing to send."
		return nil
	}
	v.Plan.Send = &button{
		Text: "Send " + count + " " + plural(plan.ToSend, "event", "events"), Class: "first", Page: a.page.URL("replays"),
	}
	for _, name := range []string{"endpoint", "what", "types", "resource", "event"} {
		if value := query.Get(name); value != "" {
			v.Plan.Send.Hidden = append(v.Plan.Send.Hidden, hidden{name, value})
		}
	}
	for name, t := range map[string]*time.Time{"since": in.Since, "until": in.Until} {
		if t != nil {
			v.Plan.Send.Hidden = append(v.Plan.Send.Hidden, hidden{name, t.Format(time.RFC3339)})
		}
	}
	return nil
}

func (u *ui) newReplayRow(p *console.Page, r *Replay) (replayRow, confirm) {
	row := replayRow{Replay: r, Short: r.ID[:min(8, len(r.ID))], Shown: r.State, Percent: int(r.Progress * 100)}
	var what []string
	switch {
	case r.Missed:
		what = append(what, "missed only")
	case r.Dead:
		what = append(what, "dead letters")
	case r.From == r.To:
		what = append(what, "position "+console.Number(r.From))
	}
	if r.Resource != "" {
		what = append(what, r.Resource)
	}
	what = append(what, r.Events...)
	if row.What = strings.Join(what, ", "); row.What == "" {
		row.What = "everything in its range"
	}
	sent := r.Delivered + r.Failed + r.Skipped
	row.Progressed = fmt.Sprintf("%d %%", row.Percent)
	if r.Total > 0 {
		row.Progressed = fmt.Sprintf("%s of %s", console.Number(sent), console.Number(r.Total))
	}
	var c confirm
	if r.State == string(eventlog.ReplayRunning) {
		if r.WaitsBecause != "" {
			row.Shown = "waiting"
		}
		page := p.URL("replays", r.ID, "cancel")
		row.Cancel = &button{ID: "cancel-" + row.Short, Text: "Cancel…", Class: "tight", Page: page}
		c = cancelQuestion(r)
		c.ID, c.Page = row.Cancel.ID, page
	}
	return row, c
}

func cancelQuestion(r *Replay) confirm {
	sent := r.Delivered + r.Failed + r.Skipped
	line := text("%s events are sent; the rest are not.", console.Number(sent))
	if r.Total > 0 {
		line = text("%s of %s events are sent; the other %s are not.", console.Number(sent), console.Number(r.Total),
			console.Number(max(r.Total-sent, 0)))
	}
	return confirm{
		Heading: "Cancel this replay?", Lines: []template.HTML{line + " Live events are not affected."}, Cancel: "Keep it",
		Go: "Cancel the replay", Grave: true,
	}
}

func (u *ui) askCancel(a *asked) error {
	r, err := u.GetReplay(a.Context(), a.PathValue("id"))
	if err != nil {
		return err
	}
	c := cancelQuestion(r)
	c.ID, c.Page, c.Back = "cancel", a.URL.Path, a.page.URL("replays")
	return u.show(a, http.StatusOK, "confirm", "Replays", c.Heading, c)
}

func (u *ui) cancelReplay(a *asked) error {
	r, err := u.CancelReplay(a.actor(), a.PathValue("id"))
	if err != nil {
		return err
	}
	return u.done(a, a.page.URL("replays"), console.Note{
		Kind: "good", Strong: "The replay to " + r.Endpoint + " is cancelled.",
	})
}

func (u *ui) beginReplay(a *asked) error {
	in, err := u.replayOf(a.page, a.PostForm)
	if err != nil {
		return err
	}
	leave, err := u.api.Limits.Scans.Enter(a.Context(), a.user.ID, 1)
	if err != nil {
		return err
	}
	defer leave()
	r, err := u.Replay(a.actor(), in, a.user.ID)
	if err != nil {
		return err
	}
	n := console.Note{Kind: "good", Strong: "The replay to " + r.Endpoint + " has begun."}
	if r.WaitsBecause != "" {
		n.Kind, n.Rest = "warn", sentence("It waits: "+r.WaitsBecause)
	}
	return u.done(a, a.page.URL("replays"), n)
}

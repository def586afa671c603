package operator

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/internal/console"
)

type replicaRow struct {
	Name   string
	Leases int
	Holds  string
}

type sessionRow struct {
	ConsoleSession
	Own bool
	End *button
}

type statusPage struct {
	Heading  string
	State    string
	Facts    []fact
	Log      []setting
	Replicas []replicaRow
	Actions  []Action
	Sessions []sessionRow
	Reload   *button
	// ReloadOff says why the configuration can't be reloaded.
	ReloadOff string
}

func (u *ui) status(a *asked) error {
	ctx := a.Context()
	endpoints, err := u.Endpoints(ctx)
	if err != nil {
		return err
	}
	head, err := u.log().Advance(ctx)
	if err != nil {
		return err
	}
	oldest, err := u.log().Oldest(ctx)
	if err != nil {
		return err
	}
	depth, err := u.log().Unnumbered(ctx)
	if err != nil {
		return err
	}
	names, err := u.log().Replicas(ctx)
	if err != nil {
		return err
	}
	v := &statusPage{Heading: "All is well", State: "ok"}
	held := make(map[string][]string)
	leases, free := 0, 0
	for _, e := range endpoints {
		if !e.Configured {
			continue
		}
		for _, p := range e.Partitions {
			leases++
			name := e.Name
			if len(e.Partitions) > 1 {
				name += fmt.Sprintf("/%d", p.Index)
			}
			if p.Replica == "" {
				free++
				continue
			}
			held[p.Replica] = append(held[p.Replica], name)
		}
	}
	slices.SortFunc(names, func(x, y eventlog.Replica) int { return strings.Compare(x.ID, y.ID) })
	for _, r := range names {
		v.Replicas = append(v.Replicas, replicaRow{r.ID, len(held[r.ID]), strings.Join(held[r.ID], ", ")})
	}
	if free > 0 {
		v.Heading, v.State = "Some endpoints are held by nobody", "drift"
	}
	v.Facts = []fact{
		{Name: "Database", Value: `<span class="state" data-state="ok">up</span>`},
		{
			Name: "Replicas", Value: text(`<span class="state" data-state="ok">%d</span>`, len(names)),
			Small: text("%d of %d leases held", leases-free, leases),
		},
		{Name: "Log", Value: number(head), Small: "position at the head"},
		{Name: "Outbox", Value: number(depth), Small: "events without a position yet"},
		{Name: "Version", Value: text("%s", firstOf(u.options.Version, "–"))},
	}
	v.Log = []setting{
		{Name: "Head", Value: "position " + console.Number(head)},
		{Name: "Oldest", Value: "position " + console.Number(oldest)},
		{Name: "Retention", Value: console.Duration(u.hooks.Retention().Events)},
		{Name: "Outbox", Value: console.Number(depth) + " waiting to be numbered"},
		{Name: "Epoch", Value: u.epoch()},
		{Name: "History", Value: "kept for " + console.Duration(u.hooks.Retention().History)},
	}
	actions, err := u.Actions(ctx, "", 0, actionsShown)
	if err != nil {
		return err
	}
	v.Actions = actions.Items
	u.statusActions(a, v)
	return u.show(a, http.StatusOK, "status", "Status", "Status", v)
}

func (u *ui) epoch() string {
	if r := u.relay(); r != nil {
		return r.Epoch()
	}
	return "–"
}

// statusActions adds the sessions and the reload.
func (u *ui) statusActions(a *asked, v *statusPage) {
	switch {
	case u.options.Reload == nil:
	case !a.page.Who.Admin:
		v.ReloadOff = "Only an admin reloads the configuration."
	default:
		v.Reload = &button{Text: "Reload the configuration", Page: a.page.URL("reload")}
	}
	if u.options.Sessions == nil {
		return
	}
	for _, s := range u.options.Sessions() {
		row := sessionRow{ConsoleSession: s, Own: s.ID == a.user.Session}
		if !a.page.Who.Admin && !row.Own {
			continue
		}
		row.End = &button{Text: "End", Class: "tight", Page: a.page.URL("sessions", s.ID, "end")}
		v.Sessions = append(v.Sessions, row)
	}
}

func (u *ui) reload(a *asked) error {
	if u.options.Reload == nil {
		return notFound("there is no configuration to reload")
	}
	if !a.user.Admin {
		return errForbidden
	}
	home := a.page.URL("status")
	if err := u.options.Reload(a.actor()); err != nil {
		return u.done(a, home, console.Note{Kind: "bad", State: "failed", Strong: "Not reloaded.", Rest: err.Error()})
	}
	u.Record(a.actor(), Action{Action: "reload"})
	return u.done(a, home, console.Note{Kind: "good", Strong: "The configuration is reloaded."})
}

// endSession ends a session: an admin anybody's, others their own.
func (u *ui) endSession(a *asked) error {
	id := a.PathValue("id")
	switch {
	case u.options.EndSession == nil:
		return notFound("there is no session %s", id)
	case !a.user.Admin && id != a.user.Session:
		return errForbidden
	case !u.options.EndSession(id):
		return notFound("there is no session %s", id)
	}
	return u.done(a, a.page.URL("status"), console.Note{Kind: "good", Strong: "The session has ended."})
}

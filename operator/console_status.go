package operator

import (
	"fmt"
	"html/template"
	"net/http"
	"strings"

	"github.com/tidings-dev/tidings/internal/console"
)

type replicaRow struct {
	Replica
	Holds, Megabytes string
}

type sessionRow struct {
	ConsoleSession
	Own bool
	End *button
}

// pair is a name and what belongs to it.
type pair struct {
	Name, Value string
	At          string // a time that is shown after the value; may be empty
}

type statusPage struct {
	Heading  string
	State    string
	Facts    []fact
	Log      []pair
	Database []pair
	Config   *ConfigStatus
	Diff     []diffLine
	Sources  []SourceStatus
	// Counted means that the events of sources are counted, and Exact that all are.
	Counted, Exact bool
	Replicas       []replicaRow
	Actions        []Action
	Sessions       []sessionRow
	Reload         *button
	// ReloadOff says why the configuration can't be reloaded.
	ReloadOff string
}

func (u *ui) status(a *asked) error {
	ctx := a.Context()
	endpoints, err := u.Endpoints(ctx)
	if err != nil {
		return err
	}
	status, err := u.Status(ctx)
	if err != nil {
		return err
	}
	v := &statusPage{Heading: "All is well", State: "ok"}
	held := make(map[string][]string)
	leases, free := 0, 0
	var missed int64
	for _, e := range endpoints {
		missed += e.Missed
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
	for _, r := range status.Replicas {
		row := replicaRow{Replica: r, Holds: strings.Join(held[r.Name], ", "), Megabytes: "–"}
		if r.Memory > 0 {
			row.Megabytes = console.Number(r.Memory>>20) + " MiB"
		}
		v.Replicas = append(v.Replicas, row)
	}
	things := len(status.problems())
	if free > 0 { // held by nobody
		things++
	}
	if things > 0 {
		v.Heading = fmt.Sprintf("%d %s to look at", things, plural(int64(things), "thing", "things"))
		v.State = "drift"
	}
	d, log := status.Database, status.Log
	v.Sources, v.Config = status.Sources, status.Config
	for _, t := range v.Sources {
		v.Counted, v.Exact = t.PerHour != nil, t.Exact
	}
	if v.Config != nil && v.Config.LastTry != nil {
		v.Diff = diffLines(v.Config.LastTry)
	}
	v.Database = databaseSettings(d)
	v.Facts = []fact{
		{
			Name: "Database", Value: `<span class="state" data-state="ok">up</span>`,
			Small: text("%s, %.1f ms", console.Word(d.Kind), d.Latency*1000),
		},
		{
			Name: "Replicas", Value: text(`<span class="state" data-state="ok">%d</span>`, len(status.Replicas)),
			Small: text("%d of %d leases held", leases-free, leases),
		},
		{Name: "Log", Value: number(log.Head), Small: "position at the head"},
		{Name: "Outbox", Value: number(log.Outbox), Small: "events without a position yet"},
	}
	v.Facts = append(append(v.Facts, configFacts(status)...),
		fact{Name: "Version", Value: text("%s", firstOf(u.options.Version, "–"))})
	v.Log = []pair{
		{Name: "Head", Value: "position " + console.Number(log.Head), At: log.HeadAt},
		{Name: "Oldest", Value: "position " + console.Number(log.Oldest), At: log.OldestAt},
		{Name: "Retention", Value: console.Duration(u.hooks.Retention().Events)},
		{Name: "Outbox", Value: console.Number(log.Outbox) + " waiting to be numbered"},
		{Name: "Epoch", Value: log.Epoch},
		{Name: "Missed", Value: console.Number(missed) + " expired before an endpoint received them"},
		{Name: "History", Value: "kept for " + console.Duration(u.hooks.Retention().History)},
	}
	actions, err := u.Actions(ctx, "", 0, actionsShown)
	if err != nil {
		return err
	}
	v.Actions = actions.Items
	if err := u.statusActions(a, v); err != nil {
		return err
	}
	return u.show(a, http.StatusOK, "status", "Status", "Status", v)
}

func databaseSettings(d Database) []pair {
	role := "primary"
	if !d.Primary {
		role = "standby, which takes no writes"
	}
	all := []pair{{Name: "Server", Value: fmt.Sprintf("%s %s, %s", console.Word(d.Kind), d.Version, role)}}
	if d.Schema != "" {
		all = append(all, pair{Name: "Schema", Value: d.Schema})
	}
	connections := console.Number(int64(d.InUse))
	if d.Most > 0 {
		connections += " of " + console.Number(int64(d.Most))
	}
	return append(all,
		pair{Name: "Connections", Value: connections + " in use by this process"},
		pair{Name: "Size", Value: fmt.Sprintf("%s MiB", console.Number(d.Size>>20))})
}

// configFacts are facts about the configuration and the tables that are watched.
func configFacts(s *Status) (facts []fact) {
	state := func(name, state, word string, small template.HTML) {
		facts = append(facts,
			fact{Name: name, Value: text(`<span class="state" data-state="%s">%s</span>`, state, word), Small: small})
	}
	if c := s.Config; c != nil && c.LastTry != nil && len(c.LastTry.Errors) > 0 {
		n := int64(len(c.LastTry.Errors))
		state("Configuration", "failed", "not loaded", text("%s %s", console.Number(n), plural(n, "error", "errors")))
	} else if c != nil {
		state("Configuration", "ok", "loaded", "")
	}
	if n := int64(len(s.Sources)); n > 0 {
		watched := text("%s %s watched", console.Number(n), plural(n, "table", "tables"))
		ill := int64(0)
		for _, source := range s.Sources {
			if source.State != "attached" {
				ill++
			}
		}
		if ill > 0 {
			state("Sources", "drift", console.Number(ill)+" unhealthy", watched)
		} else {
			state("Sources", "ok", "watched", watched)
		}
	}
	return facts
}

// diffLine is a line of a difference: what is removed, what is added, or neither.
type diffLine struct{ Removed, Added, Same string }

// diffLines formats the changes of a reload for people.
func diffLines(try *ConfigTry) (lines []diffLine) {
	endpoint := ""
	for _, c := range try.Diff {
		indent := ""
		if c.Endpoint != "" {
			indent = "  "
			switch {
			case c.Key == "" && c.Change == "added":
				lines = append(lines, diffLine{Added: "+ " + c.Endpoint + ": new endpoint"})
			case c.Key == "" && c.Change == "removed":
				lines = append(lines, diffLine{Removed: "- " + c.Endpoint})
			case c.Endpoint != endpoint:
				lines = append(lines, diffLine{Same: "  " + c.Endpoint + ":"})
			}
			endpoint = c.Endpoint
		}
		key := indent + c.Key
		if c.Before != "" && c.Change != "added" {
			lines = append(lines, diffLine{Removed: "- " + key + ": " + c.Before})
		}
		switch {
		case c.Problem != "":
			lines = append(lines, diffLine{Added: strings.TrimRight("+ "+key, " ") + " ← " + c.Problem})
		case c.After != "":
			lines = append(lines, diffLine{Added: "+ " + key + ": " + c.After})
		}
	}
	if try.LeftOut > 0 {
		lines = append(lines, diffLine{Same: fmt.Sprintf("  and %s more", console.Number(try.LeftOut))})
	}
	return lines
}

// statusActions adds the sessions and the reload.
func (u *ui) statusActions(a *asked, v *statusPage) error {
	switch {
	case u.options.Reload == nil:
	case !a.page.Who.Admin:
		v.ReloadOff = "Only an admin can reload the configuration."
	default:
		v.Reload = &button{Text: "Reload the configuration", Page: a.page.URL("reload")}
	}
	if u.options.Sessions == nil {
		return nil
	}
	sessions, err := u.options.Sessions(a.Context())
	if err != nil {
		return err
	}
	for _, s := range sessions {
		row := sessionRow{ConsoleSession: s, Own: s.ID == a.user.Session}
		if !a.page.Who.Admin && !row.Own {
			continue
		}
		row.End = &button{Text: "End", Class: "tight", Page: a.page.URL("sessions", s.ID, "end")}
		v.Sessions = append(v.Sessions, row)
	}
	return nil
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
	return u.done(a, home, console.Note{Kind: "good", Strong: "The configuration was reloaded."})
}

// endSession ends a session: admins may end anybody's, others only their own.
func (u *ui) endSession(a *asked) error {
	id := a.PathValue("id")
	switch {
	case u.options.EndSession == nil:
		return notFound("there is no session %s", id)
	case !a.user.Admin && id != a.user.Session:
		return errForbidden
	}
	ended, err := u.options.EndSession(a.Context(), id)
	if err != nil {
		return err
	}
	if !ended {
		return notFound("there is no session %s", id)
	}
	return u.done(a, a.page.URL("status"), console.Note{Kind: "good", Strong: "The session has ended."})
}

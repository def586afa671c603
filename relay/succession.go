package relay

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/tidings-dev/tidings/eventlog"
)

// Left is an endpoint that is no longer configured.
type Left struct {
	Name string
	// Behind is the number of log events after its cursor, including ones it does
	// not match.
	Behind int64
	// Parked reports whether it has parked events or dead letters.
	Parked bool
}

// Backlog reports whether it has undelivered events.
func (l Left) Backlog() bool { return l.Behind > 0 || l.Parked }

// Successors returns, by name, which new endpoint succeeds which removed one: the
// new one whose CursorFrom names it; or else the only new one with its host and path,
// whose name differs only by the query; or else the only new one without CursorFrom
// on a host, if only one was removed there, or only one of those has a backlog. Disabled
// ones count only where no other is new. The
// caller clears a CursorFrom of which no cursor is kept. A removed endpoint's
// host is known only if its name is derived from its URL. unclear holds the
// candidates of each removed endpoint without a unique successor.
func Successors(left []Left, added []Endpoint) (successor map[string]string, unclear map[string][]string) {
	successor, unclear = make(map[string]string), make(map[string][]string)
	leftOn, addedOn := make(map[string][]Left), make(map[string][]string)
	disabledOn := make(map[string][]string)
	for _, e := range added {
		on := addedOn
		if e.Disabled {
			on = disabledOn
		}
		if e.CursorFrom != "" {
			successor[e.CursorFrom] = e.Name
		} else if u, err := url.Parse(e.URL); err == nil {
			on[u.Host] = append(on[u.Host], e.Name)
		}
	}
	for host, names := range disabledOn {
		if len(addedOn[host]) == 0 {
			addedOn[host] = names
		}
	}
	for host, names := range addedOn {
		addedOn[host] = succeedQueries(left, names, successor)
	}
	for _, l := range left {
		host, _, _ := strings.Cut(l.Name, "/")
		host, _, _ = strings.Cut(host, "?")
		if successor[l.Name] == "" && len(addedOn[host]) > 0 {
			leftOn[host] = append(leftOn[host], l)
		}
	}
	for host, all := range leftOn {
		if slices.ContainsFunc(all, Left.Backlog) {
			all = slices.DeleteFunc(all, func(l Left) bool { return !l.Backlog() })
		}
		if len(all) == 1 && len(addedOn[host]) == 1 {
			successor[all[0].Name] = addedOn[host][0]
			continue
		}
		for _, l := range all {
			unclear[l.Name] = addedOn[host]
		}
	}
	return successor, unclear
}

// prepareTries limits how often [Relay.prepare] starts over.
const prepareTries = 10

// prepare makes new endpoints resume where removed ones stopped, and creates the
// cursors of the part of a setup that choose selects. It starts over if another
// process changes the endpoints before it is done: an endpoint that has a cursor of
// its own can no longer resume where its predecessor stopped. The caller holds
// r.preparing.
func (r *Relay) prepare(
	ctx context.Context, endpoints []Endpoint, setup eventlog.Setup, choose func(eventlog.Setup) eventlog.Setup,
) (err error) {
	for range prepareTries {
		if setup.Known, err = r.succeed(ctx, endpoints, setup); err == nil {
			err = r.log.Prepare(ctx, choose(setup))
		}
		if !errors.Is(err, eventlog.ErrEndpointsChanged) {
			break
		}
	}
	if err == nil { // others learn of a division or a rename now, or else at their next step
		_ = r.log.Nudge(ctx)
	}
	return err
}

// everything chooses all of a setup.
func everything(s eventlog.Setup) eventlog.Setup { return s }

// prepareCurrent prepares the current endpoints, unless new ones are being prepared.
func (r *Relay) prepareCurrent(ctx context.Context) error {
	select {
	case r.preparing <- struct{}{}:
		defer func() { <-r.preparing }()
	default:
		return nil
	}
	r.mu.Lock()
	setup := r.setup
	r.mu.Unlock()
	return r.prepare(ctx, r.Endpoints(), setup, everything)
}

// succeedQueries finds the successors of removed endpoints among new ones with the same
// host and path but another query, or with one where there was none, and returns the
// new ones that are none.
func succeedQueries(left []Left, added []string, successor map[string]string) (others []string) {
	plain := func(name string) string {
		name, _, _ = strings.Cut(name, "?")
		return name
	}
	leftAt, addedAt := make(map[string][]string), make(map[string]int)
	for _, l := range left {
		if successor[l.Name] == "" {
			leftAt[plain(l.Name)] = append(leftAt[plain(l.Name)], l.Name)
		}
	}
	for _, name := range added {
		addedAt[plain(name)]++
	}
	for _, name := range added {
		if at := plain(name); strings.Contains(name, "?") && len(leftAt[at]) == 1 && addedAt[at] == 1 {
			successor[leftAt[at][0]] = name
		} else {
			others = append(others, name)
		}
	}
	return others
}

// succeed makes new endpoints resume where removed ones stopped, and warns about
// removed ones with a backlog and no successor. It returns the endpoints with a
// cursor, and whether they are configured.
func (r *Relay) succeed(
	ctx context.Context, endpoints []Endpoint, setup eventlog.Setup,
) (configured map[string]bool, err error) {
	cursors, err := r.log.Cursors(ctx)
	if err != nil {
		return nil, err
	}
	known := make(map[string]eventlog.Cursor) // the lowest of each endpoint
	configured = make(map[string]bool)
	for _, c := range cursors {
		configured[c.Endpoint] = c.Removed.IsZero()
		if low, seen := known[c.Endpoint]; !seen || c.Sequence < low.Sequence {
			known[c.Endpoint] = c
		}
	}
	added, err := r.added(endpoints, known, setup.Names())
	if err != nil {
		return nil, err
	}
	var left []Left
	for name, c := range known {
		if setup.Names()[name] || !c.Removed.IsZero() {
			continue // it was already removed before
		}
		rows, err := r.log.Parked(ctx, eventlog.ParkedFilter{Endpoint: name, Limit: 1})
		if err != nil {
			return nil, err
		}
		left = append(left, Left{Name: name, Behind: max(setup.Head-c.Sequence, 0), Parked: len(rows) > 0})
	}
	successor, unclear := Successors(left, added)
	for old, name := range successor {
		switch renamed, err := r.log.Rename(ctx, old, name); {
		case err != nil:
			return nil, err
		case !renamed:
			return nil, eventlog.ErrEndpointsChanged
		}
		delete(configured, old)
		configured[name] = true
		r.logger.Info("endpoint resumes where one stopped that is no longer configured",
			"endpoint", name, "former", old, "cursor", known[old].Sequence,
			"behind", max(setup.Head-known[old].Sequence, 0))
	}
	for _, l := range left {
		if successor[l.Name] == "" && l.Backlog() {
			r.warnOfLeft(l, unclear[l.Name])
		}
	}
	return configured, nil
}

// added returns the endpoints without a cursor. Their CursorFrom is empty if no cursor
// of that name is kept.
func (r *Relay) added(
	endpoints []Endpoint, known map[string]eventlog.Cursor, configured map[string]bool,
) (added []Endpoint, err error) {
	for _, e := range endpoints {
		_, has := known[e.Name]
		_, other := known[e.CursorFrom]
		switch {
		case e.CursorFrom != "" && configured[e.CursorFrom]:
			return nil,
				fmt.Errorf("endpoint %s: cursor_from names %s, which is still configured", e.Name,
					e.CursorFrom)
		case !has:
			if e.CursorFrom != "" && !other { // it may be left over from an earlier change
				r.logger.Warn("cursor_from has no effect: the endpoint that it names has no cursor",
					"endpoint", e.Name, "cursor_from", e.CursorFrom)
				e.CursorFrom = ""
			}
			added = append(added, e)
		case other:
			r.logger.Warn("cursor_from has no effect: the endpoint has its own cursor; "+
				"'tidings replay' sends what the other one missed",
				"endpoint", e.Name, "cursor_from", e.CursorFrom, "cursor", known[e.CursorFrom].Sequence)
		}
	}
	return added, nil
}

func (r *Relay) warnOfLeft(l Left, candidates []string) {
	args := []any{"endpoint", l.Name, "behind", l.Behind, "parked", l.Parked}
	if len(candidates) > 0 {
		slices.Sort(candidates)
		args = append(args, "candidates", candidates)
	}
	r.logger.Warn("endpoint is no longer configured but has undelivered events; "+
		"add it back, or set cursor_from to its name on the endpoint that replaces it", args...)
}

// starts sets where endpoints without a cursor begin, if not at the end of the log.
func (r *Relay) starts(ctx context.Context, endpoints []Endpoint, setup *eventlog.Setup) error {
	setup.Start = make(map[string]int64)
	for _, e := range endpoints {
		at, err := int64(0), error(nil)
		switch {
		case e.Oldest:
			at, err = r.log.Oldest(ctx)
		case !e.Since.IsZero():
			at, err = r.log.SequenceAt(ctx, e.Since)
		default:
			continue
		}
		if err != nil {
			return err
		}
		setup.Start[e.Name] = at - 1
	}
	return nil
}

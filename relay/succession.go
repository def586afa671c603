package relay

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/tidings-dev/tidings/eventlog"
)

// Left is an endpoint that is not configured any more.
type Left struct {
	Name string
	// Behind is how many events of the log are after its cursor, those that it does not
	// want included.
	Behind int64
	// Parked says that it has parked events or dead letters.
	Parked bool
}

// Backlog reports whether it has something left to get.
func (l Left) Backlog() bool { return l.Behind > 0 || l.Parked }

// Successors returns which of the endpoints that are new takes the place of which that
// was left, by name: the one whose CursorFrom says so, or the only new one on the host
// of the only one left there, or of the only one of these with a backlog. A left
// endpoint's host is known if it had no name of its
// own but host and path of its URL. unclear has the candidates of each left endpoint of
// which there are several.
func Successors(left []Left, added []Endpoint) (successor map[string]string, unclear map[string][]string) {
	successor, unclear = make(map[string]string), make(map[string][]string)
	leftOn, addedOn := make(map[string][]Left), make(map[string][]string)
	for _, e := range added {
		if e.CursorFrom != "" {
			successor[e.CursorFrom] = e.Name
		} else if u, err := url.Parse(e.URL); err == nil {
			addedOn[u.Host] = append(addedOn[u.Host], e.Name)
		}
	}
	for _, l := range left {
		host, _, _ := strings.Cut(l.Name, "/")
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

// succeed has new endpoints go on where others stopped that are not configured any
// more, and warns of those with a backlog that nobody takes over.
func (r *Relay) succeed(ctx context.Context, endpoints []Endpoint, setup eventlog.Setup) error {
	cursors, err := r.log.Cursors(ctx)
	if err != nil {
		return err
	}
	known := make(map[string]eventlog.Cursor) // the lowest of each endpoint
	for _, c := range cursors {
		if low, seen := known[c.Endpoint]; !seen || c.Sequence < low.Sequence {
			known[c.Endpoint] = c
		}
	}
	added, err := r.added(endpoints, known, setup.Names())
	if err != nil {
		return err
	}
	var left []Left
	for name, c := range known {
		if setup.Names()[name] || !c.Removed.IsZero() {
			continue // or it was known before
		}
		rows, err := r.log.Parked(ctx, eventlog.ParkedFilter{Endpoint: name, Limit: 1})
		if err != nil {
			return err
		}
		left = append(left, Left{Name: name, Behind: max(setup.Head-c.Sequence, 0), Parked: len(rows) > 0})
	}
	successor, unclear := Successors(left, added)
	for old, name := range successor {
		c, kept := known[old]
		if !kept {
			r.logger.Warn("cursor_from names an endpoint of which no cursor is kept; this one begins as a new one",
				"endpoint", name, "cursor_from", old)
			continue
		}
		if _, err := r.log.Rename(ctx, old, name); err != nil {
			return err
		}
		r.logger.Info("endpoint goes on where one stopped that is not configured any more",
			"endpoint", name, "former", old, "cursor", c.Sequence, "behind", max(setup.Head-c.Sequence, 0))
	}
	for _, l := range left {
		if successor[l.Name] == "" && l.Backlog() {
			r.warnOfLeft(l, unclear[l.Name])
		}
	}
	return nil
}

// added returns the endpoints without a cursor.
func (r *Relay) added(
	endpoints []Endpoint, known map[string]eventlog.Cursor, configured map[string]bool,
) (added []Endpoint, err error) {
	for _, e := range endpoints {
		_, has := known[e.Name]
		_, other := known[e.CursorFrom]
		switch {
		case e.Disabled:
		case e.CursorFrom != "" && configured[e.CursorFrom]:
			return nil,
				fmt.Errorf("endpoint %s: its cursor can't be that of %s, which is configured, too", e.Name,
					e.CursorFrom)
		case !has:
			added = append(added, e)
		case other:
			r.logger.Warn("cursor_from has no effect: the endpoint has a cursor of its own; "+
				"'tidings replay' sends what the other one did not get",
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
	r.logger.Warn("endpoint has events left to get and is not configured any more; "+
		"add it back, or set cursor_from to its name on the one that takes its place", args...)
}

// starts notes where endpoints without a cursor begin, if not at the end of the log.
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

package operator

import (
	"context"
	"fmt"
	"strings"
	"time"
)

func invalid(field, format string, args ...any) error {
	return &Error{Field: field, Message: fmt.Sprintf(format, args...)}
}

// clockSkew is how far a caller's clock may be ahead.
const clockSkew = time.Minute

// checkRange returns an error for a time range that can contain no event.
func checkRange(since, until time.Time) error {
	switch {
	case since.After(time.Now().Add(clockSkew)):
		return invalid("since", "is in the future")
	case !until.IsZero() && !since.IsZero() && !since.Before(until):
		return invalid("until", "must be later than since")
	}
	return nil
}

// checkResource returns an error for an impossible resource: TYPE/ID or, if alone
// is true, an ID. Otherwise it returns the form that the log uses.
func (s *Service) checkResource(resource string, alone bool) (string, error) {
	if resource == "" {
		return "", nil
	}
	typ, id, found := strings.Cut(resource, "/")
	if !found && alone {
		typ, id = "", resource
	}
	if found || !alone {
		if err := s.types().CheckResource(resource); err != nil {
			return "", invalid("resource", "%v", err)
		}
	}
	if s.options.ParseID != nil {
		var err error
		if id, err = s.options.ParseID(id); err != nil {
			return "", invalid("resource", "%v", err)
		}
	}
	if typ == "" {
		return id, nil
	}
	return typ + "/" + id, nil
}

// check returns an error for a filter that can match nothing.
func (s *Service) check(ctx context.Context, f *Filter) error {
	if err := checkRange(f.Since, f.Until); err != nil {
		return err
	}
	var err error
	if f.Resource, err = s.checkResource(f.Resource, true); err != nil {
		return err
	}
	return s.checkEndpoint(ctx, f.Endpoint)
}

// checkEndpoint returns an error for the name of an endpoint that is neither
// configured nor has a cursor. An empty name is valid.
func (s *Service) checkEndpoint(ctx context.Context, name string) error {
	if name == "" {
		return nil
	}
	if _, err := s.configured(name); err == nil {
		return nil
	}
	cursors, err := s.log().Cursors(ctx)
	if err != nil {
		return err
	}
	for _, c := range cursors {
		if c.Endpoint == name {
			return nil
		}
	}
	return invalid("endpoint", "%v", s.noEndpoint(name))
}

// checkReplay returns an error for a replay of something that does not exist, or
// with conflicting options, one of which would be ignored.
func (s *Service) checkReplay(in *NewReplay) (err error) {
	for _, text := range in.Events {
		if _, err := s.types().Parse(text); err != nil {
			return invalid("events", "%v", err)
		}
	}
	if in.Events != nil && len(in.Events) == 0 {
		return invalid("events", "lists no pattern; leave it out for every event")
	}
	some := in.Events != nil || in.Resource != "" || in.Since != nil || in.Until != nil
	switch {
	case in.Event != "" && (in.Dead || in.Missed || some):
		return invalid("event", "names one event; leave out dead, missed, events, resource, since and until")
	case in.Dead && in.Missed:
		return invalid("missed", "does not go with dead: dead letters were never delivered")
	case in.All && (in.Event != "" || in.Dead || in.Missed || some):
		return invalid("all", "selects the whole log; leave out either all or the other selectors")
	case !in.All && in.Event == "" && !in.Dead && !in.Missed && !some:
		return invalid("since", "say what to send: since, until, events, resource, dead, missed or event; all means "+
			"every event of the log")
	}
	if in.Resource, err = s.checkResource(in.Resource, false); err != nil {
		return err
	}
	var since, until time.Time
	if in.Since != nil {
		since = *in.Since
	}
	if in.Until != nil {
		until = *in.Until
		if until.IsZero() {
			return invalid("until", "is before the first event")
		}
	}
	return checkRange(since, until)
}

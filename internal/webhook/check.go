package webhook

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/tidings-dev/tidings"
)

func invalid(field, format string, args ...any) error {
	return &Error{Field: field, Message: fmt.Sprintf(format, args...)}
}

// clockSkew is how far a caller's clock may be ahead.
const clockSkew = time.Minute

// checkRange refuses a range of time that can hold no event.
func checkRange(since, until time.Time) error {
	switch {
	case since.After(time.Now().Add(clockSkew)):
		return invalid("since", "lies in the future")
	case !until.IsZero() && !since.IsZero() && !since.Before(until):
		return invalid("until", "must be later than since")
	}
	return nil
}

// checkResource refuses a resource that can't exist: TYPE/ID or, where alone is
// true, an ID.
func checkResource(resource string, alone bool) error {
	if resource == "" {
		return nil
	}
	typ, id, found := strings.Cut(resource, "/")
	if !found && alone {
		typ, id = "", resource
	} else if !found {
		return invalid("resource", "expected TYPE/ID, such as provider/<id>")
	}
	if known := tidings.ServerTypes(); typ != "" && !slices.Contains(known, tidings.ResourceType(typ)) || typ == "" && found {
		names := make([]string, len(known))
		for i, t := range known {
			names[i] = string(t)
		}
		return invalid("resource", "there is no such type of resource; did you mean %q?", tidings.Nearest(typ, names))
	}
	if _, err := uuid.Parse(id); err != nil || len(id) != 36 {
		return invalid("resource", "the id is not a UUID")
	}
	return nil
}

// check refuses a filter that can match nothing.
func (s *Service) check(ctx context.Context, f *Filter) error {
	if err := checkRange(f.Since, f.Until); err != nil {
		return err
	}
	if err := checkResource(f.Resource, true); err != nil {
		return err
	}
	f.Resource = strings.ToLower(f.Resource)
	return s.checkEndpoint(ctx, f.Endpoint)
}

// checkEndpoint refuses the name of an endpoint that is neither configured nor has
// a cursor; an empty one is none.
func (s *Service) checkEndpoint(ctx context.Context, name string) error {
	if name == "" {
		return nil
	}
	if _, err := s.configured(name); err == nil {
		return nil
	}
	cursors, err := s.log.Cursors(ctx)
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

// check refuses a replay that asks for what is not there, or for two things at
// once, of which one would be ignored.
func (in *NewReplay) check() error {
	for _, text := range in.Events {
		if _, err := tidings.ParsePattern(text, tidings.ServerTypes()); err != nil {
			return invalid("events", "%v", err)
		}
	}
	if in.Events != nil && len(in.Events) == 0 {
		return invalid("events", "lists no pattern; leave it out for every event")
	}
	if in.Event != "" && (in.Dead || in.Events != nil || in.Resource != "" || in.Since != nil || in.Until != nil) {
		return invalid("event", "names one event; leave out dead, events, resource, since and until")
	}
	if err := checkResource(in.Resource, false); err != nil {
		return err
	}
	in.Resource = strings.ToLower(in.Resource)
	var since, until time.Time
	if in.Since != nil {
		since = *in.Since
	}
	if in.Until != nil {
		until = *in.Until
		if until.IsZero() {
			return invalid("until", "lies before every event")
		}
	}
	return checkRange(since, until)
}

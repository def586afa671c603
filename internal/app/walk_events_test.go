package app_test

import (
	"fmt"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

// numbered matches an ETag that contains a version.
var numbered = regexp.MustCompile(`^"(\d+)"$`)

// account compares the events since the previous request with the answer.
func (w *walk) account(s sent, a answer) {
	w.Helper()
	if s.method != http.MethodGet {
		events := w.events()
		w.learn(s, events)
		for _, e := range events {
			if a.status >= 400 {
				w.complain(s, a, "an event without a change: %v", e)
			}
			by := any(w.users[s.as])
			switch {
			case e["event"] == "provider_build.updated":
				by = a.body["created_by"] // programs report on builds
			case published(e):
				by = nil
			}
			if e["user_id"] != by {
				w.complain(s, a, "an event of somebody else: %v", e)
			}
		}
	}
	id, _ := a.body["id"].(string)
	if version := numbered.FindStringSubmatch(a.header.Get("ETag")); version != nil && a.status < 300 && id != "" {
		if known := strconv.FormatInt(w.versions[id], 10); known != version[1] {
			w.complain(s, a, "version %s; the events say %s", version[1], known)
		}
	}
	if s.method == http.MethodGet || a.status >= 300 {
		return
	}
	w.verify(s, a)
	collection, _, _ := strings.Cut(s.path[1:], "/")
	switch {
	case s.method == http.MethodDelete &&
		slices.Contains([]string{"users", "providers", "model_providers"}, collection):
		for _, pool := range w.pools {
			clear(pool.ids)
		}
	case s.method == http.MethodDelete, w.Float64() < 0.1: // a different state
		clear(s.draw.ids)
	}
}

// verify reads the written resource: its version must be that of its last event.
func (w *walk) verify(s sent, a answer) {
	w.Helper()
	segments := strings.Split(strings.TrimPrefix(s.target, "/api/v1/"), "/")
	read := "/" + segments[0] + "/"
	switch collection, _, _ := strings.Cut(s.path[1:], "/"); {
	case collection == "configurations":
		read += "system"
	case collection == "variables":
		read = "/users/me"
	case pathKinds[collection] == "":
		return
	case strings.Contains(s.path, "{id}"):
		id, _, _ := strings.Cut(segments[1], "?")
		read += id
	case a.status == http.StatusCreated:
		read = "/" + collection + "/" + a.id()
	default: // nothing was stored
		return
	}
	id, err := url.PathUnescape(path.Base(read))
	if parsed, err := uuid.Parse(id); err == nil {
		id = parsed.String()
	}
	w.agree(s, a, s.as, read, id)
	if err != nil || s.method != http.MethodDelete {
		return
	}
	for collection, kind := range pathKinds { // resources that may have been deleted with it
		if id, as := s.draw.ids[kind], s.draw.who; id != "" && kind != "replay" && kind != "parked_change" && kind != "user" {
			if kind == "provider_build" {
				as = auditor
			}
			w.agree(s, a, as, "/"+collection+"/"+id, id)
		}
	}
}

// agree reads a resource: it must be at the version of its last event, or deleted.
func (w *walk) agree(s sent, a answer, as, read, id string) {
	w.Helper()
	got := w.try(as, "GET", read, nil)
	if got.status == http.StatusOK {
		id = got.id()
	}
	switch known := w.versions[id]; {
	case got.status == http.StatusOK && got.header.Get("ETag") == fmt.Sprintf(`"%d"`, known):
	case got.status == http.StatusNotFound && known == -1:
	default:
		w.complain(s, a, "%s is %d %s; the events say version %d", read, got.status, got.header.Get("ETag"), known)
	}
}

// learn records events, and checks that the versions of a resource are consecutive.
func (w *walk) learn(s sent, events []object) {
	w.Helper()
	for _, e := range events {
		id, version := e["resource_id"].(string), int64(e["resource_version"].(float64))
		known := w.versions[id]
		switch _, action, _ := strings.Cut(e["event"].(string), "."); {
		case published(e) && version > known: // a published event's version is a time
			w.versions[id] = version
		case action == "created" && known == 0 && version == 1, action == "updated" && known > 0 && version == known+1:
			w.versions[id] = version
		case action == "deleted" && known > 0:
			w.versions[id] = -1
		default:
			w.complain(s, answer{}, "the event does not follow version %d: %v", known, e)
			w.versions[id] = version
		}
	}
}

// published reports whether an event was published through the API.
func published(e object) bool { return strings.HasPrefix(e["event"].(string), "published.") }

// events returns the events since its last call.
func (w *walk) events() (list []object) {
	w.Helper()
	query := url.Values{"limit": {"200"}}
	if w.newest != "" {
		query.Set("since", w.newest)
	}
	for _, item := range items(w.call(auditor, "GET", "/webhooks/events?"+query.Encode(), nil)) {
		if int64(item["sequence"].(float64)) > w.sequence {
			list = append(list, item)
		}
	}
	slices.Reverse(list)
	if len(list) > 0 {
		last := list[len(list)-1]
		w.sequence, w.newest = int64(last["sequence"].(float64)), last["timestamp"].(string)
	}
	return list
}

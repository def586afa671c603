package app_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tidings-dev/tidings/internal/testdb"
)

// random returns an id of a kind that does not exist.
func random(kind string) string {
	switch kind {
	case "location":
		return "https%3A%2F%2Fnowhere.example%2F" + uuid.NewString()
	case "event":
		return "999999999"
	}
	return uuid.NewString()
}

// mayReach reports whether a caller may know about other users' resources of a kind.
func mayReach(as, kind string) bool {
	switch kind {
	case "provider", "location", "model_provider":
		return true
	case "provider_build":
		return roles[as] != "user"
	case "user", "user_feedback", "endpoint", "event", "replay", "parked_change":
		return roles[as] == "admin"
	}
	return false
}

// strange are callers who own none of ann's and the developer's resources.
var strange = []string{"bob", "leaver", "admin"}

// TestStrangersLearnNothing compares, for every operation and each of its ids, the answers
// that a stranger gets for a resource and for a random id.
func TestStrangersLearnNothing(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		w := newWorld(t, settings)
		victim := &owned{world: w, who: "ann", developer: "developer", ids: map[string]string{}}
		for _, as := range strange {
			self := &owned{world: w, who: as, developer: "admin", ids: map[string]string{}}
			if roles[as] == "developer" {
				self.developer = as
			}
			for _, c := range w.calls() {
				for _, s := range c.slots {
					for _, header := range preconditions(c) {
						w.compare(as, c, s, victim, self, header)
					}
				}
			}
		}
	})
}

// preconditions are headers that make the answer depend on a resource's state.
func preconditions(c call) [][]string {
	if c.method == http.MethodGet {
		return [][]string{nil, {"If-None-Match", `"1"`}, {"Range", "bytes=0-0"}}
	}
	return [][]string{nil, {"If-Match", `"1"`}, {"If-Match", `"99"`}}
}

// compare makes a request with a victim's id in one slot, and one with a random id. The
// other slots hold ids with which the request would succeed.
func (w *world) compare(as string, c call, s slot, victim, self *owned, header []string) {
	w.Helper()
	ids := make(map[slot]string)
	for _, other := range c.slots {
		switch {
		case other == s:
			ids[other] = victim.id(s.kind)
		case other.in == "query" && other.name != "from_id":
			ids[other] = "" // omitted, so that it does not determine the answer
		case s.in == "path": // a part of the victim's resource
			ids[other] = victim.id(other.kind)
		default:
			ids[other] = self.id(other.kind)
		}
	}
	theirs := w.ask(as, c, ids, header...)
	ids[s] = random(s.kind)
	nobodys := w.ask(as, c, ids, header...)
	about := fmt.Sprintf("%s as %s, %s in %s, %q", c.id, as, s.name, s.in, header)
	if theirs.status < 400 {
		if !mayReach(as, s.kind) {
			w.Errorf("%s: a stranger gets through: %d %s", about, theirs.status, theirs.text)
		}
		if c.method != http.MethodGet {
			clear(victim.ids)
			clear(self.ids)
		}
		return
	}
	if roles[as] == "admin" && mayReach(as, s.kind) {
		return // admins may see the resource, and learn what is wrong with the request
	}
	theirs.header.Del("Date")
	nobodys.header.Del("Date")
	if theirs.status != nobodys.status || theirs.text != nobodys.text ||
		fmt.Sprint(theirs.header) != fmt.Sprint(nobodys.header) {
		w.Errorf("%s:\ntheirs   %d %v %s\nnobody's %d %v %s", about,
			theirs.status, theirs.header, theirs.text, nobodys.status, nobodys.header, nobodys.text)
	}
	if theirs.status < 400 || theirs.status >= 500 {
		w.Errorf("%s: %d %s", about, theirs.status, theirs.text)
	}
}

// A stranger's request for a resource that its owner is changing is answered as fast as one
// for a missing resource. Otherwise its duration would reveal the resource, and it would
// lock the owner's row.
func TestStrangersDoNotWaitForLocks(t *testing.T) {
	t.Parallel()
	url := testdb.Postgres(t)
	settings := map[string]any{"database_url": url}
	w := newWorld(t, settings)
	victim := &owned{world: w, who: "ann", developer: "developer", ids: map[string]string{}}
	self := &owned{world: w, who: "bob", developer: "leaver", ids: map[string]string{}}
	private := func(s slot) bool { return !mayReach("bob", s.kind) && pathKinds[s.kind+"s"] != "" }
	w.user("bob")
	for _, c := range w.calls() {
		for _, s := range c.slots {
			victim.id(s.kind)
			self.id(s.kind)
		}
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range []string{"connectors", "contexts", "files", "vector_stores", "user_feedback"} {
		if _, err := tx.Exec(t.Context(), "SELECT * FROM tidings."+table+" WHERE created_by = $1 FOR UPDATE",
			w.user("ann")); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range w.calls() {
		for _, s := range c.slots {
			if private(s) {
				w.compare("bob", c, s, victim, self, nil)
			}
		}
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Error(err)
	}
}

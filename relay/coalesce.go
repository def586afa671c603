package relay

import "github.com/tidings-dev/tidings"

// merge returns which of two waiting events of one resource tells of both, the
// earlier or the later; false if each has to be sent. The rules are a table of
// the two actions, so that what comes of a row of events does not depend on when
// they were merged.
func merge(c tidings.Coalesce, earlier, later tidings.Action) (keepLater, merged bool) {
	if c == "" || c == tidings.CoalesceOff {
		return false, false
	}
	type pair struct{ earlier, later tidings.Action }
	switch (pair{earlier, later}) {
	case pair{tidings.Updated, tidings.Updated}:
		return true, true
	case pair{tidings.Created, tidings.Updated}:
		return false, c == tidings.CoalesceLatest
	case pair{tidings.Updated, tidings.Deleted}, pair{tidings.Created, tidings.Deleted}:
		return true, c == tidings.CoalesceLatest
	}
	return false, false
}

package relay

import "github.com/tidings-dev/tidings"

// merge reports whether two waiting events of one resource can be merged, and which
// of them is kept. The rules depend only on the two actions, so that the result for
// a series of events does not depend on when they are merged.
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

package operator

import (
	"fmt"
	"net/http"
	"time"
)

const (
	// tickTime is the longest time between refreshes of the live parts of a page, and tickPause
	// the shortest: a list that is all new each time draws 10 rows a second.
	tickTime  = 5 * time.Second
	tickPause = listed / 10 * time.Second
)

// live is the event stream behind the live parts of pages: a tick means that something is
// new, or that some time has passed.
func (u *ui) live(w http.ResponseWriter, r *http.Request) {
	user, err := u.options.Admit(w, r)
	if err == nil && user.Role < Viewer {
		err = errForbidden
	}
	if err != nil {
		u.api.Fail(r.Context(), w, err)
		return
	}
	leave, err := u.api.Limits.Streams.Enter(r.Context(), user.ID, 1)
	if err != nil {
		u.api.Fail(r.Context(), w, err)
		return
	}
	defer leave()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	out := http.NewResponseController(w)
	line := ": console\n\n"
	wait := func(more <-chan struct{}, most time.Duration) bool {
		timer := time.NewTimer(most)
		defer timer.Stop()
		select {
		case <-more:
		case <-timer.C:
		case <-u.api.Stopping:
			return false
		case <-r.Context().Done():
			return false
		}
		return true
	}
	for checked := time.Now(); ; {
		if _, err := w.Write([]byte(line)); err != nil || out.Flush() != nil {
			return
		}
		if !wait(nil, tickPause) {
			return
		}
		head, more := int64(0), (<-chan struct{})(nil)
		if relay := u.relay(); relay != nil {
			head = relay.Head()
			more = relay.More(head)
		}
		if !wait(more, tickTime-tickPause) {
			return
		}
		if time.Since(checked) > u.api.KeepAlive { // the session may have ended
			if _, err := u.options.Admit(w, r); err != nil {
				return
			}
			checked = time.Now()
		}
		line = fmt.Sprintf("event: tick\ndata: %d\n\n", head)
	}
}

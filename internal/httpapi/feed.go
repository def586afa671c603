package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/internal/resource"
	"github.com/tidings-dev/tidings/internal/webhook"
)

// Feed reads the log, from memory where it is new.
type Feed interface {
	Read(ctx context.Context, after int64, limit int) ([]tidings.Event, error)
	Head() int64
	More(after int64) <-chan struct{}
	// Epoch is that in which the log is read.
	Epoch() string
	// Refresh reads what was added to the log.
	Refresh(ctx context.Context) error
}

// FeedLog is what the feed needs of the log besides.
type FeedLog interface {
	Oldest(ctx context.Context) (int64, error)
	Epochs(ctx context.Context) (eventlog.Epochs, error)
}

// feedCursor is where a reader of the feed stands: a position, and the epoch in which
// the reader came there. Without an epoch it is the tidings-sequence of a webhook, or
// comes from an earlier version.
type feedCursor struct {
	position int64
	epoch    string
}

// String is the form in which it is handed out.
func (c feedCursor) String() string {
	if c.epoch == "" {
		return strconv.FormatInt(c.position, 10)
	}
	return strconv.FormatInt(c.position, 10) + "-" + c.epoch
}

func parseFeedCursor(text string) (c feedCursor, err error) {
	position, epoch, _ := strings.Cut(text, "-")
	if c.position, err = strconv.ParseInt(position, 10, 64); err != nil || c.position < 0 ||
		strings.HasPrefix(position, "+") {
		return c, &resource.Error{
			Code: resource.Invalid, Field: "after",
			Message: "expected the next of an answer, or a position: a whole number",
		}
	}
	c.epoch = epoch
	return c, nil
}

const (
	feedBatch = 500
	// feedScan bounds how many events one request looks at: of those that its
	// caller may not read, there may be very many.
	feedScan = 20_000
	feedWait = 60 * time.Second

	keepAliveTime = 15 * time.Second
)

// readEvents is the operation that may wait for events.
const readEvents = "readEvents"

// feedQuery says what is wanted of the feed.
type feedQuery struct {
	Authorization string `header:"Authorization" hidden:"true"`

	After string `query:"after" doc:"The next of the answer before, or the tidings-sequence of a webhook. Left out: the oldest event there is."`
	Types string `query:"types" doc:"Patterns, separated by commas, such as provider.*,*.deleted."`
	Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"Not for event streams."`
	Wait  string `query:"wait" doc:"How long to wait for an event if there is none, such as 30s; at most 60s. Not for event streams."`
}

// FeedPage is a part of the feed.
type FeedPage struct {
	Items []webhook.Event `json:"items" nullable:"false"`
	Next  string          `json:"next" doc:"The after of the next request; its form may change."`
	Head  int64           `json:"head" doc:"The position of the newest event."`
}

// ExpiredProblem says where to go on after events have expired, or were lost by the
// database.
type ExpiredProblem struct {
	huma.ErrorModel
	After string `json:"after" doc:"The after with which to start again: before the oldest event there is, or where the database lost some."`
}

func (a *api) feedRoutes() {
	op := operation(http.MethodGet, "/events", readEvents,
		"Read the changes you may know of, in order; with Accept: text/event-stream, as they happen")
	expired := a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[ExpiredProblem](), true, "")
	op.Responses = map[string]*huma.Response{
		"200": {Description: "OK", Content: map[string]*huma.MediaType{
			"application/json":  {},
			"text/event-stream": {Schema: &huma.Schema{Type: huma.TypeString}},
		}},
		"410": {
			Description: "Gone",
			Content:     map[string]*huma.MediaType{"application/problem+json": {Schema: expired}},
		},
	}
	register(a, op, func(ctx context.Context, who resource.Caller, in *feedQuery) (*plain[*FeedPage], error) {
		r, err := a.newFeedReader(ctx, who, in.Authorization, in.After, in.Types)
		if err != nil {
			return nil, err
		}
		var wait time.Duration
		if in.Wait != "" {
			if wait, err = time.ParseDuration(in.Wait); err != nil || wait < 0 {
				return nil,
					&resource.Error{Code: resource.Invalid, Field: "wait", Message: `expected a duration such as "30s"`}
			}
			if wait > feedWait {
				return nil, &resource.Error{Code: resource.Invalid, Field: "wait", Message: "must be at most 60s"}
			}
		}
		return answerPlain(r.page(ctx, in.Limit, wait))
	})
}

// feedReader reads the feed for a caller, whom it checks again and again: it may
// last longer than their permissions.
type feedReader struct {
	api           *api
	authorization string
	who           resource.Caller
	checked       time.Time       // when the caller was
	changed       <-chan struct{} // closed when they must be again
	patterns      []tidings.Pattern
	after         int64
	epoch         string // in which it came there
}

func (a *api) newFeedReader(
	ctx context.Context, who resource.Caller, authorization, after, types string,
) (*feedReader, error) {
	r := &feedReader{
		api: a, authorization: authorization, who: who, checked: time.Now(),
		changed: a.Authenticator.Changed(),
	}
	var err error
	if r.patterns, err = parsePatterns("types", types); err != nil {
		return nil, err
	}
	if r.epoch = a.Feed.Epoch(); after != "" {
		return r, r.begin(ctx, after)
	}
	oldest, err := a.Log.Oldest(ctx)
	r.after = oldest - 1
	return r, err
}

// begin sets the reader to where it was before.
func (r *feedReader) begin(ctx context.Context, text string) error {
	c, err := parseFeedCursor(text)
	if err != nil {
		return err
	}
	feed := r.api.Feed
	// It may come from a replica that is a moment ahead.
	if c.epoch != "" && c.epoch != feed.Epoch() || c.position > feed.Head() {
		if err := feed.Refresh(ctx); err != nil {
			return err
		}
	}
	r.after, r.epoch = c.position, feed.Epoch()
	if c.epoch != "" && c.epoch != r.epoch {
		r.epoch = c.epoch
		if err := r.enter(ctx); err != nil {
			return err
		}
	}
	oldest, err := r.api.Log.Oldest(ctx)
	if err != nil {
		return err
	}
	if r.after < oldest-1 {
		return r.expired(oldest)
	}
	if head := feed.Head(); r.after > head {
		return r.lost(fmt.Sprintf("the log ends at %d", head), head)
	}
	return nil
}

// enter goes on in the current epoch, unless the database lost something of what the
// reader has read.
func (r *feedReader) enter(ctx context.Context) error {
	epochs, err := r.api.Log.Epochs(ctx)
	if err != nil {
		return err
	}
	kept, known := epochs.KeptOf(r.epoch)
	if known && r.after <= kept {
		r.epoch = r.api.Feed.Epoch()
		return nil
	}
	oldest, err := r.api.Log.Oldest(ctx)
	if err != nil {
		return err
	}
	return r.lost("the database was restored, or failed over to a server that did not have all events yet",
		max(kept, oldest-1))
}

func (r *feedReader) expired(oldest int64) error {
	return r.gone(fmt.Sprintf("events after %d have expired; the oldest is %d: look at all resources again",
		r.after, oldest), oldest-1)
}

// lost says that the log is not the one any more in which the reader came to where it is.
func (r *feedReader) lost(why string, after int64) error {
	return r.gone(fmt.Sprintf("position %d is not in the log any more: %s; look at all resources again that changed "+
		"after position %d",
		r.after, why, after), after)
}

func (r *feedReader) gone(detail string, after int64) error {
	start := feedCursor{after, r.api.Feed.Epoch()}.String()
	return &ExpiredProblem{
		ErrorModel: *newProblem(http.StatusGone, detail+", then start with after="+start),
		After:      start,
	}
}

// maxPatterns bounds what every event that is read is compared with.
const maxPatterns = 100

func parsePatterns(field, text string) (patterns []tidings.Pattern, err error) {
	if n := strings.Count(text, ","); n >= maxPatterns {
		return nil, &resource.Error{
			Code: resource.Invalid, Field: field, Message: fmt.Sprintf("expected at most %d patterns", maxPatterns),
		}
	}
	if text == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part == "" {
			return nil, &resource.Error{
				Code: resource.Invalid, Field: field,
				Message: "lists an empty pattern; leave out commas without a pattern",
			}
		}
		p, err := resource.Types().Parse(part)
		if err != nil {
			return nil, &resource.Error{Code: resource.Invalid, Field: field, Message: err.Error()}
		}
		patterns = append(patterns, p)
	}
	return patterns, nil
}

func (r *feedReader) wants(e tidings.Event) bool {
	if !r.api.Resources.MayRead(r.who, e) {
		return false
	}
	for _, p := range r.patterns {
		if p.Match(e.Type, e.Action) {
			return true
		}
	}
	return len(r.patterns) == 0
}

// due reports whether the caller must be checked again.
func (r *feedReader) due() bool {
	select {
	case <-r.changed:
		return true
	default:
		return time.Since(r.checked) >= r.api.KeepAlive
	}
}

// check finds out what the caller may read now.
func (r *feedReader) check(ctx context.Context) (err error) {
	r.checked, r.changed = time.Now(), r.api.Authenticator.Changed()
	r.who, err = r.api.Authenticator.Recheck(ctx, r.authorization, r.who)
	return err
}

// ofCaller reports whether an event tells of a change of the caller's own user.
func (r *feedReader) ofCaller(e tidings.Event) bool {
	return e.Type == resource.UserType && e.ResourceID == r.who.UserID
}

// read returns at most limit events that are wanted, and moves on.
func (r *feedReader) read(ctx context.Context, limit int) ([]webhook.Event, error) {
	if r.due() {
		if err := r.check(ctx); err != nil {
			return nil, err
		}
	}
	found := []webhook.Event{}
	for looked := 0; looked < feedScan; looked += feedBatch {
		if looked == feedBatch {
			leave, err := r.api.Limits.Scans.Enter(ctx, r.who.UserID, 1)
			if err != nil {
				return found, ctx.Err() // the rest is for the next request
			}
			defer leave()
		}
		events, err := r.api.Feed.Read(ctx, r.after, feedBatch)
		if err != nil {
			return nil, err
		}
		if r.api.Feed.Epoch() != r.epoch { // these may follow others than those that were read
			if err := r.enter(ctx); err != nil {
				return nil, err
			}
			continue
		}
		if len(events) == 0 {
			return found, nil
		}
		if events[0].Sequence > r.after+1 { // some expired meanwhile
			return nil, r.expired(events[0].Sequence)
		}
		if slices.ContainsFunc(events, r.ofCaller) { // before they see any of these
			if err := r.check(ctx); err != nil {
				return nil, err
			}
		}
		for _, e := range events {
			if len(found) == limit {
				return found, nil
			}
			r.after = e.Sequence
			if r.wants(e) {
				found = append(found, webhook.NewEvent(e))
			}
		}
		if len(found) == limit {
			return found, nil
		}
	}
	return found, nil
}

// cursor is what the reader may come back with.
func (r *feedReader) cursor() string { return feedCursor{r.after, r.epoch}.String() }

// page waits for events if there are none.
func (r *feedReader) page(ctx context.Context, limit int, wait time.Duration) (*FeedPage, error) {
	deadline := time.After(wait)
	alive := time.NewTicker(r.api.KeepAlive)
	defer alive.Stop()
	for {
		before := r.after
		items, err := r.read(ctx, limit)
		if err != nil {
			return nil, err
		}
		page := &FeedPage{Items: items, Next: r.cursor(), Head: max(r.api.Feed.Head(), r.after)}
		if len(items) > 0 || wait == 0 {
			return page, nil
		}
		if r.after-before >= feedScan { // more is there already
			continue
		}
		select {
		case <-r.api.Feed.More(r.after):
		case <-r.changed:
		case <-alive.C:
		case <-deadline:
			return page, nil
		case <-r.api.Stopping:
			return page, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// streams serves the feed as server-sent events to those who accept them.
func (a *api) streams(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.Path != root+"/events" ||
			!strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
			next.ServeHTTP(w, r)
			return
		}
		r.Pattern = "GET " + root + "/events"
		if err := a.stream(w, r); err != nil {
			a.fail(r.Context(), w, err)
		}
	})
}

// stream sends events until the caller goes, may no longer see them, or the
// server stops. It returns an error only before it has begun.
func (a *api) stream(w http.ResponseWriter, r *http.Request) error {
	ctx, authorization := r.Context(), r.Header.Get("Authorization")
	who, err := a.admit(w, r)
	if err != nil {
		return err
	}
	if err := checkQuery(r.URL.RawQuery, a.huma.OpenAPI().Paths[root+"/events"].Get); err != nil {
		return err
	}
	query := r.URL.Query()
	for _, name := range []string{"limit", "wait"} {
		if query.Has(name) {
			return &resource.Error{
				Code: resource.Invalid, Field: "query." + name,
				Message: "is for pages; an event stream has no end: leave it out",
			}
		}
	}
	if r.Header.Get(ifMatch) != "" {
		return &resource.Error{
			Code: resource.Invalid, Field: "header." + ifMatch,
			Message: "this operation does not compare versions; leave it out",
		}
	}
	leave, err := a.Limits.Streams.Enter(ctx, who.UserID, 1)
	if err != nil {
		return err
	}
	defer leave()
	after := query.Get("after")
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		after = last
	}
	feed, err := a.newFeedReader(ctx, who, authorization, after, query.Get("types"))
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	out := http.NewResponseController(w)
	alive := time.NewTicker(a.KeepAlive)
	defer alive.Stop()
	for line := ": events of Tidings\n\n"; ; {
		if _, err := w.Write([]byte(line)); err != nil || out.Flush() != nil {
			return nil //nolint:nilerr // the connection is gone
		}
		events, err := feed.read(ctx, feedBatch)
		if err != nil {
			a.endStream(ctx, w, out, err)
			return nil
		}
		if line = eventLines(events, feed.epoch); line != "" {
			continue
		}
		select {
		case <-feed.api.Feed.More(feed.after):
		case <-feed.changed:
		case <-alive.C:
			line = ": " + feed.cursor() + "\n\n"
		case <-a.Stopping:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// endStream tells the reader why it is over.
func (a *api) endStream(ctx context.Context, w http.ResponseWriter, out *http.ResponseController, err error) {
	var problem any = a.problem(ctx, err)
	if gone, ok := errors.AsType[*ExpiredProblem](err); ok {
		problem = gone
	}
	text, _ := json.Marshal(problem)                            // numbers and texts
	_, _ = fmt.Fprintf(w, "event: problem\ndata: %s\n\n", text) // it may be gone
	_ = out.Flush()
}

func eventLines(events []webhook.Event, epoch string) string {
	var b strings.Builder
	for _, e := range events {
		text, _ := json.Marshal(e) // numbers and texts
		fmt.Fprintf(&b, "id: %s\nevent: %s\ndata: %s\n\n", feedCursor{e.Sequence, epoch}, e.Event, text)
	}
	return b.String()
}

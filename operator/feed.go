package operator

import (
	"context"
	"encoding/json"
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
	"github.com/tidings-dev/tidings/internal/rest"
	"github.com/tidings-dev/tidings/relay"
	"github.com/tidings-dev/tidings/vocabulary"
)

// source is the log that the feed reads, with recent events in memory.
type source interface {
	Read(ctx context.Context, after int64, limit int) ([]tidings.Event, error)
	Head() int64
	More(after int64) <-chan struct{}
	// Epoch returns the epoch of the log.
	Epoch() string
	// Refresh reads new events from the log.
	Refresh(ctx context.Context) error
	Oldest(ctx context.Context) (int64, error)
	Epochs(ctx context.Context) (eventlog.Epochs, error)
}

// live adapts the log of an outbox to [source].
type live struct {
	*relay.Relay
	log eventlog.Home
}

// Oldest implements [source].
func (l live) Oldest(ctx context.Context) (int64, error) { return l.log.Oldest(ctx) }

// Epochs implements [source].
func (l live) Epochs(ctx context.Context) (eventlog.Epochs, error) { return l.log.Epochs(ctx) }

// feed is the operation that reads events.
type feed struct {
	*rest.API
	source func() source
	types  func() vocabulary.Types
	op     *huma.Operation
}

// feedCursor is a position in the feed and the epoch in which the reader reached
// it. Without an epoch it is the tidings-sequence of a webhook, or comes from an
// earlier version.
type feedCursor struct {
	position int64
	epoch    string
}

// String returns the form in which clients see it.
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
		return c, rest.Invalid("after", "expected the value of next from a response, or a position: a whole number")
	}
	c.epoch = epoch
	return c, nil
}

const (
	feedBatch = 500
	// feedScan bounds the events examined for one request: there may be very many
	// that its caller may not read.
	feedScan = 20_000
	feedWait = 60 * time.Second
	// feedTime bounds how long a request looks for its first event among those that its
	// caller may not read or does not want. It is shorter than receivers wait for answers.
	feedTime = 20 * time.Second
)

// feedQuery is the query of a request for the feed.
type feedQuery struct {
	After string `query:"after" doc:"The value of next from the previous response, or the tidings-sequence of a webhook; if omitted, the oldest event is the first."`
	Types string `query:"types" doc:"Patterns, separated by commas, such as provider.*,*.deleted."`
	Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"Not for event streams."`
	Wait  string `query:"wait" doc:"How long to wait for an event if there is none, such as 30s; at most 60s. Not for event streams."`
}

// feedPage is a page of the feed.
type feedPage struct {
	Items []Event `json:"items" nullable:"false"`
	Next  string  `json:"next" doc:"The value of after for the next request; its form may change."`
	Head  int64   `json:"head" doc:"The position of the newest event."`
	More  bool    `json:"more" doc:"Whether there are events after next, even if no items were found so far."`
}

// register adds the operation.
func (f *feed) register() {
	op := rest.Operation(http.MethodGet, "/events", "readEvents",
		"Read the changes that you may see, in order; with Accept: text/event-stream, as they happen")
	expired := f.Huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[rest.ExpiredProblem](), true, "")
	op.Metadata = map[string]any{rest.Waits: "wait"}
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
	rest.Register(f.API, op, func(ctx context.Context, in *feedQuery) (*rest.Plain[*feedPage], error) {
		r, err := f.reader(ctx, rest.SessionOf(ctx), in.After, in.Types)
		if err != nil {
			return nil, err
		}
		var wait time.Duration
		if in.Wait != "" {
			if wait, err = time.ParseDuration(in.Wait); err != nil || wait < 0 {
				return nil, rest.Invalid("wait", `expected a duration such as "30s"`)
			}
			if wait > feedWait {
				return nil, rest.Invalid("wait", "must be at most 60s")
			}
		}
		return rest.Answer(r.page(ctx, in.Limit, wait))
	})
	f.op = f.Huma.OpenAPI().Paths[f.Root+"/events"].Get
}

// feedReader reads the feed for a caller, whose permissions it rechecks because
// they may end before it does.
type feedReader struct {
	feed     *feed
	source   source
	who      rest.Session
	checked  time.Time       // when the permissions were last checked
	changed  <-chan struct{} // closed when they must be checked again
	patterns []tidings.Pattern
	after    int64
	epoch    string // epoch in which it reached after
}

func (f *feed) reader(ctx context.Context, who rest.Session, after, types string) (*feedReader, error) {
	if err := who.MayFollow(); err != nil {
		return nil, err
	}
	r := &feedReader{feed: f, source: f.source(), who: who, checked: time.Now(), changed: who.Changed()}
	var err error
	if r.patterns, err = parsePatterns(f.types(), "types", types); err != nil {
		return nil, err
	}
	if r.epoch = r.source.Epoch(); after != "" {
		return r, r.begin(ctx, after)
	}
	oldest, err := r.source.Oldest(ctx)
	r.after = oldest - 1
	return r, err
}

// begin sets the reader to its previous position.
func (r *feedReader) begin(ctx context.Context, text string) error {
	c, err := parseFeedCursor(text)
	if err != nil {
		return err
	}
	feed := r.source
	// The position may come from a replica that is slightly ahead.
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
	oldest, err := r.source.Oldest(ctx)
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

// enter switches to the current epoch, unless the database lost something that the
// reader has read.
func (r *feedReader) enter(ctx context.Context) error {
	epochs, err := r.source.Epochs(ctx)
	if err != nil {
		return err
	}
	kept, known := epochs.KeptOf(r.epoch)
	if known && r.after <= kept {
		r.epoch = r.source.Epoch()
		return nil
	}
	oldest, err := r.source.Oldest(ctx)
	if err != nil {
		return err
	}
	return r.lost("the database was restored, or failed over to a server that did not have all events yet",
		max(kept, oldest-1))
}

func (r *feedReader) expired(oldest int64) error {
	return r.gone(fmt.Sprintf("events after %d have expired; the oldest is %d: read all resources again",
		r.after, oldest), oldest-1)
}

// lost returns the error for a reader whose part of the log was lost.
func (r *feedReader) lost(why string, after int64) error {
	return r.gone(fmt.Sprintf("position %d is no longer in the log: %s; read all resources again that changed "+
		"after position %d",
		r.after, why, after), after)
}

func (r *feedReader) gone(detail string, after int64) error {
	start := feedCursor{after, r.source.Epoch()}.String()
	return &rest.ExpiredProblem{
		ErrorModel: *rest.NewProblem(http.StatusGone, detail+", then start with after="+start),
		After:      start,
	}
}

// maxPatterns bounds the patterns that each event is compared with.
const maxPatterns = 100

func parsePatterns(types vocabulary.Types, field, text string) (patterns []tidings.Pattern, err error) {
	if n := strings.Count(text, ","); n >= maxPatterns {
		return nil, rest.Invalid(field, fmt.Sprintf("expected at most %d patterns", maxPatterns))
	}
	if text == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part == "" {
			return nil, rest.Invalid(field, "lists an empty pattern; leave out commas without a pattern")
		}
		p, err := types.Parse(part)
		if err != nil {
			return nil, rest.Invalid(field, err.Error())
		}
		patterns = append(patterns, p)
	}
	return patterns, nil
}

func (r *feedReader) wants(e tidings.Event) bool {
	if !r.who.MayRead(e) {
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
		return time.Since(r.checked) >= r.feed.KeepAlive
	}
}

// stays makes the first read check the caller again: what is remembered of them may predate
// a change whose event the reader never sees.
func (r *feedReader) stays() { r.checked = time.Time{} }

// check updates what the caller may read.
func (r *feedReader) check(ctx context.Context) (err error) {
	r.checked, r.changed = time.Now(), r.who.Changed()
	who, err := r.who.Recheck(ctx)
	if err == nil {
		r.who = who
	}
	return err
}

// read returns at most limit matching events and advances.
func (r *feedReader) read(ctx context.Context, limit int) ([]Event, error) {
	if r.due() {
		if err := r.check(ctx); err != nil {
			return nil, err
		}
	}
	found := []Event{}
	for looked := 0; looked < feedScan; looked += feedBatch {
		if looked == feedBatch {
			leave, err := r.feed.Limits.Scans.Enter(ctx, r.who.ID(), 1)
			if err != nil {
				return found, ctx.Err() // the next request continues
			}
			defer leave()
		}
		events, err := r.source.Read(ctx, r.after, feedBatch)
		if err != nil {
			return nil, err
		}
		if r.source.Epoch() != r.epoch { // these may not follow the events read before
			if err := r.enter(ctx); err != nil {
				return nil, err
			}
			continue
		}
		if len(events) == 0 {
			return found, nil
		}
		if events[0].Sequence > r.after+1 { // some have expired
			return nil, r.expired(events[0].Sequence)
		}
		if slices.ContainsFunc(events, r.who.Changes) { // before the caller sees any of these
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
				found = append(found, newEvent(e))
			}
		}
		if len(found) == limit {
			return found, nil
		}
	}
	return found, nil
}

// cursor returns the cursor with which the reader can resume.
func (r *feedReader) cursor() string { return feedCursor{r.after, r.epoch}.String() }

// page waits for events if there are none. It looks for feedTime before it is empty without
// having reached the end of the log.
func (r *feedReader) page(ctx context.Context, limit int, wait time.Duration) (*feedPage, error) {
	if wait > 0 {
		r.stays()
	}
	deadline, looking, head := time.After(wait), time.Now(), r.source.Head()
	alive := time.NewTicker(r.feed.KeepAlive)
	defer alive.Stop()
	for {
		before := r.after
		items, err := r.read(ctx, limit)
		if err != nil {
			return nil, err
		}
		page := &feedPage{Items: items, Next: r.cursor(), Head: max(r.source.Head(), r.after)}
		page.More = before < r.after && r.after < page.Head
		if len(items) > 0 || ctx.Err() != nil {
			return page, ctx.Err()
		}
		if page.More && r.after < head && time.Since(looking) < max(wait, feedTime) {
			select {
			case <-r.feed.Stopping:
				return nil, &eventlog.UnavailableError{Reason: "the server is stopping"}
			default:
				continue
			}
		}
		if wait == 0 {
			return page, nil
		}
		select {
		case <-r.source.More(r.after):
		case <-r.changed:
		case <-alive.C:
		case <-deadline:
			return page, nil
		case <-r.feed.Stopping:
			return page, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// streams serves the feed as server-sent events to clients that accept them.
func (f *feed) streams(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.Path != f.Root+"/events" ||
			!strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
			next.ServeHTTP(w, r)
			return
		}
		r.Pattern = "GET " + f.Root + "/events"
		if err := f.stream(w, r); err != nil {
			f.Fail(r.Context(), w, err)
		}
	})
}

// stream sends events until the caller disconnects or loses permission, or the
// process stops. It returns an error only if nothing was sent.
func (f *feed) stream(w http.ResponseWriter, r *http.Request) error {
	ctx, query := r.Context(), r.URL.Query()
	who, leave, err := f.Stream(w, r, f.op, "limit", "wait")
	if err != nil {
		return err
	}
	defer leave()
	after := query.Get("after")
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		after = last
	}
	feed, err := f.reader(ctx, who, after, query.Get("types"))
	if err != nil {
		return err
	}
	feed.stays()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	out := http.NewResponseController(w)
	alive := time.NewTicker(f.KeepAlive)
	defer alive.Stop()
	for line := ": events of Tidings\n\n"; ; {
		if _, err := w.Write([]byte(line)); err != nil || out.Flush() != nil {
			return nil //nolint:nilerr // the connection is gone
		}
		events, err := feed.read(ctx, feedBatch)
		if err != nil {
			f.EndStream(ctx, w, err)
			return nil
		}
		if line = eventLines(events, feed.epoch); line != "" {
			continue
		}
		select {
		case <-feed.source.More(feed.after):
		case <-feed.changed:
		case <-alive.C:
			line = ": " + feed.cursor() + "\n\n"
		case <-f.Stopping:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

func eventLines(events []Event, epoch string) string {
	var b strings.Builder
	for _, e := range events {
		text, _ := json.Marshal(e) // only numbers and strings: it can't fail
		fmt.Fprintf(&b, "id: %s\nevent: %s\ndata: %s\n\n", feedCursor{e.Sequence, epoch}, e.Event, text)
	}
	return b.String()
}

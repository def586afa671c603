package operator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/internal/console"
	"github.com/tidings-dev/tidings/outbox"
	"github.com/tidings-dev/tidings/relay"
	"github.com/tidings-dev/tidings/vocabulary"
)

// Service implements the operators' operations. Create one with [New].
type Service struct {
	hooks   *outbox.Outbox
	options Options
}

// New returns the service of an outbox. Until the outbox has endpoints, its methods
// return errors that say so.
func New(hooks *outbox.Outbox, o Options) *Service { return &Service{hooks, o} }

func (s *Service) relay() *relay.Relay { return s.hooks.Relay() }

// endpoints returns the configured endpoints.
func (s *Service) endpoints() []relay.Endpoint {
	if r := s.relay(); r != nil {
		return r.Endpoints()
	}
	return nil
}

var errNoEndpoints = conflict("the outbox has no endpoints yet: SetEndpoints was not called")

// types returns the types of events that can exist.
func (s *Service) types() vocabulary.Types { return s.hooks.Types() }

func (s *Service) log() eventlog.Home { return s.hooks.Log() }

// newest returns the position of the last event. While a transaction with very many of
// them is numbered, that is the last one so far.
func (s *Service) newest(ctx context.Context) (int64, error) {
	return s.log().Advance(eventlog.Brief(ctx))
}

// Error is an error that the operator can resolve.
type Error struct {
	// NotFound means that what was named does not exist; otherwise its state does
	// not allow the operation.
	NotFound bool
	// Field is the invalid field of the request; empty if the request is not at
	// fault.
	Field   string
	Message string
}

// Error returns the field and the message.
func (e *Error) Error() string {
	if e.Field != "" {
		return e.Field + ": " + e.Message
	}
	return e.Message
}

func notFound(format string, args ...any) error {
	return &Error{NotFound: true, Message: fmt.Sprintf(format, args...)}
}

func conflict(format string, args ...any) error { return &Error{Message: fmt.Sprintf(format, args...)} }

// Endpoint is the state of an endpoint.
type Endpoint struct {
	Name string `json:"name"`
	// URL is without user info and query, which may be secrets.
	URL        string   `json:"url" doc:"Without user info and query."`
	Configured bool     `json:"configured" doc:"False for one that was removed and whose cursor is still kept."`
	Events     []string `json:"events" nullable:"false" doc:"Its patterns."`
	State      string   `json:"state" doc:"healthy, down, probing, ramping, throttled or disabled; waiting if no replica has it; removed."`
	Reason     string   `json:"reason,omitempty"`
	Since      string   `json:"since,omitempty" doc:"When the state began."`
	DownSince  string   `json:"down_since,omitempty" doc:"Since when nothing was delivered, if it was down and no delivery succeeded since; a pause or a restart does not change it."`
	Until      string   `json:"until,omitempty" doc:"When the next request is sent, if it is down or throttled."`
	Cursor     int64    `json:"cursor" doc:"The position below which everything is settled."`
	LagEvents  int64    `json:"lag_events" doc:"How many events it has yet to receive: those of the log behind the cursor, including those that it does not want, and those that are parked."`
	LagSeconds float64  `json:"lag_seconds" doc:"The age of the oldest of them; 0 if there are none."`
	// OldestUndelivered is the oldest event that it has yet to receive.
	OldestUndelivered *Undelivered `json:"oldest_undelivered,omitempty" doc:"The oldest event that it has yet to receive, parked ones included."`
	LostAt            string       `json:"lost_at,omitempty" doc:"When the oldest event behind the cursor expires and is lost to the endpoint. Parked events do not expire."`
	Expires           string       `json:"expires_at,omitempty" doc:"The same, but only if that is soon: within a tenth of webhook.retention."`
	// Behind is the number of positions behind the cursor, and BehindSeconds the age of
	// the oldest.
	Behind        int64   `json:"-"`
	BehindSeconds float64 `json:"-"`
	// RetentionUsed is BehindSeconds as a share of the retention; at 1 events expire.
	// RetentionLeft is how long until then; it is set only with LostAt.
	RetentionUsed float64          `json:"-"`
	RetentionLeft time.Duration    `json:"-"`
	InFlight      int64            `json:"in_flight"`
	Waiting       int64            `json:"waiting" doc:"How many events that it wants wait in the log, apart from parked ones."`
	Estimated     bool             `json:"waiting_estimated,omitempty" doc:"Not all of them were read yet."`
	Probes        int64            `json:"probes,omitempty" doc:"How many probes have failed since the outage began."`
	Settings      *Settings        `json:"config,omitempty" doc:"The effective configuration."`
	Limit         int              `json:"limit" doc:"How many requests may currently be in flight at once."`
	Rate          float64          `json:"rate,omitempty" doc:"How many requests a second it currently gets; omitted if it never refused any because of load."`
	Ceiling       float64          `json:"ceiling,omitempty" doc:"The rate at which it refused some last."`
	Delivered     float64          `json:"delivered_per_second"`
	Failed        float64          `json:"failed_per_second"`
	Parked        int64            `json:"parked" doc:"Events that failed, and those that wait behind them."`
	Dead          int64            `json:"dead" doc:"Dead letters."`
	Missed        int64            `json:"missed" doc:"How many events at most expired before it received them: positions, some of which may belong to events that it does not want or received out of order."`
	Lost          int64            `json:"lost" doc:"Events that the database lost in failovers, or since it was restored; it may have received some of them before."`
	LastError     *relay.LastError `json:"last_error,omitempty"`
	Control       *Control         `json:"control,omitempty" doc:"Why it is disabled."`
	LastAnswer    *relay.Answer    `json:"last_answer,omitempty" doc:"The last answer to an attempt that failed."`
	Partitions    []Partition      `json:"partitions" nullable:"false"`
	// Sources are tables whose events it wants.
	Sources []SourceStatus `json:"sources,omitempty" doc:"Tables whose events it wants, if they are not attached as configured, or if their changes may have made no events within the last 30 days."`
}

// Undelivered is an event that an endpoint has yet to receive.
type Undelivered struct {
	Position int64  `json:"position"`
	At       string `json:"at" doc:"When it was created."`
}

// Refusing reports whether the endpoint answers, but accepts nothing.
func (e *Endpoint) Refusing() bool {
	down := e.State == string(relay.Down) || e.State == string(relay.Probing)
	return down && strings.HasPrefix(e.Reason, relay.RefusesPrefix)
}

// Partition is the state of one partition of an endpoint: its owner and its
// progress.
type Partition struct {
	Index      int    `json:"index"`
	Replica    string `json:"replica" doc:"Who holds its lease; empty for nobody."`
	Generation int64  `json:"generation" doc:"Grows with each new owner."`
	State      string `json:"state"`
	Cursor     int64  `json:"cursor"`
}

// Endpoints returns all endpoints that are configured or have a cursor, sorted by
// name.
func (s *Service) Endpoints(ctx context.Context) ([]*Endpoint, error) {
	if s.relay() == nil {
		return nil, errNoEndpoints
	}
	statuses, err := s.relay().Statuses(ctx)
	if err != nil {
		return nil, err
	}
	parked, err := s.log().ParkedCounts(ctx)
	if err != nil {
		return nil, err
	}
	gaps, err := s.log().Gaps(ctx, gapLimit)
	if err != nil {
		return nil, err
	}
	controls, err := s.log().Controls(ctx)
	if err != nil {
		return nil, err
	}
	head, err := s.newest(ctx)
	if err != nil {
		return nil, err
	}
	endpoints := make(map[string]*Endpoint)
	get := func(name string) *Endpoint {
		if endpoints[name] == nil {
			endpoints[name] = &Endpoint{Name: name, Events: []string{}, Partitions: []Partition{}, State: "removed"}
		}
		return endpoints[name]
	}
	sources := s.unwellSources()
	for _, e := range s.endpoints() {
		known := get(e.Name)
		known.Configured, known.URL, known.State = true, plainURL(e.URL), "waiting"
		known.Events = patterns(e.Patterns)
		known.Settings = settings(e)
		for _, source := range sources {
			if source.concerns(&e.Endpoint) {
				known.Sources = append(known.Sources, source)
			}
		}
	}
	for _, p := range statuses {
		get(p.Cursor.Endpoint).add(p)
	}
	for name, e := range endpoints {
		e.Parked, e.Dead = parked[name].Live, parked[name].Dead
		e.Behind = max(head-e.Cursor, 0)
		e.LagEvents = e.Behind + e.Parked
		now, c := time.Now(), controls[name]
		if reason := c.DisabledAt(now); e.State == "waiting" && reason != "" {
			e.State, e.Reason, e.Since = string(relay.Disabled), reason, stamp(c.Since)
		}
		e.control(c, now)
	}
	missed := make(map[string][]eventlog.Gap)
	for _, g := range gaps {
		e := endpoints[g.Endpoint]
		switch {
		case e == nil:
		case g.Reason == eventlog.GapLost && g.Index == 0: // every partition reports the same loss
			e.Lost += g.To - g.From + 1
		case g.Reason != eventlog.GapLost:
			missed[g.Endpoint] = append(missed[g.Endpoint], g)
		}
	}
	for name, e := range endpoints {
		e.Missed = eventlog.Positions(missed[name])
	}
	list := make([]*Endpoint, 0, len(endpoints))
	for _, e := range endpoints {
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b *Endpoint) int { return cmp.Compare(a.Name, b.Name) })
	return list, s.lags(ctx, list, parked)
}

const gapLimit = 1000

// lags sets what is known of the oldest undelivered event of each endpoint.
func (s *Service) lags(ctx context.Context, endpoints []*Endpoint, parked map[string]eventlog.ParkedCount) error {
	var behind []int64
	for _, e := range endpoints {
		if e.Behind > 0 {
			behind = append(behind, e.Cursor)
		}
	}
	ages, err := s.hooks.OldestAfter(ctx, behind...)
	if err != nil {
		return err
	}
	now := time.Now()
	for _, e := range endpoints {
		if p := parked[e.Name]; p.Live > 0 && p.Oldest > 0 {
			e.OldestUndelivered = &Undelivered{p.Oldest, stamp(p.At)}
			e.LagSeconds = max(now.Sub(p.At).Seconds(), 0)
		}
		if e.Behind == 0 {
			continue
		}
		oldest, known := ages[e.Cursor]
		if !known {
			continue
		}
		e.BehindSeconds, e.RetentionUsed, e.RetentionLeft = oldest.Age.Seconds(), oldest.Used, oldest.Lost.Sub(now)
		e.LostAt, e.Expires = stamp(oldest.Lost), stamp(oldest.Expires)
		if e.OldestUndelivered == nil || oldest.Position < e.OldestUndelivered.Position {
			e.OldestUndelivered = &Undelivered{oldest.Position, stamp(oldest.At)}
			e.LagSeconds = max(e.LagSeconds, e.BehindSeconds)
		}
	}
	return nil
}

// severity orders states: an endpoint has the state of its worst partition.
var severity = map[string]int{
	"waiting": 1, string(relay.Healthy): 2, string(relay.Ramping): 3, string(relay.Throttled): 4,
	string(relay.Probing): 5, string(relay.Down): 6, string(relay.Disabled): 7,
}

// add adds a partition to the state of its endpoint.
func (e *Endpoint) add(p relay.PartitionStatus) {
	state := string(p.Status.State)
	if !p.Held || state == "" {
		state = "waiting"
	}
	if len(e.Partitions) == 0 || p.Cursor.Sequence < e.Cursor {
		e.Cursor = p.Cursor.Sequence
	}
	part := Partition{Index: p.Cursor.Index, Generation: p.Cursor.Generation, State: state, Cursor: p.Cursor.Sequence}
	if p.Held {
		part.Replica = p.Cursor.Owner
	}
	e.Partitions = append(e.Partitions, part)
	if !e.Configured {
		return
	}
	if since := p.Status.DownSince; !since.IsZero() && (e.DownSince == "" || stamp(since) < e.DownSince) {
		e.DownSince = stamp(since)
	}
	if severity[state] > severity[e.State] {
		e.State, e.Reason, e.Since, e.Until = state, p.Status.Reason, stamp(p.Status.Since), stamp(p.Status.Until)
	}
	if !p.Held {
		return
	}
	e.InFlight += p.Status.InFlight
	e.Waiting += p.Status.Waiting
	e.Estimated = e.Estimated || p.Status.Estimated
	e.Probes += p.Status.Probes
	e.Limit += p.Status.Limit
	e.Rate += p.Status.Rate
	e.Ceiling += p.Status.Ceiling
	e.Delivered += p.Status.DeliveredRate
	e.Failed += p.Status.FailedRate
	if last := p.Status.LastError; last != nil && (e.LastError == nil || last.At.After(e.LastError.At)) {
		e.LastError = last
	}
	if last := p.Status.LastAnswer; last != nil && (e.LastAnswer == nil || last.At.After(e.LastAnswer.At)) {
		e.LastAnswer = last
	}
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(tidings.TimeLayout)
}

func patterns(all []tidings.Pattern) []string {
	texts := []string{}
	for _, p := range all {
		texts = append(texts, p.String())
	}
	if len(texts) == 0 {
		texts = []string{"*"}
	}
	return texts
}

// plainURL returns a URL without the parts that may contain secrets.
func plainURL(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}

// Endpoint returns one endpoint.
func (s *Service) Endpoint(ctx context.Context, name string) (*Endpoint, error) {
	all, err := s.Endpoints(ctx)
	if err != nil {
		return nil, err
	}
	for _, e := range all {
		if e.Name == name {
			s.addSettings(e)
			return e, nil
		}
	}
	return nil, s.noEndpoint(name)
}

// addSettings lists the settings of an endpoint, and where they come from.
func (s *Service) addSettings(e *Endpoint) {
	configured, err := s.configured(e.Name)
	if err != nil { // it was removed
		return
	}
	var written *Written
	if s.options.Written != nil {
		written = s.options.Written(e.Name)
	}
	if e.Settings.List = listSettings(configured, written); written != nil {
		e.Settings.Place = written.Place
	}
	if s.options.Config != nil {
		e.Settings.ReadAt = s.options.Config().Since
	}
}

func (s *Service) noEndpoint(name string) error {
	var names []string
	for _, e := range s.endpoints() {
		names = append(names, e.Name)
	}
	if nearest := vocabulary.Nearest(name, names); nearest != "" {
		return notFound("there is no endpoint %q; did you mean %q?", name, nearest)
	}
	return notFound("there is no endpoint %q; none is configured", name)
}

// configured returns a configured endpoint.
func (s *Service) configured(name string) (relay.Endpoint, error) {
	for _, e := range s.endpoints() {
		if e.Name == name {
			return e, nil
		}
	}
	return relay.Endpoint{}, s.noEndpoint(name)
}

// Pause stops deliveries to an endpoint; its events wait in the log. Pausing it again
// replaces the comment and the end of the pause if one of them is given.
func (s *Service) Pause(ctx context.Context, name string, p NewPause) (*Endpoint, error) {
	if err := p.check(time.Now()); err != nil {
		return nil, err
	}
	next := eventlog.Control{Disabled: relay.PausedReason, Comment: p.Comment}
	if p.Until != nil {
		next.Until = *p.Until
	}
	e, err := s.setControl(ctx, name, "pause", next, func(c eventlog.Control) error {
		if c.DisabledAt(time.Now()) == relay.PausedReason && p.Comment == "" && p.Until == nil {
			return errPausedAlready // with a reason and an end, perhaps
		}
		return nil
	})
	if errors.Is(err, errPausedAlready) {
		return s.Endpoint(ctx, name)
	}
	return e, err
}

var errPausedAlready = errors.New("already paused")

// Resume ends a pause.
func (s *Service) Resume(ctx context.Context, name string) (*Endpoint, error) {
	return s.setControl(ctx, name, "resume", eventlog.Control{}, func(c eventlog.Control) error {
		if d := c.DisabledAt(time.Now()); d != "" && d != relay.PausedReason {
			return conflict("endpoint %s is not paused, it was disabled after it answered %s; enable it", name,
				c.Disabled)
		}
		return nil
	})
}

// Enable enables an endpoint that answered 410. A pause ends with [Service.Resume].
func (s *Service) Enable(ctx context.Context, name string) (*Endpoint, error) {
	return s.setControl(ctx, name, "enable", eventlog.Control{}, func(c eventlog.Control) error {
		if c.DisabledAt(time.Now()) == relay.PausedReason {
			return conflict("endpoint %s is paused by %s; resume it", name, cmp.Or(c.By, "an operator"))
		}
		return nil
	})
}

const (
	sayTime  = 2 * time.Second
	sayPause = 20 * time.Millisecond
)

// setControl changes the control of an endpoint, and waits a moment for the replica
// that delivers to it to apply the change, so that the result shows it. check, unless it
// is nil, may refuse that.
func (s *Service) setControl(
	ctx context.Context, name, action string, next eventlog.Control, check func(eventlog.Control) error,
) (*Endpoint, error) {
	e, err := s.configured(name)
	if err != nil {
		return nil, err
	}
	if check != nil {
		controls, err := s.log().Controls(ctx)
		if err != nil {
			return nil, err
		}
		if err := check(controls[name]); err != nil {
			return nil, err
		}
	}
	next.Endpoint, next.Fingerprint, next.Since, next.By = name, e.Fingerprint, time.Now(), actor(ctx)
	if err := s.log().SaveControl(ctx, next); err != nil {
		return nil, err
	}
	s.Record(ctx, Action{Action: action, Endpoint: name, Subject: stamp(next.Until), Comment: next.Comment})
	if err := s.log().Nudge(ctx); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(sayTime); ; {
		shown, err := s.Endpoint(ctx, name)
		applied := err == nil && (shown.State == string(relay.Disabled)) == (next.Disabled != "")
		if err != nil || applied || time.Now().After(deadline) {
			return shown, err
		}
		select {
		case <-ctx.Done():
			return shown, ctx.Err()
		case <-time.After(sayPause):
		}
	}
}

// Tried is the result of a test.
type Tried struct {
	Endpoint  string  `json:"endpoint"`
	WebhookID string  `json:"webhook_id"`
	Outcome   string  `json:"outcome" doc:"delivered, or why not."`
	Reason    string  `json:"reason,omitempty"`
	Detail    string  `json:"detail,omitempty"`
	Status    int     `json:"status,omitempty"`
	Seconds   float64 `json:"seconds"`
	DNS       int64   `json:"dns_us,omitempty" doc:"How long each step took, where there was one."`
	Connect   int64   `json:"connect_us,omitempty"`
	TLS       int64   `json:"tls_us,omitempty"`
	FirstByte int64   `json:"first_byte_us,omitempty" doc:"When the answer began, from the beginning."`
	Address   string  `json:"address,omitempty" doc:"The address that was reached."`
	Response  string  `json:"response,omitempty" doc:"The beginning of the response."`
}

// Test sends a webhook.ping to an endpoint, whatever its state.
func (s *Service) Test(ctx context.Context, name, userID string) (*Tried, error) {
	if _, err := s.configured(name); err != nil {
		return nil, err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("make event id: %w", err)
	}
	o, err := s.relay().Send(ctx, name, tidings.Ping(id.String(), name, userID, time.Now()))
	if err != nil {
		return nil, err
	}
	s.Record(ctx, Action{Action: "test", Endpoint: name, Subject: cmp.Or(o.Reason, o.Verdict.String())})
	return &Tried{
		Endpoint:  name,
		WebhookID: id.String(), Outcome: o.Verdict.String(), Reason: o.Reason, Detail: o.Detail, Status: o.Status,
		Seconds: o.Duration.Seconds(), Address: o.Address, Response: string(o.Response),
		DNS: o.Timing.DNS.Microseconds(), Connect: o.Timing.Connect.Microseconds(), TLS: o.Timing.TLS.Microseconds(),
		FirstByte: o.Timing.FirstByte.Microseconds(),
	}, nil
}

// answer returns how long the receiver took to answer once it had the request, in
// microseconds.
func (t *Tried) answer() int64 { return max(t.FirstByte-t.DNS-t.Connect-t.TLS, 0) }

// Steps says how long each step took, where there was one, such as "connect 11 ms".
func (t *Tried) Steps() (steps []string) {
	for _, step := range []struct {
		name string
		took int64
	}{{"DNS", t.DNS}, {"connect", t.Connect}, {"TLS", t.TLS}, {"answer", t.answer()}} {
		if step.took > 0 {
			steps = append(steps, step.name+" "+console.Micros(step.took))
		}
	}
	return steps
}

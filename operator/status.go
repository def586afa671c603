package operator

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/rest"
)

// Status is the state of the process, its database and its peers.
type Status struct {
	Database Database `json:"database"`
	// Replicas are the processes that share the endpoints.
	Replicas []Replica      `json:"replicas" nullable:"false"`
	Log      LogStatus      `json:"log"`
	Config   *ConfigStatus  `json:"config,omitempty"`
	Sources  []SourceStatus `json:"sources" nullable:"false" doc:"Tables whose changes make events."`
}

// Database is the database of the log.
type Database struct {
	Kind    string  `json:"kind" enum:"sqlite,postgresql"`
	Version string  `json:"version"`
	Schema  string  `json:"schema,omitempty"`
	Primary bool    `json:"primary" doc:"False for a standby, which takes no writes."`
	Latency float64 `json:"latency_seconds" doc:"How long it took to answer for this status."`
	Size    int64   `json:"size_bytes"`
	InUse   int     `json:"connections" doc:"Connections of this process in use."`
	Most    int     `json:"max_connections,omitempty"`
}

// Replica is a process that delivers.
type Replica struct {
	Name    string `json:"name"`
	State   string `json:"state" enum:"ready,differs" doc:"differs: it has other endpoints or another version than the first one."`
	Leases  int    `json:"leases" doc:"Endpoints, or partitions of them, that it delivers to."`
	Since   string `json:"since,omitempty" doc:"When it started."`
	Version string `json:"version,omitempty"`
	Group   string `json:"endpoints_hash" doc:"The same for replicas with the same endpoints, which they share."`
	Memory  int64  `json:"memory_bytes,omitempty"`
}

// LogStatus is the extent of the log.
type LogStatus struct {
	Head      int64   `json:"head" doc:"The position of the newest event."`
	HeadAt    string  `json:"head_at,omitempty" doc:"When the change of the newest event was made; omitted if no events are kept."`
	Oldest    int64   `json:"oldest" doc:"The position of the oldest event that is kept."`
	OldestAt  string  `json:"oldest_at,omitempty" doc:"When the change of the oldest event was made; omitted if no events are kept."`
	Outbox    int64   `json:"outbox" doc:"Committed events without a position yet."`
	Epoch     string  `json:"epoch"`
	Retention float64 `json:"retention_seconds"`
}

// ConfigStatus is the configuration of a server.
type ConfigStatus struct {
	Files   []string   `json:"files" nullable:"false"`
	Since   string     `json:"in_force_since"`
	LastTry *ConfigTry `json:"last_try,omitempty" doc:"The last reload; omitted if there was none."`
	// Broken are the problems of endpoint files that were not reloaded.
	Broken      []ConfigProblem `json:"broken,omitempty" doc:"Problems of endpoint files that were not reloaded, and what is in effect instead."`
	BrokenSince string          `json:"broken_since,omitempty"`
}

// ConfigTry is an attempt to reload the configuration.
type ConfigTry struct {
	At           string          `json:"at"`
	Errors       []ConfigProblem `json:"errors" nullable:"false" doc:"Why it was refused; empty if it was not."`
	Diff         []ConfigChange  `json:"diff" nullable:"false" doc:"What it changed or would have changed, without secrets; empty if the files are not YAML."`
	LeftOut      int             `json:"diff_left_out,omitempty" doc:"How many more changes there are."`
	NeedsRestart []string        `json:"needs_restart" nullable:"false" doc:"Settings that changed and take effect only after a restart."`
}

// ConfigChange is a setting that a reload changes. It holds no secrets.
type ConfigChange struct {
	Endpoint string `json:"endpoint,omitempty" doc:"Omitted for a setting that is not an endpoint's."`
	Key      string `json:"key,omitempty" doc:"The setting; omitted if the whole endpoint is added or removed."`
	Change   string `json:"change" enum:"added,removed,changed"`
	Before   string `json:"before,omitempty" doc:"The current value; of a secret, only that it is set, or its file or variable."`
	After    string `json:"after,omitempty" doc:"The value in the file; omitted if there is a problem with it."`
	Problem  string `json:"problem,omitempty" doc:"Why the setting was refused."`
}

// ConfigProblem is something wrong with the configuration.
type ConfigProblem struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Key     string `json:"key,omitempty"`
	Message string `json:"message"`
}

// Place returns the file, line and column, as far as they are known.
func (p ConfigProblem) Place() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// String returns the problem as one line.
func (p ConfigProblem) String() string {
	if p.File == "" {
		return p.Message
	}
	return p.Place() + ": " + strings.TrimPrefix(p.Key+": "+p.Message, ": ")
}

// SourceStatus is a table whose changes make events.
type SourceStatus struct {
	Table  string   `json:"table"`
	Type   string   `json:"type"`
	State  string   `json:"state" enum:"attached,drifted,broken,unknown"`
	Detail string   `json:"detail,omitempty"`
	Watch  []string `json:"watch,omitempty" doc:"The only columns whose changes make events; without watch and ignore, all columns do."`
	Ignore []string `json:"ignore,omitempty" doc:"The columns whose changes make no events."`
	Parts  []Part   `json:"parts,omitempty" doc:"Tables whose changes count as updates of a row of this table."`
	// PerHour and LastAt are set in the status only.
	PerHour *int64     `json:"per_hour,omitempty" doc:"Events of its type in the last hour, among the newest 10,000 events; only in the status, like the next two."`
	Exact   bool       `json:"per_hour_exact,omitempty" doc:"False if there were more than 10,000 events of all types."`
	LastAt  string     `json:"last_at,omitempty" doc:"When the last event of its type was made, if it is one of the newest 10,000."`
	LastGap *SourceGap `json:"last_gap,omitempty" doc:"The last period, within 30 days, in which changes may have made no events."`
}

// Part is a table whose rows are parts of another table's rows.
type Part struct {
	Table  string   `json:"table"`
	Watch  []string `json:"watch,omitempty"`
	Ignore []string `json:"ignore,omitempty"`
}

// Columns says which columns of the table, and of its parts, are watched.
func (t SourceStatus) Columns() string {
	texts := []string{columns(t.Watch, t.Ignore)}
	for _, p := range t.Parts {
		texts = append(texts, "of "+p.Table+": "+columns(p.Watch, p.Ignore))
	}
	return strings.Join(texts, "; ")
}

func columns(watch, ignore []string) string {
	switch {
	case len(watch) > 0:
		return "only " + strings.Join(watch, ", ")
	case len(ignore) > 0:
		return "all but " + strings.Join(ignore, ", ")
	}
	return "all"
}

// Activity is how many events were made lately.
type Activity struct {
	// Events counts those of the last hour by type, at most the newest 10,000; Exact is
	// false if there were more.
	Events map[string]int64
	Exact  bool
	// Last is when the last event of each type was made, as far as it is one of the newest
	// 10,000.
	Last map[string]time.Time
}

// SourceGap is a period in which changes of a table may have made no events.
type SourceGap struct {
	Since  string `json:"since"`
	Until  string `json:"until"`
	Reason string `json:"reason"`
}

// concerns reports whether events of the table are for an endpoint.
func (t SourceStatus) concerns(e *tidings.Endpoint) bool {
	return slices.ContainsFunc(tidings.Actions(), func(a tidings.Action) bool {
		pattern, _ := e.MatchedBy(tidings.Event{Type: tidings.ResourceType(t.Type), Action: a})
		return pattern != ""
	})
}

// unwellSources returns the tables that differ from their configuration, or whose changes
// may have made no events for a time.
func (s *Service) unwellSources() (list []SourceStatus) {
	if s.options.Sources == nil {
		return nil
	}
	for _, t := range s.options.Sources() {
		if t.State != sourceAttached || t.LastGap != nil {
			list = append(list, t)
		}
	}
	return list
}

const sourceAttached = "attached"

// Status returns the state of the process, its database and its peers.
func (s *Service) Status(ctx context.Context) (*Status, error) {
	out, err := s.peers(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.addActivity(ctx, out.Sources); err != nil {
		return nil, err
	}
	began := time.Now()
	d, err := s.log().Describe(ctx)
	if err != nil {
		return nil, err
	}
	out.Database = Database{
		Kind: d.Kind, Version: d.Version, Schema: d.Schema, Primary: d.Primary, Latency: time.Since(began).Seconds(),
		Size: d.Size, InUse: d.InUse, Most: d.Most,
	}
	out.Log.Retention = s.hooks.Retention().Events.Seconds()
	if out.Log.Head, err = s.newest(ctx); err != nil {
		return nil, err
	}
	out.Log.Epoch = s.log().Epoch()
	if out.Log.Oldest, err = s.log().Oldest(ctx); err != nil {
		return nil, err
	}
	ages, err := s.hooks.OldestAfter(ctx, out.Log.Oldest-1, out.Log.Head-1)
	if err != nil {
		return nil, err
	}
	out.Log.OldestAt, out.Log.HeadAt = stamp(ages[out.Log.Oldest-1].At), stamp(ages[out.Log.Head-1].At)
	if out.Log.Outbox, err = s.log().Unnumbered(ctx); err != nil {
		return nil, err
	}
	return out, nil
}

// addActivity sets how many events each table made lately.
func (s *Service) addActivity(ctx context.Context, sources []SourceStatus) error {
	if s.options.Activity == nil || len(sources) == 0 {
		return nil
	}
	lately, err := s.options.Activity(ctx)
	if err != nil {
		return err
	}
	for i, t := range sources {
		sources[i].PerHour, sources[i].Exact = new(lately.Events[t.Type]), lately.Exact
		if last, ok := lately.Last[t.Type]; ok {
			sources[i].LastAt = stamp(last)
		}
	}
	return nil
}

// peers returns a status without what the database knows of itself and of the log.
func (s *Service) peers(ctx context.Context) (*Status, error) {
	out := &Status{Sources: []SourceStatus{}}
	var err error
	if out.Replicas, err = s.replicas(ctx); err != nil {
		return nil, err
	}
	if s.options.Config != nil {
		out.Config = s.options.Config()
	}
	if s.options.Sources != nil {
		out.Sources = append(out.Sources, s.options.Sources()...)
	}
	return out, nil
}

func (s *Service) replicas(ctx context.Context) ([]Replica, error) {
	members, err := s.log().Replicas(ctx)
	if err != nil {
		return nil, err
	}
	cursors, err := s.log().Cursors(ctx)
	if err != nil {
		return nil, err
	}
	held := make(map[string]int)
	for _, c := range cursors {
		held[c.Owner]++
	}
	all := []Replica{}
	for _, m := range members {
		r := Replica{
			Name: m.ID, State: "ready", Leases: held[m.ID], Since: stamp(m.Started), Version: m.Version, Group: m.Group,
			Memory: m.Memory,
		}
		if m.Group != members[0].Group || m.Version != members[0].Version {
			r.State = "differs"
		}
		all = append(all, r)
	}
	return all, nil
}

func (o *operations) addStatus() {
	look(o.api, rest.Operation(http.MethodGet, "/webhooks/status", "getStatus",
		"Get the state of the database, the replicas, the log and the configuration"),
		func(ctx context.Context, _ *none) (*Status, error) { return o.Status(ctx) })
	look(o.api, rest.Operation(http.MethodGet, "/webhooks/problems", "listProblems",
		"List problems, the most urgent first"),
		func(ctx context.Context, _ *none) (*Page[Problem], error) { return o.Problems(ctx) })
	look(o.api, rest.Operation(http.MethodGet, "/webhooks/events/{event}/request", "showRequest",
		"Get the request that an endpoint receives for an event, without secrets"),
		func(ctx context.Context, in *struct {
			Event    string `path:"event" doc:"Its webhook-id or its position."`
			Endpoint string `query:"endpoint" doc:"If omitted, the first one that wants the event."`
		},
		) (*Request, error) {
			return o.Request(ctx, in.Event, in.Endpoint)
		})
}

package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidings-dev/tidings/internal/config"
	"github.com/tidings-dev/tidings/internal/httpapi"
	"github.com/tidings-dev/tidings/internal/job"
	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/outbox"
	"github.com/tidings-dev/tidings/outbox/capture"
)

// Table states.
const (
	stateAttached = "attached"
	stateDrifted  = "drifted"
	stateBroken   = "broken"
	stateUnknown  = "unknown"
)

// checkTables is how often the triggers of tables are checked.
const checkTables = time.Minute

// tables attaches and checks the triggers of a relay's tables.
type tables struct {
	app     *App
	options capture.Options
	list    []capture.Table
	// Used only by check: whether all of list were attached, or else why not.
	attached bool
	failed   string

	mu    sync.Mutex
	known bool // the last check succeeded
	found []capture.Finding
	gaps  []capture.Gap // newest first
}

// captureOptions returns the configuration of triggers.
func captureOptions(cfg *config.Config) capture.Options {
	return capture.Options{Schema: cfg.DatabaseSchema, Types: cfg.Vocabulary(), Notify: cfg.Sources.Notify}
}

// tablesOf returns the tables of the configuration and its preset.
func tablesOf(ctx context.Context, s *store.Store, cfg *config.Config) ([]capture.Table, error) {
	list := cfg.Tables()
	if cfg.Preset == config.PresetAgentStack {
		preset, err := capture.AgentStack(ctx, s.DB())
		if err != nil {
			return nil, fmt.Errorf("preset %s: %w", cfg.Preset, err)
		}
		list = append(list, preset...)
	}
	return list, nil
}

// withTables calls do with a relay's open database.
func withTables(
	ctx context.Context, cfg config.Config, do func(*store.Store, []capture.Table, capture.Options) error,
) error {
	if !cfg.DatabaseURL.Set() {
		return errors.New("database_url is missing: set it to the URL of the application's PostgreSQL database")
	}
	s, err := OpenStore(ctx, cfg)
	if err != nil {
		return err
	}
	list, err := tablesOf(ctx, s, &cfg)
	if err == nil && len(list) == 0 {
		err = errors.New("no tables are configured: list them in sources.tables, or set preset")
	}
	if err == nil {
		err = do(s, list, captureOptions(&cfg))
	}
	return errors.Join(err, s.Close())
}

// AttachTables installs the triggers of the configured tables, and returns their names.
// It calls waiting while a table is locked.
func AttachTables(ctx context.Context, cfg config.Config, waiting func(string)) (names []string, err error) {
	err = withTables(ctx, cfg, func(s *store.Store, list []capture.Table, o capture.Options) error {
		for _, t := range list {
			names = append(names, t.Name)
		}
		o.Waiting = waiting
		return capture.Attach(ctx, s.DB(), list, o)
	})
	return names, err
}

// AttachSQL returns the statements that [AttachTables] would run. If the tables of the
// event log are missing, it includes the statements that create them.
func AttachSQL(ctx context.Context, cfg config.Config) (text string, err error) {
	err = withTables(ctx, cfg, func(s *store.Store, list []capture.Table, o capture.Options) error {
		triggers, err := capture.SQL(list, o)
		if err != nil {
			return err
		}
		pending, err := s.Pending(ctx)
		if err != nil || !pending {
			text = triggers
			return err
		}
		log, err := logSQL(o.Schema)
		text = "-- These make the tables of the event log, once.\n" + log + triggers
		return err
	})
	return text, err
}

// logSQL returns the statements that create the tables of the event log.
func logSQL(schema string) (string, error) {
	files, err := outbox.PostgresMigrations(schema)
	if err != nil {
		return "", err
	}
	names, err := fs.Glob(files, "*.sql")
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, name := range names { // sorted
		sql, err := fs.ReadFile(files, name)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "-- %s\nBEGIN;\n%s\nCOMMIT;\n\n", name, sql)
	}
	return b.String(), nil
}

// CheckTables returns the differences between the configuration and the database.
func CheckTables(ctx context.Context, cfg config.Config) (found []capture.Finding, err error) {
	err = withTables(ctx, cfg, func(s *store.Store, list []capture.Table, o capture.Options) error {
		found, err = capture.Check(ctx, s.DB(), list, o)
		return err
	})
	return found, err
}

// DetachTables removes everything that [AttachTables] installed, and returns the names of
// the tables. It calls waiting while a table is locked.
func DetachTables(ctx context.Context, cfg config.Config, waiting func(string)) (names []string, err error) {
	s, err := OpenStore(ctx, cfg)
	if err != nil {
		return nil, err
	}
	o := captureOptions(&cfg)
	o.Waiting = waiting
	names, err = capture.Detach(ctx, s.DB(), o)
	return names, errors.Join(err, s.Close())
}

// attachTime limits an attempt to attach tables. A table may be locked for long, and
// meanwhile the events of other tables must be delivered.
const attachTime = 20 * time.Second

// openTables attaches the configured tables, or leaves that to the job if it fails.
func (a *App) openTables(ctx context.Context, cfg *config.Config) error {
	if !cfg.DatabaseURL.Set() {
		return nil
	}
	list, err := tablesOf(ctx, a.store, cfg)
	if err != nil {
		return err
	}
	a.tables = &tables{app: a, options: captureOptions(cfg), list: list}
	if err := a.tables.check(ctx); err != nil {
		a.logger.Error("the triggers of tables could not be checked", "error", err)
	}
	return nil
}

// attach attaches the tables once per process: a table that is detached later stays
// detached.
func (t *tables) attach(ctx context.Context) {
	if t.attached {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, attachTime)
	defer cancel()
	o := t.options
	o.Waiting = func(message string) {
		t.app.logger.Warn("a table cannot be attached yet", "why", message)
	}
	before := t.failed
	t.failed = ""
	if err := capture.Attach(ctx, t.app.store.DB(), t.list, o); err != nil {
		if t.failed = err.Error(); t.failed == before {
			return
		}
		t.app.logger.Error("not all tables could be attached: changes of the others create no events; "+
			"retrying every minute", "error", err, "if permission is denied", "GRANT TRIGGER on the tables "+
			"to the role in database_url, or run the output of 'tidings attach --print' as a role that may create triggers")
		return
	}
	t.attached = true
}

func (t *tables) job() job.Job {
	return job.Job{Name: "check the triggers of tables", Every: checkTables, Run: t.check}
}

// check checks and repairs the triggers, and logs new findings and gaps.
func (t *tables) check(ctx context.Context) error {
	t.attach(ctx)
	found, err := t.repair(ctx)
	t.explain(found)
	if err == nil {
		err = t.readGaps(ctx)
	}
	t.mu.Lock()
	before := t.found
	t.found, t.known = found, err == nil
	t.mu.Unlock()
	for _, f := range found {
		if slices.Contains(before, f) {
			continue
		}
		level := slog.LevelWarn
		if f.Kind == capture.Partition && f.Mended { // normal for new partitions
			level = slog.LevelInfo
		}
		t.app.logger.Log(ctx, level, "the triggers of a table were not as configured", "table", f.Table,
			"kind", f.Kind, "what", f.What, "repaired", f.Mended)
	}
	return err
}

// explain adds to the findings why tables could not be attached.
func (t *tables) explain(found []capture.Finding) {
	for i, f := range found {
		for _, table := range t.list {
			for line := range strings.SplitSeq(t.failed, "\n") {
				why, is := strings.CutPrefix(line, "attach "+table.Name+": ")
				if is && f.Kind == capture.NotAttached && f.Table != "" && f.Concerns(table) {
					found[i].What = "could not be attached: " + why
				}
			}
		}
	}
}

// gapsFor is how long gaps are reported.
const gapsFor = 30 * 24 * time.Hour

// readGaps reads the gaps, and logs new ones.
func (t *tables) readGaps(ctx context.Context) error {
	gaps, err := capture.Gaps(ctx, t.app.store.DB(), t.options, time.Now().Add(-gapsFor))
	if err != nil {
		return err
	}
	t.mu.Lock()
	before := t.gaps
	t.gaps = gaps
	t.mu.Unlock()
	for _, g := range gaps {
		if !slices.Contains(before, g) {
			t.app.logger.Warn("changes of a table may have created no events", "gap", g.String())
		}
	}
	return nil
}

// repair repairs what a migration of the application broke. If everything was detached,
// it leaves the database alone.
func (t *tables) repair(ctx context.Context) ([]capture.Finding, error) {
	found, err := capture.Check(ctx, t.app.store.DB(), t.list, t.options)
	if err != nil {
		return nil, err
	}
	kinds := make(map[capture.Kind]bool)
	for _, f := range found {
		kinds[f.Kind] = true
	}
	if len(kinds) == 2 && kinds[capture.Functions] && kinds[capture.NotAttached] {
		return found, nil
	}
	return capture.Repair(ctx, t.app.store.DB(), t.list, t.options)
}

var (
	tableAttached = prometheus.NewDesc("tidings_table_attached",
		"1 if the triggers of a table are in place, 0 if they are not or if that is unknown.", []string{"table"}, nil)
	tableGap = prometheus.NewDesc("tidings_table_last_gap_timestamp_seconds",
		"End of the last period in which changes to a table may have made no events; absent if there was none for 30 days.",
		[]string{"table"}, nil)
)

// Describe implements [prometheus.Collector].
func (t *tables) Describe(ch chan<- *prometheus.Desc) {
	ch <- tableAttached
	ch <- tableGap
}

// Collect implements [prometheus.Collector].
func (t *tables) Collect(ch chan<- prometheus.Metric) {
	for _, s := range t.States() {
		attached := 0.
		if s.State == stateAttached {
			attached = 1
		}
		ch <- prometheus.MustNewConstMetric(tableAttached, prometheus.GaugeValue, attached, s.Table)
		if len(s.Gaps) > 0 {
			ch <- prometheus.MustNewConstMetric(tableGap, prometheus.GaugeValue, float64(s.Gaps[0].Until.Unix()), s.Table)
		}
	}
}

// maxGaps limits the gaps listed for a table.
const maxGaps = 10

// States returns the state of each table.
func (t *tables) States() []httpapi.TableState {
	t.mu.Lock()
	defer t.mu.Unlock()
	states := make([]httpapi.TableState, len(t.list))
	for i, table := range t.list {
		states[i] = t.state(table)
	}
	return states
}

func (t *tables) state(table capture.Table) httpapi.TableState {
	s := httpapi.TableState{
		Table: table.Name, Type: string(table.Type), State: stateAttached, Gaps: []httpapi.TableGap{},
	}
	if !t.known {
		s.State = stateUnknown
	}
	var details []string
	for _, f := range t.found {
		if f.Mended || !f.Concerns(table) {
			continue
		}
		details = append(details, f.String())
		if f.Silent() {
			s.State = stateBroken
		} else if s.State == stateAttached {
			s.State = stateDrifted
		}
	}
	s.Detail = strings.Join(details, "; ")
	for _, g := range t.gaps {
		if g.Concerns(table) && len(s.Gaps) < maxGaps {
			s.Gaps = append(s.Gaps, httpapi.TableGap(g))
		}
	}
	return s
}

package app

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/internal/config"
	"github.com/tidings-dev/tidings/operator"
	"github.com/tidings-dev/tidings/outbox/capture"
)

// diffLimit bounds how many changes of a reload are kept.
const diffLimit = 200

// reloadStatus is the outcome of the last reload.
type reloadStatus struct {
	mu          sync.Mutex
	since       time.Time // since when the configuration has been in effect
	brokenSince time.Time // since when endpoint files have been broken; zero if none is
	last        *operator.ConfigTry
}

func (s *reloadStatus) record(
	needRestart []string, diff []config.Change, err error, broken config.Problems,
) {
	now := time.Now().UTC()
	try := &operator.ConfigTry{
		At: now.Format(time.RFC3339Nano), Errors: []operator.ConfigProblem{}, Diff: []operator.ConfigChange{},
		NeedsRestart: append([]string{}, needRestart...),
	}
	if more := len(diff) - diffLimit; more > 0 {
		diff, try.LeftOut = diff[:diffLimit], more
	}
	for _, c := range diff {
		try.Diff = append(try.Diff, operator.ConfigChange{
			Endpoint: c.Endpoint, Key: c.Key, Change: c.Kind, Before: c.Before, After: c.After, Problem: c.Problem,
		})
	}
	if problems, ok := errors.AsType[config.Problems](err); ok {
		try.Errors = shown(problems)
	} else if err != nil {
		try.Errors = append(try.Errors, operator.ConfigProblem{Message: err.Error()})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last = try; err == nil {
		s.since = now
	}
	if len(broken) == 0 {
		s.brokenSince = time.Time{}
	} else if s.brokenSince.IsZero() {
		s.brokenSince = now
	}
}

// shown returns problems for operators.
func shown(problems config.Problems) []operator.ConfigProblem {
	list := make([]operator.ConfigProblem, len(problems))
	for i, p := range problems {
		list[i] = operator.ConfigProblem{File: p.Source, Line: p.Line, Column: p.Column, Key: p.Key, Message: p.Message}
	}
	return list
}

// configStatus returns the state of the configuration for operators.
func (a *App) configStatus() *operator.ConfigStatus {
	a.status.mu.Lock()
	defer a.status.mu.Unlock()
	status := &operator.ConfigStatus{
		Files: append([]string{}, a.config.Load().ReadFrom()...), Since: a.status.since.UTC().Format(time.RFC3339Nano),
		LastTry: a.status.last, Broken: shown(a.config.Load().Stale()),
	}
	if !a.status.brokenSince.IsZero() {
		status.BrokenSince = a.status.brokenSince.Format(time.RFC3339Nano)
	}
	return status
}

// sources returns the state of the watched tables for operators.
func (a *App) sources() (list []operator.SourceStatus) {
	for _, s := range a.tables.States() {
		status := operator.SourceStatus{Table: s.Table, Type: s.Type, State: s.State, Detail: s.Detail}
		if i := slices.IndexFunc(a.tables.list, func(t capture.Table) bool { return t.Name == s.Table }); i >= 0 {
			t := a.tables.list[i]
			status.Watch, status.Ignore = t.Watch, t.Ignore
			for _, p := range t.Parts {
				status.Parts = append(status.Parts, operator.Part{Table: p.Name, Watch: p.Watch, Ignore: p.Ignore})
			}
		}
		if len(s.Gaps) > 0 {
			last := s.Gaps[0]
			status.LastGap = &operator.SourceGap{
				Since: last.Since.UTC().Format(time.RFC3339), Until: last.Until.UTC().Format(time.RFC3339), Reason: last.Reason,
			}
		}
		list = append(list, status)
	}
	return list
}

// activity counts the events of the last hour by type.
func (t *tables) activity(ctx context.Context) (operator.Activity, error) {
	counts, complete, err := capture.RecentByType(ctx, t.app.store.DB(), t.options, time.Now().Add(-time.Hour))
	lately := operator.Activity{Events: make(map[string]int64), Exact: complete, Last: make(map[string]time.Time)}
	for name, recent := range counts {
		lately.Events[string(name)], lately.Last[string(name)] = recent.Events, recent.Last
	}
	return lately, err
}

// written returns what the configuration says of an endpoint, for operators.
func (a *App) written(endpoint string) *operator.Written {
	found := a.config.Load().Written(endpoint)
	if found == nil {
		return nil
	}
	w := &operator.Written{Place: found.Place}
	for _, s := range found.Settings {
		w.Settings = append(w.Settings, operator.Setting(s))
	}
	return w
}

package app

import (
	"errors"
	"sync"
	"time"

	"github.com/tidings-dev/tidings/internal/config"
	"github.com/tidings-dev/tidings/operator"
)

// tried is since when the configuration is in force, and what became of the last reload.
type tried struct {
	mu    sync.Mutex
	since time.Time
	last  *operator.ConfigTry
}

func (t *tried) note(later []string, err error) {
	now := time.Now().UTC()
	try := &operator.ConfigTry{
		At: now.Format(time.RFC3339Nano), Errors: []operator.ConfigProblem{}, NeedsRestart: append([]string{}, later...),
	}
	if problems, ok := errors.AsType[config.Problems](err); ok {
		for _, p := range problems {
			try.Errors = append(try.Errors, operator.ConfigProblem{
				File: p.Source, Line: p.Line, Column: p.Column, Key: p.Key, Message: p.Message,
			})
		}
	} else if err != nil {
		try.Errors = append(try.Errors, operator.ConfigProblem{Message: err.Error()})
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last = try; err == nil {
		t.since = now
	}
}

// configStatus is the configuration as operators see it.
func (a *App) configStatus() *operator.ConfigStatus {
	a.tried.mu.Lock()
	defer a.tried.mu.Unlock()
	return &operator.ConfigStatus{
		Files: append([]string{}, a.config.Load().ReadFrom()...), Since: a.tried.since.UTC().Format(time.RFC3339Nano),
		LastTry: a.tried.last,
	}
}

// sources are the tables that are watched, as operators see them.
func (a *App) sources() (list []operator.SourceStatus) {
	for _, s := range a.tables.States() {
		list = append(list, operator.SourceStatus{Table: s.Table, Type: s.Type, State: s.State, Detail: s.Detail})
	}
	return list
}

package job_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings/internal/job"
	"github.com/tidings-dev/tidings/internal/resource"
)

// fakeAgents either respond at once or hang for five seconds, a request's timeout.
type fakeAgents struct {
	agents []*resource.Agent
	hangs  map[string]bool // by owner
	err    error

	mu      sync.Mutex
	begun   time.Time
	checks  map[string][]time.Duration // by id, each check's start since begun
	running int
	most    int
}

func (f *fakeAgents) add(owner string, n int, hangs bool) {
	for i := range n {
		f.agents = append(f.agents, &resource.Agent{ID: fmt.Sprintf("%s-%d", owner, i), CreatedBy: owner})
	}
	f.hangs[owner] = hangs
}

func (f *fakeAgents) Agents(context.Context) ([]*resource.Agent, error) { return f.agents, nil }

func (f *fakeAgents) CheckAgent(ctx context.Context, a *resource.Agent) error {
	f.mu.Lock()
	f.checks[a.ID] = append(f.checks[a.ID], time.Since(f.begun))
	f.running++
	f.most = max(f.most, f.running)
	f.mu.Unlock()
	if f.hangs[a.CreatedBy] {
		select {
		case <-time.After(5 * time.Second):
		case <-ctx.Done():
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.running--
	return f.err
}

// runChecks checks agents every 30 s for the given time.
func runChecks(t *testing.T, f *fakeAgents, log *bytes.Buffer, d time.Duration) {
	t.Helper()
	f.begun, f.checks = time.Now(), make(map[string][]time.Duration)
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := job.NewAgentChecks(f, 30*time.Second, slog.New(slog.NewTextHandler(log, nil))).Run(ctx); err != nil {
		t.Error(err)
	}
	if f.running != 0 {
		t.Errorf("%d checks are still running", f.running)
	}
	if f.most > 16 {
		t.Errorf("%d checks ran at once", f.most)
	}
}

// Hanging agents do not delay other owners' agents, and every agent gets its turn.
func TestChecksAreFair(t *testing.T) {
	for _, test := range []struct {
		hanging int // owners, of 160 agents each
		delay   time.Duration
	}{
		{1, 0},
		{10, 5 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := &fakeAgents{hangs: make(map[string]bool)}
			for n := range test.hanging {
				f.add(fmt.Sprint("hangs", n), 160, true)
			}
			f.add("ann", 30, false)
			f.add("bob", 1, false)
			runChecks(t, f, new(bytes.Buffer), time.Hour-time.Second)
			for id, checks := range f.checks {
				if strings.HasPrefix(id, "hangs") {
					// 1600 agents at 5 s, 16 at once: a little more than 8 minutes.
					if len(checks) < 6 {
						t.Errorf("%s was checked %d times in an hour, want at least 6", id, len(checks))
					}
					continue
				}
				if len(checks) != 120 {
					t.Errorf("%s was checked %d times in an hour, want 120", id, len(checks))
				}
				for n, at := range checks {
					if late := at - time.Duration(n)*30*time.Second; late > test.delay {
						t.Errorf("%s was checked %v late", id, late)
						break
					}
				}
			}
		})
	}
}

// Failed checks are logged once per round and don't stop other checks.
func TestFailedChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeAgents{hangs: make(map[string]bool), err: errors.New("no database")}
		f.add("ann", 100, false)
		var log bytes.Buffer
		runChecks(t, f, &log, 70*time.Second)
		if n := len(f.checks); n != 100 {
			t.Errorf("%d agents were checked, want 100", n)
		}
		if lines := strings.Count(log.String(),
			`msg="agents could not be checked" agents=100 error="no database"`); lines != 2 {
			t.Errorf("%d lines, want 2:\n%s", lines, log.String())
		}
	})
}

package job

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/internal/resource"
)

const (
	// agentsAtOnce limits concurrent checks, ownersAgentsAtOnce those of one
	// owner's agents.
	agentsAtOnce       = 16
	ownersAgentsAtOnce = 4
)

// Agents lists and checks agents.
type Agents interface {
	// Agents returns all agents.
	Agents(ctx context.Context) ([]*resource.Agent, error)
	// CheckAgent checks one agent and records whether it responds.
	CheckAgent(ctx context.Context, a *resource.Agent) error
}

// AgentChecks checks all agents periodically. It is fair to their owners: the
// owner with the fewest running checks is next, so that hanging agents delay
// only agents of the same owner.
type AgentChecks struct {
	agents   Agents
	interval time.Duration
	logger   *slog.Logger

	owners  map[string]*owner
	turns   int64
	running map[string]bool      // by agent id
	began   map[string]time.Time // start of an agent's last check
	done    chan checked
	failed  int // failed checks in this round
	failure error
}

// owner is an owner of agents.
type owner struct {
	waiting []*resource.Agent
	running int
	turn    int64 // number of the owner's last turn; the lowest goes first
}

type checked struct {
	agent *resource.Agent
	err   error
}

// NewAgentChecks returns checks that start with [AgentChecks.Run].
func NewAgentChecks(agents Agents, interval time.Duration, logger *slog.Logger) *AgentChecks {
	return &AgentChecks{
		agents: agents, interval: interval, logger: logger,
		owners: make(map[string]*owner), running: make(map[string]bool), began: make(map[string]time.Time),
		done: make(chan checked),
	}
}

// Run performs checks until ctx is done or the agents cannot be read. Then it
// waits for the running checks.
func (c *AgentChecks) Run(ctx context.Context) error {
	defer func() {
		for len(c.running) > 0 {
			c.finish(<-c.done)
		}
	}()
	round := time.NewTicker(c.interval)
	defer round.Stop()
	for {
		if err := c.plan(ctx); err != nil {
			return err
		}
		for next := false; !next; {
			c.start(ctx)
			select {
			case <-ctx.Done():
				return nil
			case a := <-c.done:
				c.finish(a)
			case <-round.C:
				next = true
			}
		}
	}
}

// plan queues all agents for a check, those with the oldest last check first,
// because the previous round may not have reached them.
func (c *AgentChecks) plan(ctx context.Context) error {
	agents, err := c.agents.Agents(ctx)
	if err != nil {
		return err
	}
	c.report(ctx)
	began := make(map[string]time.Time, len(agents))
	for _, o := range c.owners {
		o.waiting = nil
	}
	for _, a := range agents {
		began[a.ID] = c.began[a.ID]
		if !c.running[a.ID] {
			o := c.owner(a)
			o.waiting = append(o.waiting, a)
		}
	}
	c.began = began
	for id, o := range c.owners {
		if o.running == 0 && len(o.waiting) == 0 {
			delete(c.owners, id)
		}
		slices.SortStableFunc(o.waiting, func(a, b *resource.Agent) int { return c.began[a.ID].Compare(c.began[b.ID]) })
	}
	return nil
}

// report logs the errors of the last round in one line.
func (c *AgentChecks) report(ctx context.Context) {
	if c.failed > 0 && ctx.Err() == nil {
		c.logger.ErrorContext(ctx, "agents could not be checked", "agents", c.failed, "error", c.failure)
	}
	c.failed, c.failure = 0, nil
}

func (c *AgentChecks) owner(a *resource.Agent) *owner {
	o := c.owners[a.CreatedBy]
	if o == nil {
		o = new(owner)
		c.owners[a.CreatedBy] = o
	}
	return o
}

// start starts as many checks as allowed.
func (c *AgentChecks) start(ctx context.Context) {
	for len(c.running) < agentsAtOnce {
		var next *owner
		for _, o := range c.owners {
			if len(o.waiting) > 0 && o.running < ownersAgentsAtOnce && (next == nil ||
				cmp.Or(cmp.Compare(o.running, next.running), cmp.Compare(o.turn, next.turn)) < 0) {
				next = o
			}
		}
		if next == nil {
			return
		}
		a := next.waiting[0]
		next.waiting = next.waiting[1:]
		next.running++
		c.turns++
		next.turn = c.turns
		c.running[a.ID], c.began[a.ID] = true, time.Now()
		go func() { c.done <- checked{a, c.agents.CheckAgent(ctx, a)} }()
	}
}

func (c *AgentChecks) finish(a checked) {
	delete(c.running, a.agent.ID)
	c.owner(a.agent).running--
	if a.err != nil {
		c.failed++
		c.failure = cmp.Or(c.failure, a.err)
	}
}

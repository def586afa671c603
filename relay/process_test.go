package relay_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/relay"
)

// process is a relay on a view.
type process struct {
	*view
	relay *relay.Relay
	end   context.CancelFunc
	done  chan struct{}
}

// sender is a sender that is stopped, and killed, with the process. A stopped process
// begins no attempt; here the attempt looks as though it were on its way.
func (v *view) sender(to relay.Sender) relay.Sender {
	return relay.SenderFunc(func(ctx context.Context, a tidings.Attempt) tidings.Outcome {
		v.mu.Lock()
		stopped := v.stopped
		v.mu.Unlock()
		if stopped != nil {
			<-stopped
			return tidings.Outcome{Verdict: tidings.Interrupted}
		}
		if v.pass(ctx) != nil && ctx.Err() != nil {
			return tidings.Outcome{Verdict: tidings.Interrupted}
		}
		return to.Send(ctx, a)
	})
}

// start runs a relay as a separate process. Endpoints without a sender get to.
func (c *cluster) start(t *testing.T, to relay.Sender, endpoints ...relay.Endpoint) *process {
	t.Helper()
	v := c.join()
	for i := range endpoints {
		if endpoints[i].Sender == nil {
			endpoints[i].Sender = to
		}
		endpoints[i].Sender = v.sender(endpoints[i].Sender)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r, err := relay.New(ctx, v, endpoints,
		relay.Options{Logger: slog.New(slog.DiscardHandler), DrainTimeout: time.Second, MaxInFlight: c.limit})
	if err != nil {
		t.Fatal(err)
	}
	p := &process{view: v, relay: r, end: cancel, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		_ = r.Run(ctx) // it may be disconnected
	}()
	t.Cleanup(p.exit) // one that was killed waits in vain for its last writes
	return p
}

// exit stops the process as SIGTERM does.
func (p *process) exit() {
	p.goOn()
	p.end()
	<-p.done
}

// kill ends the process as SIGKILL does: nothing it does afterwards has any effect.
func (p *process) kill() {
	p.set(&p.dead, true)
	p.goOn()
	p.end()
}

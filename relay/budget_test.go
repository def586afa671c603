package relay_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/eventlogtest"
	"github.com/tidings-dev/tidings/relay"
)

// line is a sender that endpoints share: it counts the requests in flight.
type line struct{ now, most atomic.Int64 }

func (l *line) through(to relay.Sender) relay.Sender {
	return relay.SenderFunc(func(ctx context.Context, a tidings.Attempt) tidings.Outcome {
		n := l.now.Add(1)
		defer l.now.Add(-1)
		for most := l.most.Load(); n > most && !l.most.CompareAndSwap(most, n); most = l.most.Load() {
		}
		return to.Send(ctx, a)
	})
}

const hangTime = 15 * time.Second

// hung is a receiver that does not answer.
func hung() *receiver {
	return &receiver{delay: hangTime, answer: func(tidings.Attempt) tidings.Outcome {
		return tidings.Outcome{Verdict: tidings.Failed, Reason: tidings.ReasonTimeout, Duration: hangTime}
	}}
}

// run starts a relay with a limit and returns it.
func run(
	t *testing.T, log eventlog.Log, limit int, endpoints ...relay.Endpoint,
) (r *relay.Relay, stop func()) {
	t.Helper()
	r, err := relay.New(t.Context(), log, endpoints,
		relay.Options{Logger: slog.New(slog.DiscardHandler), MaxInFlight: limit})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	return r, func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if load := r.Load(); load.InFlight != 0 || load.Waiting != 0 {
			t.Errorf("after it stopped: %+v", load)
		}
	}
}

// Half of 200 endpoints hang, and only 64 requests may be in flight: the other half get
// everything, in order: at first when their turn comes, then immediately.
func TestHungEndpointsDoNotUseUpTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit, half, resources, versions = 64, 100, 5, 4
		var all line
		var healthy, hanging []*receiver
		var endpoints []relay.Endpoint
		for i := range half {
			healthy, hanging = append(healthy, &receiver{delay: 5 * time.Millisecond}), append(hanging, hung())
			endpoints = append(endpoints, endpoint(fmt.Sprint("hung", i), all.through(hanging[i])),
				endpoint(fmt.Sprint("well", i), all.through(healthy[i])))
		}
		log := eventlogtest.NewMemory()
		r, stop := run(t, log, limit, endpoints...)
		write := func(round int) {
			for i := range resources * versions {
				log.Append(event(i%resources, round*versions+i/resources))
			}
		}
		write(0)
		// A quarter is never used by those that hang, so they take three rounds.
		for round, patience := range []time.Duration{3 * hangTime, time.Second, time.Second} {
			time.Sleep(patience)
			for i, to := range healthy {
				if n := len(to.got()); n != (round+1)*resources*versions {
					t.Errorf("round %d: endpoint %d got %d events, want %d", round, i, n, (round+1)*resources*versions)
				}
			}
			if load := r.Load(); load.InFlight < limit/2 || load.Waiting == 0 {
				t.Errorf("round %d: %+v, want the budget to be short", round, load)
			}
			write(round + 1)
		}
		time.Sleep(10 * time.Minute)
		for i, to := range hanging {
			if len(to.tries()) == 0 {
				t.Errorf("endpoint %d, which hangs, never had its turn", i)
			}
		}
		stop()
		for _, to := range healthy {
			expectOrder(t, to.got())
		}
		if most := all.most.Load(); most != limit {
			t.Errorf("%d requests at once, want %d", most, limit)
		}
	})
}

// While others wait, an endpoint keeps sending for a moment, because its connection is open,
// but the others wait no longer than that.
func TestTurnsLastAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const endpoints, limit, events = 100, 10, 200
		const took, turn = 10 * time.Millisecond, 500 * time.Millisecond
		log := eventlogtest.NewMemory()
		var all []relay.Endpoint
		var receivers []*receiver
		for i := range endpoints {
			receivers = append(receivers, &receiver{delay: took})
			all = append(all, endpoint(fmt.Sprint("e", i), receivers[i]))
		}
		_, stop := run(t, log, limit, all...)
		time.Sleep(time.Second)
		begun := time.Duration(time.Now().UnixNano())
		for i := range events {
			log.Append(event(i, 0))
		}
		time.Sleep(time.Minute)
		stop()
		for i, r := range receivers {
			tries, turns := r.tries(), 1
			for n := range tries[1:] {
				if tries[n+1].at-tries[n].at > 2*took {
					turns++
				}
			}
			if len(tries) != events || turns > 6 || tries[0].at-begun > 2*endpoints/limit*turn {
				t.Errorf("endpoint %d: %d requests in %d turns, the first after %v", i, len(tries), turns, tries[0].at-begun)
			}
		}
	})
}

// An endpoint on its own may use the whole budget. As soon as there is another, one that
// hangs uses at most its part.
func TestBudgetParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for others, want := range []int64{4, 2, 2} {
			log := eventlogtest.NewMemory()
			var hangs, works line
			endpoints := []relay.Endpoint{endpoint("hung", hangs.through(hung()))}
			var healthy []*receiver
			for i := range others {
				healthy = append(healthy, new(receiver))
				endpoints = append(endpoints, endpoint(fmt.Sprint("well", i), works.through(healthy[i])))
			}
			_, stop := run(t, log, 4, endpoints...)
			time.Sleep(time.Second)
			for i := range 40 {
				log.Append(event(i, 0))
			}
			time.Sleep(time.Second)
			if n := hangs.most.Load(); n != want {
				t.Errorf("of 4 requests, one that hangs uses %d beside %d others, want %d", n, others, want)
			}
			for _, r := range healthy {
				if n := len(r.got()); n != 40 {
					t.Errorf("beside %d others: %d delivered, want 40", others, n)
				}
			}
			stop()
		}
	})
}

// What a removed, changed or paused endpoint was using is available to the others once its
// requests are over.
func TestBudgetIsReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		to := &receiver{}
		hangs, works := endpoint("hung", hung()), endpoint("well", to)
		r, stop := run(t, log, 1, hangs)
		log.Append(event(1, 0))
		time.Sleep(time.Second)
		update := func(endpoints ...relay.Endpoint) {
			if err := r.Update(t.Context(), endpoints); err != nil {
				t.Fatal(err)
			}
		}
		update(hangs, works)
		log.Append(event(2, 0))
		time.Sleep(time.Second)
		if load := r.Load(); load != (relay.Load{InFlight: 1, Limit: 1, Waiting: 1}) || len(to.got()) > 0 {
			t.Errorf("beside one that hangs: %+v, and %v", load, to.got())
		}
		update(works)
		time.Sleep(hangTime)
		if n := len(to.got()); n != 1 {
			t.Errorf("%d delivered once the other is gone, want 1", n)
		}
		works.Fingerprint = "changed"
		update(works)
		log.Append(event(3, 0))
		time.Sleep(time.Second)
		if n := len(to.got()); n != 2 {
			t.Errorf("%d delivered after a change, want 2", n)
		}
		say(t, log, relay.PausedReason)
		if load := r.Load(); load != (relay.Load{Limit: 1}) {
			t.Errorf("nothing to send: %+v", load)
		}
		stop()
	})
}

// A replay and a ping get their turns, too. Nothing of a replay is lost if the process
// ends while it waits.
func TestReplayWaitsForItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlogtest.NewMemory()
		to, busy := &receiver{}, hung()
		works, hangs := endpoint("a", to), endpoint("hung", busy)
		_, stop := run(t, log, 8, works, hangs)
		const n = 50
		for i := range n {
			log.Append(event(i%10, i/10))
		}
		time.Sleep(time.Second)
		stop()
		r, stop := run(t, log, 1, works, hangs)
		time.Sleep(time.Second)
		replay := eventlog.Replay{
			ID: "r", Endpoint: "a", From: 1, To: n, State: eventlog.ReplayRunning, Created: time.Now(), Updated: time.Now(),
		}
		if err := log.AddReplay(t.Context(), replay); err != nil {
			t.Fatal(err)
		}
		if err := log.Nudge(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if load := r.Load(); load.Waiting != 2 || len(to.got()) != n {
			t.Errorf("a replay beside one that hangs: %+v, %d delivered", load, len(to.got()))
		}
		ping := tidings.Ping("ping", "a", "", time.Now())
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if o, err := r.Send(short, "a", ping); err != nil || o.Verdict != tidings.Interrupted {
			t.Errorf("ping: %+v, %v; want it to be given up", o, err)
		}
		if o, err := r.Send(t.Context(), "a", ping); err != nil || o.Verdict != tidings.Delivered {
			t.Errorf("ping: %+v, %v; want it to wait for its turn", o, err)
		}
		began := time.Now()
		stop()
		if took := time.Since(began); took > hangTime-time.Second {
			t.Errorf("the process took %v to end, longer than the request that hangs", took)
		}
		_, stop = run(t, log, 8, works, hangs)
		time.Sleep(time.Minute)
		stop()
		done, err := log.Replays(t.Context(), false, 1)
		if err != nil || len(done) != 1 || done[0].State != eventlog.ReplayDone || done[0].Delivered != n {
			t.Errorf("the replay: %+v, %v", done, err)
		}
	})
}

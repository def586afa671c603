package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/eventlog/eventlogtest"
)

// faulty is a log with holes, which counts the reads of rows, and can be slow and fail.
type faulty struct {
	*eventlogtest.Memory
	mu    sync.Mutex
	holes map[int64]bool
	rows  int
	slow  time.Duration
	err   error
}

func (f *faulty) Read(ctx context.Context, after int64, limit int) ([]tidings.Event, error) {
	f.mu.Lock()
	slow, err := f.slow, f.err
	f.mu.Unlock()
	select {
	case <-time.After(slow):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	var left []tidings.Event
	for len(left) < limit {
		events, err := f.Memory.Read(ctx, after, limit)
		if err != nil || len(events) == 0 {
			return left, err
		}
		after = events[len(events)-1].Sequence
		f.mu.Lock()
		events = slices.DeleteFunc(events, func(e tidings.Event) bool { return f.holes[e.Sequence] })
		f.rows += len(events)
		f.mu.Unlock()
		left = append(left, events...)
	}
	return left[:limit], nil
}

// set changes how the log answers.
func (f *faulty) set(slow time.Duration, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.slow, f.err = slow, err
}

func (f *faulty) fill(n int, name string) {
	for i := range n {
		f.Append(tidings.Event{ID: fmt.Sprint(name, i), Type: "order", Action: "made", ResourceID: "1"})
	}
}

func faultyTail(t *testing.T) (*faulty, *tail) {
	t.Helper()
	log := &faulty{Memory: eventlogtest.NewMemory(), holes: make(map[int64]bool)}
	tail := newTail(log, slog.New(slog.DiscardHandler))
	tail.began = func(context.Context, int64) (func(), error) { return func() {}, nil }
	tail.lost = func(context.Context, int64, int64) error { return nil }
	tail.rewound = func() {}
	return log, tail
}

// Whatever happens to the log, a read returns what it has, and says what it has no more.
func TestChunksProperty(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		ctx := context.Background()
		log, tail := faultyTail(t)
		log.fill(rapid.IntRange(0, 3*chunkSize).Draw(rt, "backlog"), "old")
		if err := tail.start(ctx); err != nil {
			rt.Fatal(err)
		}
		var oldest int64 = 1
		fills := 0
		reading := func(rt *rapid.T, after int64) (next int64) {
			limit := rapid.IntRange(1, 2*chunkSize).Draw(rt, "limit")
			events, missed, err := tail.read(ctx, after, limit)
			if err != nil {
				if log.err == nil {
					rt.Fatalf("read after %d: %v", after, err)
				}
				return after
			}
			there := func(position int64) bool { return position >= oldest && !log.holes[position] }
			for position := after + 1; position <= missed; position++ {
				if there(position) {
					rt.Fatalf("read after %d missed %d, which is there", after, position)
				}
			}
			for i, e := range events {
				if e.Sequence != missed+1+int64(i) {
					rt.Fatalf("read after %d, missed up to %d: position %d is at %d", after, missed, i, e.Sequence)
				}
				want, err := log.Memory.Read(ctx, e.Sequence-1, 1)
				if err != nil || len(want) > 0 && want[0].Sequence == e.Sequence && want[0] != e {
					rt.Fatalf("got %+v, want %+v, %v", e, want, err)
				}
			}
			if len(events) > 0 {
				return events[len(events)-1].Sequence
			}
			if after < tail.position() && missed == after {
				rt.Fatalf("read after %d of %d returned nothing", after, tail.position())
			}
			return missed
		}
		follow := func(*rapid.T) {
			log.set(0, nil)
			if err := tail.follow(ctx); err != nil {
				rt.Fatal(err)
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"append": func(rt *rapid.T) {
				fills++
				log.fill(rapid.IntRange(1, 4*chunkSize).Draw(rt, "events"), fmt.Sprint(fills, "-"))
			},
			"follow": follow,
			"expire": func(rt *rapid.T) {
				oldest = rapid.Int64Range(oldest, tail.position()+1).Draw(rt, "oldest")
				log.ExpireBefore(oldest)
			},
			"delete": func(rt *rapid.T) {
				from := rapid.Int64Range(1, tail.position()+1).Draw(rt, "from")
				for at := from; at < from+rapid.Int64Range(1, 200).Draw(rt, "count"); at++ {
					log.holes[at] = true
				}
				follow(rt)
				tail.mu.Lock() // so that the chunks are read
				tail.events = nil
				tail.mu.Unlock()
			},
			"lose": func(rt *rapid.T) {
				if end := tail.position(); end >= oldest {
					log.Cut(rapid.Int64Range(oldest-1, end).Draw(rt, "end"))
					clear(log.holes)
					fills++
					log.fill(rapid.IntRange(0, chunkSize).Draw(rt, "events"), fmt.Sprint("new", fills, "-"))
					follow(rt)
				}
			},
			"fail": func(*rapid.T) { log.set(0, errors.New("away")) },
			"forget": func(*rapid.T) {
				tail.chunks.mu.Lock()
				for _, c := range tail.chunks.kept {
					c.since = c.since.Add(-2 * chunkAge)
				}
				tail.chunks.mu.Unlock()
				tail.mu.Lock()
				tail.events = nil
				tail.mu.Unlock()
			},
			"read": func(rt *rapid.T) {
				reading(rt, rapid.Int64Range(0, tail.position()+1).Draw(rt, "after"))
			},
			"catch up": func(rt *rapid.T) {
				log.set(0, nil)
				after := rapid.Int64Range(0, tail.position()).Draw(rt, "after")
				for after < tail.position() {
					after = reading(rt, after)
				}
			},
		})
	})
}

// Those who wait for the same events need one query, whatever becomes of the one who
// makes it.
func TestChunksAreReadTogether(t *testing.T) {
	away := errors.New("away")
	for name, test := range map[string]struct {
		err         error
		firstLeaves bool
		queries     int
	}{
		"found":                   {queries: 1},
		"failed":                  {err: away, queries: 1},
		"found, the first leaves": {firstLeaves: true, queries: 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log, tail := faultyTail(t)
				log.fill(2*chunkSize, "e")
				if err := tail.start(t.Context()); err != nil {
					t.Fatal(err)
				}
				counted := &counting{faulty: log}
				tail.log = counted
				log.set(time.Second, test.err)
				ctx, leave := context.WithCancel(t.Context())
				defer leave()
				var first error
				var all sync.WaitGroup
				all.Go(func() { _, _, first = tail.read(ctx, 0, 10) })
				synctest.Wait()
				hurried, end := context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer end()
				all.Go(func() {
					if _, _, err := tail.read(hurried, 0, 10); !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("a read whose time is up: %v", err)
					}
				})
				for i := range 50 {
					all.Go(func() {
						events, _, err := tail.read(t.Context(), int64(i), 10)
						switch {
						case !errors.Is(err, test.err):
							t.Errorf("read: %v, want %v", err, test.err)
						case err == nil && (len(events) != 10 || events[0].Sequence != int64(i+1)):
							t.Errorf("read after %d: %d events: %+v", i, len(events), events)
						}
					})
				}
				time.Sleep(500 * time.Millisecond)
				if test.firstLeaves {
					leave()
				}
				all.Wait()
				if left := errors.Is(first, context.Canceled); left != test.firstLeaves {
					t.Errorf("the first read: %v", first)
				}
				if n := counted.queries(); n != test.queries {
					t.Errorf("%d queries, want %d", n, test.queries)
				}
				log.set(0, nil)
				if events, _, err := tail.read(t.Context(), 0, 10); err != nil || len(events) != 10 {
					t.Errorf("then: %d events, %v", len(events), err)
				}
			})
		})
	}
}

// counting counts queries, including those that failed.
type counting struct {
	*faulty
	n int
}

func (c *counting) Read(ctx context.Context, after int64, limit int) ([]tidings.Event, error) {
	c.mu.Lock()
	c.n++
	c.mu.Unlock()
	return c.faulty.Read(ctx, after, limit)
}

func (c *counting) queries() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// Endpoints that catch up from the same position read each event of the log about once,
// and those at different positions are not slowed down by what others need.
func TestBacklogIsReadOnce(t *testing.T) {
	const endpoints, events = 50, 6 * chunkSize
	for name, test := range map[string]struct {
		start func(endpoint int) int64
		most  int // times that each event is read
	}{
		"the same position":    {func(int) int64 { return 0 }, 1},
		"different positions":  {func(n int) int64 { return int64(n * 37 % events) }, 1},
		"one is far behind":    {func(n int) int64 { return int64(min(n, 1) * events / 2) }, 1},
		"they begin far apart": {func(n int) int64 { return int64(n * events / endpoints) }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &faulty{Memory: eventlogtest.NewMemory()}
				sent := make(chan tidings.Attempt, 1024)
				cursors := make(map[string]int64)
				var all []Endpoint
				expected := 0
				for n := range endpoints {
					e := Endpoint{Sender: SenderFunc(func(_ context.Context, a tidings.Attempt) tidings.Outcome {
						time.Sleep(time.Duration(1+n%7) * time.Millisecond)
						sent <- a
						return tidings.Outcome{Verdict: tidings.Delivered}
					})}
					e.Name, e.MaxInFlight, e.Timeout = fmt.Sprint("e", n), 4, time.Second
					e.Patterns = []tidings.Pattern{anything(t)}
					all = append(all, e)
					cursors[e.Name] = test.start(n)
					expected += events - int(test.start(n))
				}
				for n := range events {
					log.Append(tidings.Event{
						ID: fmt.Sprint(n), Type: "order", Action: "made", ResourceID: fmt.Sprint(n), ResourceURL: "/",
						Time: time.Now(),
					})
				}
				setup := eventlog.Setup{Start: cursors}
				for _, e := range all {
					setup.Partitions = append(setup.Partitions, eventlog.Partition{Endpoint: e.Name, Of: 1})
				}
				if err := log.Prepare(t.Context(), setup); err != nil {
					t.Fatal(err)
				}
				r, err := New(t.Context(), log, all, Options{Logger: slog.New(slog.DiscardHandler)})
				if err != nil {
					t.Fatal(err)
				}
				ctx, stop := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- r.Run(ctx) }()
				for range expected {
					<-sent
				}
				stop()
				if err := <-ended; err != nil {
					t.Error(err)
				}
				if log.rows > test.most*events*11/10 {
					t.Errorf("%d rows of %d events were read for %d deliveries", log.rows, events, expected)
				}
			})
		})
	}
}

func anything(t *testing.T) tidings.Pattern {
	t.Helper()
	p, err := tidings.ParsePattern("*")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

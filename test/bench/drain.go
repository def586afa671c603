package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tidings-dev/tidings/internal/bench"
	"github.com/tidings-dev/tidings/internal/child"
	"github.com/tidings-dev/tidings/relay"
)

const drainRounds = 3

// usage is what runs took: events per second, and µs of CPU time per event.
type usage struct{ rate, sender, receiver, database []float64 }

func (u *usage) String() string {
	text := fmt.Sprintf("%.0f/s; CPU per event: sender %.1f µs, receiver %.1f µs", median(u.rate), median(u.sender),
		median(u.receiver))
	if db := median(u.database); db > 0 {
		text += fmt.Sprintf(", database %.1f µs", db)
	}
	return text
}

// contender is a way to deliver events that drain measures.
type contender struct {
	name string
	// prepare prepares a delivery of all events to the receiver; run performs it.
	prepare func(ctx context.Context, round int) (run func() error, err error)
	// pid returns the id of the delivering process; nil means this process.
	pid func() int
	// end stops what prepare started; may be nil.
	end   func() error
	usage usage
}

const ourselves = "relay with history"

// drain measures how fast a backlog reaches one endpoint, and its CPU time. It compares
// this with net/http clients that store nothing: one always sends the same body, one a
// new body with the headers of a webhook and a timeout, and one starts a goroutine per
// event. On PostgreSQL it also compares a job queue with a job per event. The receiver is
// a separate process. The runs alternate.
func drain(ctx context.Context, d database, events int) (err error) {
	h, err := d.home()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	receiver, err := startReceiver(ctx)
	if err != nil {
		return err
	}
	defer receiver.stop()
	ours := &contender{name: ourselves}
	ours.prepare = func(ctx context.Context, round int) (run func() error, err error) {
		e, err := endpoint(fmt.Sprint("drain", round), receiver.url)
		if err != nil {
			return nil, err
		}
		run, ours.end, err = prepareDrain(ctx, h, receiver, events, events, e)
		return run, err
	}
	contenders := append(clients(receiver, events), ours)
	if d.url != "" {
		contenders = append(contenders, riverQueue(d, receiver, events))
	}
	for round := range drainRounds {
		for _, c := range contenders {
			if err := c.compete(ctx, d, round, receiver.cmd.Process.Pid, events); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	reportDrain(d, events, contenders)
	return nil
}

// reportDrain prints the figures of all contenders, and ours relative to the others.
func reportDrain(d database, events int, contenders []*contender) {
	ours := contenders[slices.IndexFunc(contenders, func(c *contender) bool { return c.name == ourselves })].usage
	total := func(u usage) float64 { return median(u.sender) + median(u.database) }
	var bars []bar
	for _, c := range contenders {
		units := []string{"events/s", "sender-µs/event", "receiver-µs/event", "database-µs/event"}
		d.results.add(d, "Drain/"+c.name, units, c.usage.rate, c.usage.sender, c.usage.receiver, c.usage.database)
		bars = append(bars, bar{c.name, []float64{median(c.usage.sender), median(c.usage.database)}})
		d.report("%d events, %s: %s", events, c.name, &c.usage)
		if c.name != ourselves {
			d.report("  relay relative to it: rate %.2f, CPU of the sender %.2f, with the database %.2f",
				median(ours.rate)/median(c.usage.rate), median(ours.sender)/median(c.usage.sender),
				total(ours)/total(c.usage))
		}
	}
	d.results.chart("drain-"+strings.ToLower(d.name)+".svg", "µs of CPU time per delivery, "+d.name,
		[]string{"sender", "database"}, bars)
}

// clients are programs that post without a database.
func clients(receiver *receiverProcess, events int) []*contender {
	var all []*contender
	for _, c := range []struct {
		name string
		post func(ctx context.Context, url string, events int) error
	}{
		{"a client that sends the same body", postSame},
		{"a client with new bodies and headers", postFresh},
		{"a goroutine per event, one client", postTasks},
	} {
		all = append(all, &contender{
			name: c.name,
			prepare: func(ctx context.Context, _ int) (func() error, error) {
				return func() error {
					return errors.Join(c.post(ctx, receiver.url, events), receiver.wait(ctx, events))
				}, nil
			},
		})
	}
	return all
}

// riverQueue returns River in a separate process.
func riverQueue(d database, receiver *receiverProcess, events int) *contender {
	var cmd *exec.Cmd
	var in io.WriteCloser
	binary := filepath.Join(d.folder, "river")
	return &contender{
		name: "River with a job per event",
		prepare: func(ctx context.Context, _ int) (run func() error, err error) {
			if err := os.MkdirAll(d.folder, 0o700); err != nil {
				return nil, err
			}
			build := exec.CommandContext(ctx, "go", "build", "-o", binary, ".")
			build.Dir = filepath.Join("test", "bench", "river")
			if text, err := build.CombinedOutput(); err != nil {
				return nil, fmt.Errorf("build: %w: %s", err, text)
			}
			cmd = exec.CommandContext(ctx, binary, d.url, receiver.url, strconv.Itoa(events))
			cmd.Stderr = os.Stderr
			child.EndWithUs(cmd, syscall.SIGKILL)
			if in, err = cmd.StdinPipe(); err != nil {
				return nil, err
			}
			out, err := cmd.StdoutPipe()
			if err == nil {
				err = cmd.Start()
			}
			if err != nil {
				return nil, err
			}
			lines := bufio.NewReader(out)
			if _, err := lines.ReadString('\n'); err != nil { // ready
				return nil, err
			}
			return func() error {
				if _, err := io.WriteString(in, "\n"); err != nil {
					return err
				}
				_, err := lines.ReadString('\n') // done
				return errors.Join(err, receiver.wait(ctx, events))
			}, nil
		},
		pid: func() int { return cmd.Process.Pid },
		end: func() error { return errors.Join(in.Close(), cmd.Wait()) },
	}
}

// compete measures one run.
func (c *contender) compete(ctx context.Context, d database, round, receiver, events int) error {
	run, err := c.prepare(ctx, round)
	if err != nil {
		return err
	}
	sender := os.Getpid()
	if c.pid != nil {
		sender = c.pid()
	}
	err = c.usage.measure(d, run, sender, receiver, events)
	if c.end != nil {
		err = errors.Join(err, c.end())
	}
	return err
}

// measure runs run and adds its usage.
func (u *usage) measure(d database, run func() error, sender, receiver, events int) error {
	cpu := func() [3]float64 { return [3]float64{cpuOf(sender, false), cpuOf(receiver, false), d.cpu()} }
	before, begun := cpu(), time.Now()
	err := run()
	seconds, after := time.Since(begun).Seconds(), cpu()
	n := float64(events)
	u.rate = append(u.rate, n/seconds)
	for i, list := range []*[]float64{&u.sender, &u.receiver, &u.database} {
		*list = append(*list, (after[i]-before[i])/n*1e6)
	}
	return err
}

func postSame(ctx context.Context, url string, events int) error {
	c := client()
	defer c.CloseIdleConnections()
	_, err := bench.PostLoop(ctx, c, url, inFlight, events)
	return err
}

// postFresh posts like a program that sends webhooks itself.
func postFresh(ctx context.Context, url string, events int) error {
	c := client()
	defer c.CloseIdleConnections()
	return postWith(ctx, c, url, events)
}

func postWith(ctx context.Context, c *http.Client, url string, events int) error {
	c.Timeout = 15 * time.Second
	return concurrently(events, func() error { return postEvent(ctx, c, url) })
}

// concurrently calls do n times in inFlight goroutines.
func concurrently(n int, do func() error) error {
	var left atomic.Int64
	left.Store(int64(n))
	var wg sync.WaitGroup
	errs := make(chan error, inFlight)
	for range inFlight {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := do(); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	return <-errs
}

// postTasks starts a goroutine per event, like a program that sends webhooks after each
// commit. The client's connections limit the concurrency.
func postTasks(ctx context.Context, url string, events int) error {
	c := client()
	defer c.CloseIdleConnections()
	var wg sync.WaitGroup
	errs := make(chan error, events)
	for range events {
		wg.Go(func() { errs <- postEvent(ctx, c, url) })
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func postEvent(ctx context.Context, c *http.Client, url string) error {
	e := bench.SampleEvent()
	e.ID = e.ResourceID
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(e.AppendJSON(nil)))
	if err != nil {
		return err
	}
	for name, value := range map[string]string{
		"Content-Type": "application/json", "User-Agent": "bench", "Webhook-Id": e.ID,
		"Webhook-Timestamp": strconv.FormatInt(e.Time.Unix(), 10), "Tidings-Sequence": "1", "Tidings-Event": e.Name(),
		"Tidings-Resource": e.Resource(), "Tidings-Resource-Version": "1",
	} {
		request.Header.Set(name, value)
	}
	response, err := c.Do(request)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, response.Body)
	return errors.Join(err, response.Body.Close())
}

// prepareDrain appends events after the endpoints' cursors. It returns functions that
// deliver them, until as many webhooks have arrived, and that stop the relay then.
func prepareDrain(
	ctx context.Context, h *bench.Home, to *receiverProcess, events, webhooks int, endpoints ...relay.Endpoint,
) (run, end func() error, err error) {
	if _, err := newRelay(ctx, h.Log, endpoints...); err != nil { // creates the cursors
		return nil, nil, err
	}
	if err := fill(ctx, h.Log, h.DB, events); err != nil {
		return nil, nil, err
	}
	r, err := newRelay(ctx, h.Log, endpoints...)
	if err != nil {
		return nil, nil, err
	}
	var it running
	return func() error {
		it = start(ctx, r)
		return to.wait(ctx, webhooks)
	}, func() error { return it.end() }, nil
}

// Command river delivers events with a job queue, one job per event, for comparison in
// the bench.
//
//	river DATABASE RECEIVER EVENTS
//
// It enqueues the jobs, prints "ready", and starts working when it reads a line. It prints
// "done" when all jobs are done, and exits when its input closes.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

const (
	inFlight = 16 // the same as in the bench
	batch    = 1000
	// With fewer workers, the poll interval would be the limit.
	workersMost, pause = 500, 2 * time.Millisecond
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "river:", err)
		os.Exit(1)
	}
}

// delivery is the argument of a job.
type delivery struct {
	ID   string          `json:"id"`
	Body json.RawMessage `json:"body"`
}

func (delivery) Kind() string { return "delivery" }

// sender posts the bodies in jobs.
type sender struct {
	river.WorkerDefaults[delivery]
	client *http.Client
	url    string
	left   atomic.Int64
	done   chan struct{}
}

func (s *sender) Work(ctx context.Context, job *river.Job[delivery]) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(job.Args.Body))
	if err != nil {
		return err
	}
	for name, value := range map[string]string{
		"Content-Type": "application/json", "User-Agent": "bench", "Webhook-Id": job.Args.ID,
		"Webhook-Timestamp": strconv.FormatInt(job.CreatedAt.Unix(), 10), "Tidings-Sequence": "1",
		"Tidings-Event": "context.created", "Tidings-Resource": job.Args.ID, "Tidings-Resource-Version": "1",
	} {
		request.Header.Set(name, value)
	}
	response, err := s.client.Do(request)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, response.Body)
	if err = errors.Join(err, response.Body.Close()); err != nil {
		return err
	}
	if s.left.Add(-1) == 0 {
		close(s.done)
	}
	return nil
}

func run(ctx context.Context) error {
	if len(os.Args) != 4 {
		return errors.New("usage: river DATABASE RECEIVER EVENTS")
	}
	events, err := strconv.Atoi(os.Args[3])
	if err != nil {
		return err
	}
	pool, err := pgxpool.New(ctx, os.Args[1])
	if err != nil {
		return err
	}
	defer pool.Close()
	driver := riverpgxv5.New(pool)
	migrator, err := rivermigrate.New(driver, nil)
	if err != nil {
		return err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return err
	}
	s := &sender{url: os.Args[2], done: make(chan struct{}), client: &http.Client{
		Timeout:   15 * time.Second,
		Transport: &http.Transport{MaxIdleConnsPerHost: inFlight, MaxConnsPerHost: inFlight},
	}}
	s.left.Store(int64(events))
	workers := river.NewWorkers()
	river.AddWorker(workers, s)
	client, err := river.NewClient(driver, &river.Config{
		Queues:  map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: workersMost}},
		Workers: workers, FetchCooldown: pause, FetchPollInterval: 10 * pause,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		return err
	}
	if err := enqueue(ctx, client, events); err != nil {
		return err
	}
	return work(ctx, client, s.done)
}

func work[T any](ctx context.Context, client *river.Client[T], done <-chan struct{}) error {
	input := bufio.NewReader(os.Stdin)
	fmt.Println("ready")
	if _, err := input.ReadString('\n'); err != nil {
		return err
	}
	if err := client.Start(ctx); err != nil {
		return err
	}
	<-done
	if err := client.Stop(ctx); err != nil { // records the last jobs as done
		return err
	}
	fmt.Println("done")
	_, _ = input.ReadString('\n') // the bench reads the CPU time first
	return nil
}

func enqueue[T any](ctx context.Context, client *river.Client[T], events int) error {
	for events > 0 {
		jobs := make([]river.InsertManyParams, min(events, batch))
		for i := range jobs {
			id := fmt.Sprintf("%08d-0000-4000-8000-000000000000", events-i)
			body := fmt.Sprintf(`{"event":"context.created","resource_type":"context","resource_id":%q,`+
				`"resource_url":"/api/v1/contexts/%s","user_id":"72264a04-c5a6-48c2-962b-cdb7a9e227a5","timestamp":%q}`,
				id, id, time.Now().UTC().Format(time.RFC3339Nano))
			jobs[i].Args = delivery{ID: id, Body: json.RawMessage(body)}
		}
		if _, err := client.InsertManyFast(ctx, jobs); err != nil {
			return err
		}
		events -= len(jobs)
	}
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"
)

const replicaEndpoints = 8

// replicas measures how long server processes take to drain a backlog of several
// endpoints: one process, two, and three of which one is killed halfway.
func replicas(ctx context.Context, d database, events int) error {
	if d.url == "" {
		return nil // SQLite supports only one process
	}
	alone := 0.0
	for _, tt := range []struct {
		name    string
		servers int
		kill    bool
	}{{"one replica", 1, false}, {"two replicas", 2, false}, {"three replicas, one killed", 3, true}} {
		seconds, most, err := d.replicasOnce(ctx, tt.name, tt.servers, tt.kill, events)
		if err != nil {
			return err
		}
		rate := float64(events*replicaEndpoints) / seconds
		if alone == 0 {
			alone = rate
		}
		d.report("%s: %.0f deliveries/s to %d endpoints, %.2f of one replica; longest pause %.1f s",
			tt.name, rate, replicaEndpoints, rate/alone, most)
	}
	return nil
}

func (d database) replicasOnce(
	ctx context.Context, name string, servers int, kill bool, events int,
) (seconds, longest float64, err error) {
	total := int64(events * replicaEndpoints)
	var arrived, last atomic.Int64
	var pause atomic.Int64
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		swallow(w, r)
		arrived.Add(1)
		now := time.Now().UnixNano()
		if before := last.Swap(now); before > 0 && now-before > pause.Load() {
			pause.Store(now - before)
		}
	}))
	defer receiver.Close()
	var urls []string
	for i := range replicaEndpoints {
		urls = append(urls, fmt.Sprintf("%s/%s/%d", receiver.URL, name[:3], i))
	}
	first := d
	first.folder = filepath.Join(d.folder, name[:5])
	seed, err := startServer(ctx, first, urls...) // creates the endpoints' cursors
	if err != nil {
		return 0, 0, err
	}
	if err := seed.stop(); err != nil {
		return 0, 0, err
	}
	h, err := d.home()
	if err != nil {
		return 0, 0, err
	}
	if err := errors.Join(fill(ctx, h.Log, h.DB, events), h.Close()); err != nil {
		return 0, 0, err
	}
	var all []*server
	begun := time.Now()
	for i := range servers {
		one := first
		one.folder = filepath.Join(first.folder, fmt.Sprint(i))
		s, err := startServer(ctx, one, urls...)
		if err != nil {
			return 0, 0, err
		}
		all = append(all, s)
	}
	for arrived.Load() < total && ctx.Err() == nil {
		if kill && arrived.Load() > total/3 {
			kill = false
			_ = all[0].cmd.Process.Signal(syscall.SIGKILL)
			_ = all[0].cmd.Wait() // killed
			all = all[1:]
		}
		<-time.After(5 * time.Millisecond)
	}
	seconds = time.Since(begun).Seconds()
	for _, s := range all {
		err = errors.Join(err, s.stop())
	}
	return seconds, time.Duration(pause.Load()).Seconds(), errors.Join(err, ctx.Err())
}

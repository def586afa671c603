package store_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"sync/atomic"
	"testing"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/internal/testdb"
)

// turns is a proxy in front of PostgreSQL that counts how often a client had to wait for
// an answer before it could go on.
type turns struct {
	url string
	n   atomic.Int64
}

func newTurns(t *testing.T, database string) *turns {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	to := u.Host
	u.Host = l.Addr().String()
	query := u.Query()
	query.Set("sslmode", "disable")
	u.RawQuery = query.Encode()
	p := &turns{url: u.String()}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(client, to)
		}
	}()
	return p
}

func (p *turns) serve(client net.Conn, to string) {
	defer client.Close()
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	go func() {
		defer server.Close()
		_, _ = io.Copy(server, client) // ends with either of them
	}()
	var head [5]byte
	for {
		if _, err := io.ReadFull(server, head[:]); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
		if _, err := io.ReadFull(server, body); err != nil {
			return
		}
		if head[0] == 'Z' { // ReadyForQuery
			p.n.Add(1)
		}
		if _, err := client.Write(append(head[:], body...)); err != nil {
			return
		}
	}
}

// On PostgreSQL, events cost no round trip: they go with the COMMIT.
func TestEventsGoWithTheCommit(t *testing.T) {
	for name, pollOnly := range map[string]bool{"sessions": false, "transactions only": true} {
		t.Run(name, func(t *testing.T) {
			p := newTurns(t, testdb.Postgres(t))
			s, err := store.OpenPostgres(p.url, store.PostgresOptions{PollOnly: pollOnly})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if err := s.Migrate(t.Context()); err != nil {
				t.Fatal(err)
			}
			testEventsGoWithTheCommit(t, s, p)
		})
	}
}

func testEventsGoWithTheCommit(t *testing.T, s *store.Store, p *turns) {
	ctx := t.Context()
	used := func(name string, s *store.Store, events int) (n int64, err error) {
		for range 2 { // statements are prepared first
			before := p.n.Load()
			err = s.InTx(ctx, func(tx *store.Tx) error {
				row := &cursor{Endpoint: name}
				if err := tx.Insert(ctx, row, event(tidings.Created)); err != nil {
					return err
				}
				for range events - 1 {
					if err := tx.Update(ctx, row, event(tidings.Updated)); err != nil {
						return err
					}
				}
				return nil
			})
			n = p.n.Load() - before
			name += "'"
		}
		return n, err
	}
	without, err := used("without", s.WithoutEvents(), 1)
	if err != nil {
		t.Fatal(err)
	}
	const many = 150 // more than one statement inserts
	for _, events := range []int64{1, many} {
		got, err := used(fmt.Sprint(events), s, int(events))
		if want := without + events - 1; err != nil || got != want {
			t.Errorf("%d events: %d round trips, %v; want %d", events, got, err, want)
		}
	}
	before, err := s.Log().Advance(ctx)
	if want := 2 * (int64(many) + 1); err != nil || before != want {
		t.Errorf("the log ends at %d, %v; want %d", before, err, want)
	}
	// An event that the database refuses fails the transaction, and only that.
	bad := event(tidings.Created)
	bad.ResourceID = "\x00"
	for range 2 {
		err := s.InTx(ctx, func(tx *store.Tx) error { return tx.Insert(ctx, &cursor{Endpoint: "bad"}, bad) })
		if !errors.Is(err, store.ErrText) {
			t.Errorf("a refused event: %v, want %v", err, store.ErrText)
		}
		if err := s.Get(ctx, &cursor{Endpoint: "bad"}); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("the row of a refused event: %v", err)
		}
	}
	if _, err := used("after", s, 1); err != nil {
		t.Errorf("after a refused event: %v", err)
	}
	if end, err := s.Log().Advance(ctx); err != nil || end != before+2 {
		t.Errorf("the log ends at %d, %v; want %d", end, err, before+2)
	}
}

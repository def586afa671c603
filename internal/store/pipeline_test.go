package store_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/internal/testdb"
	"github.com/tidings-dev/tidings/internal/testtool"
)

// turns is a proxy in front of PostgreSQL that counts how often a client had to wait for
// an answer before it could go on.
type turns struct {
	url string
	n   atomic.Int64
	// atBegin is called when a BEGIN arrives; if it returns false, the connection ends.
	// May be nil.
	atBegin func() bool
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
		for b := make([]byte, 16<<10); ; {
			n, err := client.Read(b)
			if err != nil || p.atBegin != nil && bytes.Contains(b[:n], []byte("begin isolation")) && !p.atBegin() {
				return
			}
			if _, err := server.Write(b[:n]); err != nil {
				return
			}
		}
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

// On PostgreSQL, the BEGIN goes with the first statement, and events with the COMMIT.
func TestRoundTrips(t *testing.T) {
	for name, test := range map[string]struct {
		pollOnly bool
		want     int64
	}{"sessions": {false, 2}, "transactions only": {true, 3}} { // which begin with their settings
		t.Run(name, func(t *testing.T) {
			p := newTurns(t, testdb.Postgres(t))
			s := openTurns(t, p, test.pollOnly)
			testRoundTrips(t, s, p, test.want)
		})
	}
}

func testRoundTrips(t *testing.T, s *store.Store, p *turns, want int64) {
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
	if got, err := used("without", s.WithoutEvents(), 1); err != nil || got != want {
		t.Errorf("without events: %d round trips, %v; want %d", got, err, want)
	}
	const many = 150 // more than one statement inserts
	for _, events := range []int64{1, many} {
		got, err := used(fmt.Sprint(events), s, int(events))
		if want := want + events - 1; err != nil || got != want {
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

func openTurns(t *testing.T, p *turns, pollOnly bool) *store.Store {
	t.Helper()
	s, err := store.OpenPostgres(p.url, store.PostgresOptions{PollOnly: pollOnly})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// A transaction whose connection turns out to be broken begins again on another one.
func TestBrokenBeforeItBegan(t *testing.T) {
	var begun atomic.Int64
	p := newTurns(t, testdb.Postgres(t))
	s := openTurns(t, p, false)
	for broken := range int64(4) {
		begun.Store(0)
		p.atBegin = func() bool { return begun.Add(1) > broken }
		runs := int64(0)
		err := s.InTx(t.Context(), func(tx *store.Tx) error {
			runs++
			return tx.Insert(t.Context(), &cursor{Endpoint: fmt.Sprint(broken)}, event(tidings.Created))
		})
		_, away := eventlog.Unavailable(err)
		if want := broken == 3; away != want || err != nil && !away || runs != min(broken, 2)+1 {
			t.Errorf("with %d broken connections: %v after %d runs", broken, err, runs)
		}
	}
	if end, err := s.Log().Advance(t.Context()); err != nil || end != 3 {
		t.Errorf("the log ends at %d, %v; want 3", end, err)
	}
}

// A transaction ends if its BEGIN is not answered within ten seconds, but not because its
// first statement takes longer.
func TestSilentBeforeItBegan(t *testing.T) {
	testtool.InAll(t)
	t.Parallel()
	const limit = 10 * time.Second
	var silent atomic.Bool
	p := newTurns(t, testdb.Postgres(t))
	s := openTurns(t, p, false)
	p.atBegin = func() bool {
		if silent.Load() {
			<-t.Context().Done()
		}
		return true
	}
	insert := func(before func()) (time.Duration, error) {
		begun := time.Now()
		err := s.InTx(t.Context(), func(tx *store.Tx) error {
			defer before()
			return tx.Insert(t.Context(), &cursor{Endpoint: "a"}, event(tidings.Created))
		})
		return time.Since(begun), err
	}
	inserted, ended := make(chan struct{}), make(chan error, 1)
	go func() { // others wait until the row is committed
		_, err := insert(func() {
			close(inserted)
			<-time.After(limit + time.Second)
		})
		ended <- err
	}()
	<-inserted
	took, err := insert(func() {})
	if !errors.Is(err, store.ErrDuplicate) || took < limit {
		t.Errorf("a statement that waits for a row: %v after %v", err, took)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	silent.Store(true)
	took, err = insert(func() {})
	away, ok := errors.AsType[*eventlog.UnavailableError](err)
	if !ok || away.Reason != "the database did not begin a transaction in time" {
		t.Errorf("a silent connection: %v", err)
	}
	if took < limit || took > testtool.Allow(limit+5*time.Second) {
		t.Errorf("a silent connection took %v", took)
	}
	silent.Store(false)
	if _, err := insert(func() {}); !errors.Is(err, store.ErrDuplicate) {
		t.Errorf("afterwards: %v", err)
	}
}

// The answers to a BEGIN are hidden wherever a read ends, and whatever is among them.
func TestHiddenAnswers(t *testing.T) {
	begun := &pgproto3.CommandComplete{CommandTag: []byte("BEGIN")}
	inserted := &pgproto3.CommandComplete{CommandTag: []byte("INSERT 0 1")}
	refused := &pgproto3.ErrorResponse{Severity: "ERROR", Code: "53200"}
	for want, answers := range map[string][]pgproto3.BackendMessage{
		"NoticeResponse ParseComplete BindComplete CommandComplete ReadyForQuery ": {
			&pgproto3.ParseComplete{}, &pgproto3.NoticeResponse{Severity: "WARNING"}, &pgproto3.BindComplete{}, begun,
			&pgproto3.ParseComplete{}, &pgproto3.BindComplete{}, inserted, &pgproto3.ReadyForQuery{TxStatus: 'T'},
		},
		"ErrorResponse ReadyForQuery ": {&pgproto3.ParseComplete{}, refused, &pgproto3.ReadyForQuery{TxStatus: 'I'}},
	} {
		var stream []byte
		for _, m := range answers {
			var err error
			if stream, err = m.Encode(stream); err != nil {
				t.Fatal(err)
			}
		}
		for name, chunks := range map[string]func(io.Reader) io.Reader{
			"whole": iotest.DataErrReader, "halves": iotest.HalfReader, "bytes": iotest.OneByteReader,
		} {
			f := store.Frontend(chunks(bytes.NewReader(stream)), io.Discard)
			for _, m := range store.BeginMessages {
				f.Send(m)
			}
			if err := f.Flush(); err != nil {
				t.Fatal(err)
			}
			got := ""
			for m, err := f.Receive(); err == nil; m, err = f.Receive() {
				got += strings.TrimPrefix(fmt.Sprintf("%T ", m), "*pgproto3.")
			}
			if got != want {
				t.Errorf("%s: %q; want %q", name, got, want)
			}
		}
	}
}

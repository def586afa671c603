package testdb

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/testtool"
)

// Standby starts a synchronous streaming standby of this server: a commit is
// acknowledged once both have it. The standby stops at the end of the test.
func (s *Server) Standby(tb testing.TB) *Server {
	tb.Helper()
	return s.standby(tb, (*Server).Follow)
}

// AsyncStandby starts an asynchronous streaming standby: commits are acknowledged
// before the standby has them. The standby stops at the end of the test.
func (s *Server) AsyncStandby(tb testing.TB) *Server {
	tb.Helper()
	return s.standby(tb, (*Server).FollowAsync)
}

func (s *Server) standby(tb testing.TB, follow func(*Server, *Server) error) *Server {
	tb.Helper()
	standby, err := s.NewStandby()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := standby.Close(); err != nil {
			tb.Errorf("stop standby: %v", err)
		}
	})
	if err := follow(standby, s); err != nil {
		tb.Fatal(err)
	}
	return standby
}

// NewStandby prepares a server. [Server.Follow] or [Server.FollowAsync] starts it.
func (s *Server) NewStandby() (*Server, error) {
	folder, err := os.MkdirTemp("", "tidings-postgres-")
	if err != nil {
		return nil, err
	}
	standby := &Server{folder: folder, binary: s.binary}
	uid, gid, err := account()
	if err == nil {
		err = os.Chown(folder, uid, gid)
	}
	if err == nil {
		standby.port, err = testtool.FreePort()
	}
	return standby, err
}

// Follow turns a stopped server into a synchronous standby of primary and starts it
// on its previous port. It discards the server's data.
func (s *Server) Follow(primary *Server) error {
	if err := s.FollowAsync(primary); err != nil {
		return err
	}
	for _, statement := range []string{"ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()"} {
		if err := run(primary.URL("postgres"), statement); err != nil {
			return err
		}
	}
	return until(primary.URL("postgres"), "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync')")
}

// FollowAsync is [Server.Follow] for an asynchronous standby.
func (s *Server) FollowAsync(primary *Server) error {
	if err := os.RemoveAll(s.data()); err != nil {
		return err
	}
	cmd := s.command("pg_basebackup", "-h", "127.0.0.1", "-p", strconv.Itoa(primary.port), "-U", "tidings",
		"-D", s.data(), "--write-recovery-conf", "--checkpoint=fast", "--no-sync")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("pg_basebackup: %w: %s", err, out)
	}
	if err := s.Start(); err != nil {
		return err
	}
	return until(primary.URL("postgres"), "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE state = 'streaming')")
}

// CatchUp waits until a standby has replayed everything that its primary has
// acknowledged.
func (s *Server) CatchUp(primary *Server) error {
	db, err := sql.Open("pgx", primary.URL("postgres"))
	if err != nil {
		return err
	}
	defer db.Close()
	var end string
	if err := db.QueryRow("SELECT pg_current_wal_insert_lsn()::text").Scan(&end); err != nil {
		return err
	}
	return until(s.URL("postgres"), "SELECT pg_last_wal_replay_lsn() >= '"+end+"'::pg_lsn")
}

// until waits until a query returns true.
func until(url, query string) error {
	db, err := sql.Open("pgx", url)
	if err != nil {
		return err
	}
	defer db.Close()
	deadline := time.Now().Add(startTime)
	for {
		var done bool
		if err := db.QueryRow(query).Scan(&done); err != nil || done {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the standby did not catch up within %v: %s", startTime, query)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// Promote promotes a standby to primary.
func (s *Server) Promote() error {
	db, err := sql.Open("pgx", s.URL("postgres"))
	if err != nil {
		return err
	}
	defer db.Close()
	var promoted bool
	if err := db.QueryRow("SELECT pg_promote(true, 30)").Scan(&promoted); err != nil || !promoted {
		return errors.Join(errors.New("the standby was not promoted"), err)
	}
	return nil
}

// Address returns the server's address.
func (s *Server) Address() string { return "127.0.0.1:" + strconv.Itoa(s.port) }

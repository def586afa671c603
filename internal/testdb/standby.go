package testdb

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"
)

// Standby starts a server that follows this one by synchronous streaming
// replication: a change is acknowledged when both have it. It ends with the test.
func (s *Server) Standby(tb testing.TB) *Server {
	tb.Helper()
	folder, err := os.MkdirTemp("", "tidings-postgres-")
	if err != nil {
		tb.Fatal(err)
	}
	standby := &Server{folder: folder, binary: s.binary}
	tb.Cleanup(func() {
		if err := standby.Close(); err != nil {
			tb.Errorf("stop standby: %v", err)
		}
	})
	uid, gid, err := account()
	if err == nil {
		err = os.Chown(folder, uid, gid)
	}
	if err == nil {
		standby.port, err = freePort()
	}
	if err == nil {
		err = standby.Follow(s)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return standby
}

// Follow makes a server that does not run a standby of another, on the port that
// it had: what it held itself is gone.
func (s *Server) Follow(primary *Server) error {
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
	db, err := sql.Open("pgx", primary.URL("postgres"))
	if err != nil {
		return err
	}
	defer db.Close()
	for _, statement := range []string{"ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()"} {
		if _, err := db.Exec(statement); err != nil {
			return err
		}
	}
	deadline := time.Now().Add(startTime)
	for {
		var synchronous bool
		err := db.QueryRow("SELECT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync')").Scan(&synchronous)
		if err != nil || synchronous {
			return err
		}
		if time.Now().After(deadline) {
			return errors.New("the standby does not follow")
		}
		<-time.After(20 * time.Millisecond)
	}
}

// Promote makes a standby a primary.
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

// Address is where the server listens.
func (s *Server) Address() string { return "127.0.0.1:" + strconv.Itoa(s.port) }

package testdb

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strconv"
)

// StartStandby starts a server that follows this one, by streaming replication.
func (s *Server) StartStandby() (*Server, error) {
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
		standby.port, err = freePort()
	}
	if err == nil {
		err = standby.Follow(s)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(folder))
	}
	return standby, nil
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
	return s.Start()
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

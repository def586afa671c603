// Package testdb provides temporary databases for tests, in a PostgreSQL server that
// runs for the lifetime of the test binary, and other servers: standbys, PgBouncer, S3.
package testdb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // registers the driver "pgx"

	"github.com/tidings-dev/tidings/internal/child"
	"github.com/tidings-dev/tidings/internal/testtool"
)

// Server is a PostgreSQL server in a temporary directory. It listens on loopback.
type Server struct {
	folder    string
	port      int
	binary    string // directory of PostgreSQL's programs
	cmd       *exec.Cmd
	arguments []string // additional arguments of postgres
}

// StartPostgres starts a server that is as durable as in production: fsync is on. The
// arguments are added to its own.
func StartPostgres(arguments ...string) (*Server, error) { return start(arguments...) }

// start starts a server with additional arguments.
func start(arguments ...string) (*Server, error) {
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp("", "tidings-postgres-")
	if err != nil {
		return nil, err
	}
	s := &Server{folder: folder, binary: bin, arguments: arguments}
	if s.port, err = testtool.FreePort(); err != nil {
		return nil, err
	}
	if err := s.init(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(folder))
	}
	if err := s.Start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(folder))
	}
	return s, nil
}

func (s *Server) init() error {
	uid, gid, err := account()
	if err != nil {
		return err
	}
	if err := os.Chown(s.folder, uid, gid); err != nil {
		return err
	}
	cmd := s.command("initdb", "--pgdata", s.data(), "--username", "tidings", "--auth", "trust",
		"--encoding", "UTF8", "--no-locale", "--no-sync")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	return nil
}

// Start restarts the server after [Server.Kill].
func (s *Server) Start() error {
	log, err := os.OpenFile(filepath.Join(s.folder, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd = s.command("postgres", append([]string{
		"-D", s.data(), "-p", strconv.Itoa(s.port), "-k", s.folder,
		"-c", "listen_addresses=127.0.0.1", "-c", "max_connections=400", "-c", "max_wal_size=2GB",
	}, s.arguments...)...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	if err := waitFor(s.URL("postgres")); err != nil {
		text, _ := os.ReadFile(log.Name())
		return fmt.Errorf("postgres is not ready: %w; its log:\n%s", err, text)
	}
	return nil
}

// startTime limits how long a server may take to start.
const startTime = 30 * time.Second

// waitFor waits until a database accepts connections.
func waitFor(url string) error {
	db, err := sql.Open("pgx", url)
	if err != nil {
		return err
	}
	defer db.Close()
	deadline := time.Now().Add(startTime)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		err := db.PingContext(ctx)
		cancel()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		<-time.After(20 * time.Millisecond)
	}
}

// URL returns the URL of a database.
func (s *Server) URL(database string) string {
	return fmt.Sprintf("postgres://tidings@127.0.0.1:%d/%s?sslmode=disable", s.port, database)
}

// Create creates an empty database with options of CREATE DATABASE, and returns
// its URL.
func (s *Server) Create(database string, options ...string) (string, error) {
	if err := run(s.URL("postgres"), "CREATE DATABASE "+database+" "+strings.Join(options, " ")); err != nil {
		return "", fmt.Errorf("create database %s: %w", database, err)
	}
	return s.URL(database), nil
}

func run(url, statements string) error {
	db, err := sql.Open("pgx", url)
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.Exec(statements)
	return err
}

// PID returns the process id of the running server.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Kill stops the server abruptly, like a power failure.
func (s *Server) Kill() error { return s.signal(syscall.SIGQUIT) }

// Stop shuts the server down cleanly without waiting for clients to disconnect.
func (s *Server) Stop() error { return s.signal(syscall.SIGINT) }

// Close stops the server and removes its directory.
func (s *Server) Close() error {
	return errors.Join(s.Stop(), os.RemoveAll(s.folder))
}

func (s *Server) signal(sig syscall.Signal) error {
	if s.cmd == nil {
		return nil
	}
	if err := s.cmd.Process.Signal(sig); err != nil {
		return err
	}
	var exit *exec.ExitError
	if err := s.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		return err
	}
	s.cmd = nil
	return nil
}

func (s *Server) data() string { return filepath.Join(s.folder, "data") }

// command prepares a PostgreSQL program, which ends with the test binary. PostgreSQL
// refuses to run as root, so root runs it as another account.
func (s *Server) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.binary, program), args...)
	cmd.Dir = s.folder
	asAccount(cmd)
	child.EndWithUs(cmd, syscall.SIGINT)
	return cmd
}

// account returns the account that runs PostgreSQL.
func account() (uid, gid int, err error) {
	if os.Getuid() != 0 {
		return os.Getuid(), os.Getgid(), nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		if u, err := user.Lookup(name); err == nil {
			uid, _ = strconv.Atoi(u.Uid)
			gid, _ = strconv.Atoi(u.Gid)
			return uid, gid, nil
		}
	}
	return 0, 0, errors.New("postgres refuses to run as root, and neither account postgres nor nobody exists")
}

var errNoPostgres = errors.New("PostgreSQL is not installed")

// binariesEnv overrides the directory of PostgreSQL's programs. Accounts other than
// root must be able to read it.
const binariesEnv = "TIDINGS_TEST_POSTGRESQL"

func binaries() (string, error) {
	if folder := os.Getenv(binariesEnv); folder != "" {
		return folder, nil
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return "", err
	}
	if len(found) > 0 {
		slices.Sort(found)
		return filepath.Dir(found[len(found)-1]), nil
	}
	path, err := exec.LookPath("initdb")
	if err != nil {
		return "", fmt.Errorf("%w; install it with 'make postgresql'", errNoPostgres)
	}
	return filepath.Dir(path), nil
}

var (
	shared    = sync.OnceValues(func() (*Server, error) { return start("-c", "fsync=off", "-c", "full_page_writes=off") })
	databases atomic.Int64
	started   atomic.Bool
)

// Postgres returns the URL of a new, empty database. Its search_path is the
// schema "app", as in an application's database, so that unqualified statements
// do not find Tidings' tables. Options are those of CREATE DATABASE. Packages that
// use it must call [Main] from TestMain. If PostgreSQL is not installed, the test
// is skipped.
func Postgres(tb testing.TB, options ...string) string {
	tb.Helper()
	started.Store(true)
	server, err := shared()
	need(tb, err)
	name := fmt.Sprintf("test_%d", databases.Add(1))
	url, err := server.Create(name, options...)
	if err == nil {
		err = run(url, "CREATE SCHEMA app; ALTER DATABASE "+name+" SET search_path = app")
	}
	if err != nil {
		tb.Fatal(err)
	}
	return url
}

// OwnServer starts a server for one test, which may kill it. The server stops at
// the end of the test.
func OwnServer(tb testing.TB) *Server {
	tb.Helper()
	server, err := StartPostgres()
	need(tb, err)
	tb.Cleanup(func() {
		if err := server.Close(); err != nil {
			tb.Errorf("stop postgres: %v", err)
		}
	})
	return server
}

func need(tb testing.TB, err error) {
	tb.Helper()
	if errors.Is(err, errNoPostgres) {
		testtool.Missing(tb, testtool.PostgreSQL)
	} else if err != nil {
		tb.Fatal(err)
	}
}

// Main runs the tests, stops the server if [Postgres] started one, and returns the
// exit code.
func Main(m *testing.M) int {
	code := m.Run()
	if started.Load() {
		if server, err := shared(); err == nil {
			if err := server.Close(); err != nil {
				fmt.Fprintln(os.Stderr, "stop postgres:", err)
				return 1
			}
		}
	}
	return code
}

package testdb

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/tidings-dev/tidings/internal/child"
	"github.com/tidings-dev/tidings/internal/testtool"
)

// PgBouncer starts a pooler in front of a database and returns its URL. The mode
// is "session", "transaction" or "statement"; settings are configuration lines.
// If PgBouncer is not installed, the test is skipped.
func PgBouncer(tb testing.TB, database, mode string, settings ...string) string {
	tb.Helper()
	program := testtool.Path(tb, "pgbouncer")
	behind, err := url.Parse(database)
	if err != nil {
		tb.Fatal(err)
	}
	port, err := testtool.FreePort()
	if err != nil {
		tb.Fatal(err)
	}
	folder, err := os.MkdirTemp("", "tidings-pgbouncer-")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(folder) })
	uid, gid, err := account()
	if err == nil {
		err = os.Chown(folder, uid, gid)
	}
	if err != nil {
		tb.Fatal(err)
	}
	users, file, log := filepath.Join(folder, "users"), filepath.Join(folder, "pgbouncer.ini"),
		filepath.Join(folder, "log")
	text := fmt.Sprintf(`[databases]
* = host=127.0.0.1 port=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = trust
auth_file = %s
logfile = %s
pool_mode = %s
default_pool_size = 30
server_login_retry = 1
%s
`, behind.Port(), port, users, log, mode, strings.Join(settings, "\n"))
	for path, content := range map[string]string{users: `"` + behind.User.Username() + `" ""` + "\n", file: text} {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	cmd := exec.Command(program, "-q", file)
	cmd.Dir = folder
	asAccount(cmd)
	child.EndWithUs(cmd, syscall.SIGKILL)
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	behind.Host = "127.0.0.1:" + strconv.Itoa(port)
	if err := waitFor(behind.String()); err != nil {
		text, _ := os.ReadFile(log)
		tb.Fatalf("PgBouncer is not ready: %v; its log:\n%s", err, text)
	}
	return behind.String()
}

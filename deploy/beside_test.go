//go:build container

package deploy_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/internal/testtool"
)

// examples/beside/README.md, with Podman Compose and the image that was built: the
// receiver gets what the application publishes, and reads the feed with its own token.
func TestComposeWithAReceiver(t *testing.T) {
	folder := t.TempDir()
	for _, name := range []string{"examples/beside", "examples/receivers"} {
		if err := os.CopyFS(filepath.Join(folder, name), os.DirFS(filepath.Join("..", name))); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(folder, 0o755); err != nil { //nolint:gosec // the containers' users go through it
		t.Fatal(err)
	}
	for image, name := range map[string]string{
		"tidings-dev/tidings:check": "localhost/tidings-dev/tidings:" + version(t),
		"tidings-debian":            "localhost/python:3-slim",
	} {
		output(t, "podman", "tag", "localhost/"+image, name)
		defer func() { _ = command("podman", "untag", name, name).Run() }()
	}
	const published = "127.0.0.1:8333"
	address, file := testtool.FreeAddress(t), filepath.Join(folder, "examples/beside/compose.yaml")
	text, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(text), published) {
		t.Fatalf("%v; compose.yaml has no port %s:\n%s", err, published, text)
	}
	text = []byte(strings.ReplaceAll(string(text), published, address))
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}

	page := strings.ReplaceAll(blocks(t, "../examples/beside/README.md")[1], published, address)
	page = strings.Replace(page, "whsec_…", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", 1)
	for _, of := range []string{"admin", "shop", "receiver"} {
		page = strings.Replace(page, "tdg_…", "tdg_0123456789abcdef-"+of, 1)
	}
	secrets, page, _ := strings.Cut(page, "\n")
	at := strings.LastIndex(strings.TrimSpace(page), "\n")
	page, logs := page[:at], page[at+1:]
	_, want, _ := strings.Cut(strings.TrimSpace(logs), "# ")
	run := func(script string) string {
		t.Helper()
		script = secrets + "\n" + strings.ReplaceAll(script, "docker compose", "podman-compose")
		return output(t, "sh", "-euc", "cd "+folder+"; "+script)
	}
	const compose = "docker compose -f examples/beside/compose.yaml "
	defer run(compose + "down --volumes")
	run(page)
	within(t, func() error {
		if out := run(logs); !strings.Contains(out, want) {
			return fmt.Errorf("want %s, got\n%s", want, out)
		}
		return nil
	})

	run(compose + "restart receiver")
	within(t, func() error {
		out, err := command("podman", "exec", "beside_receiver_1", "python3", "-c", "import sqlite3; "+
			"print(sqlite3.connect('/state/receiver.db').execute('SELECT position FROM feed').fetchone()[0])").CombinedOutput()
		if err != nil {
			return fmt.Errorf("the receiver has not read the feed: %s", out)
		}
		return nil
	})
}

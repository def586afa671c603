//go:build unix

package app_test

import (
	"database/sql"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/testtool"
)

// While SQLite can't write, requests get 503 with Retry-After, and /readyz says why. The
// server recovers by itself, and every acknowledged change is kept and arrives.
func TestSQLiteAway(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, reason string
		// prepare runs before the server starts; away makes SQLite fail, and returns a function
		// that ends the failure.
		prepare func(t *testing.T, folder string)
		away    func(t *testing.T, folder string) (back func())
	}{
		{"full", "the disk is full", ownDisk, fillDisk},
		{"busy", "the database is locked by another process", func(*testing.T, string) {}, holdLock},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.name == "busy" {
				testtool.InAll(t)
			}
			t.Parallel()
			got := &record{bodies: make(map[string][]byte), versions: make(map[string][]int64)}
			receiver := httptest.NewServer(got)
			t.Cleanup(receiver.Close) // runs after the clients have stopped
			folder := filepath.Join(t.TempDir(), "data")
			if err := os.Mkdir(folder, 0o700); err != nil {
				t.Fatal(err)
			}
			p := newProcess(t, map[string]any{
				"data_dir": folder,
				"webhook":  object{"endpoints": []any{object{"name": "receiver", "url": receiver.URL}}},
			})
			test.prepare(t, folder)
			p.start()
			var mu sync.Mutex
			acknowledged := make(map[string]bool)
			write := func() (status int, header http.Header) {
				r, err := http.NewRequest(http.MethodPost, "http://"+p.address+"/api/v1/contexts",
					strings.NewReader("{}"))
				if err != nil {
					t.Error(err)
					return 0, nil
				}
				r.Header.Set("Authorization", "Bearer token")
				r.Header.Set("Content-Type", "application/json")
				response, err := (&http.Client{Timeout: 2 * testTimeout}).Do(r)
				if err != nil {
					t.Error(err)
					return 0, nil
				}
				defer response.Body.Close()
				text, _ := io.ReadAll(response.Body)
				if response.StatusCode == http.StatusCreated {
					mu.Lock()
					defer mu.Unlock()
					acknowledged[filepath.Base(response.Header.Get("Location"))] = true
				} else if response.StatusCode != http.StatusServiceUnavailable {
					t.Errorf("write: %d %s", response.StatusCode, text)
				}
				if response.StatusCode == http.StatusServiceUnavailable &&
					!strings.Contains(string(text), "GET /readyz") {
					t.Errorf("503 does not say where to find the reason: %s", text)
				}
				return response.StatusCode, response.Header
			}
			for range 3 {
				write()
			}
			back := test.away(t, folder)
			deadline := time.Now().Add(3 * testTimeout)
			for {
				var others sync.WaitGroup // they share commits, the one that fails, too
				for range 7 {
					others.Go(func() { write() })
				}
				status, header := write() // open files may still have room
				others.Wait()
				if status == http.StatusServiceUnavailable {
					if header.Get("Retry-After") == "" {
						t.Error("503 has no Retry-After")
					}
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("writes still succeed")
				}
			}
			p.wait("the reason", func() bool {
				status, text := p.readyz()
				return status == http.StatusServiceUnavailable && strings.Contains(text, test.reason)
			})
			up := func() string {
				response, err := client.Get("http://" + p.address + "/metrics")
				if err != nil {
					t.Fatal(err)
				}
				defer response.Body.Close()
				text, _ := io.ReadAll(response.Body)
				_, value, _ := strings.Cut(string(text), "\ntidings_database_up ")
				return value[:min(1, len(value))]
			}
			p.wait("the metric says so", func() bool { return up() == "0" })
			back()
			p.wait("writes again", func() bool { status, _ := write(); return status == http.StatusCreated })
			p.wait("ready again",
				func() bool { status, _ := p.readyz(); return status == http.StatusOK && up() == "1" })
			for id := range acknowledged {
				if status, _, err := p.call("GET", "/contexts/"+id, nil); status != http.StatusOK || err != nil {
					t.Errorf("context %s was acknowledged but is lost: %d, %v", id, status, err)
				}
			}
			p.checkDelivered(got)
			if err := p.end(syscall.SIGTERM); err != nil {
				t.Errorf("the server stopped with %v", err)
			}
		})
	}
}

// ownDisk mounts a small disk as the data directory.
func ownDisk(t *testing.T, folder string) {
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs",
		folder).CombinedOutput(); err != nil {
		t.Skipf("this account may not mount a disk: %s", out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "--lazy", folder).CombinedOutput(); err != nil {
			t.Errorf("umount: %s", out)
		}
	})
}

func fillDisk(t *testing.T, folder string) (back func()) {
	file, err := os.Create(filepath.Join(folder, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for size := 1 << 16; size > 0; {
		if _, err := file.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		if err := os.Remove(file.Name()); err != nil {
			t.Error(err)
		}
	}
}

// holdLock holds the write lock from another process, the test's own.
func holdLock(t *testing.T, folder string) (back func()) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(folder, "tidings.db")+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	c, err := db.Conn(t.Context())
	if err == nil {
		_, err = c.ExecContext(t.Context(), "BEGIN IMMEDIATE")
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		if _, err := c.ExecContext(t.Context(), "ROLLBACK"); err != nil {
			t.Error(err)
		}
		c.Close()
	}
}

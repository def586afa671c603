package app_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/app"
	"github.com/tidings-dev/tidings/internal/testtool"
)

// beginUpload sends only the beginning of a file.
func (w *world) beginUpload(as string, size int) net.Conn {
	w.Helper()
	const part = "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\nContent-Type: " +
		"text/plain\r\n\r\n"
	return w.begin(as, http.MethodPost, "/files",
		"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 1000000000\r\n\r\n",
		part, strings.Repeat("x", size))
}

// incoming returns the number and total size of unfinished uploads on disk.
func (w *world) incoming() (files int, bytes int64) {
	w.Helper()
	err := filepath.WalkDir(w.settings["data_dir"].(string), func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Base(filepath.Dir(path)) != "incoming" {
			return nil //nolint:nilerr // removed meanwhile
		}
		if info, err := entry.Info(); err == nil {
			files, bytes = files+1, bytes+info.Size()
		}
		return nil
	})
	if err != nil {
		w.Fatal(err)
	}
	return files, bytes
}

func (w *world) incomingBytes() int64 {
	_, bytes := w.incoming()
	return bytes
}

// waitFor waits until done returns true.
func (w *world) waitFor(what string, done func() bool) {
	w.Helper()
	for deadline := time.Now().Add(testTimeout); !done(); {
		if time.Now().After(deadline) {
			w.Fatalf("timed out after %v: %s", testTimeout, what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// An unfinished upload counts against the quota until it is aborted.
func TestQuotaOfUnfinishedUploads(t *testing.T) {
	const mib = 1 << 20
	databases(t, func(t *testing.T, settings map[string]any) {
		settings["files"] = object{"max_size": "20MiB", "user_quota": "24MiB"}
		w := newWorld(t, settings)
		upload := func(as string, size int) answer {
			return w.tryUpload(as, "", "f", "text/plain", strings.NewReader(strings.Repeat("x", size)))
		}
		var open []net.Conn
		for range 2 {
			open = append(open, w.beginUpload("ann", 9*mib))
		}
		// The server may buffer the last bytes of each.
		w.waitFor("the beginnings arrive", func() bool { return w.incomingBytes() > 17*mib })
		w.wants(upload("ann", 8*mib), http.StatusRequestEntityTooLarge, "files.user_quota allows 25165824")
		w.wants(upload("bob", 8*mib), http.StatusCreated)
		w.wants(upload("ann", 4*mib), http.StatusCreated)
		w.wants(upload("ann", 4*mib), http.StatusRequestEntityTooLarge, "files.user_quota allows 25165824")
		if files, _ := w.incoming(); files != len(open) {
			t.Errorf("%d unfinished uploads, want %d", files, len(open))
		}
		for _, c := range open {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
		w.waitFor("aborted uploads are removed", func() bool { return w.incomingBytes() == 0 })
		w.untilTaken("uploads", 0)
		w.wants(upload("ann", 20*mib), http.StatusCreated)
		w.wants(upload("ann", 1), http.StatusRequestEntityTooLarge, "files.user_quota")
	})
}

// Files uploaded during another upload count against its quota.
func TestQuotaOfConcurrentUploads(t *testing.T) {
	const mib = 1 << 20
	databases(t, func(t *testing.T, settings map[string]any) {
		settings["files"] = object{"max_size": "30MiB", "user_quota": "30MiB"}
		w := newWorld(t, settings)
		c := w.beginUpload("ann", 9*mib)
		w.waitFor("the beginning arrives", func() bool { return w.incomingBytes() > 8*mib })
		w.wants(w.tryUpload("ann", "", "f", "text/plain", strings.NewReader(strings.Repeat("x", 18*mib))),
			http.StatusCreated)
		go func() { _, _ = io.WriteString(c, strings.Repeat("x", 20*mib)) }() // will be cut off
		answered, err := io.ReadAll(io.LimitReader(c, 1<<20))
		if text := string(answered); !strings.HasPrefix(text, "HTTP/1.1 413 ") ||
			!strings.Contains(text, "files.user_quota") {
			t.Errorf("answer: %s, %v", text, err)
		}
		w.waitFor("the upload is removed", func() bool { return w.incomingBytes() == 0 })
	})
}

// One user's uploads leave places for other users.
func TestUploadsOfOneUser(t *testing.T) {
	testtool.InAll(t)
	t.Parallel()
	w := newWorld(t, map[string]any{"limits": object{"uploads": 3, "user_uploads": 2, "user_concurrent_requests": 1}})
	for range 2 {
		w.beginUpload("ann", 100)
	}
	w.untilTaken("uploads", 2)
	begun := time.Now()
	w.wantsBusy(w.tryUpload("ann", "", "f", "text/plain", strings.NewReader("x")), time.Since(begun),
		"each user is limited to 2 uploads")
	w.upload("bob", "")
	w.wants(w.try("ann", "GET", "/files", nil), http.StatusOK)
	w.beginUpload("bob", 100)
	w.untilTaken("uploads", 3)
	begun = time.Now()
	w.wantsBusy(w.tryUpload("developer", "", "f", "text/plain", strings.NewReader("x")), time.Since(begun),
		"the server is limited to 3 uploads")
}

// A stalled upload loses its place, and leaves nothing behind.
func TestStalledUpload(t *testing.T) {
	t.Parallel()
	w := newWorldWith(t, map[string]any{},
		option(func(_ *world, o *app.Options) { o.Pace.Body = 300 * time.Millisecond }))
	c := w.beginUpload("ann", 200_000)
	answered, err := io.ReadAll(c)
	if text := string(answered); !strings.HasPrefix(text, "HTTP/1.1 4") ||
		!strings.Contains(text, "the upload is incomplete") {
		t.Errorf("answer: %s, %v", text, err)
	}
	w.untilTaken("uploads", 0)
	if n := w.incomingBytes(); n != 0 {
		t.Errorf("%d bytes were left behind", n)
	}
	w.upload("ann", "")
}

// Clients that do not read pages of lists, file contents or event streams soon lose
// their places and memory.
func TestClientsThatDoNotRead(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		w := newWorldWith(t, settings, option(func(_ *world, o *app.Options) {
			o.Pace.Answer, o.KeepAlive = 300*time.Millisecond, 10*time.Millisecond
		}))
		history := "/contexts/" + w.call("ann", "POST", "/contexts", object{}).id() + "/history"
		for range 2 {
			w.call("ann", "POST", history, message(strings.Repeat("x", 500_000)))
		}
		file := w.tryUpload("ann", "", "f", "text/plain", strings.NewReader(strings.Repeat("x", 20<<20))).id()
		for _, test := range []struct{ path, limit string }{
			{history + "?limit=100", "concurrent_requests"},
			{"/files/" + file + "/content", "concurrent_requests"},
		} {
			for range 20 {
				c := w.begin("ann", "GET", test.path)
				if err := c.(*net.TCPConn).SetReadBuffer(4096); err != nil {
					t.Fatal(err)
				}
			}
			w.waitFor(fmt.Sprintf("a place is taken for %s", test.path), func() bool { return w.taken(test.limit) > 0 })
			w.untilTaken(test.limit, 0)
			w.wants(w.try("ann", "GET", test.path, nil), http.StatusOK)
		}
	})
}

// Searches of one user take only a few places: others' requests and /readyz still
// work, and a refused request gets Retry-After.
func TestSearchesOfOneUser(t *testing.T) {
	testtool.InAll(t)
	const dimension = 500
	databases(t, func(t *testing.T, settings map[string]any) {
		settings["limits"] = object{"user_scans": 2, "scans": 3}
		w := newWorld(t, settings)
		store := w.call("ann", "POST", "/vector_stores",
			object{"name": "s", "dimension": dimension, "model_id": "m"}).id()
		embedding := strings.Repeat("0.5,", dimension-1) + "0.25"
		item := `{"document_id":"d","document_type":"external","model_id":"m","text":"x","embedding":[` + embedding +
			`]}`
		items := "[" + strings.Repeat(item+",", 199) + item + "]"
		for range 10 {
			a := w.request("ann", "PUT", "/api/v1/vector_stores/"+store, strings.NewReader(items),
				map[string]string{"Content-Type": "application/json"})
			w.wants(a, http.StatusOK)
		}
		path := "/api/v1/vector_stores/" + store + "/search"
		const searches = 40
		answers := make(chan answer, searches)
		for range searches {
			go func() {
				answers <- w.request("ann", "POST", path,
					strings.NewReader(`{"query_vector":[`+embedding+`],"limit":1}`),
					map[string]string{"Content-Type": "application/json"})
			}()
		}
		w.waitFor("searches run", func() bool { return w.taken("scans") > 0 })
		for done := 0; done < searches; {
			select {
			case a := <-answers:
				done++
				if a.status != http.StatusOK {
					w.wants(a, http.StatusServiceUnavailable, "each user is limited to 2 searches")
				}
			default:
				w.wants(w.request("", "GET", "/readyz", nil, nil), http.StatusOK)
				w.wants(w.try("bob", "POST", "/contexts", object{}), http.StatusCreated)
				if n := w.taken("scans"); n > 2 {
					t.Errorf("one user takes %d places of scans", n)
				}
			}
		}
	})
}

// An upload of very many parts, none of which is the file, is refused early.
func TestUploadOfManyParts(t *testing.T) {
	w := newWorld(t, map[string]any{})
	c := w.begin("ann", http.MethodPost, "/files",
		"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 1000000000\r\n\r\n",
		strings.Repeat("--x\r\n\r\n\r\n", 200))
	answered, err := io.ReadAll(c) // the server does not wait for the rest
	if text := string(answered); !strings.HasPrefix(text, "HTTP/1.1 422 ") ||
		!strings.Contains(text, `with a part \"file\"`) {
		t.Errorf("answer: %.300s, %v", text, err)
	}
}

package app_test

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/internal/datadir"
	"github.com/tidings-dev/tidings/internal/testtool"
)

// A SQLite file shrinks once much of it is unused, even if an earlier version created it.
func TestFileShrinks(t *testing.T) {
	testtool.InAll(t)
	t.Parallel()
	w := newWorldWith(t, map[string]any{
		"data_dir": filepath.Join(t.TempDir(), "data"), "webhook": object{"retention": "2s", "endpoints": []any{}},
	})
	file := filepath.Join(w.settings["data_dir"].(string), datadir.Database)
	size := func() int64 {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	const mib = 1 << 20
	fill := func() (store string) {
		store = w.call("ann", "POST", "/vector_stores", object{"name": "s", "dimension": 1, "model_id": "m"}).id()
		var items []any
		for i := range 150 {
			items = append(items, object{
				"document_id": fmt.Sprint(i), "document_type": "external", "model_id": "m", "embedding": []int{1},
				"text": strings.Repeat("x", 100_000),
			})
		}
		w.call("ann", "PUT", "/vector_stores/"+store, items)
		w.waitFor("the file grows", func() bool {
			w.call("ann", "POST", "/contexts", object{})
			return size() > 14*mib
		})
		return store
	}
	shrinks := func(store string) {
		before := size()
		w.call("ann", "DELETE", "/vector_stores/"+store, nil)
		w.waitFor("the file shrinks", func() bool {
			w.call("ann", "POST", "/contexts", object{}) // makes SQLite checkpoint now and then
			return size() < 7*mib
		})
		t.Logf("%.1f MiB, then %.1f", float64(before)/mib, float64(size())/mib)
	}
	shrinks(fill())
	store := fill()
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", file)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	for _, statement := range []string{"PRAGMA auto_vacuum = NONE", "VACUUM"} { // like an earlier version
		if _, err := db.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	w.start()
	if !strings.Contains(w.log.String(), "rewriting the database file once") {
		t.Error("the log does not say that the file was rewritten")
	}
	shrinks(store)
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	w.log.clear()
	w.start()
	if strings.Contains(w.log.String(), "rewriting") {
		t.Error("the file was rewritten again")
	}
}

package store_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/internal/store"
)

func TestFolderLock(t *testing.T) {
	folder := t.TempDir()
	for range 2 { // once closed it can be opened again
		s, err := store.OpenSQLite(folder)
		if err != nil {
			t.Fatal(err)
		}
		again, err := store.OpenSQLite(folder)
		if want := fmt.Sprintf("in use by process %d on host ", os.Getpid()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("a second time: %v, %v; want an error with %q", again, err, want)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/tidings-dev/tidings/internal/testtool"
)

// The tests of the console in a browser are a separate module in folder browser.
func TestConsole(t *testing.T) {
	testtool.InAll(t)
	chromium := testtool.Path(t, "chromium")
	axe, err := filepath.Abs("../bin/axe-core/axe.min.js")
	if err == nil {
		_, err = os.Stat(axe)
	}
	if err != nil {
		testtool.Missing(t, "axe-core")
	}
	binary := filepath.Join(t.TempDir(), "tidings")
	if out, err := exec.Command("go", "build", "-o", binary, "../cmd/tidings").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	test := exec.Command("go", "test", "-count=1", ".")
	test.Dir = "browser"
	test.Env = append(os.Environ(), "TIDINGS="+binary, "CHROMIUM="+chromium, "AXE="+axe)
	if out, err := test.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

package testtool_test

import (
	"runtime"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/internal/testtool"
)

// spy records whether a test was skipped or failed.
type spy struct {
	testing.TB
	skipped, failed bool
	text            string
}

func (*spy) Helper() {}

func (s *spy) Skipf(format string, args ...any) {
	s.skipped, s.text = true, format
	runtime.Goexit()
}

func (s *spy) Fatalf(format string, args ...any) {
	s.failed, s.text = true, format
	runtime.Goexit()
}

func TestMissingProgram(t *testing.T) {
	for _, tt := range []struct {
		require, program string
		fails            bool
	}{
		{"", "no-such-program", false},
		{"", testtool.PostgreSQL, false},
		{"postgresql", "no-such-program", false},
		{"postgresql", testtool.PostgreSQL, true},
		{"all", "no-such-program", true},
		{"all", testtool.PostgreSQL, true},
	} {
		t.Setenv("TIDINGS_TEST_REQUIRE", tt.require)
		s := &spy{TB: t}
		done := make(chan struct{})
		go func() {
			defer close(done)
			testtool.Path(s, tt.program)
		}()
		<-done
		if s.failed != tt.fails || s.skipped == tt.fails {
			t.Errorf("%q, %q: failed %v, skipped %v", tt.require, tt.program, s.failed, s.skipped)
		}
		if !strings.Contains(s.text, "is not installed; run %q to install it") {
			t.Errorf("text: %q", s.text)
		}
	}
}

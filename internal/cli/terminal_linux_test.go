package cli_test

import (
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/creack/pty"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tidings-dev/tidings/internal/testtool"
)

// onTerminal runs a command on a terminal with the given number of columns and prints
// what the terminal shows, without what varies between runs: ids, ports and times. It
// types the value of the environment variable TYPED, and Ctrl-C once the terminal's text
// matches UNTIL.
func onTerminal(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: terminal COLUMNS COMMAND...")
	}
	columns, err := strconv.Atoi(args[0])
	ts.Check(err)
	path, err := exec.LookPath(args[1])
	if err != nil { // search the script's PATH
		for dir := range strings.SplitSeq(ts.Getenv("PATH"), string(os.PathListSeparator)) {
			if _, err := os.Stat(dir + "/" + args[1]); err == nil {
				path = dir + "/" + args[1]
				break
			}
		}
	}
	cmd := exec.Command(path, args[2:]...)
	cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "TIDINGS_URL", "TIDINGS_DATA_DIR", "NO_COLOR", "TZ"} {
		if value := ts.Getenv(name); value != "" {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Cols: uint16(columns), Rows: 24})
	ts.Check(err)
	defer terminal.Close()
	ended := time.AfterFunc(testtool.Allow(30*time.Second), func() { _ = cmd.Process.Kill() })
	defer ended.Stop()
	if typed := ts.Getenv("TYPED"); typed != "" {
		_, err := io.WriteString(terminal, typed+"\n")
		ts.Check(err)
	}
	text := shown(terminal, ts.Getenv("UNTIL"))
	failed := cmd.Wait() != nil
	_, err = io.WriteString(ts.Stdout(), normalized(strings.ReplaceAll(text, "\r\n", "\n")))
	ts.Check(err)
	if failed != neg {
		ts.Fatalf("%s: failed = %v, want %v", strings.Join(args[1:], " "), failed, neg)
	}
}

// shown returns what a terminal shows until its command ends.
func shown(terminal io.ReadWriter, until string) string {
	var text []byte
	block, pattern := make([]byte, 4096), regexp.MustCompile(until)
	for stopped := until == ""; ; {
		n, err := terminal.Read(block)
		if text = append(text, block[:n]...); err != nil {
			return string(text)
		}
		if !stopped && pattern.Match(text) {
			stopped = true
			_, _ = terminal.Write([]byte{3})
		}
	}
}

var varying = []struct {
	pattern     *regexp.Regexp
	replacement string
}{
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "UUID"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)`), "TIME"},
	{regexp.MustCompile(`\b(now|\d+[smh] ago|in \d+[smhd])\b`), "SOON"},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "ADDRESS"},
	{regexp.MustCompile(`\b\d+(\.\d+)? ?(µs|ms|s)\b`), "TOOK"},
	{regexp.MustCompile(`(connect|answer) TOOK(, answer TOOK)?`), "STEPS"},
	{regexp.MustCompile(`\b\d+\.\d\b`), "RATE"},
	{regexp.MustCompile(`, sent twice: the connection died`), ""}, // not if it was a new connection
	{regexp.MustCompile(`, context\.\w+ at`), ", EVENT at"},       // probes alternate between types
	{regexp.MustCompile(`held by \S+`), "held by REPLICA"},
	{regexp.MustCompile(`\r|\[[.#]+\][^\[\n]*`), ""}, // progress
	{regexp.MustCompile(`takes about +TOOK\n`), ""},  // printed only if it is long
	{regexp.MustCompile(` {2,}`), "  "},              // the widths of columns vary
}

// normalized replaces what varies between runs and drops repeated lines.
func normalized(text string) string {
	for _, v := range varying {
		text = v.pattern.ReplaceAllString(text, v.replacement)
	}
	return strings.Join(slices.Compact(strings.SplitAfter(text, "\n")), "")
}

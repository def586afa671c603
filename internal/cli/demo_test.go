package cli_test

import (
	"bufio"
	"context"
	"io"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/internal/cli"
)

// The commands that the demo prints show which endpoint fails, and why.
func TestDemoLines(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	read, write := io.Pipe()
	demo := cli.Command()
	demo.SetArgs([]string{"demo"})
	demo.SetOut(write)
	ended := make(chan error, 1)
	go func() {
		err := demo.ExecuteContext(ctx)
		_ = write.CloseWithError(io.EOF) // can't fail
		ended <- err
	}()
	t.Cleanup(func() {
		stop()
		go func() { _, _ = io.Copy(io.Discard, read) }() // its last output
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	var lines [][]string
	for scanner := bufio.NewScanner(read); scanner.Scan(); {
		if strings.Contains(scanner.Text(), " endpoints --watch ") {
			break
		}
		if before, _, found := strings.Cut(scanner.Text(), " --url http://"); found && strings.HasPrefix(before, "  ") {
			lines = append(lines, strings.Fields(scanner.Text()))
		}
	}
	var all strings.Builder
	for _, words := range lines {
		for len(words) > 0 && words[0] != "endpoints" && words[0] != "explain" && words[0] != "attempts" {
			words = words[1:] // the command that starts the program
		}
		operator := cli.Command()
		operator.SetArgs(words)
		operator.SetOut(&all)
		operator.SetErr(&all)
		err := operator.ExecuteContext(ctx)
		if fails := words[0] == "endpoints" && words[1] == "test"; (err != nil) != fails {
			t.Errorf("%q: %v", words, err)
		}
	}
	if len(lines) != 5 {
		t.Errorf("%d commands, want 5", len(lines))
	}
	for _, want := range []string{
		"billing\t", "demo\thealthy", "endpoint    ", "billing: ", "http_500",
		"the ledger is closed",
	} {
		if !strings.Contains(all.String(), want) {
			t.Errorf("no %q in:\n%s", want, all.String())
		}
	}
}

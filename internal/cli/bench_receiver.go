package cli

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
)

// runReceiver starts the receiver. It prints the URL that it listens on, and exits
// when its standard input closes.
func runReceiver(ctx context.Context, program string, args ...string) (*receiverProcess, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the receiver: %w", err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	stop := func() {
		_ = in.Close()
		_ = cmd.Wait() // its exit status does not matter
	}
	if err != nil {
		stop()
		return nil, fmt.Errorf("the receiver did not start: %w", err)
	}
	r := &receiverProcess{url: firstLine(line), stop: stop}
	return r, waitFor(ctx, r.url)
}

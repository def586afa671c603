package cli

import (
	"log"
	"log/slog"
	"strings"
)

// adoptLog has what Go's HTTP client and server write to the standard log written
// as the server's log lines are.
func adoptLog(logger *slog.Logger) {
	log.SetFlags(0)
	log.SetOutput(standardLog{logger})
}

// standardLog is where the standard log goes.
type standardLog struct{ logger *slog.Logger }

// Write logs a line, without bytes that a receiver sent: it may repeat a secret.
func (s standardLog) Write(line []byte) (int, error) {
	text, _, _ := strings.Cut(strings.TrimSpace(string(line)), " starting with ")
	s.logger.Warn(text)
	return len(line), nil
}

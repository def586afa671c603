package cli

import (
	"log"
	"log/slog"
	"strings"
)

// adoptLog redirects the standard log, which net/http writes to, to the server's log.
func adoptLog(logger *slog.Logger) {
	log.SetFlags(0)
	log.SetOutput(standardLog{logger})
}

// standardLog is the output of the standard log.
type standardLog struct{ logger *slog.Logger }

// Write logs a line without the bytes that a receiver sent: they may repeat a secret.
func (s standardLog) Write(line []byte) (int, error) {
	text, _, _ := strings.Cut(strings.TrimSpace(string(line)), " starting with ")
	s.logger.Warn(text)
	return len(line), nil
}

package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/datadir"
	"github.com/tidings-dev/tidings/internal/valid"
	"github.com/tidings-dev/tidings/receive"
	"github.com/tidings-dev/tidings/sender"
)

// localSecret returns this user's secret for listen, and its file. It makes one if
// there is none.
func localSecret() (secret, file string, err error) {
	folder, err := os.UserConfigDir()
	if err != nil {
		return "", "", fmt.Errorf("the folder for the secret: %w", err)
	}
	folder = filepath.Join(folder, "tidings")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return "", "", fmt.Errorf("the folder for the secret: %w", err)
	}
	file = filepath.Join(folder, "listen-secret")
	text, _, err := datadir.ReadOrCreate(file, newSecret()+"\n")
	if err != nil {
		return "", "", fmt.Errorf("the secret: %w", err)
	}
	secret = strings.TrimSpace(text)
	if err := sender.CheckSecret(secret); err != nil {
		return "", "", fmt.Errorf("%s: %w; remove the file to get a new one", file, err)
	}
	return secret, file, nil
}

// feedEvent decodes an event of the feed.
func feedEvent(item json.RawMessage) (tidings.Event, error) {
	var position struct {
		ID              string
		Sequence        int64
		ResourceVersion int64 `json:"resource_version"`
	}
	if err := json.Unmarshal(item, &position); err != nil {
		return tidings.Event{}, err
	}
	if position.ID == "" {
		return tidings.Event{}, errors.New("the event has no id")
	}
	e, err := receive.Decode(http.Header{"Webhook-Id": {position.ID}}, item)
	e.Sequence, e.ResourceVersion = position.Sequence, position.ResourceVersion
	return e, err
}

// recordedLimit bounds a line of a recorded file, in bytes: an event is far smaller.
const recordedLimit = 64 << 10

// replayFile posts the recorded events that match one of the patterns. It returns an
// error if the program refuses any.
func replayFile(ctx context.Context, f *forwarder, name string, types []string) error {
	var patterns []tidings.Pattern
	for _, text := range types {
		p, err := tidings.ParsePattern(text)
		if err != nil {
			return &usageError{fmt.Errorf("--types: %w", err)}
		}
		patterns = append(patterns, p)
	}
	file, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("--replay: %w", err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, recordedLimit)
	read, posted, refused := 0, 0, 0
	for n := 1; lines.Scan(); n++ {
		line := lines.Bytes()
		if n == 1 {
			line = bytes.TrimPrefix(line, []byte(valid.ByteOrderMark))
		}
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		e, err := feedEvent(line)
		if err != nil {
			return fmt.Errorf("%s:%d: %w", name, n, err)
		}
		read++
		if len(patterns) > 0 && !slices.ContainsFunc(patterns, func(p tidings.Pattern) bool {
			return p.Match(e.Type, e.Action)
		}) {
			continue
		}
		o, err := f.deliver(ctx, e)
		if err != nil {
			return err
		}
		if posted++; o.Verdict != tidings.Delivered {
			refused++
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	switch { // a test that posts nothing must not pass
	case read == 0:
		return fmt.Errorf("%s has no events; record some with --record", name)
	case posted == 0:
		return fmt.Errorf("none of the %s of %s matches --types %s", count(int64(read), "event"), name,
			strings.Join(types, ","))
	case refused > 0:
		return fmt.Errorf("the receiver refused %d of %d events", refused, posted)
	}
	return nil
}

package cli

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/tidings-dev/tidings/internal/datadir"
	"github.com/tidings-dev/tidings/internal/regular"
)

const (
	positionsFolder = "listen-positions"
	keptPositions   = 100
)

// listenPosition is how far listen has got, in a file, so that it continues there
// after it was killed.
type listenPosition struct {
	file string

	// After is the cursor with which the current page of the feed was read.
	After string `json:"after"`
	// Last is the id of the event of that page that was passed on last; empty if none was.
	Last string `json:"last,omitempty"`
}

// newListenPosition returns the position kept for what identifies a listen. It
// removes the oldest ones of others.
func newListenPosition(folder string, identity ...string) (*listenPosition, error) {
	folder = filepath.Join(folder, positionsFolder)
	if err := datadir.Create(folder); err != nil {
		return nil, err
	}
	files, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	age := make(map[string]int64)
	for _, f := range files {
		if info, err := f.Info(); err == nil { // another process may have removed it
			age[f.Name()] = -info.ModTime().UnixNano()
		}
	}
	slices.SortFunc(files, func(a, b fs.DirEntry) int { return cmp.Compare(age[a.Name()], age[b.Name()]) })
	for _, f := range files[min(keptPositions, len(files)):] {
		_ = os.Remove(filepath.Join(folder, f.Name())) // the next start tries again
	}
	hash := sha256.Sum256(fmt.Appendf(nil, "%q", identity))
	return &listenPosition{file: filepath.Join(folder, hex.EncodeToString(hash[:16]))}, nil
}

// load reads the position; After stays empty if none was saved.
func (p *listenPosition) load() error {
	text, err := regular.Read(p.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(text, p)
	}
	if err == nil && p.After == "" {
		err = errors.New("it has no after")
	}
	if err != nil {
		return fmt.Errorf("the position in %s: %w; --since replaces it", p.file, err)
	}
	return nil
}

// moveTo starts a page of the feed.
func (p *listenPosition) moveTo(after string) error {
	if after == p.After && p.Last == "" {
		return nil
	}
	p.After, p.Last = after, ""
	return p.save()
}

// passed notes that an event was passed on.
func (p *listenPosition) passed(id string) error {
	p.Last = id
	return p.save()
}

func (p *listenPosition) save() error {
	text, err := json.Marshal(p)
	if err == nil {
		err = datadir.Replace(p.file, append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("save the position: %w", err)
	}
	return nil
}

// left returns the events of the page that were not passed on yet.
func (p *listenPosition) left(page []json.RawMessage) []json.RawMessage {
	last := slices.IndexFunc(page, func(item json.RawMessage) bool {
		e, err := feedEvent(item)
		return err == nil && e.ID == p.Last
	})
	return page[last+1:]
}

package resource

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/tidings-dev/tidings/internal/store"
)

// incoming counts the bytes of each user's contents that are being written: they
// take space before there is a row of theirs.
type incoming struct {
	mu    sync.Mutex
	bytes map[string]int64 // by the user's id
}

// add counts n more bytes of a user, and returns how many there are now.
func (i *incoming) add(user string, n int64) int64 {
	i.mu.Lock()
	defer i.mu.Unlock()
	total := i.bytes[user] + n
	if total == 0 {
		delete(i.bytes, user)
	} else {
		i.bytes[user] = total
	}
	return total
}

// usageStep is how much of a content is read before the user's usage is looked up
// again: other contents may have been kept meanwhile.
const usageStep = 8 << 20

// measured reads a content as long as it is no larger than one file, and all of
// the user's files together, may be.
type measured struct {
	from  io.Reader
	files *Files
	ctx   context.Context
	who   Caller
	size  int64
	used  int64 // by the files that were kept, as of seen
	seen  int64 // the size at which used was looked up
}

// Read implements [io.Reader].
func (m *measured) Read(p []byte) (int, error) {
	n, err := m.from.Read(p)
	m.size += int64(n)
	coming := m.files.incoming.add(m.who.UserID, int64(n))
	limits := m.files.limits
	if m.size > limits.MaxSize {
		return 0, fail(TooLarge, "file", "a file may have %d bytes at most", limits.MaxSize)
	}
	if m.size-m.seen < usageStep && m.used+coming <= limits.UserQuota {
		return n, err
	}
	if err := m.look(); err != nil {
		return 0, err
	}
	if m.used+coming > limits.UserQuota {
		return 0, overQuota(m.used+coming, limits.UserQuota)
	}
	return n, err
}

// look finds out what the user's files take.
func (m *measured) look() error {
	var err error
	m.seen = m.size
	m.used, err = m.files.store.Sum(m.ctx, new(File), "file_size_bytes", ownedBy(m.who))
	return err
}

func ownedBy(who Caller) store.Filter {
	return equal("created_by", who.UserID)
}

func overQuota(bytes, quota int64) error {
	return fail(TooLarge, "file", "your files would have %d bytes; files.user_quota allows %d: delete some first",
		bytes, quota)
}

// write writes a content that can't be seen yet. What it takes counts against the
// user's quota from the first byte on.
func (f *Files) write(ctx context.Context, who Caller, content io.Reader) (Blob, error) {
	m := &measured{from: content, files: f, ctx: ctx, who: who}
	defer func() { f.incoming.add(who.UserID, -m.size) }()
	if err := m.look(); err != nil {
		return nil, fmt.Errorf("usage of files: %w", err)
	}
	return f.blobs.Write(ctx, m)
}

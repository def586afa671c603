package resource

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/tidings-dev/tidings/internal/store"
)

// incoming counts, per user, the bytes of contents being written, which take up
// space before they have a row.
type incoming struct {
	mu    sync.Mutex
	bytes map[string]int64 // by user id
}

// add adds n to the bytes of a user and returns the sum.
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

// usageStep is how much of a content is read before the user's usage is read
// again, because other contents may have been kept in the meantime.
const usageStep = 8 << 20

// measured is a reader that fails once a content exceeds the limit for one
// file, or the user's quota for all files together.
type measured struct {
	from  io.Reader
	files *Files
	ctx   context.Context
	who   Caller
	size  int64
	used  int64 // bytes of kept files, as of seen
	seen  int64 // the size at which used was read
}

// Read implements [io.Reader].
func (m *measured) Read(p []byte) (int, error) {
	n, err := m.from.Read(p)
	m.size += int64(n)
	coming := m.files.incoming.add(m.who.UserID, int64(n))
	limits := m.files.limits
	if m.size > limits.MaxSize {
		return 0, fail(TooLarge, "file", "a file may be at most %d bytes", limits.MaxSize)
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

// look reads how many bytes the user's files take up.
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
	return fail(TooLarge, "file", "your files would total %d bytes; files.user_quota allows %d: delete some first",
		bytes, quota)
}

// write writes a content that is not yet visible. It counts against the user's
// quota from the first byte.
func (f *Files) write(ctx context.Context, who Caller, content io.Reader) (Blob, error) {
	m := &measured{from: content, files: f, ctx: ctx, who: who}
	defer func() { f.incoming.add(who.UserID, -m.size) }()
	if err := m.look(); err != nil {
		return nil, fmt.Errorf("usage of files: %w", err)
	}
	return f.blobs.Write(ctx, m)
}

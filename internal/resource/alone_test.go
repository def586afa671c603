package resource

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/tidings-dev/tidings/internal/store"
)

// hanging is a file store that hangs when it keeps a file's content.
type hanging struct {
	Blobs
	keeps, hold chan struct{}
}

func (h hanging) Write(_ context.Context, content io.Reader) (Blob, error) {
	_, err := io.Copy(io.Discard, content)
	return hangingBlob{h}, err
}

type hangingBlob struct{ hanging }

func (hangingBlob) Size() int64 { return 1 }

func (b hangingBlob) Keep(context.Context, string) error {
	close(b.keeps)
	<-b.hold
	return nil
}

func (hangingBlob) Discard(context.Context) error { return nil }

// An upload whose file store hangs does not block writes that precede it.
func TestUploadHoldsUpNoCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		s, err := store.OpenSQLite(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.Migrate(ctx); err != nil {
			t.Fatal(err)
		}
		blobs := hanging{keeps: make(chan struct{}), hold: make(chan struct{})}
		r := New(s, Outside{Blobs: blobs, Box: openBox{}},
			Options{Logger: slog.Default(), Limits: FileLimits{MaxSize: 1 << 20, UserQuota: 1 << 20}})
		f := &fixture{T: t, Resources: r}
		who := f.user(RoleUser)
		written := make(chan error, 1)
		var all sync.WaitGroup
		all.Go(func() {
			f.must(s.InTx(ctx, func(*store.Tx) error { // those that wait share its commit
				go func() {
					_, err := r.Contexts.Create(ctx, who, NewContext{})
					written <- err
				}()
				synctest.Wait()
				all.Go(func() {
					_, err := r.Files.Create(ctx, who,
						NewFile{Filename: "f", ContentType: "text/plain", Content: strings.NewReader("f")})
					f.must(err)
				})
				synctest.Wait()
				return nil
			}))
		})
		<-blobs.keeps
		f.must(<-written)
		close(blobs.hold)
		all.Wait()
	})
}

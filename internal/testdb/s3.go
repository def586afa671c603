package testdb

import (
	"context"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/tidings-dev/tidings/internal/child"
	"github.com/tidings-dev/tidings/internal/testtool"
)

// Bucket is an empty bucket in a temporary S3 store.
type Bucket struct {
	Endpoint, Region, Name, AccessKey, SecretKey string
	// Client has full access to the bucket.
	Client *minio.Client
	// Stop stops the store before the test ends.
	Stop func()
}

const s3Time = 20 * time.Second

// S3 starts a store in a temporary directory. If the program is not installed, the
// test is skipped.
func S3(tb testing.TB) *Bucket {
	tb.Helper()
	program := testtool.Path(tb, "versitygw")
	port, err := testtool.FreePort()
	if err != nil {
		tb.Fatal(err)
	}
	address := "127.0.0.1:" + strconv.Itoa(port)
	b := &Bucket{
		Endpoint: "http://" + address, Region: "us-east-1", Name: "contents", AccessKey: "access",
		SecretKey: "hidden-key",
	}
	cmd := exec.Command(program, "--access", b.AccessKey, "--secret", b.SecretKey, "--region", b.Region, "--port",
		address, "posix", tb.TempDir())
	child.EndWithUs(cmd, syscall.SIGKILL)
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	b.Stop = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	tb.Cleanup(b.Stop)
	b.Client, err = minio.New(address,
		&minio.Options{Creds: credentials.NewStaticV4(b.AccessKey, b.SecretKey, ""), Region: b.Region})
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), s3Time)
	defer cancel()
	for {
		err := b.Client.MakeBucket(ctx, b.Name, minio.MakeBucketOptions{})
		if err == nil {
			return b
		}
		select {
		case <-ctx.Done():
			tb.Fatalf("the S3 store does not respond: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

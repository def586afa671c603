package testdb

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// Bucket is an empty bucket of a throw-away S3 store.
type Bucket struct {
	Endpoint, Region, Name, AccessKey, SecretKey string
	// Client sees all of it.
	Client *minio.Client
	// Stop ends the store, which otherwise ends with the test.
	Stop func()
}

const s3Time = 20 * time.Second

// S3 starts a store on a folder: the program that "make tools" builds.
func S3(tb testing.TB) *Bucket {
	tb.Helper()
	_, here, _, _ := runtime.Caller(0)
	program := filepath.Join(filepath.Dir(here), "..", "..", "bin", "versitygw")
	port, err := freePort()
	if err != nil {
		tb.Fatal(err)
	}
	address := "127.0.0.1:" + strconv.Itoa(port)
	b := &Bucket{Endpoint: "http://" + address, Region: "us-east-1", Name: "contents", AccessKey: "access", SecretKey: "hidden-key"}
	cmd := exec.Command(program, "--access", b.AccessKey, "--secret", b.SecretKey, "--region", b.Region, "--port", address, "posix", tb.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			tb.Fatalf("%s is missing; 'make tools' builds it", program)
		}
		tb.Fatal(err)
	}
	b.Stop = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	tb.Cleanup(b.Stop)
	b.Client, err = minio.New(address, &minio.Options{Creds: credentials.NewStaticV4(b.AccessKey, b.SecretKey, ""), Region: b.Region})
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
			tb.Fatalf("the S3 store does not answer: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

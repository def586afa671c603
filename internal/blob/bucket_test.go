package blob_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/internal/blob"
	"github.com/tidings-dev/tidings/internal/testdb"
)

func bucketOptions(s *testdb.Bucket) blob.BucketOptions {
	return blob.BucketOptions{
		Endpoint: s.Endpoint, Region: s.Region, Name: s.Name, Prefix: "tidings/",
		AccessKey: s.AccessKey, SecretKey: s.SecretKey,
	}
}

func keys(t *testing.T, client *minio.Client, bucket string) (all []string) {
	t.Helper()
	for found := range client.ListObjects(t.Context(), bucket, minio.ListObjectsOptions{Recursive: true}) {
		if found.Err != nil {
			t.Fatal(found.Err)
		}
		all = append(all, found.Key)
	}
	return all
}

func TestBucket(t *testing.T) {
	store := testdb.S3(t)
	o, client := bucketOptions(store), store.Client
	b, err := blob.NewBucket(o)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	testBlobs(t, b)
	if left := keys(t, client, o.Name); len(left) != 0 {
		t.Errorf("left: %q", left)
	}

	// An upload in several parts.
	large := make([]byte, 20<<20)
	for i := range large {
		large[i] = byte(rand.Uint32())
	}
	w, err := b.Write(t.Context(), io.MultiReader(bytes.NewReader(large[:1<<20]), bytes.NewReader(large[1<<20:])))
	if err != nil || w.Size() != int64(len(large)) {
		t.Fatalf("write: %v, %v", w, err)
	}
	if err := errors.Join(w.Keep(t.Context(), id), w.Discard(t.Context())); err != nil {
		t.Fatal(err)
	}
	r, err := b.Open(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(r); err != nil || !bytes.Equal(text, large) {
		t.Errorf("read %d bytes, %v", len(text), err)
	}
	r.Close()

	// Each ignores other objects in the bucket.
	for _, key := range []string{"others", o.Prefix + "ot/others", o.Prefix + id} {
		if _, err := client.PutObject(t.Context(), o.Name, key, strings.NewReader("x"), 1,
			minio.PutObjectOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	var seen []string
	if err := b.Each(t.Context(), time.Now().Add(time.Hour), func(id string) error {
		seen = append(seen, id)
		return nil
	}); err != nil || len(seen) != 1 || seen[0] != id {
		t.Errorf("each: %q, %v", seen, err)
	}

	// The error of an unavailable store is marked and does not contain the key.
	store.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err = b.Open(ctx, id)
	if _, ok := errors.AsType[*eventlog.UnavailableError](err); !ok || strings.Contains(err.Error(), o.SecretKey) {
		t.Errorf("without a store: %v", err)
	}
}

func TestMissingBucket(t *testing.T) {
	o := bucketOptions(testdb.S3(t))
	o.Name = "elsewhere"
	b, err := blob.NewBucket(o)
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.Write(t.Context(), strings.NewReader("x"))
	if answer, ok := errors.AsType[minio.ErrorResponse](err); !ok || answer.StatusCode != http.StatusNotFound {
		t.Errorf("error = %v", err)
	}
}

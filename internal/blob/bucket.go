package blob

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/internal/resource"
)

// Bucket stores each blob as an object in an S3-compatible store, named by its
// id. Blobs that are not yet kept are under "incoming".
type Bucket struct {
	client *minio.Client
	name   string
	prefix string
}

// BucketOptions locates a bucket.
type BucketOptions struct {
	// Endpoint is the URL of the store.
	Endpoint string
	Region   string
	Name     string
	// Prefix is prepended to the names of all objects; it may be empty.
	Prefix               string
	AccessKey, SecretKey string
}

const (
	bucketTime = 30 * time.Second // until a response starts
	keepTime   = time.Minute      // limits how long a transaction waits
	partSize   = 5 << 20          // part of an upload held in memory; S3's minimum
)

// NewBucket returns a bucket. It does not check that the bucket exists.
func NewBucket(o BucketOptions) (*Bucket, error) {
	u, err := url.Parse(o.Endpoint)
	if err != nil { // err contains the URL
		return nil, errors.New("file store: the endpoint is not a valid URL")
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = bucketTime
	client, err := minio.New(u.Host, &minio.Options{
		Creds: credentials.NewStaticV4(o.AccessKey, o.SecretKey, ""), Secure: u.Scheme == "https",
		Region: o.Region, Transport: transport, MaxRetries: 3,
	})
	if err != nil {
		return nil, fmt.Errorf("file store: %w", err)
	}
	return &Bucket{client: client, name: o.Name, prefix: o.Prefix}, nil
}

// Close does nothing, since idle connections close by themselves.
func (b *Bucket) Close() error { return nil }

func (b *Bucket) key(id string) string { return b.prefix + name(id) }

// Write uploads a blob.
func (b *Bucket) Write(ctx context.Context, content io.Reader) (resource.Blob, error) {
	o := &object{bucket: b, key: b.prefix + path.Join(incoming, rand.Text())}
	source := &sourceReader{from: content}
	info, err := b.client.PutObject(ctx, b.name, o.key, source, -1, minio.PutObjectOptions{PartSize: partSize})
	if source.err != nil { // the source failed, not the store
		return nil, source.err
	}
	if err != nil {
		return nil, fmt.Errorf("write content: %w", outage(err))
	}
	o.size = info.Size
	return o, nil
}

// sourceReader records the error of the source being read.
type sourceReader struct {
	from io.Reader
	err  error
}

func (s *sourceReader) Read(p []byte) (int, error) {
	n, err := s.from.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// object is an uploaded blob.
type object struct {
	bucket *Bucket
	key    string
	size   int64
	kept   string // id under which it was kept
}

func (o *object) Size() int64 { return o.size }

// Keep copies the object to its final name within the store.
func (o *object) Keep(ctx context.Context, id string) error {
	if o.kept == id {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, keepTime)
	defer cancel()
	b := o.bucket
	_, err := b.client.CopyObject(ctx, minio.CopyDestOptions{Bucket: b.name, Object: b.key(id)},
		minio.CopySrcOptions{Bucket: b.name, Object: o.key})
	if err != nil {
		return fmt.Errorf("keep content: %w", outage(err))
	}
	o.kept = id
	return nil
}

// Discard deletes the upload; a kept blob is a copy of it. If that fails,
// [Bucket.Each] deletes the upload later.
func (o *object) Discard(ctx context.Context) error {
	_ = o.bucket.remove(ctx, o.key)
	return nil
}

// Open opens a blob, which can be read until the context is done.
func (b *Bucket) Open(ctx context.Context, id string) (io.ReadSeekCloser, error) {
	content, err := b.client.GetObject(ctx, b.name, b.key(id), minio.GetObjectOptions{})
	if err == nil {
		_, err = content.Stat() // sends the first request
	}
	if err != nil {
		return nil, fmt.Errorf("open content: %w", outage(err))
	}
	return content, nil
}

// Remove deletes a blob. It is not an error if the blob does not exist.
func (b *Bucket) Remove(ctx context.Context, id string) error { return b.remove(ctx, b.key(id)) }

func (b *Bucket) remove(ctx context.Context, key string) error {
	ctx, cancel := context.WithTimeout(ctx, bucketTime)
	defer cancel()
	if err := b.client.RemoveObject(ctx, b.name, key, minio.RemoveObjectOptions{}); err != nil {
		return fmt.Errorf("remove content: %w", outage(err))
	}
	return nil
}

// Each calls do for every blob kept before the given time. It also deletes
// abandoned uploads.
func (b *Bucket) Each(ctx context.Context, before time.Time, do func(id string) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // stops the listing
	for found := range b.client.ListObjects(ctx, b.name, minio.ListObjectsOptions{Prefix: b.prefix, Recursive: true}) {
		if found.Err != nil {
			return fmt.Errorf("list contents: %w", outage(found.Err))
		}
		var err error
		switch key := strings.TrimPrefix(found.Key, b.prefix); {
		case strings.HasPrefix(key, incoming+"/"):
			if found.LastModified.Before(time.Now().Add(-uploadTime)) {
				err = b.remove(ctx, found.Key)
			}
		case found.LastModified.Before(before) && isOurs(key):
			err = do(path.Base(key))
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// isOurs reports whether an object may be a blob; the bucket may contain other
// objects.
func isOurs(key string) bool {
	id := path.Base(key)
	return uuid.Validate(id) == nil && name(id) == key
}

// outage marks errors of an unavailable store. It keeps only a response's code and
// status, because the rest may quote the request.
func outage(err error) error {
	answer := minio.ToErrorResponse(err)
	if answer.Code != "" && answer.StatusCode != 0 {
		err = &refusal{answer.Code, answer.StatusCode, err}
	}
	if answer.StatusCode == 0 || answer.StatusCode >= http.StatusInternalServerError {
		return &eventlog.UnavailableError{Reason: "the file store is unavailable", Err: err}
	}
	return err
}

type refusal struct {
	code   string
	status int
	cause  error
}

// Error returns the code and status.
func (r *refusal) Error() string {
	return fmt.Sprintf("the store responded with %.100q (%d)", r.code, r.status)
}

// Unwrap returns the client's error.
func (r *refusal) Unwrap() error { return r.cause }

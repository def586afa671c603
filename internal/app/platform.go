package app

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"time"

	"github.com/tidings-dev/tidings/internal/blob"
	"github.com/tidings-dev/tidings/internal/config"
	"github.com/tidings-dev/tidings/internal/datadir"
	"github.com/tidings-dev/tidings/internal/job"
	"github.com/tidings-dev/tidings/internal/remote"
	"github.com/tidings-dev/tidings/internal/resource"
)

// platform is what the ten resource types need besides the log and the outbox. A relay
// has none.
type platform struct {
	resources *resource.Resources
	remote    *remote.Client
	jobs      []job.Job
}

func (a *App) openPlatform(ctx context.Context, cfg *config.Config) (*platform, error) {
	blobs, err := openBlobs(cfg)
	if err != nil {
		return nil, err
	}
	a.onClose("file contents", blobs.Close)
	box, err := openBox(ctx, cfg, a.store, a.logger)
	if err != nil {
		return nil, err
	}
	outside := remote.New(cfg.UserEgress(), a.userAgent)
	a.onClose("connections to agents", outside.Close)
	if proxy, err := http.ProxyFromEnvironment(&http.Request{URL: &url.URL{
		Scheme: "https",
		Host:   "example.com",
	}}); proxy != nil && err == nil {
		a.logger.Warn("agents, MCP servers and model providers are connected to directly; the proxy in the " +
			"environment is not used, because it could reach addresses that users must not")
	}
	var presets []resource.Preset
	for _, p := range cfg.Connectors.Presets {
		secret, err := p.ClientSecret.Read()
		if err != nil {
			return nil, fmt.Errorf("connector preset %s: %w", p.URL, err)
		}
		presets = append(presets,
			resource.Preset{URL: p.URL, Metadata: p.Metadata, ClientID: p.ClientID, ClientSecret: secret})
	}
	resources := resource.New(a.store, resource.Outside{
		Agents: outside, Models: outside, MCP: outside, Blobs: blobs,
		Box: box,
	}, resource.Options{
		Limits:  resource.FileLimits{MaxSize: int64(cfg.Files.MaxSize), UserQuota: int64(cfg.Files.UserQuota)},
		Quotas:  quotas(&cfg.Limits),
		Presets: presets, Logger: a.logger,
	})
	if err := useKeys(ctx, cfg, resources); err != nil {
		return nil, err
	}
	jobs := job.All(resources, a.logger, job.Settings{
		CheckInterval:      time.Duration(cfg.Providers.CheckInterval),
		ModelCheckInterval: time.Duration(cfg.ModelProviders.CheckInterval),
		ExpireAfter:        time.Duration(cfg.Contexts.ExpireAfter),
	})
	return &platform{resources, outside, jobs}, nil
}

type blobs interface {
	resource.Blobs
	Close() error
}

func openBlobs(cfg *config.Config) (blobs, error) {
	s := cfg.Files.S3
	if s.Bucket == "" {
		folder, err := blob.OpenFolder(filepath.Join(cfg.DataDir, datadir.Files))
		if err != nil {
			return nil, datadir.Explain(cfg.DataDir, err)
		}
		return folder, nil
	}
	access, err := s.AccessKey.Read()
	if err != nil {
		return nil, fmt.Errorf("files.s3.access_key: %w", err)
	}
	secret, err := s.SecretKey.Read()
	if err != nil {
		return nil, fmt.Errorf("files.s3.secret_key: %w", err)
	}
	return blob.NewBucket(blob.BucketOptions{
		Endpoint: s.Endpoint, Region: s.Region, Name: s.Bucket, Prefix: s.Prefix, AccessKey: access, SecretKey: secret,
	})
}

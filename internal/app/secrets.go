package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tidings-dev/tidings/internal/config"
	"github.com/tidings-dev/tidings/internal/datadir"
	"github.com/tidings-dev/tidings/internal/regular"
	"github.com/tidings-dev/tidings/internal/resource"
	"github.com/tidings-dev/tidings/internal/secretbox"
	"github.com/tidings-dev/tidings/internal/store"
)

// keepPrivate removes other users' permissions from the files in the data directory,
// and warns about exposed files, which they could read.
func (a *App) keepPrivate(cfg *config.Config, exposed []string) {
	for _, path := range exposed {
		switch {
		case path == cfg.DataDir:
			a.logger.Warn("other users of this machine can read the data directory; 'chmod 700' makes it private",
				"directory", path)
		case filepath.Base(path) == datadir.AdminToken:
			a.logger.Warn("other users of this machine could read the admin token until now; if somebody may have, "+
				"remove the file and restart, which creates a new token", "file", path)
		case filepath.Base(path) == datadir.EncryptionKey:
			a.logger.Warn("other users of this machine could read the encryption key until now; if somebody may have, "+
				"replace the key as described in docs/operations.md", "file", path)
		default:
			a.logger.Warn("other users of this machine could read a file in the data directory until now", "file", path)
		}
	}
	datadir.Tighten(cfg.DataDir)
	for i, t := range cfg.Auth.Tokens {
		if t.Token.File != "" && datadir.IsExposed(t.Token.File) {
			a.logger.Warn("other users of this machine can read a token's file, and may have done so; "+
				"'chmod 600' makes it private", "setting", fmt.Sprintf("auth.tokens[%d].token", i), "file",
				t.Token.File)
		}
	}
}

// openBox returns the encryption keys: the configured ones and, with SQLite, the one
// in the data directory. If there are none, it creates that one, unless the database
// needs a missing key.
func openBox(ctx context.Context, cfg *config.Config, s *store.Store, logger *slog.Logger) (*secretbox.Box, error) {
	var keys []secretbox.Key
	for _, source := range cfg.EncryptionSources() {
		text, err := source.Source.Read()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", source.Setting, err)
		}
		keys = append(keys, secretbox.Key{Setting: source.Setting, Text: text})
	}
	if cfg.DatabaseURL.Set() { // several servers need the same keys
		return secretbox.New(keys...)
	}
	file := filepath.Join(cfg.DataDir, datadir.EncryptionKey)
	text, err := regular.Read(file)
	switch {
	case errors.Is(err, fs.ErrNotExist) && len(keys) > 0:
		return secretbox.New(keys...)
	case errors.Is(err, fs.ErrNotExist):
		if ids, err := s.Keys(ctx); err != nil {
			return nil, err
		} else if len(ids) > 0 {
			return nil,
				keysMissing(&resource.MissingKeysError{IDs: ids}, "encryption_key is not set, and "+file+" is missing")
		}
		return createKey(file, logger)
	case err != nil:
		return nil, fmt.Errorf("encryption key: %w", err)
	}
	own := secretbox.Key{Setting: file, Text: strings.TrimSpace(string(text))}
	if _, err := secretbox.New(own); err != nil {
		return nil, fmt.Errorf("%w; restore this file from a backup", err)
	}
	if !slices.ContainsFunc(keys, func(k secretbox.Key) bool { return k.Text == own.Text }) {
		keys = append(keys, own)
	}
	return secretbox.New(keys...)
}

func createKey(file string, logger *slog.Logger) (*secretbox.Box, error) {
	key := secretbox.Key{Setting: file, Text: secretbox.NewKey()}
	if err := datadir.WriteNew(file, []byte(key.Text+"\n")); err != nil {
		return nil, fmt.Errorf("create encryption key: %w", err)
	}
	logger.Info("created an encryption key, because none is configured; back up this file separately from the "+
		"database: without it, the API keys, client secrets and variables in the database can't be read",
		"file", file)
	return secretbox.New(key)
}

// keysMissing adds advice to an error about missing keys.
func keysMissing(err error, setting string) error {
	return fmt.Errorf("%s: %w; add that key to encryption_keys, after the new one, or restore the file that held it; "+
		"if it is lost, 'tidings keys forget' lets the server start without it, and these secrets must be set again",
		setting, err)
}

// useKeys checks that this server's keys can decrypt the database.
func useKeys(ctx context.Context, cfg *config.Config, r *resource.Resources) error {
	err := r.UseKeys(ctx)
	missing, ok := errors.AsType[*resource.MissingKeysError](err)
	if !ok {
		return err
	}
	sources := cfg.EncryptionSources()
	switch {
	case len(sources) > 0:
		setting, _, _ := strings.Cut(sources[0].Setting, "[")
		return keysMissing(missing, setting)
	case cfg.DatabaseURL.Set():
		return keysMissing(missing, "encryption_key is not set")
	}
	return keysMissing(missing, filepath.Join(cfg.DataDir, datadir.EncryptionKey))
}

// ForgetKeys lets a server start without lost keys. It returns the number of secrets
// that can no longer be decrypted, and at most the given number of their owners.
func ForgetKeys(
	ctx context.Context, cfg config.Config, logger *slog.Logger, most int,
) (lost int64, owners []string, err error) {
	s, err := OpenStore(ctx, cfg)
	if err != nil {
		return 0, nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if pending, err := s.Pending(ctx); err != nil {
		return 0, nil, err
	} else if pending {
		return 0, nil, errors.New("the database needs migrations; run 'tidings migrate' first")
	}
	box, err := openBox(ctx, &cfg, s, logger)
	if _, missing := errors.AsType[*resource.MissingKeysError](err); missing {
		box, err = createKey(filepath.Join(cfg.DataDir, datadir.EncryptionKey), logger)
	}
	if err != nil {
		return 0, nil, err
	}
	return resource.New(s, resource.Outside{Box: box}, resource.Options{Logger: logger}).ForgetKeys(ctx, most)
}

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

// keepPrivate takes away what others on this machine may do with the files in
// the data folder, and says what they could read, the exposed ones.
func (a *App) keepPrivate(cfg *config.Config, exposed []string) {
	for _, path := range exposed {
		switch {
		case path == cfg.DataDir:
			a.logger.Warn("others on this machine can look into the data folder; 'chmod 700' keeps it yours",
				"folder", path)
		case filepath.Base(path) == datadir.AdminToken:
			a.logger.Warn("others on this machine could read the admin token until now; if somebody may have, "+
				"remove the file and start again: that makes a new one", "file", path)
		case filepath.Base(path) == datadir.EncryptionKey:
			a.logger.Warn("others on this machine could read the encryption key until now; if somebody may have, "+
				"change it: docs/operations.md says how", "file", path)
		default:
			a.logger.Warn("others on this machine could read a file in the data folder until now", "file", path)
		}
	}
	datadir.Tighten(cfg.DataDir)
	for i, t := range cfg.Auth.Tokens {
		if t.Token.File != "" && datadir.IsExposed(t.Token.File) {
			a.logger.Warn("others on this machine can read the file of a token; 'chmod 600' keeps it yours, "+
				"but somebody may have read it", "setting", fmt.Sprintf("auth.tokens[%d].token", i), "file",
				t.Token.File)
		}
	}
}

// openBox returns the encryption keys: those that are configured and, with SQLite,
// the one in the data folder. Where there is none, and unless the database needs
// one that is gone, it makes that one.
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
		if noted, err := s.Keys(ctx); err != nil {
			return nil, err
		} else if len(noted) > 0 {
			return nil,
				keysMissing(&resource.MissingKeysError{IDs: noted}, "encryption_key is not set, and "+file+" is gone")
		}
		return makeKey(file, logger)
	case err != nil:
		return nil, fmt.Errorf("encryption key: %w", err)
	}
	own := secretbox.Key{Setting: file, Text: strings.TrimSpace(string(text))}
	if _, err := secretbox.New(own); err != nil {
		return nil, fmt.Errorf("%w; put back your backup of this file", err)
	}
	if !slices.ContainsFunc(keys, func(k secretbox.Key) bool { return k.Text == own.Text }) {
		keys = append(keys, own)
	}
	return secretbox.New(keys...)
}

func makeKey(file string, logger *slog.Logger) (*secretbox.Box, error) {
	key := secretbox.Key{Setting: file, Text: secretbox.NewKey()}
	if err := datadir.WriteNew(file, []byte(key.Text+"\n")); err != nil {
		return nil, fmt.Errorf("make encryption key: %w", err)
	}
	logger.Info("made an encryption key, because none is configured; keep a copy of this file apart from your "+
		"backups of the database: without it the API keys, client secrets and variables in there can't be read",
		"file", file)
	return secretbox.New(key)
}

// keysMissing says what to do about keys that a server lacks.
func keysMissing(err error, setting string) error {
	return fmt.Errorf("%s: %w; add that key to encryption_keys, after the new one, or put back the file that held it; "+
		"if it is lost, 'tidings keys forget' lets the server start without it, and these secrets have to be set again",
		setting, err)
}

// useKeys finds out whether the database can be read with the keys of this server.
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

// ForgetKeys lets a server start without keys that are lost. It returns how many
// secrets nobody can decrypt any more, and whose, at most so many.
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
	if _, gone := errors.AsType[*resource.MissingKeysError](err); gone {
		box, err = makeKey(filepath.Join(cfg.DataDir, datadir.EncryptionKey), logger)
	}
	if err != nil {
		return 0, nil, err
	}
	return resource.New(s, resource.Outside{Box: box}, resource.Options{Logger: logger}).ForgetKeys(ctx, most)
}

package config

import (
	"crypto/sha256"
	"fmt"
	"log/slog"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/tidings-dev/tidings/internal/regular"
)

// SlogLevel is the configured level.
func (l Log) SlogLevel() slog.Level {
	var level slog.Level
	_ = level.UnmarshalText([]byte(l.Level)) // [Load] checked it
	return level
}

// reloadable are the settings that take effect without a restart.
var reloadable = []string{
	"webhook.endpoints", "webhook.endpoint_files", "webhook.source", "webhook.retention", "webhook.history_retention",
	"webhook.dead_letter_retention",
	"egress.deny_networks", "egress.allow_networks", "egress.user_urls.allow_networks", "auth.tokens",
	"auth.admin_emails", "log.level",
}

// KeepRunning gives the settings that take effect after a restart only the values
// that they have in the running configuration. It returns the keys of those that
// differed.
func (c *Config) KeepRunning(running *Config) []string {
	var keys []string
	for _, key := range allSettings {
		if slices.Contains(reloadable, key) {
			continue
		}
		old, now := setting(running, key), setting(c, key)
		if !reflect.DeepEqual(old.Interface(), now.Interface()) {
			keys = append(keys, key)
			now.Set(old)
		}
	}
	c.types = running.types
	return keys
}

// CheckTypes returns an error if an endpoint selects events that the running
// configuration doesn't have: until a restart nobody could publish them.
func (c *Config) CheckTypes(running *Config) error {
	for i := range c.Webhook.Endpoints {
		for n, pattern := range c.Webhook.Endpoints[i].Events {
			if _, err := running.types.Parse(pattern); err != nil {
				return fmt.Errorf("webhook.endpoints[%d].events[%d]: %q selects events that are new in types, "+
					"sources.tables or preset, which needs a restart", i, n, pattern)
			}
		}
	}
	return nil
}

// CheckEmptied returns an error if a file holds no settings that held some before: it
// was cut off, or somebody is just writing it.
func (c *Config) CheckEmptied(before *Config) error {
	for _, file := range c.empty {
		if !slices.Contains(before.empty, file) {
			return fmt.Errorf("configuration file %s is empty; write {} to remove every setting", file)
		}
	}
	return nil
}

func setting(cfg *Config, key string) reflect.Value {
	v := reflect.ValueOf(cfg).Elem()
	for name := range strings.SplitSeq(key, ".") {
		v = v.FieldByIndex(fieldsOf(v.Type())[name])
	}
	return v
}

// Digest is a hash of what the settings' files hold, and of what the files hold
// that they name, as they are now.
func (c *Config) Digest() string {
	hash := sha256.New()
	files := slices.Clone(c.files)
	for _, pattern := range c.Webhook.EndpointFiles {
		found, _ := filepath.Glob(pattern) // [Load] checked the pattern
		files = append(files, found...)
	}
	for _, t := range c.Auth.Tokens {
		files = append(files, t.Token.File)
	}
	for i := range c.Webhook.Endpoints {
		e := &c.Webhook.Endpoints[i]
		for _, source := range e.secrets() {
			files = append(files, source.File)
		}
	}
	for _, file := range files {
		if file == "" {
			continue
		}
		text, err := regular.Read(file)
		fmt.Fprintf(hash, "%s %d %v\n%s", file, len(text), err != nil, text)
	}
	return fmt.Sprintf("%x", hash.Sum(nil))
}

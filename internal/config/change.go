package config

import (
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strings"
)

// SlogLevel is the configured level.
func (l Log) SlogLevel() slog.Level {
	var level slog.Level
	_ = level.UnmarshalText([]byte(l.Level)) // [Load] checked it
	return level
}

// reloadable are the settings that take effect without a restart.
var reloadable = []string{
	"webhook.endpoints", "webhook.source", "webhook.retention", "webhook.history_retention", "webhook.dead_letter_retention",
	"egress.deny_networks", "egress.allow_networks", "egress.user_urls.allow_networks", "auth.tokens", "auth.admin_emails", "log.level",
}

// NeedRestart returns the keys of settings that differ and take effect after a
// restart only.
func NeedRestart(old, now *Config) []string {
	var keys []string
	for _, key := range allSettings {
		if !slices.Contains(reloadable, key) && !reflect.DeepEqual(setting(old, key), setting(now, key)) {
			keys = append(keys, key)
		}
	}
	return keys
}

func setting(cfg *Config, key string) any {
	v := reflect.ValueOf(cfg).Elem()
	for name := range strings.SplitSeq(key, ".") {
		v = v.FieldByIndex(fieldsOf(v.Type())[name])
	}
	return v.Interface()
}

// Digest is a hash of what the settings' files hold, and of what the files hold
// that they name, as they are now.
func (c *Config) Digest() string {
	hash := sha256.New()
	files := slices.Clone(c.files)
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
		text, err := os.ReadFile(file)
		fmt.Fprintf(hash, "%d %v\n%s", len(text), err != nil, text)
	}
	return fmt.Sprintf("%x", hash.Sum(nil))
}

package config

import (
	"crypto/sha256"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// SlogLevel returns the configured level.
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

// KeepRunning resets the settings that need a restart to their values in the running
// configuration. It returns the keys of those that differed.
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

// EndpointChange describes how an endpoint differs between two configurations.
type EndpointChange struct {
	Endpoint string
	Kind     string   // added, removed or changed
	Settings []string // changed keys, such as retry
	// Contents reports whether only a file or variable changed, such as a secret.
	Contents bool
}

// EndpointChanges returns the changes since the configuration before, in the order of the
// endpoints. [Config.Receivers] must have been called on both.
func (c *Config) EndpointChanges(before *Config) []EndpointChange {
	var changes []EndpointChange
	old := make(map[string]*Endpoint)
	for i := range before.Webhook.Endpoints {
		old[before.Webhook.Endpoints[i].Name] = &before.Webhook.Endpoints[i]
	}
	for i := range c.Webhook.Endpoints {
		e := &c.Webhook.Endpoints[i]
		change := EndpointChange{Endpoint: e.Name, Kind: "added"}
		if was := old[e.Name]; was != nil {
			change.Kind, change.Settings = "changed", differing(was, e)
			change.Contents = was.contents != e.contents && len(change.Settings) == 0
			if len(change.Settings) == 0 && !change.Contents {
				delete(old, e.Name)
				continue
			}
		}
		delete(old, e.Name)
		changes = append(changes, change)
	}
	for _, name := range slices.Sorted(maps.Keys(old)) {
		changes = append(changes, EndpointChange{Endpoint: name, Kind: "removed"})
	}
	return changes
}

// differing returns the sorted keys of the settings in which two endpoints differ.
func differing(a, b *Endpoint) (keys []string) {
	left, right := reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem()
	for key, index := range fieldsOf(left.Type()) {
		if !reflect.DeepEqual(left.FieldByIndex(index).Interface(), right.FieldByIndex(index).Interface()) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// SettingChanges returns the keys of the reloadable settings that differ, except
// webhook.endpoints.
func (c *Config) SettingChanges(before *Config) (keys []string) {
	for _, key := range reloadable {
		if key == "webhook.endpoints" {
			continue
		}
		if !reflect.DeepEqual(setting(before, key).Interface(), setting(c, key).Interface()) {
			keys = append(keys, key)
		}
	}
	return keys
}

// CheckEmptied returns an error if a file has become empty: it may have been truncated or
// is still being written.
func (c *Config) CheckEmptied(before *Config) error {
	for _, file := range c.empty {
		if !slices.Contains(before.empty, file) {
			return fmt.Errorf("configuration file %s is empty; write {} to remove every setting", file)
		}
	}
	return nil
}

func setting(cfg *Config, key string) reflect.Value { return field(reflect.ValueOf(cfg).Elem(), key) }

// field returns the part of a struct that holds a setting.
func field(v reflect.Value, key string) reflect.Value {
	for name := range strings.SplitSeq(key, ".") {
		v = v.FieldByIndex(fieldsOf(v.Type())[name])
	}
	return v
}

// ReadFrom returns the configuration files, without those of endpoint_files.
func (c *Config) ReadFrom() []string { return c.files }

// Digest returns a hash of the current contents of the configuration files and the files
// they refer to.
func (c *Config) Digest() string { return c.digest(newReading()) }

// LoadedDigest returns what [Config.Digest] was when the files were loaded.
func (c *Config) LoadedDigest() string { return c.loaded }

func (c *Config) digest(r *reading) string {
	hash := sha256.New()
	files := slices.Clone(c.files)
	for _, pattern := range c.Webhook.EndpointFiles {
		found, _ := r.glob(pattern) // [Load] checked the pattern
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
		text, err := r.read(file)
		fmt.Fprintf(hash, "%s %d %v\n%s", file, len(text), err != nil, text)
	}
	return fmt.Sprintf("%x", hash.Sum(nil))
}

package config

import (
	"encoding/base64"
	"fmt"
)

func (d *decoder) checkEncryption(cfg *Config) {
	if cfg.EncryptionKey.Set() && len(cfg.EncryptionKeys) > 0 {
		d.at("encryption_keys", "set either encryption_key or encryption_keys, not both")
	}
	seen := make(map[string]string)
	for _, s := range cfg.EncryptionSources() {
		text := d.readable(s.Setting, s.Source)
		if text == "" {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(key) != 32 {
			d.at(s.Setting, `expected 32 bytes in base64; "openssl rand -base64 32" creates a key`)
		} else if first, ok := seen[string(key)]; ok {
			d.at(s.Setting, "is the same key as %s", first)
		} else {
			seen[string(key)] = s.Setting
		}
	}
}

// EncryptionSource is an encryption key and the name of its setting.
type EncryptionSource struct {
	Setting string
	Source  SecretSource
}

// EncryptionSources lists the encryption keys. The first one encrypts.
func (c *Config) EncryptionSources() (sources []EncryptionSource) {
	if c.EncryptionKey.Set() {
		sources = append(sources, EncryptionSource{"encryption_key", c.EncryptionKey})
	}
	for i, s := range c.EncryptionKeys {
		sources = append(sources, EncryptionSource{fmt.Sprintf("encryption_keys[%d]", i), s})
	}
	return sources
}

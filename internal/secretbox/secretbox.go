// Package secretbox encrypts secrets that are kept in the database: AES-256-GCM,
// with the key from the configuration.
package secretbox

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/tidings-dev/tidings/internal/resource"
)

// Box encrypts and decrypts. Without a key it says which setting is missing.
type Box struct{ aead cipher.AEAD }

// New returns a box with a key of 32 bytes in base64; empty for no key.
func New(key string) (*Box, error) {
	if key == "" {
		return new(Box), nil
	}
	raw, err := base64.StdEncoding.DecodeString(key)
	if err != nil || len(raw) != 32 {
		return nil, errors.New("encryption_key: expected 32 bytes in base64")
	}
	block, err := aes.NewCipher(raw)
	if err != nil {
		return nil, fmt.Errorf("encryption_key: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("encryption_key: %w", err)
	}
	return &Box{aead: aead}, nil
}

func (b *Box) check() error {
	if b.aead != nil {
		return nil
	}
	return &resource.Error{
		Code:    resource.NotConfigured,
		Message: `this keeps a secret in the database, which needs the setting encryption_key; "openssl rand -base64 32" makes a key`,
	}
}

// Seal encrypts a secret; it can be opened only with the same bound.
func (b *Box) Seal(plain, bound string) ([]byte, error) {
	if err := b.check(); err != nil {
		return nil, err
	}
	return b.aead.Seal(nil, nil, []byte(plain), []byte(bound)), nil
}

// Open decrypts a secret.
func (b *Box) Open(sealed []byte, bound string) (string, error) {
	if err := b.check(); err != nil {
		return "", err
	}
	plain, err := b.aead.Open(nil, nil, sealed, []byte(bound))
	if err != nil {
		return "", errors.New("a secret in the database was encrypted with another encryption_key")
	}
	return string(plain), nil
}

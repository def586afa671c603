// Package secretbox encrypts secrets in the database with AES-256-GCM. The keys
// come from the configuration: the first one encrypts, all of them decrypt.
package secretbox

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/tidings-dev/tidings/internal/resource"
)

// Ciphertexts start with this format's name and the key's id. Older ones, which have
// no key id, start with the random nonce.
const (
	format   = "tk1:"
	idLength = 8
)

// Key is an encryption key and its setting.
type Key struct {
	// Setting names the key in errors, such as "encryption_keys[1]".
	Setting string
	// Text is 32 bytes in base64.
	Text string
}

// NewKey generates a key.
func NewKey() string {
	raw := make([]byte, keyLength)
	_, _ = rand.Read(raw) // never fails
	return base64.StdEncoding.EncodeToString(raw)
}

const keyLength = 32

// openKey is a parsed key.
type openKey struct {
	resource.BoxKey
	prefix []byte
	aead   cipher.AEAD
}

func (k Key) open() (openKey, error) {
	raw, err := base64.StdEncoding.DecodeString(k.Text)
	if err != nil || len(raw) != keyLength {
		return openKey{}, fmt.Errorf("%s: expected %d bytes in base64", k.Setting, keyLength)
	}
	block, err := aes.NewCipher(raw)
	if err != nil {
		return openKey{}, fmt.Errorf("%s: %w", k.Setting, err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return openKey{}, fmt.Errorf("%s: %w", k.Setting, err)
	}
	// The id is not secret: it reveals nothing about a random key.
	hash := sha256.Sum256(append([]byte("tidings key id:"), raw...))
	id := hash[:idLength]
	return openKey{
		BoxKey: resource.BoxKey{ID: hex.EncodeToString(id), Setting: k.Setting},
		prefix: append([]byte(format), id...), aead: aead,
	}, nil
}

// Box encrypts and decrypts secrets. Without a key, its methods return an error
// that names the missing setting.
type Box struct{ keys []openKey }

// New returns a box. The keys must differ.
func New(keys ...Key) (*Box, error) {
	b := new(Box)
	for _, k := range keys {
		opened, err := k.open()
		if err != nil {
			return nil, err
		}
		for _, other := range b.keys {
			if other.ID == opened.ID {
				return nil, fmt.Errorf("%s: duplicate of %s", k.Setting, other.Setting)
			}
		}
		b.keys = append(b.keys, opened)
	}
	return b, nil
}

// Keys lists the keys. The first one encrypts.
func (b *Box) Keys() []resource.BoxKey {
	keys := make([]resource.BoxKey, len(b.keys))
	for i, k := range b.keys {
		keys[i] = k.BoxKey
	}
	return keys
}

// Prefix returns the prefix of everything encrypted with a key.
func (b *Box) Prefix(id string) []byte {
	raw, _ := hex.DecodeString(id) // ids are hexadecimal
	return append([]byte(format), raw...)
}

func (b *Box) check() error {
	if len(b.keys) > 0 {
		return nil
	}
	return &resource.Error{
		Code:    resource.NotConfigured,
		Message: `storing a secret requires the setting encryption_key; "openssl rand -base64 32" generates a key`,
	}
}

// Seal encrypts a secret with the first key and binds it to bound, which [Box.Open]
// must be given, too.
func (b *Box) Seal(plain, bound string) ([]byte, error) {
	if err := b.check(); err != nil {
		return nil, err
	}
	first := b.keys[0]
	return first.aead.Seal(bytes.Clone(first.prefix), nil, []byte(plain), []byte(bound)), nil
}

// Open decrypts a secret.
func (b *Box) Open(sealed []byte, bound string) (string, error) {
	if err := b.check(); err != nil {
		return "", err
	}
	for _, k := range b.keys {
		if text, ok := bytes.CutPrefix(sealed, k.prefix); ok {
			if plain, err := k.aead.Open(nil, nil, text, []byte(bound)); err == nil {
				return string(plain), nil
			}
		}
	}
	for _, k := range b.keys { // older secrets have no key id
		if plain, err := k.aead.Open(nil, nil, sealed, []byte(bound)); err == nil {
			return string(plain), nil
		}
	}
	return "", errors.New("a secret in the database was encrypted with a key that is not configured (encryption_keys)")
}

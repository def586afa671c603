package sender

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"
	"sync"
	"time"
)

// signer appends an entry of the webhook-signature header to b.
type signer func(b []byte, content []byte) []byte

// CheckSecret returns an error unless secret is a signing secret of Standard
// Webhooks 1.0.0: "whsec_" and base64 of 24 to 64 bytes (HMAC-SHA256), or
// "whsk_" and base64 of a 64-byte Ed25519 private key: a seed and its public
// key. The error does not contain the secret.
func CheckSecret(secret string) error {
	_, err := newSigner(secret)
	return err
}

func newSigners(secrets []string) ([]signer, error) {
	signers := make([]signer, len(secrets))
	for i, secret := range secrets {
		var err error
		if signers[i], err = newSigner(secret); err != nil {
			return nil, fmt.Errorf("secret %d: %w", i+1, err)
		}
	}
	return signers, nil
}

func newSigner(secret string) (signer, error) {
	if encoded, ok := strings.CutPrefix(secret, "whsec_"); ok {
		key, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil || len(key) < 24 || len(key) > 64 {
			return nil, errors.New(`after "whsec_", a secret must be standard base64 of 24 to 64 bytes`)
		}
		return hmacSigner(key), nil
	}
	if encoded, ok := strings.CutPrefix(secret, "whsk_"); ok {
		key, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil || len(key) != ed25519.PrivateKeySize {
			return nil,
				errors.New(`after "whsk_", a secret must be standard base64 of 64 bytes, an Ed25519 private key`)
		}
		if seed := key[:ed25519.SeedSize]; !bytes.Equal(key, ed25519.NewKeyFromSeed(seed)) {
			return nil,
				errors.New(`the halves of the "whsk_" secret do not match: the last 32 bytes must be the public ` +
					`key of the first 32, or receivers cannot verify signatures`)
		}
		return ed25519Signer(key), nil
	}
	return nil, errors.New(`a secret must start with "whsec_" (HMAC-SHA256) or "whsk_" (Ed25519)`)
}

func hmacSigner(key []byte) signer {
	free := sync.Pool{New: func() any { return hmac.New(sha256.New, key) }}
	return func(b, content []byte) []byte {
		mac := free.Get().(hash.Hash)
		defer free.Put(mac)
		mac.Reset()
		mac.Write(content)
		var sum [sha256.Size]byte
		return base64.StdEncoding.AppendEncode(append(b, "v1,"...), mac.Sum(sum[:0]))
	}
}

func ed25519Signer(key ed25519.PrivateKey) signer {
	return func(b, content []byte) []byte {
		return base64.StdEncoding.AppendEncode(append(b, "v1a,"...), ed25519.Sign(key, content))
	}
}

// sign returns the webhook-signature header of a body.
func sign(signers []signer, id string, at time.Time, body []byte) string {
	content := append(make([]byte, 0, 1<<10), id...)
	content = strconv.AppendInt(append(content, '.'), at.Unix(), 10)
	content = append(append(content, '.'), body...)
	b := make([]byte, 0, 128)
	for i, s := range signers {
		if i > 0 {
			b = append(b, ' ')
		}
		b = s(b, content)
	}
	return string(b)
}

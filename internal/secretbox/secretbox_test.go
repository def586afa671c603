package secretbox_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/internal/resource"
	"github.com/tidings-dev/tidings/internal/secretbox"
)

const (
	keyA = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
	keyB = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA="
)

func box(t *testing.T, texts ...string) *secretbox.Box {
	t.Helper()
	var keys []secretbox.Key
	for _, text := range texts {
		keys = append(keys, secretbox.Key{Setting: "encryption_key", Text: text})
	}
	b, err := secretbox.New(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBox(t *testing.T) {
	a := box(t, keyA)
	sealed, err := a.Seal("open sesame", "user-1/DOOR")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed, []byte("sesame")) {
		t.Error("the secret is not encrypted")
	}
	if again, _ := a.Seal("open sesame", "user-1/DOOR"); bytes.Equal(sealed, again) {
		t.Error("sealing the same secret twice gives the same result")
	}
	if plain, err := a.Open(sealed, "user-1/DOOR"); err != nil || plain != "open sesame" {
		t.Errorf("opened = %q, %v", plain, err)
	}
	if _, err := a.Open(sealed, "user-2/DOOR"); err == nil {
		t.Error("opened under another binding")
	}
	if _, err := box(t, keyB).Open(sealed, "user-1/DOOR"); err == nil ||
		!strings.Contains(err.Error(), "encryption_keys") {
		t.Errorf("with another key: error = %v, want one that names the setting", err)
	}
	for n := range sealed {
		if _, err := a.Open(sealed[:n], "user-1/DOOR"); err == nil {
			t.Errorf("opened after truncation to %d bytes", n)
		}
	}
}

// The first key encrypts, all decrypt.
func TestBoxWithSeveralKeys(t *testing.T) {
	old, both := box(t, keyA), box(t, keyB, keyA)
	before, err := old.Seal("x", "y")
	if err != nil {
		t.Fatal(err)
	}
	after, err := both.Seal("x", "y")
	if err != nil {
		t.Fatal(err)
	}
	for _, sealed := range [][]byte{before, after} {
		if plain, err := both.Open(sealed, "y"); err != nil || plain != "x" {
			t.Errorf("opened = %q, %v", plain, err)
		}
	}
	keys := both.Keys()
	if !bytes.HasPrefix(before, both.Prefix(keys[1].ID)) || !bytes.HasPrefix(after, both.Prefix(keys[0].ID)) {
		t.Errorf("keys = %v, sealed = %q, %q", keys, before, after)
	}
	if _, err := old.Open(after, "y"); err == nil {
		t.Error("the second key was used to encrypt")
	}
	_, err = secretbox.New(secretbox.Key{Setting: "one", Text: keyA}, secretbox.Key{Setting: "two", Text: keyA})
	if err == nil || err.Error() != "two: duplicate of one" {
		t.Errorf("the same key twice: %v", err)
	}
}

// Secrets of older versions, which have no key id, stay readable.
func TestOpenSecretWithoutKeyID(t *testing.T) {
	raw, err := base64.StdEncoding.DecodeString(keyA)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(raw)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatal(err)
	}
	sealed := aead.Seal(nil, nil, []byte("x"), []byte("y"))
	if plain, err := box(t, keyB, keyA).Open(sealed, "y"); err != nil || plain != "x" {
		t.Errorf("opened = %q, %v", plain, err)
	}
}

func TestBoxWithoutKey(t *testing.T) {
	_, err := box(t).Seal("x", "y")
	var e *resource.Error
	if !errors.As(err, &e) || e.Code != resource.NotConfigured || !strings.Contains(e.Message, "encryption_key") {
		t.Errorf("error = %v, want one that names the setting", err)
	}
	for _, text := range []string{"", "c2hvcnQ=", "no base64"} {
		if _, err := secretbox.New(secretbox.Key{Setting: "encryption_keys[1]", Text: text}); err == nil ||
			!strings.HasPrefix(err.Error(), "encryption_keys[1]: ") {
			t.Errorf("key %q: error = %v, want one that names the setting", text, err)
		}
	}
	if a, b := secretbox.NewKey(), secretbox.NewKey(); a == b || box(t, a, b) == nil {
		t.Error("two new keys are the same")
	}
}

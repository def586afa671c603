package secretbox_test

import (
	"bytes"
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

func box(t *testing.T, key string) *secretbox.Box {
	t.Helper()
	b, err := secretbox.New(key)
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
		t.Error("the secret lies open")
	}
	if again, _ := a.Seal("open sesame", "user-1/DOOR"); bytes.Equal(sealed, again) {
		t.Error("the same secret is sealed the same way twice")
	}
	if plain, err := a.Open(sealed, "user-1/DOOR"); err != nil || plain != "open sesame" {
		t.Errorf("opened = %q, %v", plain, err)
	}
	if _, err := a.Open(sealed, "user-2/DOOR"); err == nil {
		t.Error("opened where it does not belong")
	}
	if _, err := box(t, keyB).Open(sealed, "user-1/DOOR"); err == nil {
		t.Error("opened with another key")
	}
	if _, err := a.Open(sealed[:5], "user-1/DOOR"); err == nil {
		t.Error("opened after it was cut")
	}
}

func TestBoxWithoutKey(t *testing.T) {
	_, err := box(t, "").Seal("x", "y")
	var e *resource.Error
	if !errors.As(err, &e) || e.Code != resource.NotConfigured || !strings.Contains(e.Message, "encryption_key") {
		t.Errorf("error = %v, want one that names the setting", err)
	}
	if _, err := secretbox.New("c2hvcnQ="); err == nil {
		t.Error("a short key is taken")
	}
}

package sender_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/sender"
)

func TestCheckSecret(t *testing.T) {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	_, other, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.StdEncoding.EncodeToString
	for name, tt := range map[string]struct {
		secret, want string // want is a part of the error; empty for none
	}{
		"symmetric":             {"whsec_" + encode(make([]byte, 24)), ""},
		"symmetric, too short":  {"whsec_" + encode(make([]byte, 23)), "24 to 64 bytes"},
		"asymmetric":            {"whsk_" + encode(private), ""},
		"asymmetric, seed only": {"whsk_" + encode(private.Seed()), "64 bytes"},
		"public key of another": {"whsk_" + encode(append(private.Seed(), other[ed25519.SeedSize:]...)), "do not match"},
		"halves swapped": {
			"whsk_" + encode(append(private[ed25519.SeedSize:], private.Seed()...)),
			"do not match",
		},
		"public key": {"whpk_" + encode(private[ed25519.SeedSize:]), "whsec_"},
	} {
		t.Run(name, func(t *testing.T) {
			err := sender.CheckSecret(tt.secret)
			switch {
			case err == nil && tt.want != "", err != nil && (tt.want == "" || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("error = %v, want %q", err, tt.want)
			case err != nil && strings.Contains(err.Error(), tt.secret[5:]):
				t.Errorf("the error repeats the secret: %v", err)
			}
		})
	}
}

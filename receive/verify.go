package receive

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// Why a webhook is not genuine.
var (
	ErrMissingHeader = errors.New("header webhook-id, webhook-timestamp or webhook-signature is missing")
	ErrTimestamp     = errors.New("header webhook-timestamp is not within the tolerance")
	ErrSignature     = errors.New("no signature matches")
)

const defaultTolerance = 5 * time.Minute

// Verifier checks signatures of Standard Webhooks 1.0.0. It may be used by
// several goroutines.
type Verifier struct {
	// Tolerance is how far the timestamp may be from now, either way; 0 means 5
	// minutes.
	Tolerance time.Duration
	// Now is the clock; nil means [time.Now].
	Now func() time.Time

	symmetric []*standardwebhooks.Webhook
	public    []ed25519.PublicKey
}

// NewVerifier returns a verifier that accepts a webhook signed with any of the
// keys: "whsec_…" secrets (HMAC-SHA256) and "whpk_…" public keys (Ed25519).
// Several allow a key to be changed without a gap.
func NewVerifier(keys ...string) (*Verifier, error) {
	if len(keys) == 0 {
		return nil, errors.New("no key to verify with")
	}
	v := &Verifier{}
	for i, key := range keys {
		kind, encoded, _ := strings.Cut(key, "_")
		raw, err := base64.StdEncoding.DecodeString(encoded)
		switch {
		case kind == "whsec" && err == nil && len(raw) >= 24 && len(raw) <= 64:
			webhook, err := standardwebhooks.NewWebhookRaw(raw)
			if err != nil {
				return nil, fmt.Errorf("key %d: %w", i+1, err)
			}
			v.symmetric = append(v.symmetric, webhook)
		case kind == "whpk" && err == nil && len(raw) == ed25519.PublicKeySize:
			v.public = append(v.public, raw)
		default:
			return nil,
				fmt.Errorf(`key %d is neither "whsec_" and base64 of 24 to 64 bytes nor "whpk_" and base64 of 32 bytes`,
					i+1)
		}
	}
	return v, nil
}

// Verify returns nil if the body was signed with one of the keys, not long ago;
// else [ErrMissingHeader], [ErrTimestamp] or [ErrSignature].
func (v *Verifier) Verify(header http.Header, body []byte) error {
	id, stamp, signatures := header.Get("webhook-id"), header.Get("webhook-timestamp"), header.Get("webhook-signature")
	if id == "" || stamp == "" || signatures == "" {
		return ErrMissingHeader
	}
	if err := v.checkTimestamp(stamp); err != nil {
		return err
	}
	for _, webhook := range v.symmetric {
		if webhook.VerifyIgnoringTimestamp(body, header) == nil {
			return nil
		}
	}
	content := append([]byte(id+"."+stamp+"."), body...)
	for entry := range strings.FieldsSeq(signatures) {
		encoded, ok := strings.CutPrefix(entry, "v1a,")
		if !ok {
			continue // another version
		}
		signature, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			continue
		}
		for _, key := range v.public {
			if ed25519.Verify(key, content, signature) {
				return nil
			}
		}
	}
	return ErrSignature
}

func (v *Verifier) checkTimestamp(stamp string) error {
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil || strconv.FormatInt(seconds, 10) != stamp { // "+1" and "01" are not what was signed
		return ErrTimestamp
	}
	now, tolerance := time.Now, v.Tolerance
	if v.Now != nil {
		now = v.Now
	}
	if tolerance == 0 {
		tolerance = defaultTolerance
	}
	if now().Sub(time.Unix(seconds, 0)).Abs() > tolerance {
		return ErrTimestamp
	}
	return nil
}

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

// Reasons why verification fails.
var (
	ErrMissingHeader = errors.New("header webhook-id, webhook-timestamp or webhook-signature is missing")
	ErrTimestamp     = errors.New("header webhook-timestamp is not within the tolerance")
	ErrSignature     = errors.New("no signature matches")
)

const defaultTolerance = 5 * time.Minute

// Verifier verifies signatures of Standard Webhooks 1.0.0. It is safe for
// concurrent use.
type Verifier struct {
	// Tolerance is the maximum difference between the timestamp and now; 0
	// means 5 minutes.
	Tolerance time.Duration
	// Now is the clock; the default is [time.Now].
	Now func() time.Time

	symmetric []*standardwebhooks.Webhook
	public    []ed25519.PublicKey
}

// NewVerifier returns a verifier that accepts webhooks signed with any of the
// keys: "whsec_…" secrets (HMAC-SHA256) and "whpk_…" public keys (Ed25519).
// Several keys allow rotation without downtime.
func NewVerifier(keys ...string) (*Verifier, error) {
	if len(keys) == 0 {
		return nil, errors.New("no keys given")
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
				fmt.Errorf(`key %d: expected "whsec_" and base64 of 24 to 64 bytes, or "whpk_" and base64 of 32 bytes`,
					i+1)
		}
	}
	return v, nil
}

// Verify returns nil if the body was recently signed with one of the keys;
// otherwise [ErrMissingHeader], [ErrTimestamp] or [ErrSignature].
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
			continue // another signature version
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
	if err != nil || strconv.FormatInt(seconds, 10) != stamp { // "+1" and "01" would not match the signature
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

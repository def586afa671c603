package torture

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// signed returns an entry of webhook-signature for any timestamp, even one that
// is not a number. The secret was checked.
func signed(secret, id, stamp string, body []byte) string {
	kind, encoded, _ := strings.Cut(secret, "_")
	key, _ := base64.StdEncoding.DecodeString(encoded)
	content := append([]byte(id+"."+stamp+"."), body...)
	if kind == "whsk" {
		return "v1a," + base64.StdEncoding.EncodeToString(ed25519.Sign(key, content))
	}
	mac := hmac.New(sha256.New, key)
	mac.Write(content)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// wrong returns a well-formed signature of something else.
func (m *message) wrong() string { return signed(m.secret, m.id+"-other", m.stamp, m.body) }

// beyondTolerance is further from now than receivers tolerate.
const beyondTolerance = 10 * time.Minute

func signatureCases() []Case {
	spoiled := func(name, about, advice string, spoil func(m *message)) Case {
		return Case{
			Group: "signatures", Name: name, About: about, advice: advice,
			run: func(ctx context.Context, r *run) error {
				m := r.message(r.event("updated")).sign()
				spoil(m)
				return r.refusesUnhandled(ctx, m)
			},
		}
	}
	const verifyAll = "compute the signature of webhook-id, \".\", webhook-timestamp, \".\" and the raw body, and " +
		"refuse with 401 unless an entry matches; act on nothing before that"
	return []Case{
		{
			Group: "signatures", Name: "valid", About: "a valid webhook gets 2xx",
			advice: "check the secret: the key is what base64 decoding of the part after whsec_ gives; " +
				"verify the raw body, not one that was parsed and written again; after 400, check that --format is the one " +
				"that the receiver reads",
			run: func(ctx context.Context, r *run) error {
				if err := r.acceptsHandled(ctx, r.message(r.event("updated")).sign()); err != nil {
					return err
				}
				e := r.event("updated") // whose body changes if it is parsed and written again
				e.ResourceID += ` <é&"\\>`
				if err := r.acceptsHandled(ctx, r.message(e).sign()); err != nil {
					return fmt.Errorf("a resource id with special characters: %w", err)
				}
				m := r.message(r.event("updated")) // JavaScript would write the bodies above as they were
				m.body = bytes.Replace(m.body, []byte(`{`), []byte(`{ `), 1)
				if err := r.acceptsHandled(ctx, m.sign()); err != nil {
					return fmt.Errorf("a body with white space between members: %w", err)
				}
				return nil
			},
		},
		spoiled("unsigned", "no webhook-signature: refused", verifyAll,
			func(m *message) { m.header.Del("Webhook-Signature") }),
		{
			Group: "signatures", Name: "wrong-signature", advice: verifyAll,
			About: "the signature of something else, an empty one, the beginning of the right one: refused",
			run: func(ctx context.Context, r *run) error {
				m := r.message(r.event("updated")).sign()
				for _, s := range []string{m.wrong(), "v1,", m.signature()[:12]} {
					m.set("Webhook-Signature", s)
					if err := r.refuses(ctx, m); err != nil {
						return fmt.Errorf("webhook-signature %s: %w", s, err)
					}
				}
				return r.handled(ctx, map[string]int{m.id: 0})
			},
		},
		spoiled("tampered-body", "a body changed after signing: refused",
			"sign over all bytes of the body as they arrived", func(m *message) {
				m.body = bytes.Replace(m.body, []byte("updated"), []byte("deleted"), 1)
			}),
		spoiled("wrong-id", "a webhook-id that was not signed: refused",
			"the signed content starts with webhook-id; without it, anybody can replay a webhook under a new id",
			func(m *message) {
				m.id += "-other"
				m.set("Webhook-Id", m.id)
			}),
		spoiled("old-timestamp", "signed ten minutes ago: refused",
			"refuse if webhook-timestamp is more than five minutes from now, or anybody can replay what they recorded",
			func(m *message) { m.at(time.Now().Add(-beyondTolerance)).sign() }),
		spoiled("future-timestamp", "signed ten minutes in the future: refused",
			"the tolerance of webhook-timestamp applies in both directions",
			func(m *message) { m.at(time.Now().Add(beyondTolerance)).sign() }),
		spoiled("timestamp-not-a-number", "webhook-timestamp is \"soon\": refused, not an internal error",
			"treat a webhook-timestamp that is not an integer as a wrong signature (401)",
			func(m *message) {
				m.stamp = "soon"
				m.sign()
			}),
		{
			Group: "signatures", Name: "two-signatures", About: "a wrong and a right signature, as during rotation: 2xx",
			advice: "split webhook-signature at spaces and accept the webhook if any entry matches",
			run: func(ctx context.Context, r *run) error {
				m := r.message(r.event("updated")).sign()
				m.set("Webhook-Signature", m.wrong()+" "+m.signature())
				return r.accepts(ctx, m)
			},
		},
		{
			Group: "signatures", Name: "unknown-version",
			About:  "an entry of version v9 is skipped: 2xx beside a valid one, refused alone",
			advice: "compare only entries that start with \"v1,\" (or \"v1a,\" with a public key), and skip all others",
			run:    unknownVersion,
		},
		{
			Group: "signatures", Name: "header-twice",
			About: "signature or id headers that occur twice: no internal error, no forgery",
			advice: "take one value of each header, or refuse with 400 or 401 if there are several; use the same " +
				"value for verifying and for detecting duplicates",
			run: headerTwice,
		},
	}
}

func unknownVersion(ctx context.Context, r *run) error {
	m := r.message(r.event("updated")).sign()
	_, encoded, _ := strings.Cut(m.signature(), ",")
	m.set("Webhook-Signature", m.signature()+" v9,"+encoded)
	if err := r.accepts(ctx, m); err != nil {
		return fmt.Errorf("beside a valid signature: %w", err)
	}
	m = r.message(r.event("updated")).sign()
	_, encoded, _ = strings.Cut(m.signature(), ",")
	m.set("Webhook-Signature", "v9,"+encoded)
	if err := r.refusesUnhandled(ctx, m); err != nil {
		return fmt.Errorf("alone: %w", err)
	}
	return nil
}

func headerTwice(ctx context.Context, r *run) error {
	m := r.message(r.event("updated")).sign()
	m.header["Webhook-Signature"] = []string{m.wrong(), m.wrong()}
	if err := r.refusesUnhandled(ctx, m); err != nil {
		return fmt.Errorf("two wrong webhook-signature headers: %w", err)
	}
	m = r.message(r.event("updated")).sign()
	m.header["Webhook-Signature"] = []string{m.wrong(), m.signature()}
	if err := r.eitherWay(ctx, m); err != nil {
		return fmt.Errorf("a wrong and a right webhook-signature header: %w", err)
	}
	m = r.message(r.event("updated")).sign()
	forged := m.id + "-other"
	m.header["Webhook-Id"] = []string{m.id, forged}
	if err := r.eitherWay(ctx, m); err != nil {
		return fmt.Errorf("two webhook-id headers: %w", err)
	}
	if err := r.handled(ctx, map[string]int{forged: 0}); err != nil {
		return fmt.Errorf("the unsigned one of two webhook-id headers: %w", err)
	}
	return nil
}

// eitherWay returns an error unless the receiver accepts or refuses.
func (r *run) eitherWay(ctx context.Context, m *message) error {
	m.alone = true
	a, err := r.send(ctx, m)
	switch {
	case err != nil:
		return r.unanswered(err)
	case a.ok(), a.status == http.StatusRequestEntityTooLarge:
		return nil
	}
	return refused(a.status)
}

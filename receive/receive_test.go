package receive_test

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/receive"
)

// The test vector of Standard Webhooks.
const (
	vectorSecret    = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	vectorID        = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	vectorStamp     = "1614265330"
	vectorBody      = `{"test": 2432232314}`
	vectorSignature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
)

func vectorHeader() http.Header {
	h := http.Header{}
	h.Set("webhook-id", vectorID)
	h.Set("webhook-timestamp", vectorStamp)
	h.Set("webhook-signature", vectorSignature)
	return h
}

func verifier(t testing.TB, keys ...string) *receive.Verifier {
	t.Helper()
	v, err := receive.NewVerifier(keys...)
	if err != nil {
		t.Fatal(err)
	}
	v.Now = func() time.Time { return time.Unix(1614265330, 0) }
	return v
}

func TestVerify(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	key := "whpk_" + base64.StdEncoding.EncodeToString(public)
	asymmetric := "v1a," + base64.StdEncoding.EncodeToString(
		ed25519.Sign(private, []byte(vectorID+"."+vectorStamp+"."+vectorBody)))
	for name, tt := range map[string]struct {
		change func(http.Header)
		late   time.Duration
		body   string
		want   error
	}{
		"genuine":    {},
		"asymmetric": {change: func(h http.Header) { h.Set("webhook-signature", asymmetric) }},
		"one of several": {change: func(h http.Header) {
			h.Set("webhook-signature",
				"v2,x v1,AAAA "+vectorSignature)
		}},
		"within tolerance": {late: 5 * time.Minute},
		"too late":         {late: 5*time.Minute + time.Second, want: receive.ErrTimestamp},
		"too early":        {late: -5*time.Minute - time.Second, want: receive.ErrTimestamp},
		"no timestamp": {
			change: func(h http.Header) { h.Set("webhook-timestamp", "soon") },
			want:   receive.ErrTimestamp,
		},
		"timestamp rewritten": {
			change: func(h http.Header) { h.Set("webhook-timestamp", "+"+vectorStamp) },
			want:   receive.ErrTimestamp,
		},
		"header missing": {change: func(h http.Header) { h.Del("webhook-id") }, want: receive.ErrMissingHeader},
		"other id":       {change: func(h http.Header) { h.Set("webhook-id", "x") }, want: receive.ErrSignature},
		"other body":     {body: "{}", want: receive.ErrSignature},
		"unknown version only": {
			change: func(h http.Header) { h.Set("webhook-signature", "v9,AAAA") },
			want:   receive.ErrSignature,
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := verifier(t, vectorSecret, key)
			v.Now = func() time.Time { return time.Unix(1614265330, 0).Add(tt.late) }
			h, body := vectorHeader(), vectorBody
			if tt.change != nil {
				tt.change(h)
			}
			if tt.body != "" {
				body = tt.body
			}
			if err := v.Verify(h, []byte(body)); !errors.Is(err, tt.want) {
				t.Errorf("error = %v, want %v", err, tt.want)
			}
		})
	}
}

func FuzzVerify(f *testing.F) {
	f.Add(vectorID, vectorStamp, vectorSignature, vectorBody)
	f.Add(vectorID, vectorStamp, "v1a,AAAA v1,", "")
	f.Fuzz(func(t *testing.T, id, stamp, signature, body string) {
		h := http.Header{"Webhook-Id": {id}, "Webhook-Timestamp": {stamp}, "Webhook-Signature": {signature}}
		genuine := id == vectorID && stamp == vectorStamp && body == vectorBody
		if verifier(t, vectorSecret).Verify(h, []byte(body)) == nil && !genuine {
			t.Errorf("accepted id %q, timestamp %q, signature %q, body %q", id, stamp, signature, body)
		}
	})
}

func TestHandlerTakesEachWebhookOnce(t *testing.T) {
	calls, result := 0, error(nil)
	handler := receive.NewHandler(nil, func(context.Context, tidings.Event) error { calls++; return result })
	body := `{"event":"a.created","resource_type":"a","resource_id":"1","resource_url":"/1","user_id":null,` +
		`"timestamp":"2026-03-26T12:00:00Z"}`
	for _, step := range []struct {
		body   string
		result error
		status int
		calls  int
	}{
		{body, errors.New("database is down"), 500, 1},
		{body, nil, 204, 2},
		{body, nil, 204, 2}, // a duplicate
		{"{}", nil, 400, 2},
	} {
		result = step.result
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, newPost(step.body))
		if w.Code != step.status || calls != step.calls {
			t.Errorf("%s: status %d, %d calls; want %d, %d", step.body, w.Code, calls, step.status, step.calls)
		}
	}
}

func newPost(body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
	r.Header.Set("webhook-id", "evt-1")
	return r
}

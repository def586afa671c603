// Package sender makes single attempts to deliver an event: it builds, signs
// and sends the request, and classifies the response. It does not decide when
// to retry.
package sender

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"time"

	"github.com/tidings-dev/tidings"
)

const (
	defaultTimeout = 15 * time.Second

	// Up to responseLimit of a response is read within bodyTime, so that its
	// connection can be reused; responseKept of it is kept.
	responseLimit = 64 << 10
	responseKept  = 1 << 10
	bodyTime      = time.Second
)

// Options configures a sender; the zero value is valid.
type Options struct {
	// UserAgent; the default is "Tidings".
	UserAgent string
	// Source is the CloudEvents source; the default is "/".
	Source string
	// Now is the clock; the default is [time.Now].
	Now func() time.Time
}

// Sender sends events to one endpoint. It is safe for concurrent use.
type Sender struct {
	endpoint tidings.Endpoint
	client   http.Client
	options  Options
	request  *http.Request // template of all requests
	signers  []signer
	body     encoder
}

// New returns a sender. The client provides connections, TLS, authentication
// and proxy; redirects are never followed.
func New(e tidings.Endpoint, client *http.Client, options Options) (*Sender, error) {
	if options.UserAgent == "" {
		options.UserAgent = "Tidings"
	}
	if options.Source == "" {
		options.Source = "/"
	}
	if options.Now == nil {
		options.Now = time.Now
	}
	if e.Timeout <= 0 {
		e.Timeout = defaultTimeout
	}
	s := &Sender{endpoint: e, client: *client, options: options}
	s.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	var err error
	if s.body, err = encoderFor(e, options); err != nil {
		return nil, fmt.Errorf("endpoint %s: %w", e.Name, err)
	}
	if s.signers, err = newSigners(e.Secrets); err != nil {
		return nil, fmt.Errorf("endpoint %s: %w", e.Name, err)
	}
	if s.request, err = newRequest(e, s.body.contentType, options.UserAgent); err != nil {
		return nil, fmt.Errorf("endpoint %s: %w", e.Name, err)
	}
	return s, nil
}

func newRequest(e tidings.Endpoint, contentType, userAgent string) (*http.Request, error) {
	u, err := CheckURL(e.URL)
	if err != nil {
		return nil, err
	}
	header := http.Header{
		"Content-Type": {contentType},
		"User-Agent":   {userAgent},
	}
	configured := make(map[string]bool)
	for name, values := range e.Headers {
		if err := CheckHeader(name, values); err != nil {
			return nil, err
		}
		name = textproto.CanonicalMIMEHeaderKey(name)
		if configured[name] {
			return nil, fmt.Errorf("header %s is configured twice with different capitalization", name)
		}
		configured[name] = true
		header[name] = slices.Clone(values)
	}
	return &http.Request{
		Method: http.MethodPost, URL: u, Host: u.Host, Header: header,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}, nil
}

// Send makes one attempt. If ctx ends first, the outcome is
// [tidings.Interrupted].
func (s *Sender) Send(ctx context.Context, a tidings.Attempt) tidings.Outcome {
	began := time.Now()
	steps := &steps{began: began}
	outcome := s.exchange(ctx, steps, a)
	outcome.Duration = time.Since(began)
	outcome.Timing, outcome.Address, outcome.Resent = steps.result()
	return outcome
}

func (s *Sender) exchange(ctx context.Context, steps *steps, a tidings.Attempt) tidings.Outcome {
	attempt, cancel := context.WithTimeout(ctx, s.endpoint.Timeout)
	defer cancel()
	body := s.body.encode(make([]byte, 0, 512), a.Event)
	request := s.request.WithContext(steps.trace(attempt, cancel))
	request.Header = s.header(a, body)
	request.ContentLength = int64(len(body))
	request.Body = io.NopCloser(bytes.NewReader(body))
	// net/http only resends what was not sent, or what the receiver declared
	// unprocessed (HTTP/2); the rest is up to Transport.
	request.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	response, err := s.client.Do(request)
	if err != nil {
		if ctx.Err() != nil {
			return tidings.Outcome{Verdict: tidings.Interrupted}
		}
		return steps.failure(err, s.endpoint.Timeout)
	}
	refuseSwitch(response) // for transports other than ours
	defer response.Body.Close()
	// Canceling the request stops reading, and closes the connection if another
	// request could not use it.
	enough := time.AfterFunc(min(bodyTime, s.endpoint.Timeout/2), cancel)
	kept, err := readResponse(response.Body)
	stillReading := enough.Stop()
	outcome := Classify(response.StatusCode, response.Header.Get("Retry-After"), s.options.Now())
	if err != nil && stillReading && outcome.Verdict == tidings.Delivered {
		outcome = s.cutShort(ctx, attempt, response.StatusCode, err)
	}
	outcome.Response = redact(kept, response.Request)
	return outcome
}

// cutShort classifies a 2xx response whose body is incomplete: it is unknown
// whether the receiver accepted the webhook.
func (s *Sender) cutShort(ctx, attempt context.Context, status int, err error) tidings.Outcome {
	switch {
	case ctx.Err() != nil:
		return tidings.Outcome{Verdict: tidings.Interrupted}
	case attempt.Err() != nil:
		return tidings.Outcome{
			Verdict: tidings.Failed, Reason: tidings.ReasonResponseTooSlow, Status: status,
			Detail: fmt.Sprintf("the response did not end within %v", s.endpoint.Timeout),
		}
	default:
		return tidings.Outcome{
			Verdict: tidings.Failed, Reason: tidings.ReasonReset, Status: status,
			Detail: "the response was interrupted: " + describe(err),
		}
	}
}

// header returns the headers of an attempt; the operator's take precedence.
func (s *Sender) header(a tidings.Attempt, body []byte) http.Header {
	header := make(http.Header, len(s.request.Header)+6)
	maps.Copy(header, s.request.Header)
	set := func(name, value string) {
		if _, configured := header[name]; !configured {
			header[name] = []string{value}
		}
	}
	now := s.options.Now()
	set("Webhook-Id", a.Event.ID)
	set("Webhook-Timestamp", strconv.FormatInt(now.Unix(), 10))
	if len(s.signers) > 0 {
		set("Webhook-Signature", sign(s.signers, a.Event.ID, now, body))
	}
	if trace := a.Trace; trace != "" {
		set("Traceparent", trace)
	} else if a.Event.Trace != "" {
		set("Traceparent", a.Event.Trace)
	}
	if a.Replay {
		set("Tidings-Replay", "1")
	}
	if !s.endpoint.NoInfoHeaders {
		set("Tidings-Sequence", strconv.FormatInt(a.Event.Sequence, 10))
		set("Tidings-Attempt", strconv.Itoa(a.Number))
		set("Tidings-Resource-Version", strconv.FormatInt(a.Event.ResourceVersion, 10))
	}
	return header
}

func readResponse(body io.Reader) ([]byte, error) {
	if body == http.NoBody {
		return nil, nil
	}
	kept, err := io.ReadAll(io.LimitReader(body, responseKept))
	if err == nil && len(kept) == responseKept {
		_, err = io.Copy(io.Discard, io.LimitReader(body, responseLimit-responseKept))
	}
	return kept, err
}

// Package sender makes single attempts to deliver an event: it builds, signs
// and sends the request, and classifies the response. It does not decide when
// to retry.
package sender

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"time"

	"golang.org/x/net/http/httpguts"

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
	endpoint  tidings.Endpoint
	transport http.RoundTripper
	exchanger *exchanger // the transport's, or nil
	options   Options
	template  *http.Request // of all requests
	head      []byte        // what all requests begin with
	signers   []signer
	body      encoder
}

// New returns a sender. The client's transport provides connections, TLS,
// authentication and proxy, preferably a [Transport]; the rest of the client is not used:
// redirects are never followed.
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
	s := &Sender{endpoint: e, transport: client.Transport, options: options}
	if s.transport == nil {
		s.transport = http.DefaultTransport
	}
	if t, ok := s.transport.(*Transport); ok {
		s.exchanger, _ = t.RoundTripper.(*exchanger)
	}
	var err error
	if s.body, err = encoderFor(e, options); err != nil {
		return nil, fmt.Errorf("endpoint %s: %w", e.Name, err)
	}
	if s.signers, err = newSigners(e.Secrets); err != nil {
		return nil, fmt.Errorf("endpoint %s: %w", e.Name, err)
	}
	if s.template, err = newRequest(e, s.body.contentType, options.UserAgent); err != nil {
		return nil, fmt.Errorf("endpoint %s: %w", e.Name, err)
	}
	if s.head, err = appendHead(nil, s.template); err != nil {
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
	if u.User != nil && header["Authorization"] == nil {
		password, _ := u.User.Password()
		credentials := base64.StdEncoding.EncodeToString([]byte(u.User.Username() + ":" + password))
		header.Set("Authorization", "Basic "+credentials)
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
	attempt := newAttempt(ctx, began, s.endpoint.Timeout)
	outcome := s.exchange(ctx, attempt, a)
	outcome.Duration = time.Since(began)
	outcome.Timing, outcome.Address, outcome.Resent = attempt.steps.result()
	return outcome
}

func (s *Sender) exchange(ctx context.Context, attempt *attempt, a tidings.Attempt) tidings.Outcome {
	defer attempt.end()
	response, err := s.do(attempt, a)
	if err != nil {
		if ctx.Err() != nil {
			return tidings.Outcome{Verdict: tidings.Interrupted}
		}
		var record tls.RecordHeaderError
		if errors.As(err, &record) && string(record.RecordHeader[:]) == "HTTP/" {
			err = http.ErrSchemeMismatch
		}
		return attempt.steps.failure(err, s.endpoint.Timeout)
	}
	refuseSwitch(response) // for transports other than ours
	defer response.Body.Close()
	kept, err := s.readBody(ctx, attempt, response.Body)
	outcome := Classify(response.StatusCode, response.Header.Get("Retry-After"), s.options.Now())
	if err != nil && outcome.Verdict == tidings.Delivered {
		outcome = s.cutShort(ctx, attempt, response.StatusCode, err)
	}
	outcome.Response = excerpt(redact(kept, response.Request, s.endpoint.Secrets...))
	return outcome
}

// do sends the request of an attempt.
func (s *Sender) do(attempt *attempt, a tidings.Attempt) (*http.Response, error) {
	body := s.body.encode(make([]byte, 0, 512), a.Event)
	now := s.options.Now()
	if s.exchanger != nil {
		message := append(make([]byte, 0, 1<<10), s.head...)
		valid := true
		s.eachHeader(a, now, body, func(name, value string) {
			valid = valid && httpguts.ValidHeaderFieldValue(value)
			message = appendHeader(message, name, value)
		})
		if !valid {
			return nil, errors.New("the event's id or trace can't be in a header")
		}
		message = append(appendLength(message, len(body)), body...)
		return s.exchanger.do(s.template.WithContext(attempt), attempt.steps, message)
	}
	request := s.template.WithContext(attempt.steps.trace(attempt, attempt.end))
	request.Header = maps.Clone(s.template.Header)
	s.eachHeader(a, now, body, func(name, value string) { request.Header[name] = []string{value} })
	request.ContentLength = int64(len(body))
	request.Body = io.NopCloser(bytes.NewReader(body))
	// net/http only resends what was not sent, or what the receiver declared
	// unprocessed (HTTP/2); the rest is up to Transport.
	request.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	return s.transport.RoundTrip(request)
}

// readBody reads what is kept of a body. It is no error if the rest takes long.
func (s *Sender) readBody(ctx context.Context, attempt *attempt, body io.Reader) ([]byte, error) {
	if body == http.NoBody {
		return nil, nil
	}
	limit := min(bodyTime, s.endpoint.Timeout/2)
	own, ok := body.(*answer)
	if !ok {
		// Canceling the request stops reading, and closes the connection if another
		// request could not use it.
		enough := time.AfterFunc(limit, attempt.end)
		kept, err := readResponse(body)
		if !enough.Stop() {
			return kept, nil
		}
		return kept, err
	}
	if until := time.Now().Add(limit); until.Before(attempt.deadline) {
		own.readUntil(until)
	}
	if err := ctx.Err(); err != nil { // it may have ended before that
		return nil, err
	}
	kept, err := readResponse(body)
	if isTimeout(err) && ctx.Err() == nil && !attempt.timedOut() {
		return kept, nil
	}
	return kept, err
}

// Preview returns the request of an attempt and its body, without sending it. It holds
// secrets: configured headers, the signature, and those in the URL.
func (s *Sender) Preview(a tidings.Attempt) (*http.Request, []byte) {
	body := s.body.encode(nil, a.Event)
	request := s.template.Clone(context.Background())
	s.eachHeader(a, s.options.Now(), body, func(name, value string) { request.Header[name] = []string{value} })
	request.ContentLength = int64(len(body))
	return request, body
}

// cutShort classifies a 2xx response whose body is incomplete: it is unknown
// whether the receiver accepted the webhook.
func (s *Sender) cutShort(ctx context.Context, attempt *attempt, status int, err error) tidings.Outcome {
	switch {
	case ctx.Err() != nil:
		return tidings.Outcome{Verdict: tidings.Interrupted}
	case attempt.timedOut():
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

// eachHeader calls f with the headers that are an attempt's own; the operator's take
// precedence.
func (s *Sender) eachHeader(a tidings.Attempt, now time.Time, body []byte, f func(name, value string)) {
	set := func(name, value string) {
		if _, configured := s.template.Header[name]; !configured {
			f(name, value)
		}
	}
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
}

func readResponse(body io.Reader) ([]byte, error) {
	kept, err := io.ReadAll(io.LimitReader(body, responseKept))
	if err == nil && len(kept) == responseKept {
		_, err = io.Copy(io.Discard, io.LimitReader(body, responseLimit-responseKept))
	}
	return kept, err
}

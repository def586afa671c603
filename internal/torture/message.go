package torture

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/sender"
)

// message is a webhook about to be sent, which a case may spoil.
type message struct {
	secret string
	id     string
	stamp  string
	body   []byte
	header http.Header
	// alone sends it on a connection of its own, so that what a refusal leaves
	// on the connection spoils no other case.
	alone bool
}

// Events happen a step apart, so that a case can move one by a few moments without
// passing those of other cases; the first one happened a short time ago, so that the last
// one is not in the future.
const (
	step   = 100 * time.Millisecond
	moment = step / 5
	lead   = time.Minute
)

// versionStep is how far versions of resources are apart, for the same reason.
const versionStep = 10

// event returns a change of a resource that no receiver has seen before. It shares
// neither time nor version nor sequence with any other.
func (r *run) event(action tidings.Action) tidings.Event {
	id, n := uuid.NewString(), r.events.Add(1)
	return tidings.Event{
		ID: webhookID(), Type: "torture", Action: action, ResourceID: id, ResourceURL: "/torture/" + id,
		Time: r.began.Add(time.Duration(n) * step), Sequence: n * versionStep, ResourceVersion: n * versionStep,
	}
}

func webhookID() string { return uuid.Must(uuid.NewV7()).String() }

// message returns the webhook of an event as the relay sends it, but unsigned.
func (r *run) message(e tidings.Event) *message { return r.messageIn(e, r.Format) }

func (r *run) messageIn(e tidings.Event, format tidings.Format) *message {
	// newRun checked the format.
	body, contentType, _ := sender.Encode(tidings.Endpoint{Format: format}, e, sender.Options{})
	stamp := strconv.FormatInt(r.now().Unix(), 10)
	m := &message{secret: r.Secret, id: e.ID, stamp: stamp, body: body, header: http.Header{}}
	m.set("Content-Type", contentType)
	m.set("User-Agent", "Tidings-Torture")
	m.set("Tidings-Sequence", strconv.FormatInt(e.Sequence, 10))
	m.set("Tidings-Attempt", "1")
	m.set("Tidings-Resource-Version", strconv.FormatInt(e.ResourceVersion, 10))
	return m
}

func (m *message) set(name, value string) { m.header.Set(name, value) }

// signature signs the message in its current state.
func (m *message) signature() string { return signed(m.secret, m.id, m.stamp, m.body) }

// sign sets the three headers of Standard Webhooks.
func (m *message) sign() *message {
	m.set("Webhook-Id", m.id)
	m.set("Webhook-Timestamp", m.stamp)
	m.set("Webhook-Signature", m.signature())
	return m
}

// at moves the timestamp of the attempt.
func (m *message) at(when time.Time) *message {
	m.stamp = strconv.FormatInt(when.Unix(), 10)
	return m
}

// answer is a response to a webhook.
type answer struct {
	status     int
	retryAfter string
	took       time.Duration
}

func (a answer) ok() bool { return a.status >= 200 && a.status < 300 }

func (r *run) send(ctx context.Context, m *message) (answer, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.URL, bytes.NewReader(m.body))
	if err != nil {
		return answer{}, err
	}
	request.Header, request.Close = m.header, m.alone
	began := time.Now()
	response, err := r.client.Do(request)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err
		}
		return answer{}, err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(response.Body, 64<<10)); err != nil {
		return answer{}, errors.New("the response broke off")
	}
	return answer{response.StatusCode, response.Header.Get("Retry-After"), time.Since(began)}, nil
}

// unanswered returns why there is no answer.
func (r *run) unanswered(err error) error {
	timeout, ok := errors.AsType[net.Error](err)
	switch {
	case ok && timeout.Timeout():
		return fmt.Errorf("it did not answer within %v", r.Timeout)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return errors.New("it closed the connection without an answer")
	}
	return fmt.Errorf("it did not answer: %w", err)
}

// accepts returns an error unless the receiver answers with 2xx.
func (r *run) accepts(ctx context.Context, m *message) error {
	a, err := r.send(ctx, m)
	switch {
	case err != nil:
		return r.unanswered(err)
	case !a.ok():
		return fmt.Errorf("it answered %d, want 2xx", a.status)
	}
	return nil
}

// refuses returns an error unless the receiver answers with a 4xx that says
// that the request is wrong.
func (r *run) refuses(ctx context.Context, m *message) error {
	m.alone = true
	a, err := r.send(ctx, m)
	if err != nil {
		return r.unanswered(err)
	}
	return refused(a.status)
}

func refused(status int) error {
	switch {
	case status == http.StatusGone:
		return errors.New("it answered 410, which disables the endpoint for good")
	case status == http.StatusTooManyRequests || status < 400 || status > 499:
		return fmt.Errorf("it answered %d, want 400 or 401", status)
	}
	return nil
}

// refusesUnhandled also checks that the receiver did nothing.
func (r *run) refusesUnhandled(ctx context.Context, m *message) error {
	if err := r.refuses(ctx, m); err != nil {
		return err
	}
	return r.handled(ctx, map[string]int{m.id: 0})
}

const (
	observeLimit = 16 << 20
	observeWait  = 5 * time.Second
	observePause = 20 * time.Millisecond
)

// handled returns an error unless the receiver acted on each webhook as often
// as given. To know that nothing more comes, it sends a webhook of another
// resource and waits until the receiver acted on that.
func (r *run) handled(ctx context.Context, want map[string]int) error {
	if r.Observe == "" {
		return nil
	}
	last := r.event("updated")
	if err := r.accepts(ctx, r.message(last).sign()); err != nil {
		return fmt.Errorf("a valid webhook afterwards: %w", err)
	}
	for deadline := time.Now().Add(observeWait); ; {
		got, err := r.observe(ctx)
		if err != nil {
			return fmt.Errorf("--observe: %w", err)
		}
		missing := got[last.ID] == 0
		for id, n := range want {
			missing = missing || got[id] < n
		}
		if !missing {
			return compare(got, want)
		}
		if time.Now().After(deadline) {
			if got[last.ID] == 0 {
				return fmt.Errorf("it answered 2xx, but %v later --observe does not list webhook %s", observeWait, last.ID)
			}
			return compare(got, want)
		}
		select {
		case <-time.After(observePause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func compare(got, want map[string]int) error {
	for id, n := range want {
		switch {
		case got[id] < n:
			return errors.New("it answered 2xx, but did not act on the event")
		case got[id] > n && n == 0:
			return errors.New("it acted on the event, which it must not")
		case got[id] > n:
			return fmt.Errorf("it acted on the event %d times", got[id])
		}
	}
	return nil
}

// observe returns how often the receiver acted on each webhook.
func (r *run) observe(ctx context.Context) (map[string]int, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.Observe, nil)
	if err != nil {
		return nil, err
	}
	response, err := r.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answered %d, want 200", response.StatusCode)
	}
	var page struct{ Handled []string }
	if err := json.NewDecoder(io.LimitReader(response.Body, observeLimit)).Decode(&page); err != nil {
		return nil, fmt.Errorf(`want {"handled": ["webhook-id", …]}: %w`, err)
	}
	counts := make(map[string]int)
	for _, id := range page.Handled {
		counts[id]++
	}
	return counts, nil
}

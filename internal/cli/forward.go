package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/sender"
)

const (
	forwardTimeout = 15 * time.Second
	// A receiver that is down is retried after shortPause, doubling up to longPause. A
	// longer Retry-After is honored up to maxRetryAfter.
	shortPause    = 200 * time.Millisecond
	longPause     = 2 * time.Second
	maxRetryAfter = 30 * time.Second
)

// forwarder posts events to a receiver as the relay does.
type forwarder struct {
	sender *sender.Sender
	dialer *sender.Dialer
	url    string // without secrets
	out    io.Writer
}

// newForwarder returns a forwarder to an endpoint. The caller must close it.
func newForwarder(out io.Writer, e tidings.Endpoint) (*forwarder, error) {
	if _, err := sender.CheckURL(e.URL); err != nil {
		return nil, &usageError{fmt.Errorf("the receiver's URL: %w", err)}
	}
	e.Name, e.Timeout = publicURL(e.URL), forwardTimeout
	dialer := sender.NewDialer(sender.Egress{}, 1, forwardTimeout)
	transport := sender.NewTransport(sender.TransportOptions{
		Dialer: dialer, Timeout: e.Timeout, Proxy: http.ProxyFromEnvironment,
	})
	s, err := sender.New(e, &http.Client{Transport: transport}, sender.Options{})
	if err != nil {
		return nil, err
	}
	return &forwarder{sender: s, dialer: dialer, url: e.Name, out: out}, nil
}

func (f *forwarder) Close() { _ = f.dialer.Close() } // no request is in flight

// post makes one attempt and prints the event and the response.
func (f *forwarder) post(ctx context.Context, e tidings.Event) tidings.Outcome {
	fmt.Fprintf(f.out, "--> %s %s\n", e.Name(), e.ResourceURL)
	o := f.sender.Send(ctx, tidings.Attempt{Event: e, Number: 1})
	if o.Verdict != tidings.Interrupted {
		fmt.Fprintf(f.out, "<-- %s\n", responseText(o))
	}
	return o
}

// deliver posts an event until the receiver responds, so that no event is lost or
// overtaken while the receiver restarts. It returns an error if the event can never be
// delivered, or ctx ends.
func (f *forwarder) deliver(ctx context.Context, e tidings.Event) (tidings.Outcome, error) {
	o := f.post(ctx, e)
	for pause, began := shortPause, time.Now(); ; pause = min(2*pause, longPause) {
		switch {
		case ctx.Err() != nil:
			return o, ctx.Err()
		case o.Verdict == tidings.Blocked:
			return o, fmt.Errorf("%s: %s", f.url, o.Detail)
		case answered(o):
			return o, nil
		case pause == shortPause:
			fmt.Fprintf(f.out, "    %s is unavailable; this event and later ones wait for it\n", f.url)
		}
		if err := pauseFor(ctx, max(pause, min(o.RetryAfter, maxRetryAfter))); err != nil {
			return o, err
		}
		o = f.sender.Send(ctx, tidings.Attempt{Event: e, Number: 1})
		if answered(o) {
			fmt.Fprintf(f.out, "<-- %s, after %s\n", responseText(o), time.Since(began).Round(time.Millisecond))
		}
	}
}

// answered reports whether the receiver got the event and responded. It did not
// if it is down or overloaded, or ended before its response was complete.
func answered(o tidings.Outcome) bool {
	switch o.Status {
	case 0, http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable,
		http.StatusGatewayTimeout:
		return false
	}
	return o.Reason != tidings.ReasonReset && o.Reason != tidings.ReasonResponseTooSlow
}

// responseText returns the status, duration and body of a response, or why there is none.
func responseText(o tidings.Outcome) string {
	text := "no response"
	if o.Status != 0 {
		text = strconv.Itoa(o.Status)
	}
	text += " in " + o.Duration.Round(100*time.Microsecond).String()
	switch {
	case len(o.Response) > 0:
		text += ": " + string(o.Response)
	case o.Detail != "":
		text += ": " + o.Detail
	case o.Status == 0:
		text += ": " + o.Reason
	}
	return text
}

func pauseFor(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

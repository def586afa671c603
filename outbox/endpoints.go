package outbox

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/relay"
	"github.com/tidings-dev/tidings/sender"
)

// filter holds the current filter of an endpoint. Functions can't be compared, so
// it is replaced in place rather than by recreating the endpoint.
type filter struct {
	admits atomic.Pointer[func(tidings.Event) bool]
}

func (f *filter) admit(e tidings.Event) bool {
	admits := *f.admits.Load()
	return admits == nil || admits(e)
}

// SetEndpoints replaces the endpoints. If any of them is invalid, nothing changes.
// New endpoints receive events told from now on. Existing ones continue, or resume
// where they stopped. Removed ones stop once their attempts in flight are finished.
// New filters apply immediately.
//
// Processes on one database must have the same endpoints: call it in each.
func (o *Outbox) SetEndpoints(ctx context.Context, endpoints ...tidings.Endpoint) error {
	o.setting.Lock()
	defer o.setting.Unlock()
	if o.isClosed() {
		return fmt.Errorf("set endpoints: %w", ErrClosed)
	}
	filters := make(map[string]*filter)
	all, err := o.relayEndpoints(endpoints, filters)
	if err != nil {
		return fmt.Errorf("set endpoints: %w", err)
	}
	// Set the filters first: an endpoint must not get an event that its new filter
	// rejects.
	before := make(map[*filter]*func(tidings.Event) bool)
	for _, e := range endpoints {
		f := filters[nameOf(e)]
		before[f] = f.admits.Swap(&e.Filter)
	}
	if err := o.update(ctx, all); err != nil {
		closeAll(all)
		for f, admits := range before {
			f.admits.Store(admits)
		}
		return fmt.Errorf("set endpoints: %w", err)
	}
	o.filters = filters
	return nil
}

// SetRelayEndpoints is like [Outbox.SetEndpoints] for endpoints with their own
// senders. If it returns an error, the endpoints are closed.
func (o *Outbox) SetRelayEndpoints(ctx context.Context, endpoints ...relay.Endpoint) error {
	o.setting.Lock()
	defer o.setting.Unlock()
	err := ErrClosed
	if !o.isClosed() {
		err = o.update(ctx, endpoints)
	}
	if err != nil {
		closeAll(endpoints)
		return fmt.Errorf("set endpoints: %w", err)
	}
	o.filters = make(map[string]*filter)
	return nil
}

// nameLimit is the maximum length of an endpoint's name.
const nameLimit = 200

// validName reports whether a name is usable in logs, metrics and the database.
func validName(name string) bool {
	unfit := func(r rune) bool { return r <= ' ' || r == 0x7f || r == utf8.RuneError }
	return name != "" && len(name) <= nameLimit && !strings.ContainsFunc(name, unfit)
}

func nameOf(e tidings.Endpoint) string { return cmp.Or(e.Name, e.DefaultName()) }

// update passes the endpoints to the relay and creates it if there is none.
func (o *Outbox) update(ctx context.Context, endpoints []relay.Endpoint) error {
	if err := o.expireEndpoints(ctx); err != nil { // endpoints that return after expiry inherit nothing
		return err
	}
	names := make(map[string]bool, len(endpoints))
	for _, e := range endpoints {
		names[e.Name] = true
	}
	r := o.Relay()
	if r != nil {
		if err := r.Update(ctx, endpoints); err != nil {
			return err
		}
	}
	created := r == nil
	if created {
		var err error
		if r, err = relay.New(ctx, o.home.log, endpoints, o.options.Relay); err != nil {
			return err
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.configured = names
	if !created {
		return nil
	}
	o.relay = r
	close(o.ready)
	return nil
}

func closeAll(endpoints []relay.Endpoint) {
	for _, e := range endpoints {
		if e.Closed != nil {
			e.Closed()
		}
	}
}

// relayEndpoints returns the relay's endpoints and adds their filters to a map,
// reusing the filter of an existing endpoint of the same name.
func (o *Outbox) relayEndpoints(
	endpoints []tidings.Endpoint, filters map[string]*filter,
) (all []relay.Endpoint, err error) {
	defer func() {
		if err != nil {
			closeAll(all)
		}
	}()
	for i, e := range endpoints {
		if e.Name = nameOf(e); !validName(e.Name) {
			return all,
				fmt.Errorf("endpoint %d: it needs a URL, or a Name of at most %d bytes without spaces", i, nameLimit)
		}
		if filters[e.Name] != nil {
			return all, fmt.Errorf("endpoint %d: another endpoint is named %q; give each its own Name", i, e.Name)
		}
		f := o.filters[e.Name]
		if f == nil {
			f = new(filter)
			admits := e.Filter
			f.admits.Store(&admits)
		}
		filters[e.Name], e.Filter = f, f.admit
		made, err := o.relayEndpoint(e)
		if err != nil {
			return all, fmt.Errorf("endpoint %d (%s): %w", i, e.Name, err)
		}
		all = append(all, made)
	}
	return all, nil
}

func (o *Outbox) relayEndpoint(e tidings.Endpoint) (relay.Endpoint, error) {
	for _, p := range e.Patterns {
		if _, err := o.options.Types.Parse(p.String()); err != nil {
			return relay.Endpoint{}, err
		}
	}
	e.MaxInFlight = cmp.Or(e.MaxInFlight, defaultMaxInFlight)
	made := relay.Endpoint{Endpoint: e}
	if o.options.Configure != nil {
		if err := o.options.Configure(&made); err != nil {
			return made, err
		}
	}
	if made.Fingerprint == "" {
		made.Fingerprint = o.fingerprint(&made)
	}
	if made.Sender != nil || made.Disabled {
		return made, nil
	}
	dialer := sender.NewDialer(o.options.Egress, made.MaxInFlight, connectTimeout)
	dialer.Connections = o.connections
	to, err := sender.New(made.Endpoint, &http.Client{Transport: o.transport(made.Endpoint, dialer)}, o.options.Sender)
	if err != nil {
		return made, err
	}
	made.Sender = to
	closed := made.Closed
	made.Closed = func() {
		_ = dialer.Close() // closes idle connections
		if closed != nil {
			closed()
		}
	}
	return made, nil
}

// transport returns the transport for an endpoint, which connects through dialer.
func (o *Outbox) transport(e tidings.Endpoint, dialer *sender.Dialer) http.RoundTripper {
	var chosen *http.Transport
	if o.options.Transport != nil {
		chosen = o.options.Transport(e)
	}
	if chosen == nil {
		return sender.NewTransport(sender.TransportOptions{Dialer: dialer, Timeout: e.Timeout})
	}
	t := chosen.Clone()
	dialer.Serve(t)
	t.DialTLSContext = nil
	t.DialTLS = nil //nolint:staticcheck // programs may set the deprecated field
	t.MaxIdleConnsPerHost = max(t.MaxIdleConnsPerHost, e.MaxInFlight)
	t.IdleConnTimeout = cmp.Or(t.IdleConnTimeout, 90*time.Second)
	t.TLSHandshakeTimeout = cmp.Or(t.TLSHandshakeTimeout, 10*time.Second)
	t.MaxResponseHeaderBytes = cmp.Or(t.MaxResponseHeaderBytes, 64<<10)
	t.DisableCompression = true
	t.ForceAttemptHTTP2 = true // as it would be without a dial function
	return t
}

// fingerprint returns a hash of an endpoint's configuration. An endpoint that
// answered 410 stays disabled until it changes.
func (o *Outbox) fingerprint(e *relay.Endpoint) string {
	hash := sha256.New()
	fmt.Fprintf(hash, "%q %q %v %q %v %d %q %t %q\n", e.URL, e.Headers, e.Patterns, e.Secrets, e.Timeout,
		e.MaxInFlight, e.Format,
		e.NoInfoHeaders, e.EventPrefix)
	fmt.Fprintf(hash, "%v %v %d %q %d %q\n", e.Retry, e.RateLimit, e.Burst, e.Coalesce, e.Partitions, e.History)
	fmt.Fprintf(hash, "%v %q %q\n", o.options.Egress, o.options.Sender.UserAgent, o.options.Sender.Source)
	return hex.EncodeToString(hash.Sum(nil)[:8])
}

// Unfiltered reports whether an endpoint set by [Outbox.SetEndpoints] has no filter.
func (o *Outbox) Unfiltered(name string) bool {
	o.setting.Lock()
	defer o.setting.Unlock()
	f := o.filters[name]
	return f != nil && *f.admits.Load() == nil
}

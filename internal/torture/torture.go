// Package torture tests whether a receiver of webhooks does what the protocol
// requires. It needs nothing from the receiver but HTTP; a receiver that offers
// an observation URL also shows what it did with each webhook.
package torture

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/sender"
)

// Options says which receiver to test, and how.
type Options struct {
	URL    string
	Secret string // whsec_… or whsk_…
	// Observe is the observation URL; empty if the receiver has none.
	Observe string
	Format  tidings.Format
	// Only names the cases or groups to run; empty means all of them.
	Only []string
	// AnswerWithin is how long a response may take; the default is 2 s.
	AnswerWithin time.Duration
	// Timeout is how long to wait for a response; the default is 15 s.
	Timeout time.Duration
	// Insecure accepts any TLS certificate of the receiver.
	Insecure bool
}

// Check returns an error if the options are wrong.
func (o Options) Check() error {
	if _, err := choose(o.Only); err != nil {
		return err
	}
	_, err := newRun(o)
	return err
}

// Outcome is the result of a case.
type Outcome string

// Outcomes.
const (
	Pass Outcome = "pass"
	Fail Outcome = "fail"
	// Unseen means that the receiver answered correctly, but that only an
	// observation URL would show whether it acted correctly.
	Unseen Outcome = "unseen"
)

// Result is the outcome of one case.
type Result struct {
	Group   string  `json:"group"`
	Case    string  `json:"case"`
	Outcome Outcome `json:"outcome"`
	// Finding is what the receiver did wrong; Advice is what to do about it.
	Finding string  `json:"finding,omitempty"`
	Advice  string  `json:"advice,omitempty"`
	Seconds float64 `json:"seconds"`
}

// Case is one thing that receivers get wrong.
type Case struct {
	Group, Name string
	About       string // what it sends, and what is expected
	advice      string
	// observed is set if only an observation URL can show the whole.
	observed bool
	run      func(ctx context.Context, r *run) error
}

// Cases returns all cases in the order in which they run.
func Cases() []Case {
	return slices.Concat(signatureCases(), contentCases(), orderCases(), loadCases(), timeCases())
}

// Run runs the cases one after another and calls report after each. It
// returns an error if the options are wrong or the receiver cannot be reached.
func Run(ctx context.Context, o Options, report func(Result)) error {
	cases, err := choose(o.Only)
	if err != nil {
		return err
	}
	r, err := newRun(o)
	if err != nil {
		return err
	}
	defer r.client.CloseIdleConnections()
	if err := r.reach(ctx); err != nil {
		return err
	}
	for _, c := range cases {
		began := time.Now()
		result := Result{Group: c.Group, Case: c.Name, Outcome: Pass}
		err := c.run(ctx, r)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			result.Outcome, result.Finding, result.Advice = Fail, err.Error(), c.advice
		case c.observed && r.Observe == "":
			result.Outcome = Unseen
		}
		result.Seconds = time.Since(began).Seconds()
		report(result)
	}
	return nil
}

func choose(only []string) ([]Case, error) {
	all := Cases()
	if len(only) == 0 {
		return all, nil
	}
	var chosen []Case
	known := make(map[string]bool)
	for _, c := range all {
		known[c.Name], known[c.Group] = true, true
		if slices.Contains(only, c.Name) || slices.Contains(only, c.Group) {
			chosen = append(chosen, c)
		}
	}
	for _, name := range only {
		if !known[name] {
			return nil, fmt.Errorf("there is no case or group %q; see --list", name)
		}
	}
	return chosen, nil
}

// run is the state that the cases share.
type run struct {
	Options
	client *http.Client
	now    func() time.Time
	// began is when the first event happened, and events counts them.
	began  time.Time
	events atomic.Int64
}

func newRun(o Options) (*run, error) {
	if _, err := sender.CheckURL(o.URL); err != nil {
		return nil, fmt.Errorf("the receiver's URL: %w", err)
	}
	if err := sender.CheckSecret(o.Secret); err != nil {
		return nil, err
	}
	if o.Observe != "" {
		if _, err := sender.CheckURL(o.Observe); err != nil {
			return nil, fmt.Errorf("the observation URL: %w", err)
		}
	}
	if _, _, err := sender.Encode(tidings.Endpoint{Format: o.Format}, tidings.Event{}, sender.Options{}); err != nil {
		return nil, err
	}
	if o.AnswerWithin <= 0 {
		o.AnswerWithin = 2 * time.Second
	}
	if o.Timeout <= 0 {
		o.Timeout = 15 * time.Second
	}
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		TLSClientConfig:     &tls.Config{InsecureSkipVerify: o.Insecure}, //nolint:gosec // the caller asks for it
		MaxIdleConnsPerHost: parallel,
	}
	began := time.Now().Add(-lead).UTC().Truncate(time.Microsecond)
	return &run{Options: o, now: time.Now, began: began, client: &http.Client{
		Transport: transport, Timeout: o.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// reach returns an error unless the receiver answers HTTP requests.
func (r *run) reach(ctx context.Context) error {
	_, err := r.send(ctx, r.message(r.event("tested")).sign())
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*url.Error](err); ok { // whose text has the URL and its password
		err = e.Err
	}
	return fmt.Errorf("no response from the receiver: is it running, and is the URL right? %w", err)
}

// List returns the names in order, for messages.
func List(cases []Case) string {
	names := make([]string, len(cases))
	for i, c := range cases {
		names[i] = c.Name
	}
	return strings.Join(names, ", ")
}

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/bench"
	"github.com/tidings-dev/tidings/sender"
)

// send measures a delivery by the sender alone, without a log, over HTTP and HTTPS, and a
// net/http client beside it. It is the same on both databases and runs once.
func send(ctx context.Context, d database, events int) error {
	if d.url != "" {
		return nil
	}
	receiver, err := startReceiver(ctx)
	if err != nil {
		return err
	}
	defer receiver.stop()
	d.name = "alone"
	roots := x509.NewCertPool()
	roots.AddCert(receiver.certificate)
	trust := &tls.Config{RootCAs: roots}
	var contenders []*contender
	add := func(name string, post func() error) {
		contenders = append(contenders, &contender{
			name: name,
			prepare: func(ctx context.Context, _ int) (func() error, error) {
				return func() error { return errors.Join(post(), receiver.wait(ctx, events)) }, nil
			},
		})
	}
	for _, over := range []struct{ scheme, url string }{{"HTTP", receiver.url}, {"HTTPS", receiver.secure}} {
		add("a net/http client, "+over.scheme, func() error {
			c := client()
			c.Transport.(*http.Transport).TLSClientConfig = trust.Clone()
			defer c.CloseIdleConnections()
			return postWith(ctx, c, over.url, events)
		})
		for _, secrets := range [][]string{nil, {"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}} {
			name := "sender, " + over.scheme
			if secrets != nil {
				name += ", signed"
			}
			add(name, func() error {
				s, err := newSender(tidings.Endpoint{
					Name: "send", URL: over.url, Timeout: 15 * time.Second, MaxInFlight: inFlight, Secrets: secrets,
				}, trust.Clone())
				if err != nil {
					return err
				}
				return concurrently(events, func() error { return sendOnce(ctx, s) })
			})
		}
	}
	for round := range drainRounds {
		for _, c := range contenders {
			if err := c.compete(ctx, d, round, receiver.cmd.Process.Pid, events); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	for _, c := range contenders {
		d.results.add(d, "Send/"+c.name, []string{"requests/s", "sender-µs/request", "receiver-µs/request"},
			c.usage.rate, c.usage.sender, c.usage.receiver)
		d.report("send: %s: %s", c.name, &c.usage)
	}
	return nil
}

func sendOnce(ctx context.Context, s *sender.Sender) error {
	e := bench.SampleEvent()
	e.ID = e.ResourceID
	o := s.Send(ctx, tidings.Attempt{Event: e, Number: 1})
	if o.Verdict != tidings.Delivered {
		return fmt.Errorf("%v: %s", o.Verdict, o.Reason)
	}
	return nil
}

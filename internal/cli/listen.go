package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/operator"
)

// listenOptions are the flags of the command.
type listenOptions struct {
	forwardTo, since, format string
	endpoint, record, replay string
	types                    []string
	printSecret              bool
}

func listenCommand() *cobra.Command {
	var o listenOptions
	c := &client{}
	cmd := &cobra.Command{
		Use: "listen", Short: "Post a server's events to a program on this machine, signed", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c.out, c.errOut = cmd.OutOrStdout(), cmd.ErrOrStderr()
			err := listen(cmd.Context(), c, o)
			if cmd.Context().Err() != nil {
				return nil
			}
			return err
		},
	}
	cmd.Long = `Follow the feed of a server and post each event to a program on this machine, in
order, signed as the relay does, with a secret of this user that stays the same
(--print-secret). It prints --> for each event, and <-- for the answer.

While the program is down, overloaded (429, 503) or behind a gateway that cannot
reach it (502, 504), its events wait. Any other answer ends the event: there are
no retries. While the server is away, the command waits for it, and continues
where it was.

When it is started again with the same --url, --types, --endpoint and
--forward-to (or --record), it continues where it ended, even if it was killed:
only the event under way arrives again. Its position is kept beside the secret,
in tidings/listen-positions in the folder for your configuration (Linux:
~/.config). --since replaces it; --since 0s begins with new events.

--record keeps the events in a file, which --replay posts without a server: the
ids and times are those of the events, the signatures are new.`
	cmd.Example = `  WEBHOOK_SECRET=$(tidings listen --print-secret) python3 receiver.py
  tidings listen --forward-to http://localhost:3000/hook --types 'order.*' --since 1h
  tidings listen --record events.jsonl
  tidings listen --replay events.jsonl --forward-to http://localhost:3000/hook`
	f := cmd.Flags()
	f.StringVar(&o.forwardTo, "forward-to", "", "`URL` of the program that gets the events")
	f.StringSliceVar(&o.types, "types", nil, "`PATTERNS` of events, such as provider.*,*.deleted")
	f.StringVar(&o.since, "since", "", "begin with events since that `TIME` (RFC 3339, or how long ago: 2h, 2d); "+
		"else where it ended, or with new ones")
	choose(f, &o.format, "format", "thin, standard or cloudevents (default thin)", formatNames()...)
	f.StringVar(&o.endpoint, "endpoint", "", "take patterns and format from the endpoint with that `NAME`")
	f.StringVar(&o.record, "record", "", "append the events to that `FILE`")
	f.StringVar(&o.replay, "replay", "", "post the events of that `FILE`, and end; no server is needed")
	f.BoolVar(&o.printSecret, "print-secret", false, "print the secret that signs, and end")
	c.serverFlags(f, asReader)
	for _, other := range []string{"record", "since", "endpoint", "url", "token", "data-dir"} {
		cmd.MarkFlagsMutuallyExclusive("replay", other)
	}
	return cmd
}

func formatNames() (names []string) {
	for _, f := range tidings.Formats() {
		names = append(names, string(f))
	}
	return names
}

func listen(ctx context.Context, c *client, o listenOptions) error {
	secret, file, err := localSecret()
	if err != nil {
		return err
	}
	if o.printSecret {
		_, err := fmt.Fprintln(c.out, secret)
		return err
	}
	if o.forwardTo == "" && (o.record == "" || o.replay != "") {
		return &usageError{errors.New("give --forward-to, the URL of the program that gets the events")}
	}
	l := &listener{client: c}
	if o.replay == "" {
		if err := l.remember(filepath.Dir(file), o); err != nil {
			return err
		}
	}
	e := tidings.Endpoint{URL: o.forwardTo, Secrets: []string{secret}}
	if o.endpoint != "" {
		if err := l.configure(ctx, o.endpoint, &e, &o.types); err != nil {
			return err
		}
	}
	if o.format != "" {
		e.Format = tidings.Format(o.format)
	}
	if o.forwardTo != "" {
		if l.forward, err = newForwarder(c.out, e); err != nil {
			return err
		}
		defer l.forward.Close()
		fmt.Fprintf(c.errOut, "signed with the secret in %s (--print-secret)\n", file)
	}
	if o.replay != "" {
		return replayFile(ctx, l.forward, o.replay, o.types)
	}
	if o.record != "" {
		record, err := os.OpenFile(o.record, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("--record: %w", err)
		}
		defer record.Close()
		l.record = record
	}
	return l.follow(ctx, o.since, strings.Join(o.types, ","))
}

// listener follows the feed of a server.
type listener struct {
	*client
	connected bool
	position  *listenPosition
	forward   *forwarder // nil to record only
	record    io.Writer  // may be nil
}

// remember finds the position of a listen that was given the same options.
func (l *listener) remember(folder string, o listenOptions) error {
	base, err := l.base()
	if err != nil {
		return err
	}
	to := o.forwardTo
	if to == "" {
		if to, err = filepath.Abs(o.record); err != nil {
			return fmt.Errorf("--record: %w", err)
		}
	}
	l.position, err = newListenPosition(folder, base, strings.Join(slices.Sorted(slices.Values(o.types)), ","),
		o.endpoint, to)
	return err
}

const (
	listenPage = 500
	listenWait = "30s"
)

// listenedPage is a page of the feed.
type listenedPage struct {
	Items []json.RawMessage
	Next  string
	Head  int64
}

// until calls f until the server answers, and says when the connection is lost and back.
func (l *listener) until(ctx context.Context, f func() error) error {
	for pause, failed := shortPause, false; ; pause = min(2*pause, longPause) {
		err := f()
		refused, isRefusal := errors.AsType[*refusal](err)
		_, wrong := errors.AsType[*usageError](err)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case wrong, isRefusal && refused.final():
			return err
		case err == nil:
			if !l.connected {
				fmt.Fprintf(l.errOut, "connected to %s\n", l.shownURL())
			}
			l.connected = true
			return nil
		case !failed && l.connected:
			fmt.Fprintf(l.errOut, "connection lost, trying again: %v\n", err)
		case !failed:
			fmt.Fprintf(l.errOut, "not connected, trying again: %v\n", err)
		}
		l.connected, failed = false, true
		if err := pauseFor(ctx, pause); err != nil {
			return err
		}
	}
}

func (l *listener) get(ctx context.Context, path string, query url.Values, into any) error {
	return l.until(ctx, func() error {
		_, err := l.call(ctx, http.MethodGet, path, query, nil, into)
		return err
	})
}

// configure takes what the server's endpoint has and the command line does not say.
func (l *listener) configure(ctx context.Context, name string, e *tidings.Endpoint, types *[]string) error {
	var of operator.Endpoint
	if err := l.get(ctx, endpointPath(name), nil, &of); err != nil {
		return err
	}
	if of.Settings == nil {
		return fmt.Errorf("endpoint %s is no longer configured", name)
	}
	e.Format, e.EventPrefix = tidings.Format(of.Settings.Format), of.Settings.EventPrefix
	e.NoInfoHeaders = of.Settings.NoInfo
	if len(*types) == 0 {
		*types = of.Events
	}
	return nil
}

// follow forwards events until ctx ends.
func (l *listener) follow(ctx context.Context, since, types string) error {
	if err := l.begin(ctx, since); err != nil {
		return err
	}
	query := url.Values{"limit": {strconv.Itoa(listenPage)}, "wait": {listenWait}}
	if types != "" {
		query.Set("types", types)
	}
	for {
		var page listenedPage
		query.Set("after", l.position.After)
		err := l.get(ctx, "/events", query, &page)
		if gone, ok := errors.AsType[*refusal](err); ok && gone.after != "" {
			fmt.Fprintf(l.errOut, "events are missing: %v\n", err)
			if err := l.position.moveTo(gone.after); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		for _, item := range l.position.left(page.Items) {
			if err := l.pass(ctx, item); err != nil {
				return err
			}
		}
		if page.Next == "" {
			return l.foreign("its answer has no next")
		}
		if err := l.position.moveTo(page.Next); err != nil {
			return err
		}
	}
}

// begin sets the position where to begin.
func (l *listener) begin(ctx context.Context, since string) error {
	if since == "" {
		if err := l.position.load(); err != nil {
			return err
		}
		if l.position.After != "" {
			fmt.Fprintln(l.errOut, "continuing where it ended (--since 0s begins with new events)")
			return nil
		}
	}
	after, err := l.start(ctx, since)
	if err != nil {
		return err
	}
	fmt.Fprintf(l.errOut, "following the events after position %s\n", after)
	return l.position.moveTo(after)
}

// pass records and forwards one event.
func (l *listener) pass(ctx context.Context, item json.RawMessage) error {
	e, err := feedEvent(item)
	if err != nil {
		return err
	}
	if l.record != nil {
		if _, err := l.record.Write(append(item, '\n')); err != nil {
			return fmt.Errorf("--record: %w", err)
		}
	}
	if l.forward == nil {
		fmt.Fprintf(l.out, "--> %s %s\n", e.Name(), e.ResourceURL)
	} else if _, err := l.forward.deliver(ctx, e); err != nil {
		return err
	}
	return l.position.passed(e.ID)
}

// start returns the position after which to begin: that of the newest event, or the
// last one before a time.
func (l *listener) start(ctx context.Context, since string) (after string, err error) {
	text, err := pointInTime("since", since)
	if err != nil {
		return "", err
	}
	var page listenedPage
	query := url.Values{"limit": {"1"}}
	if err := l.get(ctx, "/events", query, &page); err != nil {
		return "", err
	}
	if text == "" || len(page.Items) == 0 {
		return strconv.FormatInt(page.Head, 10), nil
	}
	from, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return "", err
	}
	// All events up to low are older, and none after high is.
	low, high := int64(0), page.Head
	for first := true; ; first = false {
		middle := low + (high-low)/2
		if !first {
			if low >= high {
				return strconv.FormatInt(low, 10), nil
			}
			query.Set("after", strconv.FormatInt(middle, 10))
			page.Items = nil
			if err := l.get(ctx, "/events", query, &page); err != nil {
				return "", err
			}
		}
		if len(page.Items) == 0 {
			high = middle
			continue
		}
		e, err := feedEvent(page.Items[0])
		switch {
		case err != nil:
			return "", err
		case e.Time.Before(from):
			low = e.Sequence
		case first: // the oldest event there is
			return strconv.FormatInt(e.Sequence-1, 10), nil
		default:
			high = middle
		}
	}
}

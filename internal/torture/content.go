package torture

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/tidings-dev/tidings"
)

const bigBody = 1 << 20

func contentCases() []Case {
	content := func(name, about, advice string, run func(ctx context.Context, r *run) error) Case {
		return Case{Group: "content", Name: name, About: about, advice: advice, run: run}
	}
	unreadable := func(body string) func(ctx context.Context, r *run) error {
		return func(ctx context.Context, r *run) error {
			m := r.message(r.event("updated"))
			m.body = []byte(body)
			return r.refusesUnhandled(ctx, m.sign())
		}
	}
	return []Case{
		content("empty-body", "a signed empty body: 400, not an internal error",
			"answer 400 if the body is not an event; 5xx makes the sender retry, and 2xx loses the event", unreadable("")),
		content("not-json", "a signed body that is not JSON: 400, not an internal error",
			"answer 400 if the body can't be decoded; 5xx makes the sender retry, and 2xx loses the event",
			unreadable("event=order.updated")),
		content("big-body", "a signed body of 1 MiB: 2xx, 400 or 413, and the receiver keeps working",
			"limit the body (64 KiB is plenty), answer 413 above that, and read or close the connection",
			bigBodyIsAnswered),
		content("extra-member", "a body with a member of a later version: 2xx",
			"ignore members that you don't know", func(ctx context.Context, r *run) error {
				m := r.message(r.event("updated"))
				m.body = withMember(m.body, `"torture":{"event":[1,null]}`)
				return r.acceptsHandled(ctx, m.sign())
			}),
		content("unknown-type", "an event of a type that the receiver can't know: 2xx",
			"answer 2xx to events that don't interest you; any other status makes the sender retry them",
			func(ctx context.Context, r *run) error {
				e := r.event("exploded")
				e.Type = "unheard_of"
				return r.accepts(ctx, r.message(e).sign())
			}),
		content("ping", "webhook.ping, with which an operator tests an endpoint: 2xx, and no action",
			"answer 2xx to webhook.ping and do nothing else", func(ctx context.Context, r *run) error {
				e := tidings.Ping(webhookID(), "torture", "", r.now())
				m := r.message(e).sign()
				if err := r.accepts(ctx, m); err != nil {
					return err
				}
				return r.handled(ctx, map[string]int{m.id: 0})
			}),
		content("no-info-headers", "no tidings-… headers, which an operator may disable: 2xx",
			"the tidings-… headers are informational: do without them", func(ctx context.Context, r *run) error {
				m := r.message(r.event("updated")).sign()
				for name := range m.header {
					if strings.HasPrefix(name, "Tidings-") {
						m.header.Del(name)
					}
				}
				return r.acceptsHandled(ctx, m)
			}),
		content("other-format", "a signed body in another format: 2xx and acted on, or 400 or 415",
			"answer 400 (or 415) to formats that you don't read, so that the operator sees it; 2xx loses the event",
			otherFormats),
	}
}

// withMember adds a member to a JSON object.
func withMember(body []byte, member string) []byte {
	return append(bytes.TrimSuffix(body, []byte("}")), ","+member+"}"...)
}

func (r *run) acceptsHandled(ctx context.Context, m *message) error {
	if err := r.accepts(ctx, m); err != nil {
		return err
	}
	return r.handled(ctx, map[string]int{m.id: 1})
}

func bigBodyIsAnswered(ctx context.Context, r *run) error {
	m := r.message(r.event("updated"))
	m.body = withMember(m.body, `"padding":"`+strings.Repeat("x", bigBody)+`"`)
	if err := r.eitherWay(ctx, m.sign()); err != nil {
		return err
	}
	if err := r.accepts(ctx, r.message(r.event("updated")).sign()); err != nil {
		return fmt.Errorf("a valid webhook afterwards: %w", err)
	}
	return nil
}

func otherFormats(ctx context.Context, r *run) error {
	for _, format := range tidings.Formats() {
		if format == r.Format || r.Format == "" && format == tidings.Thin {
			continue
		}
		m := r.messageIn(r.event("updated"), format).sign()
		m.alone = true
		a, err := r.send(ctx, m)
		if err != nil {
			return fmt.Errorf("%s: %w", format, r.unanswered(err))
		}
		want := 0
		if a.ok() {
			want = 1
		} else if err := refused(a.status); err != nil {
			return fmt.Errorf("%s: %w", format, err)
		}
		if err := r.handled(ctx, map[string]int{m.id: want}); err != nil {
			return fmt.Errorf("%s: %w", format, err)
		}
	}
	return nil
}

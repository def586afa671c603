package operator

import (
	"context"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"

	"github.com/tidings-dev/tidings"
)

// Request is the request that an endpoint receives for an event. Configured headers, values
// of the query and the signature are masked.
type Request struct {
	Method  string          `json:"method"`
	URL     string          `json:"url" doc:"Values of its query are masked."`
	Headers []RequestHeader `json:"headers" nullable:"false"`
	Body    string          `json:"body"`
}

// RequestHeader is a header of a request.
type RequestHeader struct {
	Name   string `json:"name"`
	Value  string `json:"value" doc:"*** if it is masked."`
	Masked bool   `json:"masked,omitempty"`
}

const masked = "***"

// previewer is a sender that can show the request of an attempt.
type previewer interface {
	Preview(a tidings.Attempt) (*http.Request, []byte)
}

// Request returns the request that an endpoint gets for an event, as its first attempt
// now. Without a name, it is the first endpoint that wants the event. What the transport
// adds, such as credentials of OAuth 2.0, is not in it.
func (s *Service) Request(ctx context.Context, event, endpoint string) (*Request, error) {
	e, err := s.find(ctx, event)
	if err != nil {
		return nil, err
	}
	for _, one := range s.endpoints() {
		if endpoint == "" && one.Matches(e) {
			endpoint = one.Name
		}
	}
	if endpoint == "" {
		return nil, conflict("no endpoint wants the event")
	}
	to, err := s.configured(endpoint)
	if err != nil {
		return nil, invalid("endpoint", "%v", err)
	}
	shows, ok := to.Sender.(previewer)
	if !ok {
		return nil, conflict("endpoint %s has a sender of its own, which can't show a request", endpoint)
	}
	request, body := shows.Preview(tidings.Attempt{Event: e, Number: 1})
	out := &Request{
		Method: request.Method, URL: maskedURL(request.URL), Headers: []RequestHeader{}, Body: string(body),
	}
	secrets := map[string]bool{"Webhook-Signature": true, "Authorization": true}
	for name := range to.Headers {
		secrets[textproto.CanonicalMIMEHeaderKey(name)] = true
	}
	if request.URL.User != nil {
		request.Header.Set("Authorization", masked)
	}
	for name, values := range request.Header {
		secret := secrets[name]
		for _, value := range values {
			if secret {
				value = masked
			}
			out.Headers = append(out.Headers, RequestHeader{Name: name, Value: value, Masked: secret})
		}
	}
	slices.SortFunc(out.Headers, func(a, b RequestHeader) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// maskedURL returns a URL without user info, and with the names of its query only.
func maskedURL(u *url.URL) string {
	plain := *u
	plain.User, plain.Fragment = nil, ""
	if plain.RawQuery != "" {
		var parts []string
		for part := range strings.SplitSeq(plain.RawQuery, "&") {
			name, _, valued := strings.Cut(part, "=")
			if valued {
				name += "=" + masked
			}
			parts = append(parts, name)
		}
		plain.RawQuery = strings.Join(parts, "&")
	}
	return plain.String()
}

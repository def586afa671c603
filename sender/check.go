package sender

import (
	"errors"
	"fmt"
	"net/textproto"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
)

var (
	errNoURL = errors.New("not a valid URL; special characters in a user name or password must be percent-encoded:" +
		` %40 for "@", %2F for "/", %3F for "?", %23 for "#"`)
	errAmbiguousURL = errors.New(`the URL has an "@" or "#" after its host: if it is part of a password, special ` +
		`characters there must be` +
		` percent-encoded (%40 for "@", %2F for "/", %3F for "?", %23 for "#"); otherwise write %40 or %23`)
)

// CheckURL parses a URL from a setting; without schemes it must be http or
// https. The error does not contain the URL, which may contain a password.
//
// A password with unescaped special characters may result in a URL that parses,
// with the rest of the password in its host, path or fragment. Therefore a
// fragment is rejected, and so is an "@" after the host if a user name or port
// precedes it.
func CheckURL(text string, schemes ...string) (*url.URL, error) {
	if schemes == nil {
		schemes = []string{"http", "https"}
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, errNoURL
	}
	if !slices.Contains(schemes, u.Scheme) {
		return nil, fmt.Errorf("the URL must begin with %s://", strings.Join(schemes, ":// or "))
	}
	_, authority, _ := strings.Cut(text, "://")
	rest := ""
	if end := strings.IndexAny(authority, "/?#"); end >= 0 {
		authority, rest = authority[:end], authority[end:]
	}
	if strings.Contains(rest, "#") || strings.Contains(rest, "@") && strings.ContainsAny(authority, "@:") {
		return nil, errAmbiguousURL
	}
	if u.Hostname() == "" {
		return nil, errors.New("the URL has no host")
	}
	return u, nil
}

// CheckHeader returns an error for headers that an endpoint cannot have: those
// that HTTP itself needs, and those that would break the request. The error
// contains neither the value nor a name that may be one.
func CheckHeader(name string, values []string) error {
	if !httpguts.ValidHeaderFieldName(name) {
		return errors.New("a header name contains an invalid character, such as a space or colon; write the " +
			"name as the key and the value after it, as in X-Name: value")
	}
	switch textproto.CanonicalMIMEHeaderKey(name) {
	case "Content-Length", "Host", "Connection", "Transfer-Encoding",
		"Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Upgrade", "Http2-Settings":
		return fmt.Errorf("header %s cannot be configured: it belongs to the connection", name)
	case "Expect":
		return fmt.Errorf("header %s cannot be configured: the receiver would wait for a body that is "+
			"sent at once", name)
	case "Accept-Encoding":
		return fmt.Errorf("header %s cannot be configured: responses are not decompressed, so they must not be "+
			"compressed", name)
	}
	for _, value := range values {
		if strings.ContainsFunc(value, func(r rune) bool { return (r < ' ' && r != '\t') || r == 0x7f }) {
			return fmt.Errorf("the value of header %s contains a line break or another control character", name)
		}
	}
	return nil
}

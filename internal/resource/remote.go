package resource

import (
	"context"
	"errors"
	"net/url"
)

// RemoteReason is why a server named by a user cannot be used. Users are told
// these reasons only: anything else about a server's response, or about the
// address a name resolves to, could reveal details of a network that they
// cannot see.
type RemoteReason string

// The possible reasons.
const (
	RemoteBlocked RemoteReason = "connections to its address are not allowed; see the setting " +
		"egress.user_urls.allow_networks"
	RemoteUnreachable  RemoteReason = "it could not be reached"
	RemoteUntrusted    RemoteReason = "its TLS certificate is not trusted"
	RemoteSlow         RemoteReason = "it did not answer in time"
	RemoteRedirects    RemoteReason = "it answered with a redirect, which is not followed"
	RemoteUnauthorized RemoteReason = "it denied access (401 or 403)"
	RemoteRefuses      RemoteReason = "it answered with an error"
	RemoteUnusable     RemoteReason = "its response is not what was expected"
)

// RemoteError reports why a server named by a user cannot be used.
type RemoteError struct {
	Reason RemoteReason
	// Cause is only for the log. It contains no secret.
	Cause error
}

// Error returns the reason.
func (e *RemoteError) Error() string { return string(e.Reason) }

// remoteFailed logs why a server cannot be used, and returns an error that
// tells the caller nothing but the reason. It returns errors other than a
// [RemoteError] unchanged.
func (c *core) remoteFailed(ctx context.Context, code Code, field, what, location string, err error) error {
	failed, ok := errors.AsType[*RemoteError](err)
	if !ok {
		return err
	}
	c.logRemote(ctx, what, location, failed)
	return fail(code, field, "%s: %s", what, failed.Reason)
}

func (c *core) logRemote(ctx context.Context, what, location string, err *RemoteError, args ...any) {
	c.logger.InfoContext(ctx, what,
		append(args, "url", plainURL(location), "reason", string(err.Reason), "error", err.Cause)...)
}

// plainURL strips everything from a URL that may be secret.
func plainURL(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

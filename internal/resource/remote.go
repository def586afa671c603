package resource

import (
	"context"
	"errors"
	"net/url"
)

// RemoteReason says why a server that a user named can't be used. The list is
// closed, and its words are all that users learn: whatever else a server
// answers, and to whom a name leads, could tell them of a network that they
// can't see.
type RemoteReason string

// The reasons.
const (
	RemoteBlocked RemoteReason = "connecting to its address is not allowed; see the setting " +
		"egress.user_urls.allow_networks"
	RemoteUnreachable  RemoteReason = "it can't be reached"
	RemoteUntrusted    RemoteReason = "its TLS certificate is not trusted"
	RemoteSlow         RemoteReason = "it did not answer in time"
	RemoteRedirects    RemoteReason = "it answered with a redirect, which is not followed"
	RemoteUnauthorized RemoteReason = "it refused access (401 or 403)"
	RemoteRefuses      RemoteReason = "it answered with an error"
	RemoteUnusable     RemoteReason = "its answer is not what was expected"
)

// RemoteError is why a server that a user named can't be used.
type RemoteError struct {
	Reason RemoteReason
	// Cause is for the log only. It holds no secret.
	Cause error
}

// Error returns the reason.
func (e *RemoteError) Error() string { return string(e.Reason) }

// remoteFailed logs why a server can't be used, and returns an error that tells
// the caller the reason and nothing else. Errors other than a [RemoteError] pass.
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

// plainURL is a URL without what may be a secret.
func plainURL(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

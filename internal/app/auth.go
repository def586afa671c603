package app

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"

	"github.com/tidings-dev/tidings/internal/auth"
	"github.com/tidings-dev/tidings/internal/config"
	"github.com/tidings-dev/tidings/internal/resource"
)

// operators are a relay's users, who are named by its tokens and not stored.
type operators struct{}

// SignIn implements [auth.Users].
func (operators) SignIn(_ context.Context, id resource.Identity) (resource.Caller, error) {
	return resource.Caller{UserID: id.Email, Role: id.Role}, nil
}

// Lookup implements [auth.Users].
func (o operators) Lookup(ctx context.Context, id resource.Identity) (resource.Caller, error) {
	return o.SignIn(ctx, id)
}

// authenticator uses the tokens of the current configuration.
type authenticator struct {
	users   auth.Users
	logger  *slog.Logger
	current atomic.Pointer[credentials]
}

type credentials struct {
	*auth.Authenticator
	replaced chan struct{} // closed when the credentials are replaced
}

// Identify implements httpapi.Authenticator.
func (a *authenticator) Identify(authorization string) (resource.Identity, error) {
	return a.current.Load().Identify(authorization)
}

// Caller implements httpapi.Authenticator.
func (a *authenticator) Caller(ctx context.Context, id resource.Identity) (resource.Caller, error) {
	return a.current.Load().Caller(ctx, id)
}

// Recheck implements httpapi.Authenticator.
func (a *authenticator) Recheck(
	ctx context.Context, authorization string, who resource.Caller,
) (resource.Caller, error) {
	return a.current.Load().Recheck(ctx, authorization, who)
}

// Prove implements httpapi.Authenticator.
func (a *authenticator) Prove(authorization, secret string) (string, error) {
	return a.current.Load().Prove(authorization, secret)
}

// Resume implements httpapi.Authenticator.
func (a *authenticator) Resume(
	ctx context.Context, secret, proof string, who resource.Caller,
) (resource.Caller, error) {
	return a.current.Load().Resume(ctx, secret, proof, who)
}

// Changed implements httpapi.Authenticator.
func (a *authenticator) Changed() <-chan struct{} { return a.current.Load().replaced }

// replace replaces the credentials.
func (a *authenticator) replace(next *auth.Authenticator) {
	if old := a.current.Swap(&credentials{next, make(chan struct{})}); old != nil {
		close(old.replaced)
	}
}

// set applies the tokens of a configuration. If it has none, the first start creates
// an admin token.
func (a *authenticator) set(cfg *config.Config) error {
	next, err := a.prepare(cfg)
	if err == nil {
		a.replace(next)
	}
	return err
}

func (a *authenticator) prepare(cfg *config.Config) (*auth.Authenticator, error) {
	o := auth.Options{AdminEmails: cfg.Auth.AdminEmails, Disabled: cfg.Auth.Disabled}
	for i, t := range cfg.Auth.Tokens {
		if t.Token.Set() {
			secret, err := t.Token.Read()
			if err != nil {
				return nil, fmt.Errorf("auth.tokens[%d]: %w", i, err)
			}
			t.SHA256 = auth.Hash(strings.TrimSpace(secret))
		}
		o.Tokens = append(o.Tokens, auth.Token{SHA256: t.SHA256, User: t.User, Role: resource.Role(t.Role)})
	}
	switch {
	case o.Disabled:
		a.logger.Warn("authentication is disabled: everybody who can reach this server is an admin; it listens " +
			"only on loopback")
	case len(o.Tokens) == 0:
		token, file, created, err := auth.AdminToken(cfg.DataDir)
		if err != nil {
			return nil, err
		}
		if created {
			a.logger.Info("created an admin token, because none is configured", "file", file)
		}
		o.Tokens = append(o.Tokens, token)
	}
	return auth.New(a.users, o)
}

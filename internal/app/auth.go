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

// operators are the users of a relay: those whom its tokens name.
type operators struct{}

// SignIn implements [auth.Users].
func (operators) SignIn(_ context.Context, id resource.Identity) (resource.Caller, error) {
	return resource.Caller{UserID: id.Email, Role: id.Role}, nil
}

// Lookup implements [auth.Users].
func (o operators) Lookup(ctx context.Context, id resource.Identity) (resource.Caller, error) {
	return o.SignIn(ctx, id)
}

// authenticator knows the tokens that are configured now.
type authenticator struct {
	users  auth.Users
	logger *slog.Logger
	now    atomic.Pointer[credentials]
}

type credentials struct {
	*auth.Authenticator
	replaced chan struct{} // closed once others count
}

// Identify implements httpapi.Authenticator.
func (a *authenticator) Identify(authorization string) (resource.Identity, error) {
	return a.now.Load().Identify(authorization)
}

// Caller implements httpapi.Authenticator.
func (a *authenticator) Caller(ctx context.Context, id resource.Identity) (resource.Caller, error) {
	return a.now.Load().Caller(ctx, id)
}

// Recheck implements httpapi.Authenticator.
func (a *authenticator) Recheck(
	ctx context.Context, authorization string, who resource.Caller,
) (resource.Caller, error) {
	return a.now.Load().Recheck(ctx, authorization, who)
}

// Prove implements httpapi.Authenticator.
func (a *authenticator) Prove(authorization, secret string) (string, error) {
	return a.now.Load().Prove(authorization, secret)
}

// Resume implements httpapi.Authenticator.
func (a *authenticator) Resume(
	ctx context.Context, secret, proof string, who resource.Caller,
) (resource.Caller, error) {
	return a.now.Load().Resume(ctx, secret, proof, who)
}

// Changed implements httpapi.Authenticator.
func (a *authenticator) Changed() <-chan struct{} { return a.now.Load().replaced }

// replace makes other credentials count.
func (a *authenticator) replace(next *auth.Authenticator) {
	if old := a.now.Swap(&credentials{next, make(chan struct{})}); old != nil {
		close(old.replaced)
	}
}

// set makes the tokens of a configuration those that count. Without any, the
// first start makes one.
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
		a.logger.Warn("authentication is disabled: whoever reaches this server is an admin; it listens on " +
			"loopback only")
	case len(o.Tokens) == 0:
		token, file, created, err := auth.AdminToken(cfg.DataDir)
		if err != nil {
			return nil, err
		}
		if created {
			a.logger.Info("made an admin token, because none is configured", "file", file)
		}
		o.Tokens = append(o.Tokens, token)
	}
	return auth.New(a.users, o)
}

package resource

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/tidings-dev/tidings/internal/store"
)

// Box encrypts secrets for the database. A secret is bound to its owner and
// cannot be decrypted under another binding. Without a key, errors name the
// missing setting.
type Box interface {
	// Seal encrypts a secret with the first key.
	Seal(plain, bound string) ([]byte, error)
	// Open decrypts a secret with whichever key it was encrypted with.
	Open(sealed []byte, bound string) (string, error)
	// Keys lists the keys; the first one encrypts.
	Keys() []BoxKey
	// Prefix returns the prefix of everything encrypted with a key.
	Prefix(id string) []byte
}

// BoxKey is a configured key.
type BoxKey struct {
	// ID is derived from the key and not secret.
	ID string
	// Setting is where the key is configured.
	Setting string
}

// secrets encrypts the secrets in the database.
type secrets struct{ box Box }

// seal encrypts a secret in the transaction that writes it. It locks the key
// until then, so that the key is not retired in the meantime.
func (s secrets) seal(ctx context.Context, tx *store.Tx, plain, bound string) ([]byte, error) {
	sealed, err := s.box.Seal(plain, bound)
	if err != nil {
		return nil, err
	}
	return sealed, s.holdKey(ctx, tx)
}

// holdKey keeps the first key from being retired until the end of the
// transaction.
func (s secrets) holdKey(ctx context.Context, tx *store.Tx) error {
	err := tx.HoldKey(ctx, s.box.Keys()[0].ID)
	if errors.Is(err, store.ErrNotFound) {
		return fail(NotConfigured, "", "this server's first encryption key was retired by "+
			"'tidings keys rotate' on another server; restart this one with that server's encryption_keys")
	}
	return err
}

// unseal decrypts a secret; errors are attributed to field.
func (s secrets) unseal(sealed []byte, bound, field string) (string, error) {
	plain, err := s.box.Open(sealed, bound)
	if _, ok := errors.AsType[*Error](err); err == nil || ok {
		return plain, err
	}
	return "", &Error{
		Code: NotConfigured, Field: field, Cause: err,
		Message: "was encrypted with a key that this server does not have; set it again, or add that key to " +
			"encryption_keys",
	}
}

// boundTo returns the binding of a secret.
func boundTo(key ...string) string { return strings.Join(key, "/") }

// MissingKeysError reports that the database holds secrets that this server's
// keys cannot decrypt.
type MissingKeysError struct {
	// IDs are the missing keys. It is empty if they are unknown, because the
	// secrets were written before keys had ids.
	IDs []string
}

// Error names the missing keys.
func (e *MissingKeysError) Error() string {
	if len(e.IDs) == 0 {
		return "the secrets in the database were encrypted with another key"
	}
	return "the secrets in the database were encrypted with another key, with the id " + strings.Join(e.IDs, " and ")
}

// How many secrets from before keys had ids are tried on the first start.
const oldSecrets = 300

// UseKeys registers this server's keys in the database. If it holds secrets
// encrypted with other keys, the error is a [*MissingKeysError].
func (r *Resources) UseKeys(ctx context.Context) error {
	noted, err := r.store.Keys(ctx)
	if err != nil {
		return err
	}
	missing := slices.DeleteFunc(slices.Clone(noted), r.hasKey)
	if len(missing) > 0 {
		return &MissingKeysError{missing}
	}
	used := r.secrets.box.Keys()
	if len(noted) > 0 {
		used = used[:1]
	} else if err := r.checkOldSecrets(ctx); err != nil {
		return err
	}
	used = slices.DeleteFunc(used, func(k BoxKey) bool { return slices.Contains(noted, k.ID) })
	if len(used) == 0 {
		return nil
	}
	return r.store.InTx(ctx, func(tx *store.Tx) error {
		for _, k := range used {
			if err := tx.AddKey(ctx, k.ID); err != nil {
				return err
			}
		}
		return nil
	})
}

func (r *Resources) hasKey(id string) bool {
	return slices.ContainsFunc(r.secrets.box.Keys(), func(k BoxKey) bool { return k.ID == id })
}

// checkOldSecrets returns an error if the database has no registered keys but
// holds secrets, and this server can decrypt none of them.
func (r *Resources) checkOldSecrets(ctx context.Context) error {
	secrets, err := r.store.SecretsWithout(ctx, nil, store.Place{}, oldSecrets)
	if err != nil || len(secrets) == 0 {
		return err
	}
	for _, s := range secrets {
		if _, err := r.secrets.box.Open(s.Sealed, boundTo(s.Key...)); err == nil {
			return nil
		}
	}
	return &MissingKeysError{}
}

// ForgetKeys gives up the secrets that this server cannot decrypt, so that it
// can start without their keys. It returns their number and up to most of their
// owners, such as model_providers/ID. The secrets remain as they are until they
// are set again.
func (r *Resources) ForgetKeys(ctx context.Context, most int) (lost int64, owners []string, err error) {
	if err := r.secrets.needKey(); err != nil {
		return 0, nil, err
	}
	var last store.Place
	for more := true; more; {
		secrets, err := r.store.SecretsWithout(ctx, nil, last, rotationBatch)
		if err != nil {
			return 0, nil, err
		}
		for _, s := range secrets {
			last = s.Place
			if _, err := r.secrets.box.Open(s.Sealed, boundTo(s.Key...)); err == nil {
				continue
			}
			lost++
			if owner := ownerOf(s.Place); len(owners) < most && !slices.Contains(owners, owner) {
				owners = append(owners, owner)
			}
		}
		more = len(secrets) == rotationBatch
	}
	noted, err := r.store.Keys(ctx)
	if err != nil {
		return 0, nil, err
	}
	return lost, owners, r.store.InTx(ctx, func(tx *store.Tx) error {
		for _, id := range slices.DeleteFunc(noted, r.hasKey) {
			if err := tx.RemoveKey(ctx, id); err != nil {
				return err
			}
		}
		return tx.AddKey(ctx, r.secrets.box.Keys()[0].ID)
	})
}

// ownerOf returns the owner of a secret: a resource or, for variables, the user
// or provider. It omits the name of a user's variable.
func ownerOf(p store.Place) string { return p.Table + "/" + p.Key[0] }

// needKey returns an error that names the missing setting if there is no key.
func (s secrets) needKey() error {
	_, err := s.box.Seal("", "")
	return err
}

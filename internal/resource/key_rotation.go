package resource

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/tidings-dev/tidings/internal/store"
)

// The states of an encryption key.
const (
	keyWrites  = "writes"
	keyReads   = "reads"
	keyMissing = "missing"
	keyUnused  = "unused"
)

// Key is a key that encrypts secrets in the database.
type Key struct {
	ID      string  `json:"id" doc:"Derived from the key; not secret."`
	State   string  `json:"state" enum:"writes,reads,unused,missing" doc:"writes: it encrypts and decrypts; reads: it decrypts; unused: nothing is encrypted with it; missing: this server does not have it."`
	Setting *string `json:"setting" doc:"The setting that contains it."`
	Secrets int64   `json:"secrets" doc:"The number of secrets encrypted with it."`
}

// Keys lists the keys that encrypt secrets in the database.
func (r *Resources) Keys(ctx context.Context, who Caller) (*Items[*Key], error) {
	if err := who.Need(RoleAdmin); err != nil {
		return nil, err
	}
	noted, err := r.store.Keys(ctx)
	if err != nil {
		return nil, err
	}
	list := []*Key{}
	for i, k := range r.secrets.box.Keys() {
		key := &Key{ID: k.ID, State: keyReads, Setting: &k.Setting}
		switch at := slices.Index(noted, k.ID); {
		case i == 0:
			key.State = keyWrites
		case at < 0:
			key.State = keyUnused
		}
		noted = slices.DeleteFunc(noted, func(id string) bool { return id == k.ID })
		list = append(list, key)
	}
	for _, id := range noted {
		list = append(list, &Key{ID: id, State: keyMissing})
	}
	for _, key := range list {
		if key.Secrets, err = r.store.CountSecrets(ctx, r.secrets.box.Prefix(key.ID)); err != nil {
			return nil, err
		}
	}
	return &Items[*Key]{Items: list, TotalCount: int64(len(list))}, nil
}

// Rotation is the progress of a key rotation.
type Rotation struct {
	Rotated int64 `json:"rotated" doc:"Secrets that this request re-encrypted with the first key."`
	Left    int64 `json:"left" doc:"Secrets still encrypted with other keys."`
	// Unreadable lists the owners of secrets that no key decrypts.
	Unreadable []string `json:"unreadable" nullable:"false" doc:"Owners of secrets, found by this request, that no key decrypts, such as model_providers/ID."`
	Next       string   `json:"next" doc:"The value of after for the next request; empty once all secrets have been processed."`
}

const (
	rotationBatch = 200
	// A request stops at the first of these limits, so that it is bounded and
	// reports its progress.
	rotationTime       = 2 * time.Second
	rotationUnreadable = 100
)

// RotateKeys re-encrypts secrets with the first key, for a limited time. After
// is the Next of the previous call, empty for the first. The call that
// processes the last secret also retires the keys that no secret still
// needs. It is safe while servers write secrets, and may be restarted at any
// time.
func (r *Resources) RotateKeys(ctx context.Context, who Caller, after string) (*Rotation, error) {
	if err := who.Need(RoleAdmin); err != nil {
		return nil, err
	}
	if err := r.secrets.needKey(); err != nil {
		return nil, err
	}
	place, err := r.openPlace(after)
	if err != nil {
		return nil, err
	}
	rotation := &Rotation{Unreadable: []string{}}
	end := time.Now().Add(rotationTime)
	for more := true; more; {
		if time.Now().After(end) || len(rotation.Unreadable) >= rotationUnreadable {
			if rotation.Next, err = r.sealPlace(place); err != nil {
				return nil, err
			}
			break
		}
		if place, more, err = r.rotate(ctx, place, rotation); err != nil {
			return nil, err
		}
	}
	if rotation.Next == "" {
		if err := r.retireKeys(ctx); err != nil {
			return nil, err
		}
	}
	all, err := r.store.CountSecrets(ctx, nil)
	if err != nil {
		return nil, err
	}
	done, err := r.store.CountSecrets(ctx, r.secrets.box.Prefix(r.secrets.box.Keys()[0].ID))
	rotation.Left = max(all-done, 0)
	return rotation, err
}

// rotate re-encrypts a batch of secrets, and returns the start of the next
// batch if there may be one.
func (r *Resources) rotate(
	ctx context.Context, after store.Place, total *Rotation,
) (last store.Place, more bool, err error) {
	secrets, err := r.store.SecretsWithout(ctx, r.secrets.box.Prefix(r.secrets.box.Keys()[0].ID), after, rotationBatch)
	if err != nil || len(secrets) == 0 {
		return after, false, err
	}
	var rotated int64
	err = r.store.InTx(ctx, func(tx *store.Tx) error {
		rotated = 0
		if err := r.secrets.holdKey(ctx, tx); err != nil {
			return err
		}
		for _, s := range secrets {
			bound := boundTo(s.Key...)
			plain, err := r.secrets.box.Open(s.Sealed, bound)
			if err != nil {
				if owner := ownerOf(s.Place); !slices.Contains(total.Unreadable, owner) {
					total.Unreadable = append(total.Unreadable, owner)
				}
				continue
			}
			sealed, err := r.secrets.box.Seal(plain, bound)
			if err != nil {
				return err
			}
			replaced, err := tx.ReplaceSecret(ctx, s, sealed)
			if err != nil {
				return err
			}
			if replaced {
				rotated++
			}
		}
		return nil
	})
	total.Rotated += rotated
	return secrets[len(secrets)-1].Place, len(secrets) == rotationBatch, err
}

var errStillUsed = errors.New("the key is still in use")

// retireKeys retires the keys that no secret needs. From then on, no
// server can encrypt with them.
func (r *Resources) retireKeys(ctx context.Context) error {
	noted, err := r.store.Keys(ctx)
	if err != nil {
		return err
	}
	for _, id := range noted {
		if id == r.secrets.box.Keys()[0].ID {
			continue
		}
		err := r.store.InTx(ctx, func(tx *store.Tx) error {
			if err := tx.RemoveKey(ctx, id); err != nil {
				return err
			}
			if n, err := tx.CountSecrets(ctx, r.secrets.box.Prefix(id)); err != nil || n == 0 {
				return err
			}
			return errStillUsed
		})
		if err != nil && !errors.Is(err, errStillUsed) {
			return err
		}
	}
	return nil
}

// Clients hold the position among the secrets encrypted, because it contains
// the name of a user's variable.

const placeBound = "place"

func (r *Resources) sealPlace(p store.Place) (string, error) {
	text, err := json.Marshal(p)
	if err != nil {
		return "", err
	}
	sealed, err := r.secrets.box.Seal(string(text), placeBound)
	return base64.RawURLEncoding.EncodeToString(sealed), err
}

func (r *Resources) openPlace(text string) (p store.Place, err error) {
	if text == "" {
		return p, nil
	}
	sealed, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil {
		var plain string
		if plain, err = r.secrets.box.Open(sealed, placeBound); err == nil {
			err = json.Unmarshal([]byte(plain), &p)
		}
	}
	if err != nil {
		return p, &Error{
			Code: Invalid, Field: "after", Cause: err,
			Message: "expected the value of next from the previous response; omit it to start over",
		}
	}
	return p, nil
}

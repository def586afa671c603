package resource

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"unicode/utf8"

	"github.com/uptrace/bun"

	"github.com/tidings-dev/tidings/internal/store"
)

// Variables maps names to values.
type Variables map[string]string

// VariableChanges are changes to variables; nil removes a variable.
type VariableChanges map[string]*string

// variable belongs to a user or a provider. Its value is encrypted.
type variable struct {
	bun.BaseModel `bun:"table:variables"`

	OwnerID string `bun:",pk"`
	Name    string `bun:",pk"`
	Value   []byte
}

const (
	maxVariables     = 100
	maxVariableName  = 256
	maxVariableValue = 10_000
)

func ofOwner(id string) store.Filter {
	return equal("owner_id", id)
}

// variableStore reads and writes the variables of users and providers.
type variableStore struct {
	store   *store.Store
	secrets secrets
}

// of returns the variables of a user or a provider.
func (v variableStore) of(ctx context.Context, owner string) (map[string]string, error) {
	values := make(map[string]string)
	var lost []string
	var why error
	err := store.Each(ctx, v.store, func(row *variable) error {
		value, err := v.secrets.unseal(row.Value, boundTo(owner, row.Name), "variables")
		if err != nil {
			lost, why = append(lost, row.Name), err
			return nil
		}
		values[row.Name] = value
		return nil
	}, ofOwner(owner))
	if err == nil && len(lost) > 0 {
		slices.Sort(lost)
		err = &Error{Code: NotConfigured, Field: "variables", Cause: why, Message: fmt.Sprintf(
			"%.1000q were encrypted with keys that this server does not have; set or remove them, or add "+
				"those keys to encryption_keys", lost)}
	}
	return values, err
}

// replace replaces the variables of an owner whose row is locked, and reports
// whether anything changed.
func (v variableStore) replace(
	ctx context.Context, tx *store.Tx, owner string, values Variables,
) (changed bool, err error) {
	changes := make(VariableChanges, len(values))
	for name, value := range values {
		changes[name] = &value
	}
	if err := checkVariables(changes); err != nil {
		return false, err
	}
	var rows []*variable
	if err := tx.Read(ctx, &rows, "name", ofOwner(owner)); err != nil {
		return false, err
	}
	for _, row := range rows {
		if _, stays := values[row.Name]; !stays {
			changes[row.Name] = nil
		}
	}
	return v.change(ctx, tx, owner, changes)
}

// merge merges changes into the variables of an owner whose row is locked, and
// reports whether anything changed.
func (v variableStore) merge(
	ctx context.Context, tx *store.Tx, owner string, changes VariableChanges,
) (changed bool, err error) {
	if err := checkVariables(changes); err != nil {
		return false, err
	}
	return v.change(ctx, tx, owner, changes)
}

func (v variableStore) change(
	ctx context.Context, tx *store.Tx, owner string, changes VariableChanges,
) (changed bool, err error) {
	var rows []*variable
	if err := tx.Read(ctx, &rows, "name", ofOwner(owner)); err != nil {
		return false, err
	}
	now := make(map[string][]byte, len(rows))
	for _, row := range rows {
		now[row.Name] = row.Value
	}
	for _, name := range slices.Sorted(maps.Keys(changes)) {
		did, err := v.set(ctx, tx, owner, name, now[name], changes[name])
		if err != nil {
			return false, err
		}
		changed = changed || did
	}
	if err := tx.Read(ctx, &rows, "name", ofOwner(owner)); err != nil {
		return false, err
	}
	if len(rows) > maxVariables {
		return false, fail(Invalid, "variables", "there would be %d; the limit is %d", len(rows), maxVariables)
	}
	return changed, nil
}

func (v variableStore) set(
	ctx context.Context, tx *store.Tx, owner, name string, sealed []byte, value *string,
) (changed bool, err error) {
	bound := boundTo(owner, name)
	if value != nil && sealed != nil {
		// A value that can no longer be decrypted counts as changed.
		if now, err := v.secrets.box.Open(sealed, bound); err == nil && now == *value {
			return false, nil
		}
	}
	if sealed != nil {
		if _, err := tx.DeleteDetails(ctx, new(variable), ofOwner(owner), equal("name", name)); err != nil {
			return false, err
		}
	}
	if value == nil {
		return sealed != nil, nil
	}
	if sealed, err = v.secrets.seal(ctx, tx, *value, bound); err != nil {
		return false, err
	}
	return true, fromStore(tx.InsertDetails(ctx, &variable{OwnerID: owner, Name: name, Value: sealed}), "variable")
}

func checkVariables(changes VariableChanges) error {
	if len(changes) > maxVariables {
		return fail(Invalid, "variables", "there are %d; the limit is %d", len(changes), maxVariables)
	}
	for name, value := range changes {
		field := fmt.Sprintf("variables.%s", name)
		if name == "" || utf8.RuneCountInString(name) > maxVariableName {
			return fail(Invalid, "variables", "names must be 1 to %d characters long", maxVariableName)
		}
		if value != nil && utf8.RuneCountInString(*value) > maxVariableValue {
			return fail(Invalid, field, "must be at most %d characters long", maxVariableValue)
		}
	}
	return nil
}

package resource

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/uptrace/bun/dialect/sqlitedialect"
	"github.com/uptrace/bun/schema"

	"github.com/tidings-dev/tidings"
)

// declaration is what a type declares, independent of its row type.
type declaration struct {
	Info
	table      string
	hasPolicy  bool
	owned      bool
	references map[string]tidings.ResourceType // by column
	details    map[string]string               // column by table
}

var tables = schema.NewTables(sqlitedialect.New())

func tableOf(row any) string {
	return tables.Get(reflect.TypeOf(row).Elem()).Name //nolint:forbidigo // as bun does
}

func (c *collection[R]) declaration() declaration {
	d := declaration{
		Info: c.info(), table: tableOf(c.kind.New()), owned: !c.kind.Unowned,
		hasPolicy:  c.kind.Needs != nil && c.kind.Others != nil,
		references: make(map[string]tidings.ResourceType), details: make(map[string]string),
	}
	if d.owned {
		d.references["created_by"] = UserType
	}
	for _, ref := range c.kind.References {
		d.references[ref.Column] = ref.To
	}
	for _, part := range c.kind.Details {
		d.details[tableOf(part.row)] = part.column
	}
	return d
}

func (r *Resources) declarations() (all []declaration) {
	for _, t := range r.types {
		all = append(all, t.(interface{ declaration() declaration }).declaration())
	}
	return all
}

// TestEveryType reports what a type lacks. What other packages must have for
// each type, such as routes, is checked by the test of the same name in
// internal/app.
func TestEveryType(t *testing.T) {
	databases(t, Options{}, func(f *fixture) {
		resources := reflect.ValueOf(f.Resources).Elem() //nolint:forbidigo // to find fields that were forgotten
		for i := range resources.NumField() {
			if field := resources.Type().Field(i); field.IsExported() {
				if !slices.Contains(f.types, resources.Field(i).Interface().(registered)) {
					f.Errorf("Resources.%s is not registered: list it in New (internal/resource/resources.go)",
						field.Name)
				}
			}
		}
		if n := len(Types()); n != len(f.types) {
			f.Errorf("%d types are registered in New, with %d names", len(f.types), n)
		}
		for _, missing := range f.missing() {
			f.Error(missing)
		}
	})
}

// missing lists what the declarations of the types lack.
func (f *fixture) missing() (all []string) {
	f.Helper()
	declarations := f.declarations()
	for _, d := range declarations {
		all = append(all, f.incomplete(d)...)
	}
	for _, key := range f.foreignKeys() {
		if missing := undeclared(declarations, key); missing != "" {
			all = append(all, missing)
		}
	}
	return all
}

// incomplete lists what a type itself lacks.
func (f *fixture) incomplete(d declaration) (all []string) {
	f.Helper()
	file := "internal/resource/" + string(d.Type) + ".go"
	lacks := func(format string, args ...any) {
		all = append(all, string(d.Type)+": "+fmt.Sprintf(format, args...))
	}
	if _, err := os.Stat(string(d.Type) + ".go"); err != nil {
		lacks("put the type into %s", file)
	}
	if !strings.HasPrefix(d.URL, "/api/v1/") {
		lacks("set URL in its kind (%s), such as /api/v1/notes/{id}; it is %q", file, d.URL)
	}
	if !d.hasPolicy {
		lacks("set policy in its kind (%s), such as private", file)
	}
	if samples[d.Type] == nil && d.Type != ConfigurationType { // which always exists
		lacks("add a sample to samples (internal/resource/fixture_test.go)")
	}
	query := "SELECT id, version, created_at, updated_at, created_by FROM " + f.schema + d.table + " WHERE 1 = 0"
	rows, err := f.db.QueryContext(f.Context(), query)
	if err != nil {
		lacks("add a migration that makes its table for each database (internal/store/migrations): %v", err)
		return all
	}
	f.must(rows.Close())
	if d.owned && !slices.Contains(f.foreignKeys(), foreignKey{d.table, "created_by", "users"}) {
		lacks("add REFERENCES users to created_by in its migration (internal/store/migrations), so that a request "+
			"can't create one while its owner is deleted, or set Unowned in its kind (%s)", file)
	}
	return all
}

type foreignKey struct{ table, column, parent string }

// foreignKeys returns the foreign keys in the database.
func (f *fixture) foreignKeys() (keys []foreignKey) {
	f.Helper()
	query := `SELECT m.name, k."from", k."table" FROM sqlite_master m, pragma_foreign_key_list(m.name) k
		WHERE m.type = 'table'`
	if f.schema != "" {
		query = `SELECT c.conrelid::regclass::text, a.attname, c.confrelid::regclass::text
			FROM pg_constraint c JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = ANY (c.conkey)
			WHERE c.contype = 'f' AND c.connamespace = 'tidings'::regnamespace`
	}
	rows, err := f.db.QueryContext(f.Context(), query)
	f.must(err)
	defer rows.Close()
	for rows.Next() {
		var k foreignKey
		f.must(rows.Scan(&k.table, &k.column, &k.parent))
		k.table, k.parent = strings.TrimPrefix(k.table, f.schema), strings.TrimPrefix(k.parent, f.schema)
		keys = append(keys, k)
	}
	f.must(rows.Err())
	return keys
}

// undeclared says where to declare a foreign key that no type declares. Its
// rows would prevent the resources that they refer to from being deleted.
func undeclared(all []declaration, key foreignKey) string {
	byTable := func(table string) *declaration {
		if i := slices.IndexFunc(all, func(d declaration) bool { return d.table == table }); i >= 0 {
			return &all[i]
		}
		return nil
	}
	child, parent := byTable(key.table), byTable(key.parent)
	switch {
	case parent == nil:
		return fmt.Sprintf("%s: register the type of this table in New (internal/resource/resources.go)", key.parent)
	case child == nil && parent.details[key.table] != key.column:
		return fmt.Sprintf("%s: register the type of this table in New (internal/resource/resources.go), or, "+
			"if its rows "+
			"are part of a %s, list {row, %q} in Details (internal/resource/%s.go)",
			key.table, parent.Type, key.column, parent.Type)
	case child != nil && child.references[key.column] != parent.Type:
		return fmt.Sprintf("%s: list {To: %q, Column: %q} in References (internal/resource/%s.go)",
			child.Type, parent.Type, key.column, child.Type)
	}
	return ""
}

// Package capture makes events from changes in the tables of an application that
// does not use Tidings: row triggers write an event in the transaction of the
// change.
//
//	tables := []capture.Table{{
//		Name: "public.orders", Type: "order", URL: "https://shop.example/orders/{id}",
//		Watch: []string{"status", "total"},
//	}}
//	if err := capture.Attach(ctx, db, tables, capture.Options{}); err != nil {
//		return err
//	}
//
// From then on every write to the table makes events, which an outbox or a relay on
// the same database delivers. Call [Repair] every minute to detect and fix what the
// application's migrations changed.
//
// Triggers never make a statement or a migration of the application fail: they
// depend on no column. The writing role needs no privileges on Tidings' schema.
//
// The package also installs emit(), which writes an event from SQL.
package capture

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/eventlog/postgres"
	"github.com/tidings-dev/tidings/vocabulary"
)

// Table is a table whose rows are resources.
type Table struct {
	// Name is the table's name with its schema, which defaults to "public". Case is
	// preserved. A name that contains a dot or a quote is quoted as in SQL:
	// public."a.b".
	Name string
	// Type is the type of the resources.
	Type tidings.ResourceType
	// Key lists the columns that identify a row; empty means the primary key. The
	// id of a resource is the value, or the values joined by ":", with "%" and ":"
	// escaped as %25 and %3A.
	Key []string
	// URL is where receivers read a resource. Each {column} is replaced by the
	// column's escaped value. Empty means "/TYPE/ID".
	URL string
	// Watch lists the columns whose changes are updates, Ignore those whose changes
	// are not. At most one may be set. Without either, all columns count. With
	// Ignore, columns added later count.
	Watch, Ignore []string
	// User is the column with the row's user, or "setting:NAME" for a session
	// setting, whose name has a dot. The setting tidings.user_id, if set, takes
	// precedence.
	User string
	// Where lists conditions that a row must meet to be a resource, each of the
	// form "COLUMN = VALUE", "COLUMN != VALUE", "COLUMN is null" or "COLUMN is not
	// null". A row that starts to meet them is created; one that stops is deleted.
	Where []string
	// Actions lists the actions that make events; empty means created, updated and
	// deleted. Without created, a new row is an update.
	Actions []tidings.Action
	// Truncate is what TRUNCATE does. The zero value is [TruncateDeleted].
	Truncate Truncate
	// Parts lists tables whose rows belong to a resource of this table: their
	// changes are updates of it.
	Parts []Part
}

// Part is a table whose rows are parts of another table's resources.
type Part struct {
	// Name is the table's name, as in [Table].
	Name string
	// Key lists the columns that hold the key of the resource; empty means the
	// foreign key that refers to it.
	Key []string
	// Watch and Ignore are as in [Table].
	Watch, Ignore []string
}

// Truncate is the effect of TRUNCATE.
type Truncate string

// Effects of TRUNCATE: each row is deleted, or the statement fails.
const (
	TruncateDeleted Truncate = "deleted"
	TruncateRefuse  Truncate = "refuse"
)

// Check returns an error if the definition is invalid, regardless of the database.
func (t Table) Check() error {
	if err := t.check(); err != nil {
		return fmt.Errorf("table %s: %w", t.Name, err)
	}
	return nil
}

func (t Table) check() error {
	if _, err := quoteTable(t.Name); err != nil {
		return err
	}
	if err := t.Type.Check(); err != nil {
		return err
	}
	for _, a := range t.Actions {
		if !slices.Contains(tidings.Actions(), a) {
			return fmt.Errorf("action %q: expected created, updated or deleted", a)
		}
	}
	if len(t.Watch) > 0 && len(t.Ignore) > 0 {
		return errors.New("set either watch or ignore, not both")
	}
	if name, ok := strings.CutPrefix(t.User, "setting:"); ok && !strings.Contains(name, ".") {
		// Others may be secret: to read them is an error, in a statement of the application.
		return fmt.Errorf("user %q: expected the name of a setting with a dot, such as setting:app.user_id", t.User)
	}
	if t.Truncate != "" && t.Truncate != TruncateDeleted && t.Truncate != TruncateRefuse {
		return fmt.Errorf("truncate %q: expected deleted or refuse", t.Truncate)
	}
	if err := checkURL(t.URL); err != nil {
		return fmt.Errorf("url %q: %w", t.URL, err)
	}
	for _, text := range t.Where {
		if _, err := parseCondition(text); err != nil {
			return fmt.Errorf("where %q: %w", text, err)
		}
	}
	for _, p := range t.Parts {
		if _, err := quoteTable(p.Name); err != nil {
			return fmt.Errorf("part %s: %w", p.Name, err)
		}
		if len(p.Watch) > 0 && len(p.Ignore) > 0 {
			return fmt.Errorf("part %s: set either watch or ignore, not both", p.Name)
		}
	}
	return nil
}

// actions returns the actions of the table's type.
func (t Table) actions() []tidings.Action {
	if len(t.Actions) == 0 {
		return tidings.Actions()
	}
	return t.Actions
}

// Types returns the types of tables, with their actions.
func Types(tables []Table) vocabulary.Types {
	types := make(vocabulary.Types)
	for _, t := range tables {
		for _, a := range t.actions() {
			if !slices.Contains(types[t.Type], a) {
				types[t.Type] = append(types[t.Type], a)
			}
		}
	}
	return types
}

// checkTables returns an error if a definition is invalid or occurs twice.
func checkTables(tables []Table) error {
	seen := make(map[string]bool)
	for _, t := range tables {
		if err := t.Check(); err != nil {
			return err
		}
		name, _ := quoteTable(t.Name)
		if seen[name] {
			return fmt.Errorf("duplicate table %s", t.Name)
		}
		seen[name] = true
	}
	return nil
}

// checkURL returns an error unless the template makes http or https URLs, or paths
// that begin with "/".
func checkURL(template string) error {
	host, absolute := strings.CutPrefix(template, "https://")
	if !absolute {
		host, absolute = strings.CutPrefix(template, "http://")
	}
	if template != "" && template[0] != '/' && (!absolute || strings.IndexAny(host+"/", "/?#") == 0) {
		return errors.New("expected an http or https URL, or a path that begins with /")
	}
	rest := template
	for {
		before, after, open := strings.Cut(rest, "{")
		if strings.ContainsFunc(before, func(r rune) bool { return r <= ' ' || r == '}' || r == 0x7f }) {
			return errors.New("expected a URL with {column} for the value of a column")
		}
		if !open {
			return nil
		}
		column, after, closed := strings.Cut(after, "}")
		if !closed || column == "" {
			return errors.New("expected the name of a column and } after {")
		}
		rest = after
	}
}

// condition is one of [Table.Where].
type condition struct {
	Column string  `json:"column"`
	Not    bool    `json:"not"`
	Value  *string `json:"value"`
}

func parseCondition(text string) (condition, error) {
	bad := errors.New(
		`expected "COLUMN = VALUE", "COLUMN != VALUE", "COLUMN is null" or "COLUMN is not null"`)
	if column, ok := strings.CutSuffix(text, " is not null"); ok {
		return condition{Column: strings.TrimSpace(column), Not: true}, nil
	}
	if column, ok := strings.CutSuffix(text, " is null"); ok {
		return condition{Column: strings.TrimSpace(column)}, nil
	}
	column, value, ok := strings.Cut(text, "=")
	if !ok {
		return condition{}, bad
	}
	column, not := strings.CutSuffix(column, "!")
	c := condition{Column: strings.TrimSpace(column), Not: not}
	value = strings.TrimSpace(value)
	if n := len(value); n >= 2 && value[0] == '\'' && value[n-1] == '\'' {
		value = value[1 : n-1]
	}
	c.Value = &value
	if c.Column == "" {
		return c, bad
	}
	return c, nil
}

// quoteTable returns a table's name quoted for SQL, with its schema.
func quoteTable(name string) (string, error) {
	var parts []string
	for rest := name; ; {
		part, after, more := "", "", false
		if strings.HasPrefix(rest, `"`) {
			end := 1
			for end < len(rest) && (rest[end] != '"' || strings.HasPrefix(rest[end:], `""`)) {
				if rest[end] == '"' {
					end++
				}
				end++
			}
			if end >= len(rest) || end+1 < len(rest) && rest[end+1] != '.' {
				return "", fmt.Errorf("name %q: a quote is not closed", name)
			}
			part, after = strings.ReplaceAll(rest[1:end], `""`, `"`), rest[end+1:]
			after, more = strings.CutPrefix(after, ".")
		} else {
			part, after, more = strings.Cut(rest, ".")
			if strings.Contains(part, `"`) {
				return "", fmt.Errorf(`name %q: quote the whole name: "a""b"`, name)
			}
		}
		if part == "" || len(part) > 63 || strings.ContainsRune(part, 0) {
			return "", fmt.Errorf("name %q: expected SCHEMA.TABLE, each of 1 to 63 bytes", name)
		}
		parts = append(parts, quote(part))
		if !more {
			break
		}
		rest = after
	}
	switch len(parts) {
	case 1:
		return quote("public") + "." + parts[0], nil
	case 2:
		return parts[0] + "." + parts[1], nil
	}
	return "", fmt.Errorf("name %q: expected SCHEMA.TABLE", name)
}

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

func literal(text string) string {
	text = "'" + strings.ReplaceAll(text, "'", "''") + "'"
	if strings.Contains(text, `\`) {
		return " E" + strings.ReplaceAll(text, `\`, `\\`)
	}
	return text
}

// source is one call of attach(): a table, or a part of one.
type source struct {
	relation, name string // quoted, and as configured
	spec           string // JSON
	part           string // "", or the quoted table that it is a part of
}

func sources(tables []Table) ([]source, error) {
	if err := checkTables(tables); err != nil {
		return nil, err
	}
	var all []source
	for _, t := range tables {
		relation, _ := quoteTable(t.Name)
		spec := t.spec()
		all = append(all, source{relation: relation, name: t.Name, spec: encode(spec)})
		for _, p := range t.Parts {
			part, _ := quoteTable(p.Name)
			all = append(all, source{relation: part, name: p.Name, part: relation, spec: encode(map[string]any{
				"part_of": relation, "parent": spec, "key": p.Key, "watch": p.Watch, "ignore": p.Ignore,
			})})
		}
	}
	return all, nil
}

func (t Table) spec() map[string]any {
	user, setting := t.User, ""
	if name, ok := strings.CutPrefix(user, "setting:"); ok {
		user, setting = "", name
	}
	where := []condition{}
	for _, text := range t.Where {
		c, _ := parseCondition(text)
		where = append(where, c)
	}
	truncate := t.Truncate
	if truncate == "" {
		truncate = TruncateDeleted
	}
	return map[string]any{
		"type": t.Type, "key": t.Key, "url": t.URL, "watch": t.Watch, "ignore": t.Ignore, "user": user,
		"setting": setting, "where": where, "actions": t.actions(), "truncate": truncate,
	}
}

func encode(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings only
	}
	return string(text)
}

// Options says where the event log is. The zero value is a log in the schema
// "tidings".
type Options struct {
	// Schema is the schema of the log's tables, as in [postgres.Options].
	Schema string
	// Types lists the types that emit() accepts in addition to those of the tables;
	// empty means that it accepts any type.
	Types vocabulary.Types
	// Notify makes each transaction that writes events wake listeners, so that they
	// need not poll. PostgreSQL commits such transactions one at a time.
	Notify bool
	// Waiting, if not nil, is called whenever [Attach] or [Detach] finds a table
	// locked and is about to try again. It says which, and which sessions lock it.
	Waiting func(message string)
}

func (o Options) schema() string {
	if o.Schema == "" {
		return postgres.DefaultSchema
	}
	return o.Schema
}

package config

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/resource"
	"github.com/tidings-dev/tidings/outbox/capture"
	"github.com/tidings-dev/tidings/vocabulary"
)

// Sources are where a relay's events come from, besides those that programs publish.
type Sources struct {
	// Tables are the tables whose changes are told, by schema and name.
	Tables map[string]Table `yaml:"tables"`
	// Poll is how often the outbox is looked at.
	Poll Duration `yaml:"poll"`
	// Notify has every transaction of the application wake the relay at once.
	Notify bool `yaml:"notify"`
}

// Table is a table whose changes are told.
type Table struct {
	// Type is the type of resource that a row is.
	Type string `yaml:"type"`
	// Key are the columns that identify a row; empty means the primary key.
	Key []string `yaml:"key"`
	// URL is where receivers read a row, with columns in braces.
	URL string `yaml:"url"`
	// Watch are the only columns whose change is told.
	Watch []string `yaml:"watch"`
	// Ignore are columns whose change is not told.
	Ignore []string `yaml:"ignore"`
	// User is a column, or a setting of the session after "setting:", that says who
	// made the change.
	User string `yaml:"user"`
	// Where are conditions that a row must meet to be a resource.
	Where []string `yaml:"where"`
	// Actions are those that are told; empty means created, updated and deleted.
	Actions []string `yaml:"actions"`
	// Truncate is what becomes of a TRUNCATE: deleted or refuse.
	Truncate string `yaml:"truncate"`
	// Parts are tables whose changes are updates of a row of this one, by name.
	Parts map[string]Part `yaml:"parts"`
}

// Part is a table whose rows are parts of another one's.
type Part struct {
	// Key are the columns that hold the other row's key; empty means its foreign key.
	Key    []string `yaml:"key"`
	Watch  []string `yaml:"watch"`
	Ignore []string `yaml:"ignore"`
}

// Tables returns the configured tables, by name.
func (c *Config) Tables() []capture.Table {
	var tables []capture.Table
	for _, name := range slices.Sorted(maps.Keys(c.Sources.Tables)) {
		tables = append(tables, c.Sources.Tables[name].table(name))
	}
	return tables
}

func (t Table) table(name string) capture.Table {
	table := capture.Table{
		Name: name, Type: tidings.ResourceType(t.Type), Key: t.Key, URL: t.URL, Watch: t.Watch, Ignore: t.Ignore,
		User: t.User, Where: t.Where, Truncate: capture.Truncate(t.Truncate),
	}
	for _, action := range t.Actions {
		table.Actions = append(table.Actions, tidings.Action(action))
	}
	for _, part := range slices.Sorted(maps.Keys(t.Parts)) {
		p := t.Parts[part]
		table.Parts = append(table.Parts, capture.Part{Name: part, Key: p.Key, Watch: p.Watch, Ignore: p.Ignore})
	}
	return table
}

// PresetAgentStack is the preset for the tables of an Agent Stack server.
const PresetAgentStack = "agent_stack"

// serverOnly are the settings of resources, which a relay has none of; relayOnly are
// those that a server has no use for.
var (
	serverOnly = []string{
		"auth.admin_emails", "connectors", "contexts", "egress.user_urls", "encryption_key", "encryption_keys",
		"files", "model_providers", "providers",
	}
	relayOnly = []string{"preset", "sources"}
)

// checkMode notes settings of the other command, and makes the vocabulary.
func (d *decoder) checkMode(cfg *Config) {
	other, command, why := relayOnly, "tidings relay", "tidings serve has resources of its own"
	if cfg.Relay {
		other, command, why = serverOnly, "tidings serve", "tidings relay has no resources of its own"
	}
	for _, key := range other {
		if _, given := d.nodes[key]; given {
			d.at(key, "is a setting of %s: %s", command, why)
		}
	}
	cfg.types = make(vocabulary.Types)
	if !cfg.Relay || cfg.Preset == PresetAgentStack {
		cfg.types = resource.Types()
	}
	d.checkTypes(cfg)
	if !cfg.Relay {
		return
	}
	if cfg.Preset != "" {
		d.oneOf("preset", cfg.Preset, PresetAgentStack)
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Sources.Tables)) {
		d.checkTable(cfg, name)
	}
	if (cfg.Preset != "" || len(cfg.Sources.Tables) > 0) && d.usesSQLite(cfg) {
		d.at(relayOnly[min(len(cfg.Sources.Tables), 1)],
			"is for PostgreSQL; set database_url to the application's database, too")
	}
	if cfg.Sources.Poll <= 0 {
		d.at("sources.poll", "must be more than 0")
	}
	if cfg.Preset == "" && len(cfg.Types)+len(cfg.Sources.Tables) == 0 && !d.isUnread("sources") {
		d.at("types", "there is no type of events: list tables under sources.tables, or what programs publish under "+
			"types, such as {order: [created, paid]}")
	}
}

// badName is said of a type or an action, which may be a secret in the wrong place.
const badName = "expected a name such as order: at most 63 of a-z, 0-9 and _, a letter first"

func (d *decoder) checkTypes(cfg *Config) {
	for _, name := range slices.Sorted(maps.Keys(cfg.Types)) {
		key, kind := member("types", name), tidings.ResourceType(name)
		if kind.Check() != nil {
			d.at(key, badName)
			continue
		}
		if _, taken := cfg.types[kind]; taken {
			d.at(key, "is a type of resource that there is already")
			continue
		}
		var actions []tidings.Action
		for i, text := range cfg.Types[name] {
			action := tidings.Action(text)
			switch {
			case action.Check() != nil:
				d.at(fmt.Sprintf("%s[%d]", key, i), badName)
			case slices.Contains(actions, action):
				d.at(fmt.Sprintf("%s[%d]", key, i), "duplicate action")
			default:
				actions = append(actions, action)
			}
		}
		if cfg.Types[name] != nil && len(cfg.Types[name]) == 0 {
			d.at(key, "lists no action; leave the list out for created, updated and deleted")
		}
		cfg.types[kind] = actions
	}
}

func (d *decoder) checkTable(cfg *Config, name string) {
	table, key := cfg.Sources.Tables[name], member("sources.tables", name)
	before := len(d.problems)
	if strings.ContainsFunc(name, unicode.IsControl) || !strings.Contains(name, ".") {
		d.at(key, "expected a schema and a table, such as public.orders")
	}
	switch kind := tidings.ResourceType(table.Type); {
	case table.Type == "" && !d.isUnread(key+".type"):
		d.at(key, "type is missing: what a row is, such as order")
	case kind.Check() != nil:
		d.at(key+".type", badName)
	default:
		cfg.types[kind] = withTable(cfg.types, kind)
	}
	if len(table.Watch) > 0 && len(table.Ignore) > 0 {
		d.at(key, "set either watch or ignore, not both")
	}
	for field, columns := range map[string][]string{"key": table.Key, "watch": table.Watch, "ignore": table.Ignore} {
		if columns != nil && len(columns) == 0 {
			d.at(key+"."+field, "lists no column; leave it out instead")
		}
		for i, column := range columns {
			if column == "" || slices.Contains(columns[:i], column) {
				d.at(fmt.Sprintf("%s.%s[%d]", key, field, i), "expected the name of another column")
			}
		}
	}
	if table.Truncate != "" {
		d.oneOf(key+".truncate", table.Truncate, "deleted", "refuse")
	}
	if name, ok := strings.CutPrefix(table.User, "setting:"); ok && !sessionSetting.MatchString(name) {
		d.at(key+".user", "expected setting: and the name of a setting with a dot, such as setting:shop.user_id")
	}
	if table.Actions != nil && len(table.Actions) == 0 {
		d.at(key+".actions", "lists no action; leave it out for all three")
	}
	for part := range table.Parts {
		if part == name {
			d.at(key+".parts", "a table is not a part of itself")
		}
	}
	for i, action := range table.Actions {
		d.oneOf(fmt.Sprintf("%s.actions[%d]", key, i), action, "created", "updated", "deleted")
	}
	if before == len(d.problems) { // what is left is about names, URLs and conditions, which are no secrets
		if err := table.table(name).Check(); err != nil {
			d.at(key, "%v", errors.Unwrap(err))
		}
	}
}

// sessionSetting is how a setting of one's own is named in PostgreSQL.
var sessionSetting = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+$`)

// withTable returns a type's actions with those of a table.
func withTable(types vocabulary.Types, kind tidings.ResourceType) []tidings.Action {
	actions := slices.Clone(types[kind])
	if len(actions) == 0 {
		return nil // all three
	}
	for _, action := range tidings.Actions() {
		if !slices.Contains(actions, action) {
			actions = append(actions, action)
		}
	}
	return actions
}

// Published are the events that programs may publish: all that there can be, but for those
// of a server's own resources, which only the server tells of.
func (c *Config) Published() vocabulary.Types {
	if c.Relay {
		return c.types
	}
	published := make(vocabulary.Types)
	for name := range c.Types {
		published[tidings.ResourceType(name)] = c.types[tidings.ResourceType(name)]
	}
	return published
}

// Vocabulary are the events that there can be.
func (c *Config) Vocabulary() vocabulary.Types { return c.types }

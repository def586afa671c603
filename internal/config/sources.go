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

// Sources configures a relay's sources of events, besides programs that publish them.
type Sources struct {
	// Tables are the tables whose changes create events, by schema and name.
	Tables map[string]Table `yaml:"tables"`
	// Poll is how often the outbox is polled.
	Poll Duration `yaml:"poll"`
	// Notify makes every transaction of the application wake the relay at once.
	Notify bool `yaml:"notify"`
}

// Table is a table whose changes create events.
type Table struct {
	// Type is the resource type of a row.
	Type string `yaml:"type"`
	// Key lists the columns that identify a row; empty means the primary key.
	Key []string `yaml:"key"`
	// URL is the URL of a row, with columns in braces.
	URL string `yaml:"url"`
	// Watch lists the only columns whose changes create events.
	Watch []string `yaml:"watch"`
	// Ignore lists columns whose changes create no events.
	Ignore []string `yaml:"ignore"`
	// User is the column, or the session setting prefixed with "setting:", that
	// identifies who made the change.
	User string `yaml:"user"`
	// Where lists conditions that a row must meet to be a resource.
	Where []string `yaml:"where"`
	// Actions restricts which events are created; empty means created, updated and deleted.
	Actions []string `yaml:"actions"`
	// Truncate is the effect of TRUNCATE: deleted or refuse.
	Truncate string `yaml:"truncate"`
	// Parts are tables whose changes count as updates of a row of this table, by name.
	Parts map[string]Part `yaml:"parts"`
}

// Part is a table whose rows are parts of another table's rows.
type Part struct {
	// Key lists the columns that hold the other row's key; empty means the foreign key.
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

// serverOnly lists settings of resources, which a relay does not have; relayOnly lists
// those without meaning for a server.
var (
	serverOnly = []string{
		"auth.admin_emails", "connectors", "contexts", "egress.user_urls", "encryption_key", "encryption_keys",
		"files", "model_providers", "providers",
	}
	relayOnly = []string{"preset", "sources"}
)

// checkMode reports settings of the other command, and builds the vocabulary.
func (d *decoder) checkMode(cfg *Config) {
	other, command, why := relayOnly, "tidings relay", "tidings serve has its own resources"
	if cfg.Relay {
		other, command, why = serverOnly, "tidings serve", "tidings relay has no resources"
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
			"requires PostgreSQL; set database_url to the application's database")
	}
	if cfg.Sources.Poll <= 0 {
		d.at("sources.poll", "must be more than 0")
	}
	if cfg.Preset == "" && len(cfg.Types)+len(cfg.Sources.Tables) == 0 && !d.isUnread("sources") {
		d.at("types", "no event types are configured: list tables in sources.tables, or the types that programs "+
			"publish here, such as {order: [created, paid]}")
	}
}

// badName does not quote the invalid type or action, which may be a misplaced secret.
const badName = "expected a name such as order: at most 63 of a-z, 0-9 and _, starting with a letter"

func (d *decoder) checkTypes(cfg *Config) {
	for _, name := range slices.Sorted(maps.Keys(cfg.Types)) {
		key, kind := member("types", name), tidings.ResourceType(name)
		if kind.Check() != nil {
			d.at(key, badName)
			continue
		}
		if _, taken := cfg.types[kind]; taken {
			d.at(key, "is already a resource type")
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
			d.at(key, "is an empty list; omit the list for created, updated and deleted")
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
		d.at(key, "type is missing: a row's resource type, such as order")
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
			d.at(key+"."+field, "is an empty list; omit it")
		}
		for i, column := range columns {
			if column == "" || slices.Contains(columns[:i], column) {
				d.at(fmt.Sprintf("%s.%s[%d]", key, field, i), "is empty or a duplicate; expected a column name")
			}
		}
	}
	if table.Truncate != "" {
		d.oneOf(key+".truncate", table.Truncate, "deleted", "refuse")
	}
	if name, ok := strings.CutPrefix(table.User, "setting:"); ok && !sessionSetting.MatchString(name) {
		d.at(key+".user", "expected setting: and a setting's name with a dot, such as setting:shop.user_id")
	}
	if table.Actions != nil && len(table.Actions) == 0 {
		d.at(key+".actions", "is an empty list; omit it for created, updated and deleted")
	}
	for part := range table.Parts {
		if part == name {
			d.at(key+".parts", "a table can't be a part of itself")
		}
	}
	for i, action := range table.Actions {
		d.oneOf(fmt.Sprintf("%s.actions[%d]", key, i), action, "created", "updated", "deleted")
	}
	if before == len(d.problems) { // these errors quote only names, URLs and conditions, no secrets
		if err := table.table(name).Check(); err != nil {
			d.at(key, "%v", errors.Unwrap(err))
		}
	}
}

// sessionSetting matches the name of a custom setting in PostgreSQL.
var sessionSetting = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+$`)

// withTable returns a type's actions, extended by those of a table.
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

// Published returns the events that programs may publish. It excludes those of a server's
// own resources, which only the server creates.
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

// Vocabulary returns all possible events.
func (c *Config) Vocabulary() vocabulary.Types { return c.types }

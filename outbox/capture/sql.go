package capture

import (
	"embed"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/vocabulary"
)

//go:embed sql/*.sql
var files embed.FS

// version is the version of the files in sql. Raise it when one of them changes: a
// process replaces functions of a lower version and leaves those of a higher one.
const version = 4

// settings make values look the same in all sessions.
const settings = "SET datestyle = 'ISO, MDY' SET timezone = 'UTC' SET intervalstyle = 'postgres' " +
	"SET extra_float_digits = 1 SET bytea_output = 'hex'"

// functions returns the statements that create the functions.
func functions(schema string) string {
	name := quote(schema)
	inLiteral := strings.ReplaceAll(name, "'", "''")
	replace := strings.NewReplacer(
		"{schema}", name,
		"{inschema}", strings.ReplaceAll(inLiteral, "%", "%%"), // inside a literal passed to format()
		"{inliteral}", inLiteral,
		"{name}", literal(schema),
		"{settings}", settings,
		"{insettings}", strings.ReplaceAll(settings, "'", "''"),
		"{version}", strconv.Itoa(version),
	)
	var b strings.Builder
	for _, file := range []string{"functions", "triggers", "attach", "emit"} {
		text, err := files.ReadFile("sql/" + file + ".sql")
		if err != nil {
			panic(err) // embedded
		}
		b.WriteString(replace.Replace(string(text)))
		b.WriteString("\n")
	}
	return b.String()
}

// typesSQL returns the statements that set the types that emit() accepts.
func typesSQL(schema string, types vocabulary.Types) string {
	table := quote(schema) + ".tidings_types"
	if len(types) == 0 {
		return "DELETE FROM " + table + ";\n"
	}
	var rows, names []string
	for _, typ := range types.Names() {
		var actions []string
		for _, a := range types.Actions(typ) {
			actions = append(actions, literal(string(a)))
		}
		rows = append(rows, fmt.Sprintf("(%s, ARRAY[%s])", literal(string(typ)), strings.Join(actions, ", ")))
		names = append(names, literal(string(typ)))
	}
	return "INSERT INTO " + table + " AS t (resource_type, actions) VALUES " + strings.Join(rows, ", ") +
		" ON CONFLICT (resource_type) DO UPDATE SET actions = excluded.actions WHERE t.actions <> excluded.actions;\n" +
		"DELETE FROM " + table + " WHERE resource_type NOT IN (" + strings.Join(names, ", ") + ");\n"
}

// notifySQL returns a statement that switches notifications on or off. It locks the
// outbox only if that is a change.
func notifySQL(schema string, notify bool) string {
	outbox := quote(schema) + ".tidings_outbox"
	exists := "EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgrelid = " + literal(outbox) +
		"::pg_catalog.regclass AND tgname = 'tidings_notify')"
	if !notify {
		return "DO $tidings$ BEGIN\n\tIF " + exists + " THEN\n\t\tDROP TRIGGER tidings_notify ON " + outbox +
			";\n\tEND IF;\nEND $tidings$;\n"
	}
	function := quote(schema) + ".capture_notify()"
	return "DO $tidings$ BEGIN\n\tIF NOT " + exists + " THEN\n" +
		"\t\tCREATE OR REPLACE FUNCTION " + function + " RETURNS trigger LANGUAGE plpgsql\n" +
		"\t\t\tSET search_path = pg_catalog, pg_temp AS $f$ BEGIN\n" +
		"\t\t\tPERFORM pg_notify(" + literal(schema) + ", 'events');\n\t\t\tRETURN NULL;\n\t\tEND $f$;\n" +
		"\t\tCREATE TRIGGER tidings_notify AFTER INSERT ON " + outbox + " FOR EACH STATEMENT EXECUTE FUNCTION " +
		function + ";\n\tEND IF;\nEND $tidings$;\n"
}

// vocabularyOf returns the types of the tables and the options; none if emit
// accepts any type.
func vocabularyOf(tables []Table, o Options) vocabulary.Types {
	if len(o.Types) == 0 {
		return nil
	}
	all := maps.Clone(o.Types)
	for typ, actions := range Types(tables) {
		merged := slices.Clone(all.Actions(typ))
		for _, a := range actions {
			if !slices.Contains(merged, a) {
				merged = append(merged, a)
			}
		}
		all[typ] = slices.Compact(slices.SortedFunc(slices.Values(merged), func(a, b tidings.Action) int {
			return strings.Compare(string(a), string(b))
		}))
	}
	return all
}

// SQL returns all statements that [Attach] runs, for an application's own
// migrations or its database administrator. They may be run repeatedly, and by a
// role that owns the application's tables: the functions belong to the owner of the
// log's tables, which must exist (outbox.Migrate creates them).
func SQL(tables []Table, o Options) (string, error) {
	all, err := sources(tables)
	if err != nil {
		return "", fmt.Errorf("write SQL: %w", err)
	}
	var b strings.Builder
	b.WriteString("-- A lock that is not free within a second is not waited for: run this again then.\n" +
		"BEGIN;\nSET LOCAL lock_timeout = '1s';\nSET LOCAL client_min_messages = warning;\n\n")
	b.WriteString(functions(o.schema()))
	b.WriteString(typesSQL(o.schema(), vocabularyOf(tables, o)))
	b.WriteString(notifySQL(o.schema(), o.Notify))
	b.WriteString("COMMIT;\n")
	for _, s := range all {
		fmt.Fprintf(&b, "\nBEGIN;\nSET LOCAL lock_timeout = '1s';\nSELECT %s.attach(%s, %s);\nCOMMIT;\n",
			quote(o.schema()),
			literal(s.relation), literal(s.spec))
	}
	return b.String(), nil
}

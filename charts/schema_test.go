package charts_test

import (
	"bytes"
	"encoding"
	"encoding/json"
	"maps"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	promconfig "github.com/prometheus/common/config"
	"go.yaml.in/yaml/v3"

	"github.com/tidings-dev/tidings/internal/config"
)

type object = map[string]any

// The schema's definitions of the settings are generated from the server's types, so
// that the chart accepts exactly the same keys.
func TestSchemaKnowsAllSettings(t *testing.T) {
	const file = "tidings/values.schema.json"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var schema object
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	schema["definitions"] = definitions()
	generated(t, file, schema)
}

// The schema of configuration files, for editors, has the manual's descriptions.
func TestSchemaOfTheConfiguration(t *testing.T) {
	text := object{"type": "string"}
	schema := schemaOf(reflect.TypeFor[config.Config](), "")
	schema["$schema"] = "http://json-schema.org/draft-07/schema#"
	schema["title"] = "Tidings configuration"
	schema["patternProperties"] = object{"^x-": object{}}
	schema["definitions"] = object{
		"secret": object{"anyOf": []any{text, closed(object{"file": text}, "file"), closed(object{"env": text}, "env")}},
		"file":   text,
	}
	endpoints := settingIn(schema, "webhook.endpoints")
	endpoints["items"].(object)["required"] = []string{"url"}
	for key, description := range descriptions(t) {
		if setting := settingIn(schema, key); setting != nil {
			setting["description"] = description
		} else if setting := settingIn(endpoints["items"].(object), key); setting != nil {
			setting["description"] = description
		}
	}
	generated(t, "../docs/tidings.schema.json", schema)
}

// settingIn returns the schema of a setting; nil if there is none.
func settingIn(schema object, key string) object {
	for name := range strings.SplitSeq(key, ".") {
		properties, _ := schema["properties"].(object)
		if schema, _ = properties[name].(object); schema == nil {
			return nil
		}
	}
	if schema["$ref"] != nil { // other members would be ignored
		return nil
	}
	return schema
}

// descriptions returns the manual's descriptions of settings.
func descriptions(t *testing.T) map[string]string {
	t.Helper()
	manual, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]string)
	for line := range strings.Lines(string(manual)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if len(cells) != 3 || !strings.HasPrefix(strings.TrimSpace(cells[0]), "`") {
			continue
		}
		for _, key := range regexp.MustCompile("`([a-z0-9_.]+)`").FindAllStringSubmatch(cells[0], -1) {
			found[key[1]] = strings.TrimSpace(cells[2])
		}
	}
	return found
}

// generated compares a file with the generated schema, or writes it with -update.
func generated(t *testing.T, file string, schema object) {
	t.Helper()
	before, err := os.ReadFile(file)
	if err != nil && !*update {
		t.Fatal(err)
	}
	var after bytes.Buffer
	encoder := json.NewEncoder(&after)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(schema); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(before, after.Bytes()) {
		return
	}
	if !*update {
		t.Fatalf("%s does not match the settings; run 'go test ./charts -update'", file)
	}
	if err := os.WriteFile(file, after.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

func definitions() object {
	text := object{"type": "string"}
	ref := closed(object{"secretRef": closed(object{"name": text, "key": text}, "name", "key")}, "secretRef")
	settings := schemaOf(reflect.TypeFor[config.Config](), "")
	properties := settings["properties"].(object)
	webhook := properties["webhook"].(object)
	webhook["properties"].(object)["existingSecret"] = text
	webhook["properties"].(object)["existingSecretKey"] = text
	webhook["properties"].(object)["endpointFilesFrom"] = object{"type": "array", "items": object{"oneOf": []any{
		closed(object{"configMap": text}, "configMap"), closed(object{"secret": text}, "secret"),
	}}}
	endpoint := webhook["properties"].(object)["endpoints"].(object)["items"].(object)
	endpoint["required"] = []string{"url"}
	// The templates report where these belong.
	properties["webhook"], properties["database_url"] = object{}, object{}
	return object{
		"config": settings, "webhook": webhook,
		"secret": object{"anyOf": []any{
			text, closed(object{"file": text}, "file"), closed(object{"env": text}, "env"), ref,
		}},
		"file": object{"anyOf": []any{text, ref}},
	}
}

func closed(properties object, required ...string) object {
	o := object{"type": "object", "additionalProperties": false, "properties": properties}
	if len(required) > 0 {
		o["required"] = required
	}
	return o
}

var (
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
	nodeUnmarshaler = reflect.TypeFor[yaml.Unmarshaler]()
)

// schemaOf returns the schema of a setting, given its type and name.
func schemaOf(t reflect.Type, name string) object {
	switch {
	case t == reflect.TypeFor[config.SecretSource]():
		return object{"$ref": "#/definitions/secret"}
	case t == reflect.TypeFor[config.Size]():
		return object{"type": []string{"string", "integer"}}
	case t == reflect.TypeFor[config.HTTP]():
		return schemaOf(reflect.TypeFor[promconfig.HTTPClientConfig](), name)
	case strings.HasSuffix(name, "_file"):
		return object{"$ref": "#/definitions/file"}
	case t.Kind() == reflect.Pointer:
		return schemaOf(t.Elem(), name)
	case reflect.PointerTo(t).Implements(textUnmarshaler) || reflect.PointerTo(t).Implements(nodeUnmarshaler) &&
		t.Kind() != reflect.Struct:
		return object{"type": "string"}
	}
	switch t.Kind() {
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int, reflect.Int64:
		return object{"type": "integer"}
	case reflect.Float64:
		return object{"type": "number"}
	case reflect.String:
		return object{"type": "string"}
	case reflect.Slice:
		return object{"type": "array", "items": schemaOf(t.Elem(), name)}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": schemaOf(t.Elem(), name)}
	case reflect.Struct:
		if properties := propertiesOf(t); len(properties) > 0 {
			return closed(properties)
		}
	}
	return object{} // types with their own decoding
}

func propertiesOf(t reflect.Type) object {
	properties := object{}
	for f := range t.Fields() {
		name, option, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case option == "inline" && f.Type.Kind() == reflect.Struct: // not a map, which accepts any key
			maps.Copy(properties, propertiesOf(f.Type))
		case name != "" && name != "-":
			properties[name] = schemaOf(f.Type, name)
		}
	}
	return properties
}

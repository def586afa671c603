package config

import (
	"encoding"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"golang.org/x/net/http/httpguts"

	"github.com/tidings-dev/tidings/internal/valid"
	"github.com/tidings-dev/tidings/sender"
	"github.com/tidings-dev/tidings/vocabulary"
)

// decoder fills a value from a YAML tree. It records every problem and continues,
// and remembers the position of each setting for later checks.
type decoder struct {
	problems      Problems
	warnings      Problems
	endpointFiles endpointFiles
	running       vocabulary.Types // the events that can be published; nil at startup
	origins       map[*yaml.Node]origin
	helm          map[string]bool       // files that the Helm chart wrote
	nodes         map[string]*yaml.Node // by key
	unread        map[string]bool       // keys whose values could not be decoded
	checking      bool                  // decoding is complete
	empty         []string              // files without a document
}

// origin is where a node was read: a file, which has line numbers, or a variable
// or flag.
type origin struct {
	name   string
	isFile bool
}

func (d *decoder) problem(node *yaml.Node, key, format string, args ...any) {
	if at, ok := d.nodes[key]; !d.checking && (at == node || !ok) { // not about one of its keys
		d.unread[key] = true
	}
	from := d.origins[node]
	p := Problem{Source: from.name, Key: key, Message: fmt.Sprintf(format, args...)}
	if from.isFile {
		p.Line, p.Column = node.Line, node.Column
	}
	d.problems = append(d.problems, p)
}

// isUnread reports whether a setting or one of its parents could not be decoded. The
// setting then has its default, which must not be checked.
func (d *decoder) isUnread(key string) bool { return isUnread(d.unread, key) }

func isUnread(unread map[string]bool, key string) bool {
	for at := key; at != ""; at = at[:max(strings.LastIndexAny(at, ".["), 0)] {
		if unread[at] {
			return true
		}
	}
	return unread[""]
}

// given reports whether a setting has a value in one of the sources. If not, its zero value
// stands for a default.
func (d *decoder) given(key string) bool {
	node, ok := d.nodes[key]
	return ok && !isNull(node)
}

// at reports a problem at the position of a setting or its nearest parent, unless the
// setting could not be decoded.
func (d *decoder) at(key, format string, args ...any) {
	if d.isUnread(key) {
		return
	}
	for at := key; ; {
		if node, ok := d.nodes[at]; ok || at == "" {
			d.problem(node, key, format, args...)
			return
		}
		at = at[:max(strings.LastIndexAny(at, ".["), 0)]
	}
}

// warn reports a setting that is valid but unwise.
func (d *decoder) warn(key, message string) {
	before := len(d.problems)
	d.at(key, "%s", message)
	d.warnings = append(d.warnings, d.problems[before:]...)
	d.problems = d.problems[:before]
}

var (
	nodeUnmarshaler = reflect.TypeFor[yaml.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// withDefaults is a list item with default settings.
type withDefaults interface{ setDefaults(source *yaml.Node) }

func (d *decoder) decode(node *yaml.Node, v reflect.Value, key string) {
	node = resolved(node)
	d.nodes[key] = node
	if err := valid.Text(node.Value); err != nil {
		d.problem(node, key, "%v", err)
		return
	}
	switch {
	case isNull(node):
		return
	case v.Type() == reflect.TypeFor[HTTP]():
		d.decodeHTTP(node, v.Addr().Interface().(*HTTP), key)
	case v.Addr().Type().Implements(nodeUnmarshaler), v.Addr().Type().Implements(textUnmarshaler):
		d.decodeCustom(node, v, key)
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.decode(node, v.Elem(), key)
	case v.Kind() == reflect.Struct:
		d.decodeStruct(node, v, key)
	case v.Kind() == reflect.Slice:
		d.decodeSlice(node, v, key)
	case v.Kind() == reflect.Map:
		d.decodeMap(node, v, key)
	default:
		d.decodeScalar(node, v, key)
	}
}

// resolved returns the node that an alias refers to.
func resolved(node *yaml.Node) *yaml.Node {
	for node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	return node
}

func isNull(node *yaml.Node) bool { return node.Kind == yaml.ScalarNode && node.Tag == "!!null" }

func (d *decoder) decodeCustom(node *yaml.Node, v reflect.Value, key string) {
	var err error
	switch u := v.Addr().Interface().(type) {
	case yaml.Unmarshaler:
		err = u.UnmarshalYAML(node)
	case encoding.TextUnmarshaler:
		if node.Kind != yaml.ScalarNode {
			d.problem(node, key, "expected a single value")
			return
		}
		err = u.UnmarshalText([]byte(node.Value))
	}
	if err != nil {
		d.problem(node, key, "%v", err)
	}
}

// scalarNames describes the expected value, by kind.
var scalarNames = map[reflect.Kind]string{
	reflect.String: "a string", reflect.Bool: "true or false", reflect.Int: "a whole number",
	reflect.Float64: "a number",
}

func (d *decoder) decodeScalar(node *yaml.Node, v reflect.Value, key string) {
	expected := scalarNames[v.Kind()]
	if node.Kind != yaml.ScalarNode {
		d.problem(node, key, "expected %s", expected)
		return
	}
	if v.Kind() == reflect.String {
		v.SetString(node.Value)
		if unexpanded.MatchString(node.Value) {
			d.problem(node, key, "variables are not expanded here; set %s instead, or write the value", variableOf(key))
		}
		return
	}
	if digits := strings.TrimLeft(node.Value, "+-"); len(digits) > 1 && digits[0] == '0' && digits[1] != '.' {
		d.problem(node, key, "expected %s without leading zeros", expected)
		return
	}
	if v.CanInt() { // Helm writes large numbers as 1e+06, and the YAML package cuts off fractions
		if f, err := strconv.ParseFloat(node.Value, 64); err == nil && f != math.Trunc(f) {
			d.problem(node, key, "expected %s", expected)
			return
		}
	}
	if err := node.Decode(v.Addr().Interface()); err != nil {
		d.problem(node, key, "expected %s", expected)
	}
}

func (d *decoder) decodeSlice(node *yaml.Node, v reflect.Value, key string) {
	if node.Kind != yaml.SequenceNode {
		if node.Kind == yaml.ScalarNode {
			d.problem(node, key, "expected a list; write one value in brackets, as in [\"*\"]")
			return
		}
		d.problem(node, key, "expected a list")
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(node.Content), len(node.Content)))
	for i, item := range node.Content {
		if element, ok := reflect.TypeAssert[withDefaults](v.Index(i).Addr()); ok {
			element.setDefaults(item)
		}
		d.decode(item, v.Index(i), fmt.Sprintf("%s[%d]", key, i))
	}
}

func (d *decoder) decodeMap(node *yaml.Node, v reflect.Value, key string) {
	v.Set(reflect.MakeMap(v.Type()))
	d.eachKey(node, key, func(name string, at, value *yaml.Node) {
		if v.Type().Elem() == reflect.TypeFor[SecretSource]() && !isPlain(name) { // headers
			d.problem(at, key, "%v", sender.CheckHeader(name, nil))
			return
		}
		item := reflect.New(v.Type().Elem()).Elem()
		d.decode(value, item, member(key, name))
		v.SetMapIndex(reflect.ValueOf(name), item)
	})
}

func (d *decoder) decodeStruct(node *yaml.Node, v reflect.Value, key string) {
	fields := fieldsOf(v.Type())
	d.eachKey(node, key, func(name string, at, value *yaml.Node) {
		index, ok := fields[name]
		if !ok && key == "" && strings.HasPrefix(name, "x-") {
			return // holds anchors
		}
		if !ok {
			d.unknownKey(at, key, name, v.Type())
			return
		}
		d.decode(value, v.FieldByIndex(index), join(key, name))
	})
}

// eachKey calls do for the members of a mapping.
func (d *decoder) eachKey(node *yaml.Node, key string, do func(name string, at, value *yaml.Node)) {
	if node.Kind != yaml.MappingNode {
		if name, rest, ok := strings.Cut(node.Value, ":"); ok && settingNames[name] && rest != "" {
			d.problem(node, key, "expected a mapping; add a space after %q", name+":")
			return
		}
		d.problem(node, key, "expected a mapping (key: value)")
		return
	}
	seen := make(map[string]bool)
	members := node.Content
	for i := 0; i+1 < len(members); i += 2 {
		at := members[i]
		if err := valid.Text(at.Value); err != nil {
			d.problem(at, key, "one of its keys %v", err)
			continue
		}
		if seen[at.Value] {
			d.problem(at, key, "duplicate key")
			continue
		}
		seen[at.Value] = true
		if at.Tag != "!!merge" {
			do(at.Value, at, members[i+1])
		}
	}
	for i := 0; i+1 < len(members); i += 2 {
		if members[i].Tag == "!!merge" {
			d.eachMerged(members[i+1], key, seen, maxMerges, do)
		}
	}
}

// maxMerges limits how deeply merge keys may be nested.
const maxMerges = 8

// eachMerged calls do for the members of a merge key's value ("<<"), except those
// already seen.
func (d *decoder) eachMerged(
	node *yaml.Node, key string, seen map[string]bool, depth int, do func(name string, at, value *yaml.Node),
) {
	from := resolved(node)
	if from.Kind == yaml.SequenceNode && depth > 0 {
		for _, item := range from.Content {
			d.eachMerged(item, key, seen, depth-1, do)
		}
		return
	}
	if from.Kind != yaml.MappingNode || depth == 0 {
		d.problem(node, key, "<< expects a mapping, or a list of mappings, at most %d deep", maxMerges)
		return
	}
	var more []*yaml.Node
	for i := 0; i+1 < len(from.Content); i += 2 {
		at, value := from.Content[i], from.Content[i+1]
		if at.Tag == "!!merge" {
			more = append(more, value)
		} else if !seen[at.Value] && valid.Text(at.Value) == nil {
			seen[at.Value] = true
			do(at.Value, at, value)
		}
	}
	for _, node := range more {
		d.eachMerged(node, key, seen, depth-1, do)
	}
}

// settingNames is the set of keys of all configuration structs.
var settingNames = func() map[string]bool {
	names := make(map[string]bool)
	for _, t := range []reflect.Type{
		reflect.TypeFor[Endpoint](), reflect.TypeFor[Token](), reflect.TypeFor[Config](),
		reflect.TypeFor[Table](),
	} {
		for name := range fieldsOf(t) {
			names[name] = true
		}
	}
	return names
}()

// fieldsOf returns the fields of a struct by YAML name, including those of inlined
// structs but not of inlined maps.
func fieldsOf(t reflect.Type) map[string][]int {
	fields := make(map[string][]int)
	for f := range t.Fields() {
		name, option, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case option == "inline" && f.Type.Kind() == reflect.Struct:
			for inner, index := range fieldsOf(f.Type) {
				fields[inner] = append(slices.Clone(f.Index), index...)
			}
		case name != "" && name != "-":
			fields[name] = f.Index
		}
	}
	return fields
}

func join(key, name string) string {
	if key == "" {
		return name
	}
	return key + "." + name
}

// member returns the key of a member of a mapping with arbitrary names. It leaves out
// an invalid name, such as "X-Secret: value", which may contain a secret.
func member(key, name string) string {
	if !isPlain(name) {
		return key + "[]"
	}
	return join(key, name)
}

// isPlain reports whether a string is a valid header name.
func isPlain(name string) bool { return httpguts.ValidHeaderFieldName(name) }

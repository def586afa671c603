package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Input lists the sources of settings; later sources win.
type Input struct {
	// Files are the paths of YAML files. Mappings are merged; a list or value
	// replaces that of an earlier file.
	Files []string
	// Environ is the environment, as from os.Environ. TIDINGS_LOG_LEVEL sets
	// log.level; lists and mappings are written as YAML.
	Environ []string
	// Flags are settings by key, such as "data_dir".
	Flags map[string]string
	// Relay selects the settings of tidings relay.
	Relay bool
	// Before is the current configuration, if any. It supplies the last good version
	// of broken files in webhook.endpoint_files, and the events that can be published.
	Before *Config
}

// Load reads the settings. The error is [Problems], or names a file that can't be read.
// With an error, the settings are good for [Config.Changes] alone.
func Load(in Input) (Config, error) {
	r, kept := newReading(), make(map[string][]byte)
	var held Problems
	var cfg Config
	for range maxRounds {
		var problems Problems
		var err error
		cfg, problems, err = load(in, r, kept)
		if err != nil {
			return Config{}, err
		}
		if len(problems) == 0 {
			held.sort()
			cfg.endpointFiles.stale = held
			cfg.loaded = cfg.digest(r)
			return cfg, nil
		}
		var more Problems
		if in.Before != nil {
			more = cfg.endpointFiles.hold(problems, in.Before, kept)
		}
		if more == nil {
			return cfg, append(held, problems...)
		}
		held = append(held, more...)
	}
	return cfg, held
}

// load reads the settings. kept replaces the contents of endpoint files.
func load(in Input, r *reading, kept map[string][]byte) (Config, Problems, error) {
	d := &decoder{
		origins: make(map[*yaml.Node]origin), nodes: make(map[string]*yaml.Node),
		unread: make(map[string]bool), helm: make(map[string]bool),
	}
	if in.Before != nil {
		d.running = in.Before.types
	}
	root := &yaml.Node{Kind: yaml.MappingNode}
	for i, file := range in.Files {
		text, err := r.read(file)
		if err != nil {
			return Config{}, nil, fmt.Errorf("configuration file: %w", err)
		}
		switch tree := d.tree(file, text); {
		case tree == nil:
		case i == 0:
			root = tree
		default:
			merge(root, tree)
		}
	}
	if len(d.problems) > 0 {
		return Config{}, d.problems, nil
	}
	d.overlay(root, in)
	d.addEndpointFiles(root, r, kept)
	cfg := Default()
	cfg.files, cfg.empty, cfg.Relay = in.Files, d.empty, in.Relay
	d.decode(root, reflect.ValueOf(&cfg).Elem(), "")
	d.checking = true
	d.check(&cfg)
	d.written(cfg.Webhook.Endpoints)
	d.endpointFiles.claims = d.claims(&cfg)
	d.problems.sort()
	d.warnings.sort()
	cfg.warnings, cfg.problems, cfg.unread, cfg.endpointFiles = d.warnings, d.problems, d.unread, d.endpointFiles
	return cfg, d.problems, nil
}

// merge merges a later file's tree into that of the earlier files.
func merge(into, from *yaml.Node) {
	if from.Kind != yaml.MappingNode || into.Kind != yaml.MappingNode {
		*into = *from
		return
	}
	before := len(into.Content)
	replaced := make(map[int]bool) // keep a file's duplicate keys, so that they are reported
	for i := 0; i+1 < len(from.Content); i += 2 {
		key, value := from.Content[i], from.Content[i+1]
		at := slices.IndexFunc(into.Content[:before], func(n *yaml.Node) bool { return n.Value == key.Value })
		switch {
		case at < 0 || at%2 != 0 || replaced[at]:
			into.Content = append(into.Content, key, value)
			continue
		case value.Kind == yaml.MappingNode && into.Content[at+1].Kind == yaml.MappingNode:
			merge(into.Content[at+1], value)
		default:
			into.Content[at], into.Content[at+1] = key, value
		}
		replaced[at] = true
	}
}

// tree parses a file. It returns nil after a syntax error.
func (d *decoder) tree(file string, text []byte) *yaml.Node {
	d.helm[file] = bytes.HasPrefix(text, []byte(helmMark))
	var document yaml.Node
	reader := yaml.NewDecoder(bytes.NewReader(text))
	err := reader.Decode(&document)
	switch {
	case errors.Is(err, io.EOF):
		empty := &yaml.Node{Kind: yaml.MappingNode, Line: 1, Column: 1}
		d.mark(empty, origin{file, true})
		d.empty = append(d.empty, file)
		return empty
	case err != nil:
		d.syntaxError(file, text, err)
		return nil
	}
	var second yaml.Node
	if err := reader.Decode(&second); !errors.Is(err, io.EOF) {
		d.problems = append(d.problems, Problem{
			Source: file, Line: second.Line, Column: 1,
			Message: "a second YAML document begins here; a file holds one",
		})
		return nil
	}
	root := document.Content[0]
	d.mark(root, origin{file, true})
	if isNull(root) {
		d.empty = append(d.empty, file)
		root.Kind, root.Tag = yaml.MappingNode, "!!map"
	}
	return root
}

var (
	syntaxLine    = regexp.MustCompile(`^yaml: line (\d+): `)
	unknownAnchor = regexp.MustCompile(`unknown anchor '(.+)' referenced`)
)

// syntaxError reports why a file is not YAML, without quoting its contents.
func (d *decoder) syntaxError(file string, text []byte, err error) {
	message := err.Error()
	p := Problem{Source: file}
	if found := syntaxLine.FindStringSubmatch(message); found != nil {
		p.Line, _ = strconv.Atoi(found[1])
		p.Column = 1
		message = message[len(found[0]):]
	}
	if found := unknownAnchor.FindStringSubmatch(message); found != nil {
		message = `a value that begins with "*" is an alias, and its anchor is not defined; quote the value if ` +
			`it is not meant as an alias`
		if at := bytes.Index(text, []byte("*"+found[1])); at >= 0 {
			p.Line, p.Column = bytes.Count(text[:at], []byte("\n"))+1, at-bytes.LastIndexByte(text[:at], '\n')
		}
	}
	message = strings.TrimPrefix(message, "yaml: ")
	if line, column, hint := syntaxHint(text, message, p.Line); unknownAnchor.FindString(err.Error()) == "" {
		p.Line, p.Column, message = line, column, cmp.Or(hint, message)
	}
	p.Message = "not valid YAML: " + message
	d.problems = append(d.problems, p)
}

// overlay adds settings from the environment and flags to the tree.
func (d *decoder) overlay(root *yaml.Node, in Input) {
	environ := make(map[string]string)
	for _, entry := range in.Environ {
		name, value, _ := strings.Cut(entry, "=")
		environ[name] = value
	}
	for _, key := range allSettings {
		name := "TIDINGS_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
		if value, ok := environ[name]; ok {
			d.set(root, key, value, "environment variable "+name)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(in.Flags)) {
		d.set(root, key, in.Flags[key], "flag --"+strings.ReplaceAll(key, "_", "-"))
	}
}

// allSettings are the keys of all settings.
var allSettings = settings(reflect.TypeFor[Config](), "")

// settings lists the keys of the settings in a type.
func settings(t reflect.Type, key string) []string {
	isLeaf := t.Kind() != reflect.Struct || reflect.PointerTo(t).Implements(nodeUnmarshaler)
	if isLeaf {
		return []string{key}
	}
	var keys []string
	for _, name := range slices.Sorted(maps.Keys(fieldsOf(t))) {
		keys = append(keys, settings(t.FieldByIndex(fieldsOf(t)[name]).Type, join(key, name))...)
	}
	return keys
}

// set replaces a setting in the tree.
func (d *decoder) set(root *yaml.Node, key, value, source string) {
	node := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: value}
	if strings.HasPrefix(value, "[") || strings.HasPrefix(value, "{") || strings.HasPrefix(value, "- ") ||
		value == "true" || value == "false" {
		var document yaml.Node
		if err := yaml.Unmarshal([]byte(value), &document); err != nil {
			d.problems = append(d.problems, Problem{Source: source, Key: key, Message: "not valid YAML"})
			d.unread[key] = true
			return
		}
		node = document.Content[0]
	}
	if _, err := strconv.Atoi(value); err == nil {
		node.Tag = "!!int"
	} else if _, err := strconv.ParseFloat(value, 64); err == nil {
		node.Tag = "!!float"
	}
	d.mark(node, origin{source, false})
	path := strings.Split(key, ".")
	parent := root
	for _, name := range path[:len(path)-1] {
		parent = d.member(parent, name, &yaml.Node{Kind: yaml.MappingNode}, source, false)
	}
	d.member(parent, path[len(path)-1], node, source, true)
}

// member returns a member of a mapping. It adds value if the member is missing, and
// replaces the member if asked to or if it isn't a mapping.
func (d *decoder) member(parent *yaml.Node, name string, value *yaml.Node, source string, replace bool) *yaml.Node {
	for i := 0; i+1 < len(parent.Content); i += 2 {
		if parent.Content[i].Value != name {
			continue
		}
		if replace || parent.Content[i+1].Kind != yaml.MappingNode {
			parent.Content[i+1] = value
		}
		return parent.Content[i+1]
	}
	key := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: name}
	d.origins[key] = origin{source, false}
	if _, known := d.origins[value]; !known {
		d.origins[value] = origin{source, false}
	}
	parent.Content = append(parent.Content, key, value)
	return value
}

func (d *decoder) mark(node *yaml.Node, from origin) {
	d.origins[node] = from
	for _, child := range node.Content {
		d.mark(child, from)
	}
}

package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Input is where settings come from, the later winning.
type Input struct {
	// File is the path of a YAML file; empty for none.
	File string
	// Environ is the environment, as from os.Environ. The setting log.level is
	// the variable TIDINGS_LOG_LEVEL; lists and mappings are written as YAML.
	Environ []string
	// Flags are settings by key, such as "data_dir".
	Flags map[string]string
}

const fileLimit = 4 << 20

// Load reads the settings. The error is [Problems], or says that the file can't
// be read.
func Load(in Input) (Config, error) {
	var text []byte
	if in.File != "" {
		f, err := os.Open(in.File)
		if err != nil {
			return Config{}, fmt.Errorf("configuration file: %w", err)
		}
		defer f.Close()
		if text, err = io.ReadAll(io.LimitReader(f, fileLimit+1)); err != nil {
			return Config{}, fmt.Errorf("configuration file: %w", err)
		}
		if len(text) > fileLimit {
			return Config{}, fmt.Errorf("configuration file %s is larger than 4 MiB", in.File)
		}
	}
	return parse(text, in)
}

func parse(text []byte, in Input) (Config, error) {
	d := &decoder{file: in.File, sources: make(map[*yaml.Node]string), nodes: make(map[string]*yaml.Node)}
	root := d.tree(text)
	if root == nil {
		return Config{}, d.problems
	}
	d.overlay(root, in)
	cfg := Default()
	cfg.file = in.File
	d.decode(root, reflect.ValueOf(&cfg).Elem(), "")
	if len(d.problems) == 0 {
		d.check(&cfg)
	}
	if len(d.problems) > 0 {
		d.problems.sort()
		return Config{}, d.problems
	}
	return cfg, nil
}

// tree parses the file; nil after a syntax error.
func (d *decoder) tree(text []byte) *yaml.Node {
	var document yaml.Node
	reader := yaml.NewDecoder(bytes.NewReader(text))
	err := reader.Decode(&document)
	switch {
	case errors.Is(err, io.EOF):
		return &yaml.Node{Kind: yaml.MappingNode, Line: 1, Column: 1}
	case err != nil:
		d.syntaxError(err)
		return nil
	}
	if err := reader.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		d.problem(nil, "", "the file holds more than one YAML document")
		return nil
	}
	root := document.Content[0]
	if isNull(root) {
		root.Kind, root.Tag = yaml.MappingNode, "!!map"
	}
	return root
}

var syntaxLine = regexp.MustCompile(`^yaml: line (\d+): `)

func (d *decoder) syntaxError(err error) {
	message := err.Error()
	p := Problem{Source: d.file}
	if found := syntaxLine.FindStringSubmatch(message); found != nil {
		p.Line, _ = strconv.Atoi(found[1])
		p.Column = 1
		message = message[len(found[0]):]
	}
	p.Message = "not valid YAML: " + strings.TrimPrefix(message, "yaml: ")
	d.problems = append(d.problems, p)
}

// overlay puts settings from the environment and from flags into the tree.
func (d *decoder) overlay(root *yaml.Node, in Input) {
	environ := make(map[string]string)
	for _, entry := range in.Environ {
		name, value, _ := strings.Cut(entry, "=")
		environ[name] = value
	}
	for _, key := range settings(reflect.TypeFor[Config](), "") {
		name := "TIDINGS_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
		if value, ok := environ[name]; ok {
			d.set(root, key, value, "environment variable "+name)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(in.Flags)) {
		d.set(root, key, in.Flags[key], "flag --"+strings.ReplaceAll(key, "_", "-"))
	}
}

// settings lists the keys of all settings.
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
			return
		}
		node = document.Content[0]
	}
	if _, err := strconv.Atoi(value); err == nil {
		node.Tag = "!!int"
	} else if _, err := strconv.ParseFloat(value, 64); err == nil {
		node.Tag = "!!float"
	}
	d.mark(node, source)
	path := strings.Split(key, ".")
	parent := root
	for _, name := range path[:len(path)-1] {
		parent = d.member(parent, name, &yaml.Node{Kind: yaml.MappingNode}, source, false)
	}
	d.member(parent, path[len(path)-1], node, source, true)
}

// member returns a member of a mapping, which it adds or, on demand, replaces.
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
	d.sources[key] = source
	parent.Content = append(parent.Content, key, value)
	return value
}

func (d *decoder) mark(node *yaml.Node, source string) {
	d.sources[node] = source
	for _, child := range node.Content {
		d.mark(child, source)
	}
}

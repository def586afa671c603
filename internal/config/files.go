package config

import (
	"maps"
	"path/filepath"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/tidings-dev/tidings/internal/regular"
)

// maxEndpointFiles bounds how many files webhook.endpoint_files may match.
const maxEndpointFiles = 1000

// maxRounds bounds how often the files are loaded again because an endpoint file clashes
// with the last good version of another.
const maxRounds = 10

// endpointFiles are the files that match webhook.endpoint_files.
type endpointFiles struct {
	found  []string
	texts  map[string][]byte // the contents in use
	claims map[claim]bool
	stale  Problems // of files whose last good version is used
}

// claim is what only one endpoint may have, such as a name, and the file that claims it.
type claim struct{ file, what string }

// reading reads each file once, so that everything derived from the files, including their
// digest, is derived from the same contents.
type reading struct {
	files map[string]contents
	found map[string][]string // by glob pattern
}

type contents struct {
	text []byte
	err  error
}

func newReading() *reading {
	return &reading{files: make(map[string]contents), found: make(map[string][]string)}
}

func (r *reading) read(file string) ([]byte, error) {
	c, ok := r.files[file]
	if !ok {
		c.text, c.err = regular.Read(file)
		r.files[file] = c
	}
	return c.text, c.err
}

func (r *reading) glob(pattern string) ([]string, error) {
	found, ok := r.found[pattern]
	if !ok {
		var err error
		if found, err = filepath.Glob(pattern); err != nil {
			return nil, err
		}
		r.found[pattern] = found
	}
	return found, nil
}

// addEndpointFiles appends the endpoints of the files that match webhook.endpoint_files to
// the tree. kept holds contents to use instead of a file's current ones; nil skips the file.
func (d *decoder) addEndpointFiles(root *yaml.Node, r *reading, kept map[string][]byte) {
	d.endpointFiles.texts = make(map[string][]byte)
	webhook := lookup(root, "webhook")
	patterns := lookup(webhook, "endpoint_files")
	if patterns == nil || patterns.Kind != yaml.SequenceNode {
		return
	}
	var files []string
	for _, pattern := range patterns.Content {
		found, err := r.glob(pattern.Value)
		if err != nil {
			d.problem(pattern, "webhook.endpoint_files",
				"expected a glob pattern, such as /etc/tidings/endpoints.d/*.yaml")
		}
		files = append(files, found...)
	}
	slices.Sort(files)
	files = slices.Compact(files)
	if len(files) > maxEndpointFiles {
		d.problem(patterns, "webhook.endpoint_files", "matches %d files; the limit is %d", len(files), maxEndpointFiles)
		return
	}
	d.endpointFiles.found = files
	for _, file := range files {
		text, isKept := kept[file]
		if !isKept {
			var err error
			if text, err = r.read(file); err != nil {
				d.problems = append(d.problems, Problem{Source: file, Message: err.Error()})
				continue
			}
		}
		if text != nil {
			d.addEndpoints(webhook, file, text)
		}
	}
}

// addEndpoints appends the endpoints of a file: a list, or a list under "endpoints".
func (d *decoder) addEndpoints(webhook *yaml.Node, file string, text []byte) {
	d.endpointFiles.texts[file] = text
	list, empty := d.tree(file, text), len(d.empty)
	if list == nil {
		return
	}
	if slices.Contains(d.empty, file) { // it may still be being written
		d.empty = d.empty[:empty-1]
		d.problem(list, "webhook.endpoints", "is empty; write [] for no endpoints")
		return
	}
	if list.Kind == yaml.MappingNode && len(list.Content) == 2 && list.Content[0].Value == "endpoints" {
		list = resolved(list.Content[1])
	}
	if list.Kind != yaml.SequenceNode {
		d.problem(list, "webhook.endpoints", "expected a list of endpoints")
		return
	}
	all := lookup(webhook, "endpoints")
	if all == nil {
		all = d.member(webhook, "endpoints", &yaml.Node{Kind: yaml.SequenceNode}, file, true)
	}
	if all.Kind == yaml.SequenceNode {
		all.Content = append(all.Content, list.Content...)
	}
}

// lookup returns a member of a mapping, or nil.
func lookup(node *yaml.Node, name string) *yaml.Node {
	if node == nil {
		return nil
	}
	node = resolved(node)
	for i := 0; i+1 < len(node.Content) && node.Kind == yaml.MappingNode; i += 2 {
		if node.Content[i].Value == name {
			return resolved(node.Content[i+1])
		}
	}
	return nil
}

// hold adds to kept the last good version of each endpoint file that has a problem. It
// returns the problems, which then say so, or nil if one is not due to such a file.
func (f *endpointFiles) hold(problems Problems, before *Config, kept map[string][]byte) Problems {
	var held Problems
	already := maps.Clone(kept)
	for _, p := range problems {
		blamed := f.blamed(p, before, already)
		if blamed == nil {
			return nil
		}
		text, instead := before.endpointFiles.texts[blamed.Source], "its last good version stays in effect"
		if text == nil {
			instead = "the file is skipped, since it has no good version yet"
		}
		kept[blamed.Source] = text
		blamed.Message += "; " + instead
		held = append(held, *blamed)
	}
	return held
}

// blamed returns a problem as that of the endpoint file it is due to, or nil. If two files
// claim the same, that is the one that did not before.
func (f *endpointFiles) blamed(p Problem, before *Config, kept map[string][]byte) *Problem {
	for _, of := range []*Problem{&p, p.rival} {
		if of == nil || !slices.Contains(f.found, of.Source) {
			continue
		}
		_, isKept := kept[of.Source]
		if !isKept && (of.claim == "" || !before.endpointFiles.claims[claim{of.Source, of.claim}]) {
			blamed := *of
			return &blamed
		}
	}
	return nil
}

// Stale returns the problems of files in webhook.endpoint_files that were replaced by their
// last good version or, without one, skipped.
func (c *Config) Stale() Problems { return c.endpointFiles.stale }

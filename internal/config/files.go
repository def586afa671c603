package config

import (
	"path/filepath"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/tidings-dev/tidings/internal/regular"
)

// maxEndpointFiles bounds how many files webhook.endpoint_files may match.
const maxEndpointFiles = 1000

// endpointFiles holds the contents of the endpoint files.
type endpointFiles struct {
	texts map[string][]byte
	stale Problems // of files whose last good version is used
}

// addEndpointFiles appends the endpoints of the files that match webhook.endpoint_files to
// the tree. kept holds contents to use instead of a file's current ones; nil skips the file.
func (d *decoder) addEndpointFiles(root *yaml.Node, kept map[string][]byte) {
	d.endpointFiles.texts = make(map[string][]byte)
	webhook := lookup(root, "webhook")
	patterns := lookup(webhook, "endpoint_files")
	if patterns == nil || patterns.Kind != yaml.SequenceNode {
		return
	}
	var files []string
	for _, pattern := range patterns.Content {
		found, err := filepath.Glob(pattern.Value)
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
	for _, file := range files {
		text, isKept := kept[file]
		if !isKept {
			var err error
			if text, err = regular.Read(file); err != nil {
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

// lastGood returns the previous contents of the endpoint files that have problems. It
// returns nil if anything else has problems.
func lastGood(problems Problems, now, before map[string][]byte) map[string][]byte {
	kept := make(map[string][]byte)
	for _, p := range problems {
		if _, isEndpoints := now[p.Source]; !isEndpoints {
			return nil
		}
		kept[p.Source] = before[p.Source]
	}
	return kept
}

// Stale returns the problems of files in webhook.endpoint_files that were replaced by their
// last good version or, without one, skipped.
func (c *Config) Stale() Problems { return c.endpointFiles.stale }

package relay_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/relay"
)

func TestSuccessors(t *testing.T) {
	behind := func(name string) relay.Left { return relay.Left{Name: name, Behind: 1} }
	idle := func(name string) relay.Left { return relay.Left{Name: name} }
	added := func(name, url, from string) relay.Endpoint {
		return relay.Endpoint{Endpoint: tidings.Endpoint{Name: name, URL: url}, CursorFrom: from}
	}
	disabled := func(e relay.Endpoint) relay.Endpoint {
		e.Disabled = true
		return e
	}
	for name, tt := range map[string]struct {
		left      []relay.Left
		added     []relay.Endpoint
		successor map[string]string
		unclear   map[string][]string
	}{
		"corrected": {
			left:      []relay.Left{behind("a.example/x")},
			added:     []relay.Endpoint{added("a.example/y", "https://a.example/y", "")},
			successor: map[string]string{"a.example/x": "a.example/y"},
		},
		"another port is another host": {
			left:  []relay.Left{behind("a.example:81/x")},
			added: []relay.Endpoint{added("a.example/y", "https://a.example/y", "")},
		},
		"named now": {
			left: []relay.Left{idle("a.example")}, added: []relay.Endpoint{added("crm", "https://u:p@a.example/y", "")},
			successor: map[string]string{"a.example": "crm"},
		},
		"the host of a named one is unknown": {
			left: []relay.Left{behind("crm")}, added: []relay.Endpoint{added("crm2", "https://a.example/y", "")},
		},
		"one with a backlog takes precedence": {
			left:      []relay.Left{idle("a.example/x"), behind("a.example/y")},
			added:     []relay.Endpoint{added("crm", "https://a.example/z", "")},
			successor: map[string]string{"a.example/y": "crm"},
		},
		"other queries of the same paths": {
			left: []relay.Left{behind("a.example/x"), idle("a.example/y?001122"), behind("a.example/z")},
			added: []relay.Endpoint{
				added("a.example/y?334455", "https://a.example/y?t=2", ""),
				added("a.example/x?667788", "https://a.example/x?t=1", ""),
				added("a.example/other", "https://a.example/other", ""),
			},
			successor: map[string]string{
				"a.example/x": "a.example/x?667788", "a.example/y?001122": "a.example/y?334455",
				"a.example/z": "a.example/other",
			},
		},
		"two queries of the same path": {
			left: []relay.Left{behind("a.example?001122")},
			added: []relay.Endpoint{
				added("a.example?334455", "https://a.example?t=2", ""), added("a.example?667788", "https://a.example?t=1", ""),
			},
			unclear: map[string][]string{"a.example?001122": {"a.example?334455", "a.example?667788"}},
		},
		"two removed": {
			left:    []relay.Left{behind("a.example/x"), behind("a.example/y")},
			added:   []relay.Endpoint{added("crm", "https://a.example/z", "")},
			unclear: map[string][]string{"a.example/x": {"crm"}, "a.example/y": {"crm"}},
		},
		"two new ones": {
			left:    []relay.Left{behind("a.example/x")},
			added:   []relay.Endpoint{added("b", "https://a.example/b", ""), added("c", "https://a.example/c", "")},
			unclear: map[string][]string{"a.example/x": {"b", "c"}},
		},
		"disabled in the meantime": {
			left:      []relay.Left{behind("a.example/x")},
			added:     []relay.Endpoint{disabled(added("a.example/y", "https://a.example/y", ""))},
			successor: map[string]string{"a.example/x": "a.example/y"},
		},
		"one that is enabled comes before one that is disabled": {
			left: []relay.Left{behind("a.example/x")},
			added: []relay.Endpoint{
				disabled(added("a.example/z", "https://a.example/z", "")), added("a.example/y", "https://a.example/y", ""),
			},
			successor: map[string]string{"a.example/x": "a.example/y"},
		},
		"said": {
			left: []relay.Left{behind("a.example/x"), behind("a.example/y")},
			added: []relay.Endpoint{
				added("b", "https://a.example/b", "a.example/x"), added("c", "https://a.example/c", ""),
				added("d", "https://d.example", "old"),
			},
			successor: map[string]string{"a.example/x": "b", "a.example/y": "c", "old": "d"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			successor, unclear := relay.Successors(tt.left, tt.added)
			if len(tt.successor) == 0 {
				tt.successor = map[string]string{}
			}
			if len(tt.unclear) == 0 {
				tt.unclear = map[string][]string{}
			}
			if diff := cmp.Diff(tt.successor, successor) + cmp.Diff(tt.unclear, unclear); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"strings"

	"github.com/google/uuid"

	"github.com/tidings-dev/tidings"
)

// viaRequest is a request that changes a resource; ID in its path stands for the resource's.
type viaRequest struct {
	method, path string
	body         func() any // nil for none
}

// viaType is a resource type of the server: how a token alone changes one, or why it cannot.
type viaType struct {
	name           string
	create, update *viaRequest
	cannot         string // be created; or, if it can, be updated
}

func (t *viaType) actions() []tidings.Action {
	actions := []tidings.Action{tidings.Created}
	if t.update != nil {
		actions = append(actions, tidings.Updated)
	}
	return append(actions, tidings.Deleted)
}

func (t *viaType) note(a tidings.Action) string {
	switch a {
	case tidings.Created:
		return t.create.method + " " + t.create.path
	case tidings.Updated:
		return t.update.method + " " + t.update.path
	default:
		return http.MethodDelete + " " + t.create.path + "/ID"
	}
}

type object = map[string]any

var viaTypes = []*viaType{
	{
		name:   "context",
		create: &viaRequest{http.MethodPost, "/contexts", func() any { return object{} }},
		update: &viaRequest{http.MethodPatch, "/contexts/ID/metadata", func() any {
			return object{"metadata": object{"title": "tidings trigger"}}
		}},
	},
	{
		name:   "file",
		create: &viaRequest{http.MethodPost, "/files", textFile},
		update: &viaRequest{http.MethodPost, "/files/ID/extraction", func() any { return object{} }},
	},
	{
		name: "vector_store",
		create: &viaRequest{http.MethodPost, "/vector_stores", func() any {
			return object{"name": "tidings trigger", "dimension": 1, "model_id": "trigger"}
		}},
		update: &viaRequest{http.MethodPut, "/vector_stores/ID", func() any {
			return []any{object{
				"document_id": "trigger", "document_type": "external", "model_id": "trigger", "text": "tidings trigger",
				"embedding": []float64{1},
			}}
		}},
	},
	{
		name: "provider_build",
		create: &viaRequest{http.MethodPost, "/provider_builds", func() any {
			return object{"location": "https://github.com/tidings-dev/trigger"}
		}},
		update: &viaRequest{http.MethodPatch, "/provider_builds/ID", func() any { return object{"status": "in_progress"} }},
	},
	{
		name: "connector",
		create: &viaRequest{http.MethodPost, "/connectors", func() any {
			return object{"url": "https://example.com/" + uuid.NewString()}
		}},
		cannot: "needs an MCP server to connect to",
	},
	{name: "provider", cannot: "needs an agent that answers at its location"},
	{name: "model_provider", cannot: "needs an API key that lists models"},
	{name: "user_feedback", cannot: "needs a provider"},
	{name: "configuration", cannot: "always exists; a change would be one of the server's settings"},
	{name: "user", cannot: "created by the first use of a token"},
}

func textFile() any {
	var b bytes.Buffer
	form := multipart.NewWriter(&b)
	part, _ := form.CreatePart(textproto.MIMEHeader{ // a buffer takes everything
		"Content-Disposition": {`form-data; name="file"; filename="trigger.txt"`},
		"Content-Type":        {"text/plain"},
	})
	_, _ = part.Write([]byte("tidings trigger\n"))
	_ = form.Close()
	return &upload{form.FormDataContentType(), b.Bytes()}
}

// triggerVia makes a resource on a server, changes it if the event is an update, and
// deletes it, whatever comes in between.
func triggerVia(ctx context.Context, c *client, name string) (err error) {
	typ, action, _ := strings.Cut(name, ".")
	var t *viaType
	for _, known := range viaTypes {
		if known.name == typ {
			t = known
		}
	}
	switch {
	case t == nil:
		return &usageError{fmt.Errorf("--via has no resources of the type %q; see --list, and 'tidings emit' for events "+
			"that programs publish", typ)}
	case t.create == nil, t.update == nil && action == string(tidings.Updated):
		return &usageError{fmt.Errorf("--via can't trigger %s: %s", name, t.cannot)}
	}
	switch tidings.Action(action) {
	case tidings.Created, tidings.Updated, tidings.Deleted:
	default:
		return &usageError{fmt.Errorf("--via can't trigger %s: expected %s.created, updated or deleted", name, typ)}
	}
	id, err := c.via(ctx, t.create, "")
	if err != nil {
		return err
	}
	defer func() {
		_, failed := c.via(context.WithoutCancel(ctx), &viaRequest{http.MethodDelete, t.create.path + "/ID", nil}, id)
		if failed != nil {
			failed = fmt.Errorf("the %s %s is left behind: %w", typ, id, failed)
		}
		err = errors.Join(err, failed)
	}()
	if action == string(tidings.Updated) {
		_, err = c.via(ctx, t.update, id)
	}
	return err
}

// via makes a request, prints it, and returns the id of the resource in the answer.
func (c *client) via(ctx context.Context, r *viaRequest, of string) (id string, err error) {
	path := strings.Replace(r.path, "ID", of, 1)
	var body any
	if r.body != nil {
		body = r.body()
	}
	text, err := c.request(ctx, r.method, path, nil, body)
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", r.method, path, err)
	}
	var made struct{ ID string }
	if len(text) > 0 {
		if err := json.Unmarshal(text, &made); err != nil {
			return "", c.foreign("its answer is of another form")
		}
	}
	line := r.method + " " + path
	if of == "" {
		line += " " + made.ID
	}
	fmt.Fprintln(c.out, line)
	return made.ID, nil
}

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/app"
	"github.com/tidings-dev/tidings/internal/auth"
	"github.com/tidings-dev/tidings/internal/config"
	"github.com/tidings-dev/tidings/receive"
)

func demoCommand() *cobra.Command {
	var once bool
	cmd := &cobra.Command{
		Use:     "demo",
		Short:   "Run the server in a temporary folder, make a few changes, and show the webhooks that arrive",
		Example: "  tidings demo",
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return demo(cmd.Context(), cmd.OutOrStdout(), once)
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "exit after the changes instead of staying up")
	return cmd
}

// demo runs a real server and a real receiver, and makes a series of changes.
func demo(ctx context.Context, out io.Writer, once bool) (err error) {
	folder, err := os.MkdirTemp("", "tidings-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	arrived := make(chan tidings.Event, 16)
	secret := newSecret()
	receiver, err := demoReceiver(secret, arrived)
	if err != nil {
		return err
	}
	defer receiver.Close()
	failing := failingReceiver()
	defer failing.Close()
	agent := httptest.NewServer(http.HandlerFunc(demoAgent))
	defer agent.Close()

	token, hash := auth.NewToken()
	cfg, err := demoConfig(folder, hash, []any{
		map[string]any{"name": "demo", "url": receiver.URL, "secret": secret},
		map[string]any{"name": "billing", "url": failing.URL},
	})
	if err != nil {
		return err
	}
	server, err := app.New(ctx, cfg,
		app.Options{
			Logger:  slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelError})),
			Version: version,
		})
	if err != nil {
		return err
	}
	serving, stop := context.WithCancel(ctx)
	stopped := make(chan error, 1)
	go func() { stopped <- server.Run(serving) }()
	defer func() {
		stop()
		err = errors.Join(err, <-stopped)
	}()

	d := &demonstration{out: out, api: "http://" + server.Addr() + "/api/v1", token: token, arrived: arrived}
	fmt.Fprintf(out, "Tidings runs on http://%s with its data in %s.\nA receiver listens on %s, one that fails on %s.\n",
		server.Addr(), folder, receiver.URL, failing.URL)
	if err := d.tour(ctx, agent.URL); err != nil {
		return err
	}
	fmt.Fprint(out, operatorLines(server.Addr(), token, failing.URL))
	if once {
		return nil
	}
	fmt.Fprintf(out, `
The server runs until you press Ctrl-C. Try:

  http://%[1]s/console/        the console; sign in with the token below
  http://%[1]s/api/v1/docs     the API
  http://%[1]s/metrics

  curl -H 'Authorization: Bearer %[2]s' -H 'Content-Type: application/json' \
    -d '{"metadata":{"title":"hello"}}' http://%[1]s/api/v1/contexts

`, server.Addr(), token)
	for {
		select {
		case e := <-arrived:
			d.show(e)
		case <-ctx.Done():
			fmt.Fprintln(out)
			return nil
		}
	}
}

// failingReceiver rejects every request until it is repaired by a POST to /repair.
func failingReceiver() *httptest.Server {
	var repaired atomic.Bool
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/repair":
			repaired.Store(true)
			fmt.Fprintln(w, "repaired") // the client may be gone
		case !repaired.Load():
			http.Error(w, "the ledger is closed", http.StatusInternalServerError)
		}
	}))
}

// operatorLines returns commands that diagnose the failing receiver and repair it.
func operatorLines(address, token, receiver string) string {
	var text strings.Builder
	text.WriteString("\nThe endpoint billing got none of these webhooks. To find out why, and to repair it:\n\n")
	for _, line := range []string{
		"endpoints", "endpoints billing", "explain 1", "attempts --outcome failures --limit 5", "endpoints test billing",
	} {
		fmt.Fprintf(&text, "  %s %s --url http://%s --token %s\n", programName(), line, address, token)
	}
	fmt.Fprintf(&text, "  curl -X POST %s/repair\n  %s endpoints --watch --url http://%s --token %s\n",
		receiver, programName(), address, token)
	return text.String()
}

// programName returns the command that starts this program, for pasting into a shell.
func programName() string {
	program, err := os.Executable()
	switch {
	case err == nil && strings.Contains(program, "go-build"):
		return "go run ./cmd/tidings"
	case err == nil && strings.Contains(os.Args[0], "/"):
		return os.Args[0]
	}
	return "tidings"
}

func demoReceiver(secret string, arrived chan<- tidings.Event) (*httptest.Server, error) {
	verifier, err := receive.NewVerifier(secret)
	if err != nil {
		return nil, err
	}
	return httptest.NewServer(receive.NewHandler(verifier, func(ctx context.Context, e tidings.Event) error {
		select {
		case arrived <- e:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})), nil
}

func demoAgent(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/.well-known/agent-card.json" {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{ // the client may be gone
		"name": "Weather", "description": "Tells the weather.", "version": "1.0.0", "protocolVersion": "0.3.0",
		"url": "http://" + r.Host, "capabilities": map[string]any{}, "skills": []any{},
		"defaultInputModes": []string{"text"}, "defaultOutputModes": []string{"text"},
	})
}

func demoConfig(folder, hash string, endpoints []any) (config.Config, error) {
	text, err := json.Marshal(map[string]any{ // JSON is also YAML
		"listen": "127.0.0.1:0", "data_dir": folder, "shutdown_timeout": "5s",
		"egress": map[string]any{"user_urls": map[string]any{"allow_networks": []any{
			"127.0.0.0/8",
			"::1/128",
		}}}, // the agent's address
		"auth": map[string]any{"tokens": []any{map[string]any{
			"sha256": hash,
			"user":   "you@example.com", "role": "admin",
		}}},
		"webhook": map[string]any{"endpoints": endpoints},
	})
	if err != nil {
		return config.Config{}, err
	}
	file := folder + "/demo.yaml"
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return config.Config{}, err
	}
	return config.Load(config.Input{Files: []string{file}})
}

// demonstration makes changes over HTTP and waits for their webhooks.
type demonstration struct {
	out     io.Writer
	api     string
	token   string
	arrived <-chan tidings.Event
}

func (d *demonstration) show(e tidings.Event) {
	body, _ := e.MarshalJSON() // can't fail
	fmt.Fprintf(d.out, "  webhook, signature verified: %s\n", body)
}

// tour creates, updates and deletes a few resources.
func (d *demonstration) tour(ctx context.Context, agent string) error {
	steps := []struct {
		method, path string
		body         any
		events       []string
	}{
		{method: "GET", path: "/users/me", events: []string{"user.created"}},
		{
			method: "POST", path: "/providers", body: map[string]any{"location": agent},
			events: []string{"provider.created"},
		},
		{
			method: "POST", path: "/contexts", body: map[string]any{"metadata": map[string]any{"title": "Trip to Delft"}},
			events: []string{"context.created"},
		},
		{
			method: "PATCH", path: "/contexts/{contexts}/metadata",
			body: map[string]any{"metadata": map[string]any{"mood": "sunny"}}, events: []string{"context.updated"},
		},
		{
			method: "POST", path: "/vector_stores?context_id={contexts}",
			body:   map[string]any{"name": "maps", "dimension": 3, "model_id": "demo"},
			events: []string{"vector_store.created"},
		},
		{method: "DELETE", path: "/contexts/{contexts}", events: []string{"vector_store.deleted", "context.deleted"}},
		{method: "DELETE", path: "/providers/{providers}", events: []string{"provider.deleted"}},
	}
	ids := make(map[string]string)
	for _, step := range steps {
		path := step.path
		for kind, id := range ids {
			path = strings.ReplaceAll(path, "{"+kind+"}", id)
		}
		fmt.Fprintf(d.out, "\n%s /api/v1%s\n", step.method, path)
		id, err := d.request(ctx, step.method, path, step.body)
		if err != nil {
			return err
		}
		if step.method == http.MethodPost {
			kind, _, _ := strings.Cut(strings.TrimPrefix(step.path, "/"), "?")
			ids[kind] = id
		}
		if err := d.await(ctx, step.events); err != nil {
			return err
		}
	}
	return nil
}

func (d *demonstration) request(ctx context.Context, method, path string, body any) (id string, err error) {
	text, err := json.Marshal(body)
	if err != nil {
		return "", err
	}
	request, err := http.NewRequestWithContext(ctx, method, d.api+path, bytes.NewReader(text))
	if err != nil {
		return "", err
	}
	request.Header.Set("Authorization", "Bearer "+d.token)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	if response.StatusCode >= http.StatusBadRequest {
		return "", fmt.Errorf("%s %s: %s: %s", method, path, response.Status, answer)
	}
	var made struct{ ID string }
	if len(answer) > 0 {
		err = json.Unmarshal(answer, &made)
	}
	return made.ID, err
}

const demoPatience = 10 * time.Second

func (d *demonstration) await(ctx context.Context, names []string) error {
	waiting := make(map[string]bool)
	for _, name := range names {
		waiting[name] = true
	}
	for len(waiting) > 0 {
		select {
		case e := <-d.arrived:
			d.show(e)
			delete(waiting, e.Name())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(demoPatience):
			return fmt.Errorf("no webhook arrived within %v", demoPatience)
		}
	}
	return nil
}

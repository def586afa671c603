package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tidings-dev/tidings/internal/datadir"
	"github.com/tidings-dev/tidings/internal/regular"
	"github.com/tidings-dev/tidings/sender"
)

// client talks to a running server as an operator.
type client struct {
	url     string
	token   string
	dataDir string
	json    bool
	utc     bool
	header  http.Header // sent with each request; may be nil
	out     io.Writer
	errOut  io.Writer
}

// Whose token suffices for a command. A server that is no relay knows only admins.
const (
	asAdmin     = "an admin"
	asOperator  = "an admin or an operator"
	asReader    = "an admin, an operator or a reader"
	asUser      = "a user"
	asPublisher = "an admin or a publisher"
)

// operatorCommand is a command that talks to a running server; its flags say
// which and how. who is whose token suffices.
func operatorCommand(
	who, use, short, example string, args cobra.PositionalArgs,
	run func(ctx context.Context, c *client, args []string) error,
) *cobra.Command {
	c := &client{}
	cmd := &cobra.Command{
		Use: use, Short: short, Example: indented(example), Args: args,
		RunE: func(cmd *cobra.Command, args []string) error {
			c.out, c.errOut = cmd.OutOrStdout(), cmd.ErrOrStderr()
			return run(cmd.Context(), c, args)
		},
	}
	f := cmd.Flags()
	c.serverFlags(f, who)
	f.BoolVar(&c.json, "json", false, "print what the server answers")
	f.BoolVar(&c.utc, "utc", false, "print times exactly, in UTC")
	return cmd
}

// serverFlags adds the flags that say which server, and who asks.
func (c *client) serverFlags(f *pflag.FlagSet, who string) {
	f.StringVar(&c.url, "url", env("TIDINGS_URL", defaultURL), "`URL` of the server, or HOST:PORT (TIDINGS_URL)")
	f.Lookup("url").DefValue = defaultURL // help must not show a password in it
	c.credentialFlags(f, who)
}

// indented indents the lines of an example, as cobra's help does.
func indented(example string) string { return "  " + strings.ReplaceAll(example, "\n", "\n  ") }

// credentialFlags adds the flags that say who asks.
func (c *client) credentialFlags(f *pflag.FlagSet, who string) {
	f.StringVar(&c.token, "token", os.Getenv("TIDINGS_TOKEN"),
		"API `TOKEN` of "+who+" (TIDINGS_TOKEN); else the admin-token in the data folder")
	f.StringVar(&c.dataDir, "data-dir", env("TIDINGS_DATA_DIR", "./tidings-data"), "`FOLDER` with the admin-token")
	f.Lookup("token").DefValue = "" // help must not show it
}

const defaultURL = "http://127.0.0.1:8333"

func env(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

const (
	clientTime  = 2 * time.Minute
	answerLimit = 64 << 20
)

// call makes a request of the API and decodes the answer into it; with --json it
// prints it instead, and returns true.
func (c *client) call(
	ctx context.Context, method, path string, query url.Values, body, into any,
) (printed bool, err error) {
	text, err := c.request(ctx, method, path, query, body)
	if err != nil {
		return false, err
	}
	if c.json {
		_, err := c.out.Write(append(bytes.TrimSpace(text), '\n'))
		return true, err
	}
	if err := json.Unmarshal(text, into); err != nil {
		return false, c.foreign("its answer is of another form")
	}
	return false, nil
}

// upload is a body that is not JSON.
type upload struct {
	contentType string
	data        []byte
}

// request returns the answer to a request of the API: JSON, or nothing (204).
func (c *client) request(ctx context.Context, method, path string, query url.Values, body any) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, clientTime)
	defer cancel()
	var reader io.Reader
	contentType := "application/json"
	switch body := body.(type) {
	case nil:
	case *upload:
		reader, contentType = bytes.NewReader(body.data), body.contentType
	default:
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		reader = bytes.NewReader(text)
	}
	base, err := c.base()
	if err != nil {
		return nil, err
	}
	target := base + "/api/v1" + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	request, err := http.NewRequestWithContext(ctx, method, target, reader)
	if err != nil {
		return nil, fmt.Errorf("--url: %w", err)
	}
	token, err := c.credentials()
	if err != nil {
		return nil, err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	maps.Copy(request.Header, c.header)
	request.Header.Set("Content-Type", contentType)
	response, err := (&http.Client{CheckRedirect: noRedirect}).Do(request)
	if e, ok := errors.AsType[*url.Error](err); ok { // whose text holds the URL
		err = e.Err
	}
	if err != nil {
		return nil, fmt.Errorf("no answer from %s; is the server running, and is --url right? %w", c.shownURL(), err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, answerLimit))
	if err != nil {
		return nil, err
	}
	if response.StatusCode >= http.StatusBadRequest {
		return nil, c.refused(response, text, query)
	}
	if response.StatusCode == http.StatusNoContent {
		return nil, nil
	}
	if media, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type")); media != "application/json" ||
		!json.Valid(text) {
		return nil, c.foreign("its answer is not JSON")
	}
	return text, nil
}

// base is the server's URL, with http where it was given as host and port.
func (c *client) base() (string, error) {
	text := c.url
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	if _, err := sender.CheckURL(text); err != nil {
		return "", &usageError{fmt.Errorf("--url: %w", err)}
	}
	return strings.TrimSuffix(strings.TrimSuffix(text, "/"), "/api/v1"), nil
}

// shownURL is the server's URL without what may be secret in it.
func (c *client) shownURL() string {
	base, err := c.base()
	if err != nil {
		return "the server"
	}
	return publicURL(base)
}

// noRedirect keeps the token where the operator sent it.
func noRedirect(*http.Request, []*http.Request) error {
	return errors.New("it redirects elsewhere; give its own address")
}

// credentials are the token given, or that of a server on this machine.
func (c *client) credentials() (string, error) {
	if c.token != "" {
		return c.token, nil
	}
	text, err := regular.Read(filepath.Join(c.dataDir, datadir.AdminToken))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil // the server may want none
	}
	if err != nil {
		return "", fmt.Errorf("admin token: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

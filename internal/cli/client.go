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

// client calls the API of a running server.
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

// Roles whose token a command accepts. Outside a relay, operator commands need an admin.
const (
	asAdmin     = "an admin"
	asOperator  = "an admin or an operator"
	asReader    = "an admin, an operator or a reader"
	asUser      = "a user"
	asPublisher = "an admin or a publisher"
)

// operatorCommand returns a command that calls a running server. who names the roles
// whose token it accepts.
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
	f.BoolVar(&c.json, "json", false, "print the server's response as JSON")
	f.BoolVar(&c.utc, "utc", false, "print exact times in UTC")
	return cmd
}

// serverFlags adds the flags for the server's address and the credentials.
func (c *client) serverFlags(f *pflag.FlagSet, who string) {
	f.StringVar(&c.url, "url", env("TIDINGS_URL", defaultURL), "`URL` of the server, or HOST:PORT (TIDINGS_URL)")
	f.Lookup("url").DefValue = defaultURL // help must not show a password
	c.credentialFlags(f, who)
}

// indented indents an example as cobra's help does.
func indented(example string) string { return "  " + strings.ReplaceAll(example, "\n", "\n  ") }

// credentialFlags adds the flags for the credentials.
func (c *client) credentialFlags(f *pflag.FlagSet, who string) {
	f.StringVar(&c.token, "token", os.Getenv("TIDINGS_TOKEN"),
		"API `TOKEN` of "+who+" (TIDINGS_TOKEN); default: the admin-token in the data directory")
	f.StringVar(&c.dataDir, "data-dir", env("TIDINGS_DATA_DIR", "./tidings-data"), "`FOLDER` with the admin-token file")
	f.Lookup("token").DefValue = "" // help must not show it
}

const defaultURL = "http://127.0.0.1:8333"

func env(name, fallback string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return fallback
}

const (
	requestTimeout = 2 * time.Minute
	responseLimit  = 64 << 20
)

// call sends a request and decodes the response into the value into. With --json it
// also prints the response and returns true.
func (c *client) call(
	ctx context.Context, method, path string, query url.Values, body, into any,
) (printed bool, err error) {
	text, err := c.request(ctx, method, path, query, body)
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(text, into); err != nil {
		return false, c.foreign("the response has another form")
	}
	if c.json {
		_, err = c.out.Write(append(bytes.TrimSpace(text), '\n'))
	}
	return c.json, err
}

// upload is a request body that is not JSON.
type upload struct {
	contentType string
	data        []byte
}

// request sends a request and returns the response: JSON, or nothing for 204.
func (c *client) request(ctx context.Context, method, path string, query url.Values, body any) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
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
	if e, ok := errors.AsType[*url.Error](err); ok { // its text contains the URL
		err = e.Err
	}
	if err != nil {
		return nil, fmt.Errorf("can't reach %s: %w; is the server running, and is --url right?", c.shownURL(), err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, responseLimit))
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
		return nil, c.foreign("the response is not JSON")
	}
	return text, nil
}

// base returns the server's URL. HOST:PORT means http.
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

// shownURL returns the server's URL without secrets.
func (c *client) shownURL() string {
	base, err := c.base()
	if err != nil {
		return "the server"
	}
	return publicURL(base)
}

// noRedirect follows no redirect, so that the token goes only where the operator sent it.
func noRedirect(*http.Request, []*http.Request) error {
	return errors.New("it redirects; set --url to the address it redirects to")
}

// credentials returns the given token, or that of a server on this machine.
func (c *client) credentials() (string, error) {
	if c.token != "" {
		return c.token, nil
	}
	text, err := regular.Read(filepath.Join(c.dataDir, datadir.AdminToken))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil // the server may need none
	}
	if err != nil {
		return "", fmt.Errorf("admin token: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

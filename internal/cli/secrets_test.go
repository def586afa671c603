package cli_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/child"
	"github.com/tidings-dev/tidings/internal/testdb"
)

type object = map[string]any

// canary stands for a secret, which nothing may print.
const canary = "hunter2canary"

// program returns a copy of this test binary with the name that makes it run the command
// line.
func program(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tidings")
	if os.Link(os.Args[0], path) == nil {
		return path
	}
	content, err := os.ReadFile(os.Args[0])
	if err == nil {
		err = os.WriteFile(path, content, 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// run returns a command that runs the command line.
func run(ctx context.Context, program string, env []string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), env...)
	return cmd
}

// shows returns excerpts of an output that contain the canary or another secret.
func shows(output string, secrets ...string) []string {
	var found []string
	for _, secret := range append(secrets, canary) {
		for from := 0; ; {
			at := strings.Index(output[from:], secret)
			if at < 0 {
				break
			}
			at += from
			from = at + len(secret)
			found = append(found, fmt.Sprintf("%q\n", output[max(0, at-200):min(len(output), from+50)]))
		}
	}
	return found
}

// Each of these is a misplaced or malformed secret. The server and "tidings check"
// reject it without printing it.
func TestMalformedSecretsAreNotShown(t *testing.T) {
	tidings := program(t)
	encoded := func(text string) string { return strconvQuote(text) }
	endpoint := func(text string) string {
		return "webhook:\n  endpoints:\n    - url: https://example.com\n      " + text + "\n"
	}
	for name, text := range map[string]string{
		"database_url":         "database_url: " + encoded("postgres://u:p@"+canary+"/w#"+canary+"@h/db"),
		"database_url, %":      "database_url: " + encoded("postgres://u:%"+canary+"@h/db"),
		"database_url, port":   "database_url: " + encoded("postgres://u:p@h:"+canary+"/db"),
		"encryption_key":       "encryption_key: " + canary,
		"encryption_key, list": "encryption_key: [" + canary + "]",
		"url":                  "webhook: {endpoints: [{url: " + encoded("https://u:p@"+canary+"/x#@host") + "}]}",
		"url, port":            "webhook: {endpoints: [{url: " + encoded("https://u:"+canary+"/x@host") + "}]}",
		"name":                 endpoint("name: https://u:" + canary + "@host"),
		"headers":              endpoint(`headers: {"X-Secret: ` + canary + `": ""}`),
		"headers, text":        endpoint("headers: " + encoded("Authorization: Bearer "+canary)),
		"headers, line break":  endpoint("headers: {X-A: " + encoded(canary+"\n"+canary) + "}"),
		"headers, env":         endpoint("headers: {X-A: {env: " + encoded("p@"+canary) + "}}"),
		"secret":               endpoint("secret: " + canary),
		"secret, base64":       endpoint("secret: whsec_" + canary),
		"secrets":              endpoint("secrets: " + canary),
		"anchor":               endpoint("secret: *" + canary),
		"tag":                  endpoint("secret: !!int " + canary),
		"syntax":               endpoint(`secret: "` + canary),
		"indentation":          endpoint("secret: a: " + canary),
		"basic_auth":           endpoint("http: {basic_auth: " + canary + "}"),
		"basic_auth, key":      endpoint("http: {basic_auth: {" + canary + ": x}}"),
		"authorization":        endpoint("http: {authorization: {credentials: [" + canary + "]}}"),
		"bearer_token":         endpoint("http: {bearer_token: {" + canary + ": x}}"),
		"two credentials": endpoint("http: {bearer_token: " + canary + ", basic_auth: {username: u, password: " +
			canary + "}}"),
		"proxy_url":    endpoint("http: {proxy_url: " + encoded("http://u:%zz"+canary+"@proxy") + "}"),
		"proxy_url, #": endpoint("http: {proxy_url: " + encoded("http://u:p#"+canary+"@proxy") + "}"),
		"proxy_connect_header": endpoint(`http: {proxy_url: "http://proxy", proxy_connect_header: {"X-A: ` + canary +
			`": [x]}}`),
		"http_headers":          endpoint(`http: {http_headers: {"X-A: ` + canary + `": {values: [x]}}}`),
		"http_headers, secrets": endpoint("http: {http_headers: {X-A: {secrets: " + canary + "}}}"),
		"oauth2": endpoint("http: {oauth2: {client_id: c, client_secret: [" + canary +
			"], token_url: 'http://h'}}"),
		"token_url": endpoint("http: {oauth2: {client_id: c, token_url: " +
			encoded("http://u:%zz"+canary+"@h") + "}}"),
		"tls key":     endpoint("http: {tls_config: {cert: " + canary + ", key: " + canary + "}}"),
		"tls ca":      endpoint("http: {tls_config: {ca: " + canary + "}}"),
		"tls version": endpoint("http: {tls_config: {min_version: " + canary + "}}"),
		"s3": "files: {s3: {endpoint: " + encoded("https://u:"+canary+"@h") +
			", secret_key: [" + canary + "]}}",
		"tracing": "tracing: {endpoint: " + encoded("http://u:"+canary+"@h") + "}",
		"preset": "connectors: {presets: [{url: " + encoded("http://u:"+canary+"@h") +
			", client_secret: {" + canary + ": x}}]}",
		"token":         "auth: {tokens: [{token: [" + canary + "], user: u@example.com, role: user}]}",
		"token as hash": "auth: {tokens: [{sha256: " + canary + ", user: u@example.com, role: user}]}",
		"token as user": "auth: {tokens: [{sha256: x, user: " + canary + ", role: " + canary + "}]}",
		"egress":        "egress: {deny_networks: [" + canary + "]}",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "tidings.yaml")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, args := range [][]string{
				{"check", file},
				{"serve", "--config", file, "--listen", "127.0.0.1:0", "--data-dir", t.TempDir()},
			} {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				out, err := run(ctx, tidings, nil, args...).CombinedOutput()
				cancel()
				if err == nil || !strings.HasPrefix(string(out), file+":") {
					t.Errorf("%s: %v; want a problem in the file, got:\n%s", args[0], err, out)
				}
				if found := shows(string(out)); found != nil {
					t.Errorf("%s shows it:\n%s", args[0], strings.Join(found, ""))
				}
			}
		})
	}
}

func strconvQuote(text string) string {
	quoted, _ := json.Marshal(text) // JSON is also YAML
	return string(quoted)
}

// Secrets on the command line or in the environment are not shown either.
func TestSecretsOfFlagsAndVariablesAreNotShown(t *testing.T) {
	tidings := program(t)
	malformed, valid := "postgres://u:p@"+canary+"/w#rd@h/db", "postgres://u:"+canary+"@127.0.0.1:1/x?password="+canary
	for _, test := range []struct {
		env, args []string
	}{
		{nil, []string{"serve", "--database-url", malformed}},
		{nil, []string{"serve", "-database-url=" + valid}},
		{nil, []string{"serve", "---database-url=" + valid}},
		{nil, []string{"serve", "--databas-url:" + valid}},
		{nil, []string{"serve", "--poll-only=" + canary}},
		{nil, []string{"serve", "--log-level", canary}},
		{nil, []string{"serve", "--database-url", valid}},
		{nil, []string{"migrate", "--database-url", valid}},
		{nil, []string{"bench", "--database-url", malformed}},
		{nil, []string{"bench", "--database-url", valid, "--events", "1"}},
		{nil, []string{"bench", "--events", canary}},
		{nil, []string{"endpoints", "--url", "http://u:p@" + canary + "/w#rd@h"}},
		{nil, []string{"endpoints", "--url", "http://u:%zz" + canary + "@127.0.0.1:1"}},
		{nil, []string{"endpoints", "--url", "http://u:" + canary + "@127.0.0.1:1", "--token", canary}},
		{nil, []string{"endpoints", "--url", "http://u:" + canary + "@127.0.0.1:1/?" + canary}},
		{
			[]string{"TIDINGS_URL=http://u:" + canary + "@127.0.0.1:1", "TIDINGS_TOKEN=" + canary},
			[]string{"endpoints", "--help"},
		},
		{
			[]string{"TIDINGS_URL=http://u:" + canary + "@127.0.0.1:1", "TIDINGS_TOKEN=" + canary + "\n"},
			[]string{"events"},
		},
		{[]string{"TIDINGS_DATABASE_URL=" + malformed}, []string{"serve"}},
		{[]string{"TIDINGS_DATABASE_URL=" + valid}, []string{"migrate"}},
		{[]string{"TIDINGS_ENCRYPTION_KEY=" + canary}, []string{"serve"}},
		{
			[]string{"TIDINGS_WEBHOOK_ENDPOINTS=[{url: 'https://u:" + canary + "@h', secret: " + canary + "}]"},
			[]string{"serve"},
		},
		{
			[]string{"TIDINGS_WEBHOOK_ENDPOINTS=[{url: 'https://h', headers: {'X-A: " + canary + "': x}}]"},
			[]string{"serve"},
		},
		{[]string{"TIDINGS_WEBHOOK_ENDPOINTS=[{url: " + canary}, []string{"serve"}},
		{[]string{"TIDINGS_AUTH_TOKENS=[" + canary + "]"}, []string{"serve"}},
		{[]string{"TIDINGS_FILES_S3_SECRET_KEY={" + canary + ": x}"}, []string{"serve"}},
		{[]string{"TIDINGS_CONNECTORS_PRESETS={" + canary}, []string{"serve"}},
	} {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := run(ctx, tidings, append(test.env, "TIDINGS_DATA_DIR="+t.TempDir(), "TIDINGS_LISTEN=127.0.0.1:0"),
				test.args...)
			out, err := cmd.CombinedOutput()
			if help := slices.Contains(test.args, "--help"); (err == nil) != help || ctx.Err() != nil {
				t.Errorf("%q, %q: %v; output:\n%s", test.env, test.args, err, out)
			}
			if found := shows(string(out)); found != nil {
				t.Errorf("%q, %q shows it:\n%s", test.env, test.args, strings.Join(found, ""))
			}
		})
	}
}

// echo responds to every request with the whole request.
func echo(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "text/plain")
		for name, values := range r.Header {
			w.Header()["X-Echo-"+name] = values
		}
		w.WriteHeader(status)
		fmt.Fprintf(w, "%s %s %v %s", r.Method, r.URL, r.Header, body)
	}
}

func keyPair(t *testing.T) (certificate, key string) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
}

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// A server has a secret in every setting that takes one. Its endpoints, proxy, token
// server, object store and collector fail and echo what they receive. No secret
// appears in the log, in responses to operators and users, or in metrics.
func TestServerShowsNoSecrets(t *testing.T) {
	tidings := program(t)
	database := testdb.OwnServer(t)
	databaseURL, err := database.Create("tidings")
	if err != nil {
		t.Fatal(err)
	}
	withPassword, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	withPassword.User = url.UserPassword(withPassword.User.Username(), canary) // the server does not ask for it
	fails := httptest.NewServer(echo(http.StatusInternalServerError))
	defer fails.Close()
	takes := httptest.NewServer(echo(http.StatusOK))
	defer takes.Close()
	failsTLS := httptest.NewTLSServer(echo(http.StatusBadRequest))
	defer failsTLS.Close()
	host := func(s *httptest.Server) string { return s.Listener.Addr().String() }
	const closed = "127.0.0.1:1"

	certificate, key := keyPair(t)
	signing := base64.StdEncoding.EncodeToString([]byte(strings.Repeat(canary, 3)))
	encryption := base64.StdEncoding.EncodeToString([]byte((canary + canary + canary)[:32]))
	basic := base64.StdEncoding.EncodeToString([]byte("user:" + canary))
	folder := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	oauth := func(tokenURL string) object {
		return object{"oauth2": object{
			"client_id": "id", "client_secret": canary, "token_url": tokenURL,
			"endpoint_params": object{"password": canary}, "scopes": []string{"s"},
		}}
	}
	endpoints := []object{
		{"url": "http://user:" + canary + "@" + host(fails) + "/url?token=" + canary},
		{"url": "http://user:" + canary + "@" + host(takes) + "/url?token=" + canary},
		{
			"name": "headers", "url": fails.URL,
			"headers": object{
				"Authorization": "Bearer " + canary, "X-Key": object{"env": "CANARY"},
				"X-File": object{"file": file("header", canary)},
			},
		},
		{"name": "headers-taken", "url": takes.URL, "headers": object{"Authorization": "Bearer " + canary}},
		{"name": "signed", "url": fails.URL, "secret": "whsec_" + signing, "secrets": []any{"whsec_" + signing}},
		{
			"name": "basic", "url": fails.URL,
			"http": object{"basic_auth": object{"username": "user", "password": canary}},
		},
		{
			"name": "basic-file", "url": takes.URL,
			"http": object{"basic_auth": object{"username": "user", "password_file": file("password", canary)}},
		},
		{
			"name": "authorization", "url": fails.URL,
			"http": object{"authorization": object{"type": "Key", "credentials": canary}},
		},
		{"name": "bearer", "url": fails.URL, "http": object{"bearer_token_file": file("bearer", canary)}},
		{
			"name": "http-headers", "url": takes.URL,
			"http": object{"http_headers": object{"X-A": object{
				"values": []string{canary}, "secrets": []string{canary},
				"files": []string{file("h", canary)},
			}}},
		},
		{
			"name": "oauth-fails", "url": takes.URL,
			"http": oauth("http://user:" + canary + "@" + host(fails) + "/token?key=" + canary),
		},
		{"name": "oauth-nonsense", "url": takes.URL, "http": oauth(takes.URL)},
		{
			"name": "oauth-closed", "url": takes.URL,
			"http": oauth("http://user:" + canary + "@" + closed + "/token?key=" + canary),
		},
		{
			"name": "proxy", "url": "http://webhook.invalid/?" + canary,
			"http": object{"proxy_url": "http://user:" + canary + "@" + host(fails)},
		},
		{
			"name": "proxy-connect", "url": "https://webhook.invalid/?" + canary,
			"http": object{
				"proxy_url":            "http://user:" + canary + "@" + host(fails),
				"proxy_connect_header": object{"X-Key": []string{canary}},
			},
		},
		{
			"name": "proxy-closed", "url": "https://webhook.invalid/?" + canary,
			"http": object{"proxy_url": "http://user:" + canary + "@" + closed},
		},
		{
			"name": "socks", "url": "http://webhook.invalid/?" + canary,
			"http": object{"proxy_url": "socks5://user:" + canary + "@" + host(fails)},
		},
		{
			"name": "tls", "url": failsTLS.URL + "/?" + canary,
			"http": object{"tls_config": object{"cert": certificate, "key": key}},
		},
		{
			"name": "tls-insecure", "url": failsTLS.URL + "/?" + canary, "headers": object{"X-Key": canary},
			"http": object{"tls_config": object{
				"cert": certificate, "key_file": file("key", key),
				"insecure_skip_verify": true,
			}},
		},
		{"name": "nowhere", "url": "http://user:" + canary + "@nowhere.invalid/?" + canary},
		{"name": "closed", "url": "http://user:" + canary + "@" + closed + "/?" + canary},
		{
			"name": "refused", "url": "http://user:" + canary + "@example.com/?" + canary,
			"http": object{"proxy_url": "http://user:" + canary + "@169.254.169.254:3128"},
		},
	}
	for _, e := range endpoints {
		e["retry"], e["timeout"] = object{"schedule": []string{"1s"}}, "2s"
	}
	settings := object{
		"listen": "127.0.0.1:0", "data_dir": filepath.Join(folder, "data"), "shutdown_timeout": "1s",
		"database_url": withPassword.String(), "encryption_key": encryption,
		"log":     object{"level": "debug"},
		"tracing": object{"endpoint": fails.URL},
		"auth": object{"tokens": []any{object{
			"token": canary + canary,
			"user":  "admin@example.com", "role": "admin",
		}}},
		"webhook": object{"endpoints": endpoints},
		"egress":  object{"user_urls": object{"allow_networks": []string{"127.0.0.0/8"}}},
		"files": object{"s3": object{
			"endpoint": fails.URL, "bucket": "bucket", "access_key": canary + "access",
			"secret_key": object{"env": "CANARY"},
		}},
		"connectors": object{"presets": []any{object{
			"url": fails.URL + "/mcp", "client_id": "id",
			"client_secret": canary,
		}}},
	}
	write := func(settings object) string {
		text, err := json.Marshal(settings)
		if err != nil {
			t.Fatal(err)
		}
		return file("tidings.yaml", string(text))
	}
	config := write(settings)
	secrets := []string{signing[:20], encryption[:20], basic, strings.Split(key, "\n")[1]}
	env := []string{
		"CANARY=" + canary,
		"OTEL_EXPORTER_OTLP_HEADERS=Authorization Bearer " + canary + ",X-A:" + canary + "=1,X-B=%zz" +
			canary + ",X-C=" + canary,
		"OTEL_EXPORTER_OTLP_TIMEOUT=" + canary, "OTEL_EXPORTER_OTLP_ENDPOINT=http://u:" + canary + "%zz@h",
		"OTEL_BSP_SCHEDULE_DELAY=100",
	}

	all := new(buffer) // the output of every command and request
	check, err := run(t.Context(), tidings, env, "check", config).CombinedOutput()
	if err != nil {
		t.Fatalf("check: %v\n%s", err, check)
	}
	_, _ = all.Write(check)
	server := run(context.WithoutCancel(t.Context()), tidings, env, "serve", "--config", config)
	server.Stdout, server.Stderr = all, all
	child.EndWithUs(server, syscall.SIGKILL)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if server.ProcessState == nil {
			_ = server.Process.Kill()
			_ = server.Wait()
		}
	})
	await := func(what string) string {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; {
			if _, after, ok := strings.Cut(all.String(), what); ok {
				return after
			}
			if time.Now().After(deadline) {
				t.Fatalf("%q was never printed:\n%s", what, all)
			}
			<-time.After(10 * time.Millisecond)
		}
	}
	address, _, _ := strings.Cut(await("msg=ready address="), " ")

	request := func(method, path string, body io.Reader, contentType string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, "http://"+address+path, body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+canary+canary)
		r.Header.Set("Content-Type", contentType)
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		fmt.Fprintf(all, "\n%s %s: %s\n", method, path, response.Status)
		if _, err := io.Copy(all, response.Body); err != nil {
			t.Fatal(err)
		}
	}
	asJSON := func(method, path string, body any) {
		t.Helper()
		text, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		request(method, path, bytes.NewReader(text), "application/json")
	}
	for range 6 {
		asJSON("POST", "/api/v1/contexts", object{})
	}
	asJSON("POST", "/api/v1/model_providers", object{"type": "openai", "base_url": fails.URL, "api_key": canary})
	asJSON("POST", "/api/v1/model_providers", object{"type": "anthropic", "base_url": takes.URL, "api_key": canary})
	asJSON("POST", "/api/v1/model_providers", object{
		"type": "openai", "base_url": "http://u:" + canary + "@h",
		"api_key": canary + "\n",
	})
	asJSON("POST", "/api/v1/connectors", object{"url": fails.URL + "/mcp", "client_id": "id", "client_secret": canary})
	asJSON("PUT", "/api/v1/variables", object{"variables": object{"KEY": []string{canary}}})
	request("POST", "/api/v1/contexts", strings.NewReader(`{"metadata": {"a": "`+canary), "application/json")
	request("POST", "/api/v1/files",
		strings.NewReader("--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\nContent-Type: "+
			"text/plain\r\n\r\nx\r\n--b--\r\n"), "multipart/form-data; boundary=b")
	await("traces could not be sent")

	operator := func(args ...string) {
		t.Helper()
		out, err := run(t.Context(), tidings, []string{
			"TIDINGS_URL=http://user:" + canary + "@" + address,
			"TIDINGS_TOKEN=" + canary + canary,
		}, args...).CombinedOutput()
		fmt.Fprintf(all, "\n$ tidings %s: %v\n%s", args, err, out)
	}
	operator("endpoints", "test")
	for _, args := range [][]string{
		{"endpoints"},
		{"endpoints", "show", "headers"},
		{"attempts"},
		{"attempts", "--json"},
		{"parked"},
		{"problems"},
		{"status"},
		{"events", "--json"},
		{"replays"},
	} {
		operator(args...)
	}
	asJSON("GET", "/api/v1/webhooks/endpoints", nil)
	asJSON("GET", "/api/v1/connectors/presets", nil)
	asJSON("GET", "/metrics", nil)

	// Reload an invalid configuration.
	settings["database_url"] = "postgres://u:p@" + canary + "/w#rd@h/db"
	endpoints[2]["headers"] = object{"X-Secret: " + canary: ""}
	endpoints[13]["http"] = object{"proxy_url": "http://u:%zz" + canary + "@h"}
	write(settings)
	operator("reload")
	if err := server.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	await("the configuration was not reloaded")
	if err := database.Kill(); err != nil { // statements in flight and all later ones fail
		t.Fatal(err)
	}
	asJSON("POST", "/api/v1/contexts", object{})
	asJSON("GET", "/readyz", nil)
	if err := server.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = server.Wait() // without a database it can't save its cursors

	output := all.String()
	if found := shows(output, secrets...); found != nil {
		t.Errorf("shown:\n%s", strings.Join(found, ""))
	}
	for _, want := range []string{
		"outcome=http_500", "outcome=tls", "outcome=connect", "outcome=dns",
		"outcome=blocked_address", "the store responded", "<secret>", "OpenTelemetry",
	} {
		if !strings.Contains(output, want) {
			t.Errorf("no %q in the output: the test does not cover what it should", want)
		}
	}
	if t.Failed() {
		t.Logf("output:\n%s", output)
	}
}

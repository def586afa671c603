package config_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/internal/config"
)

func write(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tidings.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMinimalConfiguration(t *testing.T) {
	path := write(t, `
webhook:
  endpoints:
    - url: https://user:pw@example.com/webhook?token=x
      headers:
        Authorization: Bearer my-secret-token
      events: ["*"]
`)
	cfg, err := config.Load(config.Input{Files: []string{path}})
	if err != nil {
		t.Fatal(err)
	}
	receivers, err := cfg.Receivers()
	if err != nil {
		t.Fatal(err)
	}
	r := receivers[0]
	if r.Name != "example.com/webhook?9099b8" || r.Headers.Get("Authorization") != "Bearer my-secret-token" || r.Disabled {
		t.Errorf("receiver = %q, disabled %v", r.Name, r.Disabled)
	}
}

func TestLaterSourcesWin(t *testing.T) {
	path := write(t, "listen: 127.0.0.1:1\ndata_dir: a\nlog: {level: warn}\n")
	cfg, err := config.Load(config.Input{
		Files:   []string{path},
		Environ: []string{"TIDINGS_LISTEN=127.0.0.1:2", "TIDINGS_DATA_DIR=b", "TIDINGS_PORT=tcp://10.0.0.1:80"},
		Flags:   map[string]string{"listen": "127.0.0.1:3"},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := []string{cfg.Listen, cfg.DataDir, cfg.Log.Level}
	if diff := cmp.Diff([]string{"127.0.0.1:3", "b", "warn"}, got); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
}

// Unlike a YAML file, an environment variable may contain invalid UTF-8.
func TestTextOfVariables(t *testing.T) {
	_, err := config.Load(config.Input{Environ: []string{"TIDINGS_WEBHOOK_SOURCE=caf\xe9"}})
	if want := "environment variable TIDINGS_WEBHOOK_SOURCE: webhook.source: is not valid UTF-8"; err == nil ||
		err.Error() != want {
		t.Errorf("error = %v, want %s", err, want)
	}
}

func TestLoadReportsAllProblemsWithPositions(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		want []string
	}{
		"shape": {"listne: x\nlog: loud\nfiles:\n  max_size: big\n", []string{
			`:1:1: unknown key "listne"; did you mean "listen"?`,
			`:2:6: log: expected a mapping`,
			`:4:13: files.max_size: expected a size`,
		}},
		"meaning": {`auth: {disabled: true}
listen: 0.0.0.0:8333
webhook:
  endpoints:
    - url: ftp://user:hunter2@example.com
    - url: https://example.com/a
      events: [provider.create]
      secret: whsec_hunter2
    - url: https://example.com/a
      headers: {Host: hunter2, X-A: "hunter2\nb"}
    - name: nowhere
`, []string{
			`:1:18: auth.disabled: without authentication, `,
			`:5:12: webhook.endpoints[0].url: the URL must begin with http:// or https://`,
			`:7:16: webhook.endpoints[1].events[0]: pattern "provider.create" matches no event; did you mean ` +
				`"provider.created"?`,
			`:8:15: webhook.endpoints[1].secret: after "whsec_", a secret must be`,
			`:9:12: webhook.endpoints[2].url: webhook.endpoints[1] has the same URL; give one of them a name`,
			`:10:23: webhook.endpoints[2].headers.Host: header Host cannot be configured`,
			`:10:37: webhook.endpoints[2].headers.X-A: the value of header X-A contains a line break`,
			`:11:7: webhook.endpoints[3]: url is missing`,
		}},
		"successors": {`webhook:
  endpoints:
    - {name: a, url: "https://a.example.com", cursor_from: old}
    - {name: b, url: "https://b.example.com"}
    - {name: c, url: "https://c.example.com", cursor_from: old}
`, []string{
			`:5:60: webhook.endpoints[2].cursor_from: webhook.endpoints[0].cursor_from names the same endpoint`,
		}},
		"secrets": {`# common mistakes

webhook:
  endpoints:
    - url: https://user:p@ss/hunter2@example.com
      name: https://user:hunter2@example.com
      headers: {"X-Secret: hunter2": ""}
      http: {proxy_url: "http://user:hunter2%zz@proxy:3128", basic_auth: hunter2}
    - url: https://example.com
      http: {http_headers: {"X-Secret: hunter2": {values: [x]}, X-A: {secrets: ["hunter2\n"]}}}
      secret: {env: "whsec_hunter2="}
`, []string{
			`:5:12: webhook.endpoints[0].url: the URL has an "@" or "#" after its host`,
			`:6:13: webhook.endpoints[0].name: must not be a URL`,
			`:7:17: webhook.endpoints[0].headers: a header name contains an invalid character, such as a space ` +
				`or colon; write the name as the key`,
			`:8:25: webhook.endpoints[0].http.proxy_url: not a valid URL; special characters in a user name or ` +
				`password must be percent-encoded: %40 for "@"`,
			`:8:74: webhook.endpoints[0].http.basic_auth: expected a mapping`,
			`:10:29: webhook.endpoints[1].http.http_headers[]: a header name contains`,
			`:10:65: webhook.endpoints[1].http.http_headers.X-A: the value of header X-A contains a line break`,
			`:11:15: webhook.endpoints[1].secret: env expects an environment variable's name, not its value`,
		}},
		"passwords in URLs": {`database_url: "postgres://u:p@ss/w#rd@h/hunter2"
tracing: {endpoint: "http://u:hunter2@localhost:4318"}
files: {s3: {endpoint: "https://u:hunter2@localhost", bucket: b, access_key: hunter2, secret_key: hunter2}}
connectors: {presets: [{url: "https://u:hunter2@mcp.example.com"}]}
webhook:
  endpoints:
    - url: https://user:p@ss/hunter2@example.com
    - url: https://example.com
      name: https://user:hunter2@example.com
`, []string{
			`:1:15: database_url: expected a PostgreSQL URL, such as ` +
				`"postgres://user:password@host:5432/tidings": the URL has an "@" or "#" after its host: if it ` +
				`is part of a password, special characters there must be percent-encoded (%40 for "@"`,
			`:2:21: tracing.endpoint: must not contain a user name or password; set the collector's headers in ` +
				`OTEL_EXPORTER_OTLP_HEADERS`,
			`:3:24: files.s3.endpoint: must not contain a user name or password; use access_key and secret_key`,
			`:4:30: connectors.presets[0].url: must not contain a user name or password; every user sees it`,
			`:7:12: webhook.endpoints[0].url: the URL has an "@" or "#" after its host`,
			`:9:13: webhook.endpoints[1].name: must not be a URL`,
		}},
		"everything": {`listen: [here]
files: {max_size: 9GiB, s3: {bucket: b, secret_key: {}}, user_quota: big}
database: {max_connections: 2}
database_url: {nothing: hunter2}
limits: {scans: many, user_scans: 500, burst: 0}
auth: {tokens: [{token: {envv: x}, user: 1, role: king}]}
log: {level: loud}
webhook:
  endpoints:
    - url: https://example.com/a
      headers: {X-A: hunter2, x-a: hunter2, "no name": hunter2}
      http: {proxy_url: "http://user:hunter2%zz@proxy:3128"}
      events: [nothing.at_all]
    - {url: [], name: [], timeout: 0s, max_in_flight: 5000}
    - url: https://example.com/b
      headers: {X-A: hunter2, x-a: hunter2}
    - {urll: https://example.com/c, partitions: 0}
    - https://example.com/d
    - {url: https://example.com/e, max_in_flight: 1, partitions: 2}
`, []string{
			`:1:9: listen: expected a string`,
			`:2:19: files.max_size: must be at most 5GiB with an S3 store`,
			`:2:29: files.s3.endpoint: the URL must begin with`,
			`:2:29: files.s3: set both access_key and secret_key`,
			`:2:53: files.s3.secret_key: expected a string, or`,
			`:2:70: files.user_quota: expected a size`,
			`:3:29: database.max_connections: must be from 6 to 262143; omit it for the default`,
			`:4:15: database_url: `,
			`:5:17: limits.scans: expected a whole number`,
			`:5:47: limits.burst: must be at least 1`,
			`:6:25: auth.tokens[0].token: `,
			`:6:42: auth.tokens[0].user: expected an e-mail address`,
			`:6:51: auth.tokens[0].role: expected one of user, developer, admin, reader`,
			`:7:14: log.level: expected one of`,
			`:11:36: webhook.endpoints[0].headers.x-a: header X-A is already set by headers.X-A`,
			`:11:45: webhook.endpoints[0].headers: a header name contains an invalid`,
			`:12:25: webhook.endpoints[0].http.proxy_url: not a valid URL`,
			`:13:16: webhook.endpoints[0].events[0]: pattern "nothing.at_all" matches no event`,
			`:14:13: webhook.endpoints[1].url: expected a string`,
			`:14:23: webhook.endpoints[1].name: expected a string`,
			`:14:36: webhook.endpoints[1].timeout: must be more than 0`,
			`:14:55: webhook.endpoints[1].max_in_flight: must be from 1 to 1000`,
			`:16:36: webhook.endpoints[2].headers.x-a: header X-A is already set by headers.X-A`,
			`:17:7: webhook.endpoints[3]: url is missing`,
			`:17:8: webhook.endpoints[3]: unknown key "urll"; did you mean "url"?`,
			`:17:49: webhook.endpoints[3].partitions: must be from 1 to 64`,
			`:18:7: webhook.endpoints[4]: expected a mapping`,
			`:19:66: webhook.endpoints[5].partitions: must not be more than max_in_flight (1)`,
		}},
		"parameters of a URL": {"database_url: postgres://h/d?sslmode=hunter2&connect_timeout=x\n", []string{
			`:1:15: database_url: the parameter sslmode is invalid: expected one of disable, allow, prefer, ` +
				`require, verify-ca, verify-full; the parameter connect_timeout is`,
		}},
		"connections in a URL": {"database_url: postgres://h/d?pool_max_conns=2\n", []string{
			`:1:15: database_url: the parameter pool_max_conns must be from 6 to 262143`,
		}},
		"http": {"webhook:\n  endpoints:\n    - url: https://example.com\n      http:\n        tls_config:\n         " +
			" ca_fil: x\n", []string{
			`:6:11: webhook.endpoints[0].http.tls_config: unknown key "ca_fil"; did you mean "ca_file"?`,
		}},
		"http headers": {"webhook:\n  endpoints:\n    - url: https://example.com\n      http:\n        " +
			"http_headers:\n          X-A: {values: [a]}\n          X-B: {files: [/nowhere]}\n", []string{
			`:5:9: webhook.endpoints[0].http: secret file: open /nowhere: no such file or directory`,
		}},
		"text": {"webhook: {source: \"a\\0b\"}\nconnectors: {presets: [{url: https://a, metadata: {\"k\\0\": v, k: " +
			"\"\\0\"}}]}\n", []string{
			`:1:19: webhook.source: contains a NUL character`,
			`:2:52: connectors.presets[0].metadata: one of its keys contains a NUL character`,
			`:2:65: connectors.presets[0].metadata.k: contains a NUL character`,
		}},
		"schema": {"database_schema: my-hooks\ndatabase_url: postgres://db/x\n", []string{
			`:1:18: database_schema: expected a schema name: at most 63 ASCII letters`,
		}},
		"schema of PostgreSQL": {"database_schema: pg_hooks\ndatabase_url: postgres://db/x\n", []string{
			`:1:18: database_schema: is reserved by PostgreSQL`,
		}},
		"schema without PostgreSQL": {"database_schema: hooks\n", []string{
			`:1:18: database_schema: requires PostgreSQL; set database_url`,
		}},
		"headers": {`webhook:
  endpoints:
    - url: https://example.com/a
      headers:
        X-Key: hunter2
        x-key: hunter2
        user-agent: a
        TRAILER: hunter2
        upgrade: hunter2
        expect: 100-continue
        Accept-encoding: gzip
        HTTP2-Settings: hunter2
    - url: https://example.com/b
      headers: {Authorization: hunter2, x-key: hunter2, transfer-encoding: hunter2}
      http:
        basic_auth: {username: a, password: hunter2}
        http_headers: {X-KEY: {values: [hunter2]}, X-Other: {values: [a]}, x-other: {secrets: [b]}}
    - url: https://user:hunter2@example.com/c
      http: {bearer_token: hunter2}
    - url: https://example.com/d
      headers: {authorization: hunter2}
      http:
        oauth2: {client_id: a, client_secret: hunter2, token_url: "https://example.com"}
        proxy_url: http://localhost:1
        proxy_connect_header: {X-A: [hunter2], x-a: [hunter2]}
`, []string{
			`:6:16: webhook.endpoints[0].headers.x-key: header X-Key is already set by headers.X-Key; ` +
				`set it in one place`,
			`:8:18: webhook.endpoints[0].headers.TRAILER: header TRAILER cannot be configured`,
			`:9:18: webhook.endpoints[0].headers.upgrade: header upgrade cannot be configured`,
			`:10:17: webhook.endpoints[0].headers.expect: header expect cannot be configured: the receiver would wait`,
			`:11:26: webhook.endpoints[0].headers.Accept-encoding: header Accept-encoding cannot be configured: ` +
				`responses are not decompressed`,
			`:12:25: webhook.endpoints[0].headers.HTTP2-Settings: header HTTP2-Settings cannot be configured: it ` +
				`belongs to the connection`,
			`:14:76: webhook.endpoints[1].headers.transfer-encoding: header transfer-encoding cannot be configured`,
			`:16:21: webhook.endpoints[1].http.basic_auth: header Authorization is already set by headers.Authorization`,
			`:17:31: webhook.endpoints[1].http.http_headers.X-KEY: header X-Key is already set by headers.x-key`,
			`:17:85: webhook.endpoints[1].http.http_headers.x-other: header X-Other is already set by ` +
				`http.http_headers.X-Other`,
			`:19:13: webhook.endpoints[2].http.authorization: header Authorization is already set by the user and ` +
				`password of url`,
			`:23:17: webhook.endpoints[3].http.oauth2: header Authorization is already set by headers.authorization`,
			`:25:54: webhook.endpoints[3].http.proxy_connect_header.x-a: header X-A is already set by ` +
				`http.proxy_connect_header.X-A`,
		}},
		"headers of the connection": {`webhook:
  endpoints:
    - url: https://example.com
      http:
        http_headers: {Transfer-Encoding: {values: [hunter2]}, te: {values: [hunter2]}}
        proxy_url: http://localhost:1
        proxy_connect_header: {Host: [hunter2]}
`, []string{
			`:5:24: webhook.endpoints[0].http.http_headers.Transfer-Encoding: header Transfer-Encoding cannot be configured`,
			`:5:64: webhook.endpoints[0].http.http_headers.te: header te cannot be configured`,
			`:7:32: webhook.endpoints[0].http.proxy_connect_header.Host: header Host cannot be configured`,
		}},
		"missing files and no events": {"webhook:\n  endpoints:\n    - url: https://example.com\n      " +
			"events: []\n      http: {oauth2: {client_id: a, token_url: 'https://example.com', tls_config: {ca_file: " +
			"/nowhere}}}\n", []string{
			`:4:15: webhook.endpoints[0].events: is empty, `,
			`:5:13: webhook.endpoints[0].http: oauth2: unable to read CA cert`,
		}},
		"reserved http headers": {"webhook:\n  endpoints:\n    - url: https://example.com\n      http:\n        " +
			"http_headers: {User-Agent: {values: [a]}}\n", []string{
			`:5:9: webhook.endpoints[0].http: setting header "User-Agent" is not allowed here; use the endpoint's headers`,
		}},
		"s3": {"files:\n  max_size: 6GiB\n  s3:\n    endpoint: s3.example.com\n    access_key: x\n", []string{
			`:2:13: files.max_size: must be at most 5GiB with an S3 store`,
			`:4:5: files.s3: bucket is missing`,
			`:4:5: files.s3: set both access_key and secret_key`,
			`:4:5: files.s3: requires PostgreSQL`,
			`:4:15: files.s3.endpoint: the URL must begin with http:// or https://`,
		}},
		"limits": {
			"limits:\n  requests_per_second: .nan\n  burst: -1\n  user_body_memory: 1MiB\n  scans: 1\n",
			[]string{
				`:2:3: limits.user_scans: must not be more than limits.scans, the limit for all users together`,
				`:2:24: limits.requests_per_second: must be from 0.001 to 1000000`,
				`:3:10: limits.burst: must be at least 1`,
				`:4:21: limits.user_body_memory: must be at least 16MiB`,
			},
		},
		"connections to endpoints": {"webhook: {max_connections: 0}\n", []string{
			`:1:28: webhook.max_connections: must be from 1 to 50000: one for each request under way; the default is 512`,
		}},
		"connections": {"database: {max_connections: 5}\n", []string{
			`:1:29: database.max_connections: must be from 6 to 262143; omit it for the default`,
			`:1:29: database.max_connections: requires PostgreSQL; set database_url`,
		}},
		"connections, set twice": {
			"database_url: postgres://db/x?pool_max_conns=9\ndatabase: {max_connections: 9}\n",
			[]string{
				`:2:29: database.max_connections: set either this or pool_max_conns in database_url, not both`,
			},
		},
		"retry": {
			"webhook:\n  endpoints:\n    - url: https://example.com\n      retry: {schedule: [5s, 0s], " +
				"max_attempts: 101, max_age: soon}\n    - url: https://example.org\n      retry: {schedule: 5s}\n",
			[]string{
				`:4:30: webhook.endpoints[0].retry.schedule[1]: must be more than 0`,
				`:4:49: webhook.endpoints[0].retry.max_attempts: must be from 1 to 100`,
				`:4:63: webhook.endpoints[0].retry.max_age: expected a duration such as`,
				`:6:25: webhook.endpoints[1].retry.schedule: expected a list`,
			},
		},
		"retry limits": {"webhook:\n  endpoints:\n    - url: https://example.com\n      retry: {schedule: [5s, 0s], " +
			"max_attempts: 101}\n", []string{
			`:4:30: webhook.endpoints[0].retry.schedule[1]: must be more than 0`,
			`:4:49: webhook.endpoints[0].retry.max_attempts: must be from 1 to 100`,
		}},
		"syntax": {"a: [", []string{`:1:1: not valid YAML`}},
		"anchor": {
			"webhook:\n  source: *hunter2\n",
			[]string{`:2:11: not valid YAML: a value that begins with "*" is an alias`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, tt.text)
			_, err := config.Load(config.Input{Files: []string{path}})
			if err == nil {
				t.Fatal("no error")
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error contains a secret: %v", err)
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(tt.want) {
				t.Fatalf("problems:\n%v\nwant %d", err, len(tt.want))
			}
			for i, want := range tt.want {
				if !strings.HasPrefix(lines[i], path+want) {
					t.Errorf("problem %d:\n got %s\nwant %s", i, lines[i], want)
				}
			}
		})
	}
}

func FuzzLoad(f *testing.F) {
	f.Add("webhook: {endpoints: [{url: 'https://a', events: ['*']}]}")
	f.Add("a: &a [*a]")
	f.Add("log: {level: debug}\nlisten: :1\n")
	f.Fuzz(func(t *testing.T, text string) {
		cfg, err := config.Load(config.Input{Files: []string{write(t, text)}})
		if err == nil && cfg.Listen == "" {
			t.Error("accepted an empty listen address")
		}
	})
}

// A later file's list of endpoints replaces the first file's, so headers are compared
// within one endpoint. A problem names the right file.
func TestHeadersOfSeveralFiles(t *testing.T) {
	first := write(t, "webhook: {endpoints: [{url: 'https://example.com', headers: {X-Key: a}}]}")
	second := write(t, "webhook: {endpoints: [{url: 'https://example.com', headers: {x-key: b}}]}")
	twice := write(t, "webhook: {endpoints: [{url: 'https://example.com', headers: {x-key: b, X-KEY: c}}]}")
	for range 20 { // map order is random
		cfg, err := config.Load(config.Input{Files: []string{first, second}})
		if err != nil {
			t.Fatal(err)
		}
		receivers, err := cfg.Receivers()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(http.Header{"X-Key": {"b"}}, receivers[0].Headers); diff != "" {
			t.Fatal(diff)
		}
		want := twice + ":1:69: webhook.endpoints[0].headers.x-key: header X-Key is already set by headers.X-KEY"
		if _, err := config.Load(config.Input{Files: []string{first, twice}}); err == nil ||
			!strings.HasPrefix(err.Error(), want) {
			t.Fatalf("error = %v", err)
		}
	}
}

func TestLaterFilesWin(t *testing.T) {
	first := write(t, "listen: 127.0.0.1:1\nlog: {level: warn, format: json}\nwebhook: {source: /a, endpoints: "+
		"[{url: 'https://example.com/a'}]}\n")
	second := write(t, "log: {level: debug}\nwebhook: {endpoints: [{url: 'https://example.com/b'}]}\n")
	cfg, err := config.Load(config.Input{Files: []string{first, second}})
	if err != nil {
		t.Fatal(err)
	}
	got := []string{cfg.Listen, cfg.Log.Level, cfg.Log.Format, cfg.Webhook.Source, cfg.Webhook.Endpoints[0].Name}
	if diff := cmp.Diff([]string{"127.0.0.1:1", "debug", "json", "/a", "example.com/b"}, got); diff != "" {
		t.Error(diff)
	}
	before := cfg.Digest()
	if err := os.WriteFile(second, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if cfg.Digest() == before {
		t.Error("changing the second file does not change the digest")
	}
}

package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"net"
	"net/mail"
	"net/netip"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"golang.org/x/net/http/httpguts"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/pgurl"
	"github.com/tidings-dev/tidings/sender"
	"github.com/tidings-dev/tidings/vocabulary"
)

// check validates decoded settings.
func (d *decoder) check(cfg *Config) {
	d.checkMode(cfg)
	d.checkServer(cfg)
	d.checkAuth(cfg)
	d.checkTrustedHeader(cfg.Console.TrustedHeader)
	names := make(map[string]int)
	for i := range cfg.Webhook.Endpoints {
		d.checkEndpoint(&cfg.Webhook.Endpoints[i], fmt.Sprintf("webhook.endpoints[%d]", i), cfg.types, cfg.EndpointEgress())
		d.checkName(&cfg.Webhook.Endpoints[i], i, names)
		if all := cfg.Webhook.MaxConnections; cfg.Webhook.Endpoints[i].MaxInFlight > all && all > 0 {
			d.warn(fmt.Sprintf("webhook.endpoints[%d].max_in_flight", i), fmt.Sprintf("all endpoints together have at "+
				"most %d requests under way (webhook.max_connections); raise that, or lower this", all))
		}
	}
	successors := make(map[string]int)
	for i, e := range cfg.Webhook.Endpoints {
		key := fmt.Sprintf("webhook.endpoints[%d].cursor_from", i)
		if first, taken := successors[e.CursorFrom]; taken && e.CursorFrom != "" {
			claim := cursorClaim(e.CursorFrom)
			message := "webhook.endpoints[%d].cursor_from names the same endpoint; only one endpoint can take over its cursor"
			d.conflict(half{key, claim, fmt.Sprintf(message, first)},
				half{fmt.Sprintf("webhook.endpoints[%d].cursor_from", first), claim, fmt.Sprintf(message, i)})
		} else {
			successors[e.CursorFrom] = i
		}
		if other, configured := names[e.CursorFrom]; configured {
			d.conflict(half{key, cursorClaim(e.CursorFrom), fmt.Sprintf(
				"webhook.endpoints[%d] has that name and uses the cursor; name an endpoint that was removed", other)},
				half{fmt.Sprintf("webhook.endpoints[%d].name", other), nameClaim(e.CursorFrom), fmt.Sprintf(
					"webhook.endpoints[%d].cursor_from takes over the cursor of an endpoint with that name", i)})
		}
	}
	for i, p := range cfg.Connectors.Presets {
		key := fmt.Sprintf("connectors.presets[%d]", i)
		d.checkPlainURL(key+".url", p.URL, "every user sees it")
		d.readable(key+".client_secret", p.ClientSecret)
	}
}

func (d *decoder) checkServer(cfg *Config) {
	host, port, err := net.SplitHostPort(cfg.Listen)
	if err != nil {
		d.at("listen", `expected HOST:PORT, such as "127.0.0.1:8333" or ":8333"`)
	} else if n, err := strconv.Atoi(port); err == nil && (n < 0 || n > math.MaxUint16) {
		d.at("listen", "the port must be at most 65535")
	}
	if cfg.Auth.Disabled && err == nil && !isLoopback(host) {
		d.at("auth.disabled",
			"without authentication, the server listens only on loopback; set listen to 127.0.0.1:8333, or configure "+
				"auth.tokens")
	}
	if cfg.DataDir == "" {
		d.at("data_dir", "must name a directory")
	}
	if text := d.readable("database_url", cfg.DatabaseURL); text != "" {
		if _, err := pgurl.Parse(text); err != nil {
			d.at("database_url", "%v", err)
		}
	}
	d.checkSchema(cfg)
	d.checkEncryption(cfg)
	d.oneOf("log.level", cfg.Log.Level, "debug", "info", "warn", "error")
	d.oneOf("log.format", cfg.Log.Format, "text", "json")
	for key, interval := range map[string]Duration{
		"providers.check_interval":       cfg.Providers.CheckInterval,
		"model_providers.check_interval": cfg.ModelProviders.CheckInterval,
		"shutdown_timeout":               cfg.ShutdownTimeout,
		"webhook.retention":              cfg.Webhook.Retention,
		"webhook.history_retention":      cfg.Webhook.HistoryRetention,
		"webhook.dead_letter_retention":  cfg.Webhook.DeadLetterRetention,
	} {
		if interval <= 0 {
			d.at(key, "must be more than 0")
		}
	}
	if n := cfg.Webhook.MaxConnections; n < 1 || n > maxConnections {
		d.at("webhook.max_connections", "must be from 1 to %d: one for each request under way; the default is %d",
			maxConnections, Default().Webhook.MaxConnections)
	}
	d.checkS3(cfg)
	d.checkLimits(&cfg.Limits)
	if cfg.ShutdownDelay < 0 {
		d.at("shutdown_delay", "must not be less than 0")
	}
	if cfg.PollOnly && d.usesSQLite(cfg) {
		d.at("poll_only", needsPostgres)
	}
	d.checkConnections(cfg)
	if cfg.Tracing.Endpoint != "" {
		u := d.checkPlainURL("tracing.endpoint", cfg.Tracing.Endpoint,
			"set the collector's headers in OTEL_EXPORTER_OTLP_HEADERS")
		if u != nil && u.RawQuery != "" {
			d.at("tracing.endpoint", `expected a collector's URL without a query, such as "http://localhost:4318"`)
		}
	}
	if ratio := cfg.Tracing.SampleRatio; !(ratio >= 0 && ratio <= 1) { // NaN is neither
		d.at("tracing.sample_ratio", "must be from 0 to 1")
	}
}

const needsPostgres = "requires PostgreSQL; set database_url"

// maxConnections is more than one machine should have to receivers: each takes a port of
// its own.
const maxConnections = 50_000

// usesSQLite reports whether no PostgreSQL database is configured.
func (d *decoder) usesSQLite(cfg *Config) bool {
	return !cfg.DatabaseURL.Set() && !d.isUnread("database_url")
}

// schemaName matches schema names that need no unusual quoting in SQL.
var schemaName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,62}$`)

func (d *decoder) checkSchema(cfg *Config) {
	switch name := cfg.DatabaseSchema; {
	case !schemaName.MatchString(name):
		d.at("database_schema",
			"expected a schema name: at most 63 ASCII letters, digits and underscores, not starting with a digit")
	case strings.HasPrefix(strings.ToLower(name), "pg_") || name == "information_schema":
		d.at("database_schema", "is reserved by PostgreSQL; choose another schema")
	case name != Default().DatabaseSchema && d.usesSQLite(cfg):
		d.at("database_schema", needsPostgres)
	}
}

func (d *decoder) checkConnections(cfg *Config) {
	const key = "database.max_connections"
	if !d.given(key) {
		return
	}
	if n := cfg.Database.MaxConnections; n < pgurl.MinConnections || n > pgurl.MaxConnections {
		d.at(key, "must be from %d to %d; omit it for the default", pgurl.MinConnections, pgurl.MaxConnections)
	}
	if d.usesSQLite(cfg) {
		d.at(key, needsPostgres)
	}
	text, err := cfg.DatabaseURL.Read()
	if u, err2 := url.Parse(text); err == nil && err2 == nil && u.Query().Has("pool_max_conns") {
		d.at(key, "set either this or pool_max_conns in database_url, not both")
	}
}

// s3Limit is the size of the largest object that S3 copies in one request.
const s3Limit = 5 << 30

func (d *decoder) checkS3(cfg *Config) {
	s := cfg.Files.S3
	if s == (S3{}) {
		return
	}
	u := d.checkPlainURL("files.s3.endpoint", s.Endpoint, "use access_key and secret_key")
	if u != nil && (strings.Trim(u.Path, "/") != "" || u.RawQuery != "") {
		d.at("files.s3.endpoint", `expected the store's URL without a path, such as "https://s3.example.com"`)
	}
	if s.Bucket == "" && !d.isUnread("files.s3.bucket") {
		d.at("files.s3", "bucket is missing")
	}
	access, secret := d.readable("files.s3.access_key", s.AccessKey), d.readable("files.s3.secret_key", s.SecretKey)
	if (access == "" && !d.isUnread("files.s3.access_key")) || (secret == "" && !d.isUnread("files.s3.secret_key")) {
		d.at("files.s3", "set both access_key and secret_key")
	}
	if cfg.Files.MaxSize > s3Limit {
		d.at("files.max_size", "must be at most 5GiB with an S3 store")
	}
	if d.usesSQLite(cfg) {
		d.at("files.s3", needsPostgres)
	}
}

// LargestBody is the size in bytes of the largest request body that is decoded as
// a whole. The body memory must hold at least one such body.
const LargestBody = 16 << 20

func (d *decoder) checkLimits(l *Limits) {
	if !isRate(l.RequestsPerSecond) {
		d.at("limits.requests_per_second", expectedRate)
	}
	v := reflect.ValueOf(*l)
	fields := fieldsOf(v.Type())
	for name, index := range fields {
		f := v.FieldByIndex(index)
		switch {
		case !f.CanInt():
		case f.Int() < 1:
			d.at("limits."+name, "must be at least 1")
		case f.Kind() == reflect.Int && f.Int() > math.MaxInt32:
			d.at("limits."+name, "must be at most %d", math.MaxInt32)
		}
		all, perUser := strings.CutPrefix(name, "user_")
		if of, ok := fields[all]; perUser && ok && !d.isUnread("limits."+all) && f.Int() > v.FieldByIndex(of).Int() {
			d.at("limits."+name, "must not be more than limits.%s, the limit for all users together", all)
		}
	}
	if l.UserBodyMemory < LargestBody {
		d.at("limits.user_body_memory", "must be at least 16MiB, the largest request body")
	}
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	address, err := netip.ParseAddr(host)
	return err == nil && address.IsLoopback()
}

func (d *decoder) checkAuth(cfg *Config) {
	for i, email := range cfg.Auth.AdminEmails {
		d.email(fmt.Sprintf("auth.admin_emails[%d]", i), email)
	}
	for i, t := range cfg.Auth.Tokens {
		key := fmt.Sprintf("auth.tokens[%d]", i)
		d.checkToken(key, t)
		if cfg.Relay {
			if t.User == "" || len(t.User) > 200 || strings.ContainsFunc(t.User, unicode.IsControl) {
				d.at(key+".user", "expected the name of the token's user, at most 200 bytes")
			}
			d.oneOf(key+".role", t.Role, "publisher", "reader", "operator", "admin")
			continue
		}
		d.email(key+".user", t.User)
		d.oneOf(key+".role", t.Role, "user", "developer", "admin", "reader")
	}
}

func (d *decoder) checkTrustedHeader(t TrustedHeader) {
	const key = "console.trusted_header"
	switch {
	case t.Name == "" && len(t.Networks)+len(t.Roles) > 0 && !d.isUnread(key+".name"):
		d.at(key, "name is missing: the header in which the proxy sends the user's name")
	case t.Name == "":
		return
	case !httpguts.ValidHeaderFieldName(t.Name):
		d.at(key+".name", "expected a header name, such as X-Forwarded-User")
	}
	if len(t.Networks) == 0 && !d.isUnread(key+".networks") {
		d.at(key, "networks is missing: the proxy's addresses, without which anybody could set the header")
	}
	if len(t.Roles) == 0 && !d.isUnread(key+".roles") {
		d.at(key, `roles is missing; for example, {sam@example.com: admin, "*": reader}`)
	}
	for user, role := range t.Roles {
		at := key + ".roles[]" // anything but an address may be a secret
		if _, err := mail.ParseAddress(user); err == nil || user == "*" {
			at = key + ".roles." + user
		}
		d.oneOf(at, role, "reader", "operator", "admin")
	}
}

func (d *decoder) checkToken(key string, t Token) {
	if d.isUnread(key + ".token") {
		return
	}
	if t.Token.Set() {
		if t.SHA256 != "" {
			d.at(key+".sha256", "set either sha256 or token, not both")
		}
		if text := d.readable(key+".token", t.Token); text != "" && len(text) < minToken {
			d.at(key+".token", `must be at least %d bytes long; "tidings token" creates one`, minToken)
		}
		return
	}
	if hash, err := hex.DecodeString(t.SHA256); err != nil || len(hash) != sha256.Size {
		d.at(key+".sha256", `expected the token's SHA-256 hash in hexadecimal; "tidings token" creates both`)
	}
}

// minToken is the shortest length of a token that can't be guessed.
const minToken = 16

func (d *decoder) email(key, text string) {
	if address, err := mail.ParseAddress(text); err != nil || address.Address != text {
		d.at(key, "expected an e-mail address")
	}
}

func (d *decoder) oneOf(key, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		d.at(key, "expected one of %s", strings.Join(allowed, ", "))
	}
}

// readable returns a secret, or reports why it can't be read.
func (d *decoder) readable(key string, s SecretSource) string {
	text, err := s.Read()
	if err != nil {
		d.at(key, "%v", err)
	} else if text == "" && s.Set() {
		d.at(key, "is empty")
	}
	return text
}

func (d *decoder) checkEndpoint(e *Endpoint, key string, types vocabulary.Types, egress sender.Egress) {
	if e.URL == "" {
		if !d.isUnread(key + ".url") {
			d.at(key, "url is missing")
		}
	} else {
		d.checkEndpointURL(e, key, egress)
	}
	if e.Events != nil && len(e.Events) == 0 {
		d.at(key+".events", "is empty, so the endpoint would get no events; omit it for all events")
	}
	for i, text := range e.Events {
		p, err := types.Parse(text)
		if err != nil {
			d.at(fmt.Sprintf("%s.events[%d]", key, i), "%v", err)
		} else if _, err := d.running.Parse(text); d.running != nil && err != nil {
			d.at(fmt.Sprintf("%s.events[%d]", key, i), "%q selects events newly added by types, sources.tables or "+
				"preset; restart to apply them", text)
		}
		e.patterns = append(e.patterns, p)
	}
	d.checkHeaders(e, key)
	d.checkSecret(key+".secret", e.Secret)
	for i, s := range e.Secrets {
		d.checkSecret(fmt.Sprintf("%s.secrets[%d]", key, i), s)
	}
	d.oneOf(key+".format", e.Format, "thin", "standard", "cloudevents")
	if e.Timeout <= 0 || e.Timeout > Duration(maxTimeout) {
		d.at(key+".timeout", "must be more than 0 and at most 1h")
	}
	if e.MaxConnectionAge < Duration(time.Second) {
		d.at(key+".max_connection_age", "must be at least 1s")
	}
	if e.MaxInFlight < 1 || e.MaxInFlight > 1000 {
		d.at(key+".max_in_flight", "must be from 1 to 1000")
	}
	if _, err := time.Parse(time.RFC3339, e.Start); err != nil && e.Start != startNewest && e.Start != startOldest {
		d.at(key+".start", `expected newest, oldest or a time such as "2026-03-26T12:00:00Z"`)
	}
	d.checkRetry(key+".retry", e.Retry)
	d.oneOf(key+".coalesce", e.Coalesce, "off", "updates", "latest")
	d.oneOf(key+".history", e.History, "all", "failures", "off")
	if e.Partitions < 1 || e.Partitions > 64 {
		d.at(key+".partitions", "must be from 1 to 64")
	} else if e.MaxInFlight >= 1 && e.MaxInFlight < e.Partitions {
		d.at(key+".partitions",
			"must not be more than max_in_flight (%d): each partition needs at least one request", e.MaxInFlight)
	}
	d.checkRateLimit(key+".rate_limit", e.RateLimit)
	if err := e.HTTP.check(); err != nil {
		d.at(key+".http", "%v", err)
	}
}

// checkEndpointURL checks an endpoint's URL, and warns if it is valid but unwise.
func (d *decoder) checkEndpointURL(e *Endpoint, key string, egress sender.Egress) {
	u, err := sender.CheckURL(strings.TrimSpace(e.URL))
	switch {
	case err != nil:
		d.at(key+".url", "%v", err)
		return
	case strings.TrimSpace(e.URL) != e.URL:
		d.at(key+".url", "begins or ends with white space")
		return
	}
	if port, err := strconv.Atoi(u.Port()); err == nil && port > math.MaxUint16 {
		d.at(key+".url", "the port must be at most 65535")
	}
	address, err := netip.ParseAddr(u.Hostname())
	isLiteral := err == nil
	if isLiteral && !e.usesProxy() {
		if err := egress.Check(address); err != nil {
			d.at(key+".url", "%v", err)
		}
	}
	if e.Enabled != nil && !*e.Enabled {
		return
	}
	if u.Scheme == "http" && isPublic(u.Hostname(), address) {
		d.warn(key+".url", "plain HTTP to a public host lets others on the network read and change webhooks; use https")
	}
	if !e.Secret.Set() && len(e.Secrets) == 0 && u.User == nil && !e.authenticates() && !isLoopback(u.Hostname()) {
		d.warn(key, "the receiver can't tell webhooks from forgeries; set secret or a header such as Authorization")
	}
}

// authenticates reports whether requests authenticate the sender.
func (e *Endpoint) authenticates() bool {
	h := e.HTTP.config
	return len(e.Headers) > 0 || h != nil && (h.Authorization != nil || h.BasicAuth != nil || h.OAuth2 != nil ||
		h.BearerToken != "" || h.BearerTokenFile != "" || h.HTTPHeaders != nil || h.TLSConfig.CertFile != "" ||
		h.TLSConfig.Cert != "")
}

func (e *Endpoint) usesProxy() bool {
	h := e.HTTP.config
	return h != nil && (h.ProxyURL.URL != nil || h.ProxyFromEnvironment)
}

// privateNames are the domain suffixes of hosts on private networks.
var privateNames = []string{
	".local", ".localhost", ".internal", ".intranet", ".lan", ".home", ".corp", ".svc", ".cluster.local", ".test",
	".example", ".invalid", ".home.arpa",
}

// isPublic reports whether a host is on the Internet, judging by its name or address.
func isPublic(host string, address netip.Addr) bool {
	if address.IsValid() {
		return !address.IsLoopback() && !address.IsPrivate() && !address.IsLinkLocalUnicast() && !address.IsUnspecified()
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return strings.Contains(host, ".") &&
		!slices.ContainsFunc(privateNames, func(suffix string) bool { return strings.HasSuffix(host, suffix) })
}

// maxTimeout is longer than any receiver should take: it bounds how long a request may hold
// up later events of its resource.
const maxTimeout = time.Hour

func (d *decoder) checkRateLimit(key string, l RateLimit) {
	if d.given(key+".per_second") && !isRate(l.PerSecond) {
		d.at(key+".per_second", expectedRate+"; omit rate_limit for no limit")
	}
	if d.given(key+".burst") && (l.Burst < 1 || l.Burst > maxRate) {
		d.at(key+".burst", "must be from 1 to %d; omit it for one second's worth", maxRate)
	}
	if d.given(key+".burst") && !d.given(key+".per_second") {
		d.at(key, "per_second is missing: how many requests may start per second on average")
	}
}

// Rates are numbers per second: from one in a quarter of an hour to more than there can be.
const (
	minRate = 0.001
	maxRate = 1_000_000

	expectedRate = "must be from 0.001 to 1000000"
)

func isRate(perSecond float64) bool { return perSecond >= minRate && perSecond <= maxRate } // NaN is not

const maxAttempts = 100

func (d *decoder) checkRetry(key string, r Retry) {
	if r.Schedule != nil && len(r.Schedule) == 0 {
		d.at(key+".schedule", "is an empty list; omit it for the default, or set max_attempts: 1 for no retries")
	}
	for i, delay := range r.Schedule {
		if delay <= 0 {
			d.at(fmt.Sprintf("%s.schedule[%d]", key, i), "must be more than 0")
		}
	}
	if len(r.Schedule) >= maxAttempts {
		d.at(key+".schedule", "must list fewer than %d delays", maxAttempts)
	}
	if d.given(key+".max_attempts") && (r.MaxAttempts < 1 || r.MaxAttempts > maxAttempts) {
		d.at(key+".max_attempts", "must be from 1 to %d; omit it for one more than the schedule has delays", maxAttempts)
	}
	if d.given(key+".max_age") && r.MaxAge <= 0 {
		d.at(key+".max_age", "must be more than 0; omit it for no limit")
	}
}

func (d *decoder) checkSecret(key string, s SecretSource) {
	if !s.Set() {
		return
	}
	if text := d.readable(key, s); text != "" {
		if err := sender.CheckSecret(text); err != nil {
			d.at(key, `%v; "tidings secret" creates one`, err)
		}
	}
}

// checkName sets the endpoint's default name and reports a duplicate.
func (d *decoder) checkName(e *Endpoint, i int, names map[string]int) {
	key := fmt.Sprintf("webhook.endpoints[%d]", i)
	if d.isUnread(key + ".name") {
		return
	}
	named := e.Name != ""
	if !named {
		e.Name = (&tidings.Endpoint{URL: e.URL}).DefaultName()
	}
	first, taken := names[e.Name]
	switch {
	case e.Name == "": // the invalid URL has been reported
	case strings.ContainsFunc(e.Name, func(r rune) bool { return r <= ' ' || r == 0x7f }) || len(e.Name) > 200:
		d.at(key+".name", "must have at most 200 bytes and no spaces or control characters")
	case named && strings.Contains(e.Name, "://"):
		d.at(key+".name", "must not be a URL, which may contain a password: names appear in logs and metrics")
	case taken:
		field, also := ".url", "has the same URL; give one of them a name"
		if named {
			field, also = ".name", fmt.Sprintf("is also named %q; names must be unique", e.Name)
		}
		other := fmt.Sprintf("webhook.endpoints[%d]", first)
		d.conflict(half{key + field, nameClaim(e.Name), other + " " + also},
			half{other + field, nameClaim(e.Name), key + " " + also})
	default:
		names[e.Name] = i
	}
}

func nameClaim(name string) string { return "name " + name }

func cursorClaim(name string) string { return "cursor of " + name }

// claims returns what only one endpoint may have, with the files that claim it.
func (d *decoder) claims(cfg *Config) map[claim]bool {
	all := make(map[claim]bool)
	for i, e := range cfg.Webhook.Endpoints {
		file := d.origins[d.nodes[fmt.Sprintf("webhook.endpoints[%d]", i)]].name
		all[claim{file, nameClaim(e.Name)}] = true
		all[claim{file, cursorClaim(e.CursorFrom)}] = true
	}
	return all
}

// half is the share of one endpoint in a conflict with another.
type half struct{ key, claim, message string }

// conflict reports that two endpoints claim the same, as the problem of one of them.
func (d *decoder) conflict(own, other half) {
	if d.isUnread(own.key) {
		return
	}
	before := len(d.problems)
	d.at(own.key, "%s", own.message)
	d.problems[before].claim = own.claim
	d.at(other.key, "%s", other.message)
	if len(d.problems) > before+1 {
		rival := d.problems[before+1]
		rival.claim = other.claim
		d.problems[before].rival = &rival
		d.problems = d.problems[:before+1]
	}
}

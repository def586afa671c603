// Package config reads settings from YAML files, the environment and flags;
// later sources win. It is strict: each unknown key, wrong type or invalid
// value is a [Problem] with line and column, and all problems are reported at
// once.
package config

import (
	"crypto/sha256"
	"net/netip"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/vocabulary"
)

// Config holds all settings. The zero value is not usable; see [Default].
type Config struct {
	// Listen is the address of the HTTP server.
	Listen string `yaml:"listen"`
	// DataDir holds the SQLite database, file contents and the admin token.
	DataDir string `yaml:"data_dir"`
	// DatabaseURL is a PostgreSQL URL; empty means SQLite in DataDir.
	DatabaseURL SecretSource `yaml:"database_url"`
	// DatabaseSchema is the schema of all tables on PostgreSQL.
	DatabaseSchema string `yaml:"database_schema"`
	// PollOnly avoids PostgreSQL features that outlive a transaction, for poolers
	// without sessions.
	PollOnly bool     `yaml:"poll_only"`
	Database Database `yaml:"database"`
	// ShutdownDelay keeps the server serving after SIGTERM while /readyz fails, so
	// that load balancers can drain it.
	ShutdownDelay Duration `yaml:"shutdown_delay"`
	// ShutdownTimeout limits how long requests and webhooks in flight may take to
	// finish when the server stops.
	ShutdownTimeout Duration `yaml:"shutdown_timeout"`
	// EncryptionKey encrypts API keys, client secrets and variables in the
	// database. It is 32 bytes in base64.
	EncryptionKey SecretSource `yaml:"encryption_key"`
	// EncryptionKeys replaces EncryptionKey during key rotation: the first key
	// encrypts, all decrypt.
	EncryptionKeys []SecretSource `yaml:"encryption_keys"`

	// Types lists the event types that programs publish, with their actions.
	Types map[string][]string `yaml:"types"`
	// Preset selects the tables of a known application.
	Preset  string  `yaml:"preset"`
	Sources Sources `yaml:"sources"`

	Log            Log            `yaml:"log"`
	Tracing        Tracing        `yaml:"tracing"`
	Auth           Auth           `yaml:"auth"`
	Console        Console        `yaml:"console"`
	Webhook        Webhook        `yaml:"webhook"`
	Egress         Egress         `yaml:"egress"`
	Contexts       Contexts       `yaml:"contexts"`
	Files          Files          `yaml:"files"`
	Providers      Providers      `yaml:"providers"`
	ModelProviders ModelProviders `yaml:"model_providers"`
	Connectors     Connectors     `yaml:"connectors"`
	Limits         Limits         `yaml:"limits"`

	// Relay reports whether these are the settings of tidings relay.
	Relay bool `yaml:"-"`

	types         vocabulary.Types
	warnings      Problems
	problems      Problems
	unread        map[string]bool // keys whose values could not be decoded; nil before
	endpointFiles endpointFiles
	loaded        string   // digest of the contents that were loaded
	files         []string // configuration files read
	empty         []string // those without a document
}

// Database configures the connections to PostgreSQL.
type Database struct {
	// MaxConnections is this process's connection limit; 0 means pool_max_conns in
	// DatabaseURL, or 25.
	MaxConnections int `yaml:"max_connections"`
}

// Log configures logging.
type Log struct {
	// Level is debug, info, warn or error.
	Level string `yaml:"level"`
	// Format is text or json.
	Format string `yaml:"format"`
}

// Tracing configures the export of traces.
type Tracing struct {
	// Endpoint is the URL of an OpenTelemetry collector (OTLP over HTTP), such as
	// "http://localhost:4318". If empty, trace contexts are propagated but no spans
	// are recorded.
	Endpoint string `yaml:"endpoint"`
	// SampleRatio is the fraction, from 0 to 1, of traces started here that are kept.
	SampleRatio float64 `yaml:"sample_ratio"`
}

// Auth configures authentication and roles.
type Auth struct {
	// Disabled makes everybody an admin; the server then listens on loopback only.
	Disabled bool `yaml:"disabled"`
	// AdminEmails lists the users who are admins.
	AdminEmails []string `yaml:"admin_emails"`
	Tokens      []Token  `yaml:"tokens"`
}

// Token is an API token, given by its hash or as a secret. "tidings token"
// creates one.
type Token struct {
	// SHA256 is the hash of the token, in hexadecimal.
	SHA256 string `yaml:"sha256"`
	// Token is the token itself.
	Token SecretSource `yaml:"token"`
	// User is the e-mail address of the token's user; in a relay, any name.
	User string `yaml:"user"`
	// Role limits what the token may do: user, developer, admin or reader; in a
	// relay, publisher, reader, operator or admin.
	Role string `yaml:"role"`
}

// Console configures the web console.
type Console struct {
	TrustedHeader TrustedHeader `yaml:"trusted_header"`
}

// TrustedHeader is a header in which an authenticating proxy sends the user's name.
type TrustedHeader struct {
	// Name is the header's name, such as "X-Forwarded-User"; empty means no such header.
	Name string `yaml:"name"`
	// Networks are the proxies' addresses.
	Networks []Network `yaml:"networks"`
	// Roles maps users to reader, operator or admin; "*" applies to all other users.
	Roles map[string]string `yaml:"roles"`
}

// Prefixes returns the networks.
func (t *TrustedHeader) Prefixes() []netip.Prefix { return prefixes(t.Networks) }

// Webhook configures the delivery of events.
type Webhook struct {
	Endpoints []Endpoint `yaml:"endpoints"`
	// EndpointFiles are glob patterns of files with more endpoints.
	EndpointFiles []string `yaml:"endpoint_files"`
	// MaxConnections is how many requests to all endpoints may be under way at once,
	// and how many connections to them may be open.
	MaxConnections int `yaml:"max_connections"`
	// Source is the CloudEvents source.
	Source string `yaml:"source"`
	// Retention is how long events stay in the log.
	Retention Duration `yaml:"retention"`
	// HistoryRetention is how long attempts are kept.
	HistoryRetention Duration `yaml:"history_retention"`
	// DeadLetterRetention is how long dead letters are kept.
	DeadLetterRetention Duration `yaml:"dead_letter_retention"`
}

// Endpoint is one receiver of webhooks. Only URL is required.
type Endpoint struct {
	URL     string                  `yaml:"url"`
	Name    string                  `yaml:"name"`
	Headers map[string]SecretSource `yaml:"headers"`
	// Events are patterns; nil selects every event.
	Events []string `yaml:"events"`
	// Start is where a new endpoint begins: newest, oldest, or an RFC 3339 time.
	Start string `yaml:"start"`
	// CursorFrom names a removed endpoint; this endpoint continues where that one
	// stopped.
	CursorFrom string `yaml:"cursor_from"`

	Secret  SecretSource   `yaml:"secret"`
	Secrets []SecretSource `yaml:"secrets"`
	Timeout Duration       `yaml:"timeout"`
	// MaxInFlight is the maximum number of concurrent requests.
	MaxInFlight int `yaml:"max_in_flight"`
	// MaxConnectionAge is the lifetime of a connection, ±20 %.
	MaxConnectionAge Duration `yaml:"max_connection_age"`
	Format           string   `yaml:"format"`
	// EventPrefix is a prefix of the CloudEvents type.
	EventPrefix string `yaml:"event_prefix"`
	// InfoHeaders adds headers such as tidings-sequence to requests.
	InfoHeaders *bool     `yaml:"info_headers"`
	Enabled     *bool     `yaml:"enabled"`
	Retry       Retry     `yaml:"retry"`
	RateLimit   RateLimit `yaml:"rate_limit"`
	// Coalesce selects which waiting events are merged: off, updates or latest.
	Coalesce string `yaml:"coalesce"`
	// Partitions is how many replicas may deliver to the endpoint at once.
	Partitions int `yaml:"partitions"`
	// History selects which attempts are kept: all, failures or off.
	History string `yaml:"history"`
	HTTP    HTTP   `yaml:"http"`

	digest   [sha256.Size]byte // hash of the endpoint's YAML
	contents string            // hash of the files and variables it refers to
	patterns []tidings.Pattern // parsed Events
	written  *Written          // where its settings come from
}

// RateLimit limits how many requests start per second.
type RateLimit struct {
	// PerSecond may be a fraction; 0 means no limit.
	PerSecond float64 `yaml:"per_second"`
	// Burst is how many may start at once; 0 means one second's worth.
	Burst int `yaml:"burst"`
}

// Retry configures retries of failed events. Zero values select the defaults in
// protocol.md.
type Retry struct {
	// Schedule lists the delays after the first, second, … attempt.
	Schedule []Duration `yaml:"schedule"`
	// MaxAttempts is the number of attempts before an event becomes a dead letter.
	MaxAttempts int `yaml:"max_attempts"`
	// MaxAge is the maximum time between the first and the last attempt.
	MaxAge Duration `yaml:"max_age"`
}

// Egress restricts which addresses may be connected to.
type Egress struct {
	// DenyNetworks are never connected to.
	DenyNetworks []Network `yaml:"deny_networks"`
	// AllowNetworks, if set, are the only networks that may be connected to.
	AllowNetworks []Network `yaml:"allow_networks"`
	UserURLs      UserURLs  `yaml:"user_urls"`
}

// UserURLs restricts user-supplied URLs: agents, MCP servers, model providers.
type UserURLs struct {
	// AllowNetworks are the non-public networks that such URLs may lead to.
	AllowNetworks []Network `yaml:"allow_networks"`
}

// Contexts configures contexts, which are conversations.
type Contexts struct {
	// ExpireAfter is the idle time after which a context loses its files and vector
	// stores; 0 means never.
	ExpireAfter Duration `yaml:"expire_after"`
}

// Files configures uploads and the file store.
type Files struct {
	MaxSize   Size `yaml:"max_size"`
	UserQuota Size `yaml:"user_quota"`
	// S3 is the file store; if unset, contents are kept in DataDir.
	S3 S3 `yaml:"s3"`
}

// S3 is a bucket of an S3-compatible store.
type S3 struct {
	// Endpoint is the URL of the store.
	Endpoint string `yaml:"endpoint"`
	Region   string `yaml:"region"`
	Bucket   string `yaml:"bucket"`
	// Prefix is the prefix of all object names.
	Prefix    string       `yaml:"prefix"`
	AccessKey SecretSource `yaml:"access_key"`
	SecretKey SecretSource `yaml:"secret_key"`
}

// Providers configures agents.
type Providers struct {
	// CheckInterval is how often agent cards are fetched.
	CheckInterval Duration `yaml:"check_interval"`
}

// ModelProviders configures model providers.
type ModelProviders struct {
	// CheckInterval is how often model lists are fetched.
	CheckInterval Duration `yaml:"check_interval"`
}

// Connectors configures connectors to MCP servers.
type Connectors struct {
	Presets []Preset `yaml:"presets"`
}

// Preset is an MCP server offered to users.
type Preset struct {
	URL          string            `yaml:"url"`
	ClientID     string            `yaml:"client_id"`
	ClientSecret SecretSource      `yaml:"client_secret"`
	Metadata     map[string]string `yaml:"metadata"`
}

// Limits bound what callers can make the server do. Each User… limit applies to
// one user, its counterpart to all users together. docs/limits.md lists these
// limits and those that have no setting.
type Limits struct {
	// RequestsPerSecond is one caller's average request rate; Burst is how many
	// requests it may send at once.
	RequestsPerSecond float64 `yaml:"requests_per_second"`
	Burst             int     `yaml:"burst"`
	// BodyMemory is how many bytes of large request bodies may be held at once.
	BodyMemory     Size `yaml:"body_memory"`
	UserBodyMemory Size `yaml:"user_body_memory"`
	// ConcurrentRequests is how many requests may be in flight at once, event
	// streams and uploads excluded.
	ConcurrentRequests     int `yaml:"concurrent_requests"`
	UserConcurrentRequests int `yaml:"user_concurrent_requests"`
	// EventStreams is how many requests may wait for events at once, as streams or
	// with wait.
	EventStreams     int `yaml:"event_streams"`
	UserEventStreams int `yaml:"user_event_streams"`
	// Uploads is how many file contents may be written at once.
	Uploads     int `yaml:"uploads"`
	UserUploads int `yaml:"user_uploads"`
	// Scans is how many requests that read very many rows, such as vector searches,
	// may run at once.
	Scans     int `yaml:"scans"`
	UserScans int `yaml:"user_scans"`

	// Quotas: what one user may own.
	Contexts         int  `yaml:"contexts"`
	HistoryItems     int  `yaml:"history_items"`
	HistoryBytes     Size `yaml:"history_bytes"`
	Files            int  `yaml:"files"`
	VectorStores     int  `yaml:"vector_stores"`
	VectorStoreItems int  `yaml:"vector_store_items"`
	VectorStoreBytes Size `yaml:"vector_store_bytes"`
	Connectors       int  `yaml:"connectors"`
	UserFeedback     int  `yaml:"user_feedback"`
	Providers        int  `yaml:"providers"`
	ProviderBuilds   int  `yaml:"provider_builds"`
	// ModelProviders applies to all users together, since model providers have no owner.
	ModelProviders int `yaml:"model_providers"`
}

const (
	day  = 24 * time.Hour
	week = 7 * day
)

// Default returns the default settings.
func Default() Config {
	return Config{
		Listen:          "127.0.0.1:8333",
		DataDir:         "./tidings-data",
		DatabaseSchema:  "tidings",
		ShutdownTimeout: Duration(20 * time.Second),
		Log:             Log{Level: "info", Format: "text"},
		Tracing:         Tracing{SampleRatio: 1},
		Sources:         Sources{Poll: Duration(100 * time.Millisecond)},
		Webhook: Webhook{
			MaxConnections: 512, Source: "/tidings",
			Retention: Duration(week), HistoryRetention: Duration(week), DeadLetterRetention: Duration(30 * day),
		},
		Contexts:       Contexts{ExpireAfter: Duration(week)},
		Files:          Files{MaxSize: 100 << 20, UserQuota: 1 << 30},
		Providers:      Providers{CheckInterval: Duration(30 * time.Second)},
		ModelProviders: ModelProviders{CheckInterval: Duration(time.Hour)},
		Limits: Limits{
			RequestsPerSecond: 100, Burst: 200,
			BodyMemory: 64 << 20, UserBodyMemory: 16 << 20,
			ConcurrentRequests: 512, UserConcurrentRequests: 64, EventStreams: 1000, UserEventStreams: 100,
			Uploads: 32, UserUploads: 4, Scans: 4, UserScans: 2,
			Contexts: 10_000, HistoryItems: 1_000_000, HistoryBytes: 1 << 30, Files: 10_000,
			VectorStores: 1000, VectorStoreItems: 200_000, VectorStoreBytes: 1 << 30,
			Connectors: 100, UserFeedback: 10_000, Providers: 1000, ProviderBuilds: 10_000, ModelProviders: 100,
		},
	}
}

func defaultEndpoint() Endpoint {
	return Endpoint{
		Timeout: Duration(15 * time.Second), MaxInFlight: 16, MaxConnectionAge: Duration(2 * time.Minute),
		Format: "thin", Coalesce: "off", Partitions: 1, History: "all", Start: startNewest,
	}
}

func (e *Endpoint) setDefaults(written *yaml.Node) {
	*e = defaultEndpoint()
	e.digest = sha256.Sum256([]byte(canonical(written)))
}

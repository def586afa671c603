// Package config reads the settings: a YAML file, then the environment, then
// flags, the later winning. It is strict: a key it does not know, a wrong type
// or a value that can't work is a [Problem] with line and column, and all of
// them are reported at once.
package config

import (
	"crypto/sha256"
	"net/netip"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/vocabulary"
)

// Config is every setting. The zero value is not usable; see [Default].
type Config struct {
	// Listen is the address of the HTTP server.
	Listen string `yaml:"listen"`
	// DataDir holds the SQLite database, file contents and the admin token.
	DataDir string `yaml:"data_dir"`
	// DatabaseURL is a PostgreSQL URL; empty means SQLite in DataDir.
	DatabaseURL SecretSource `yaml:"database_url"`
	// DatabaseSchema is the schema of all tables on PostgreSQL.
	DatabaseSchema string `yaml:"database_schema"`
	// PollOnly asks PostgreSQL for nothing that lasts longer than a transaction,
	// for poolers that have no sessions.
	PollOnly bool `yaml:"poll_only"`
	// Database is about the connections to PostgreSQL.
	Database Database `yaml:"database"`
	// ShutdownDelay is how long the server goes on answering after it was told to
	// stop, while it says that it is not ready: those who send it requests may need
	// a while to hear of that.
	ShutdownDelay Duration `yaml:"shutdown_delay"`
	// ShutdownTimeout is how long requests and webhooks under way may take to
	// finish when the server stops.
	ShutdownTimeout Duration `yaml:"shutdown_timeout"`
	// EncryptionKey is 32 bytes in base64: the key that encrypts API keys,
	// client secrets and variables in the database.
	EncryptionKey SecretSource `yaml:"encryption_key"`
	// EncryptionKeys takes its place while a key is changed: the first encrypts,
	// all decrypt.
	EncryptionKeys []SecretSource `yaml:"encryption_keys"`

	// Types are the types of events that programs publish, with their actions.
	Types map[string][]string `yaml:"types"`
	// Preset names the tables of a known application.
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

	// Relay says that these are the settings of tidings relay.
	Relay bool `yaml:"-"`

	types         vocabulary.Types
	warnings      Problems
	endpointFiles endpointFiles
	files         []string // that it was read from
	empty         []string // those of them without a document
}

// Database is about the connections to PostgreSQL.
type Database struct {
	// MaxConnections is how many connections this process has at most; 0 means
	// pool_max_conns in DatabaseURL or 25.
	MaxConnections int `yaml:"max_connections"`
}

// Log is what is logged and how.
type Log struct {
	// Level is debug, info, warn or error.
	Level string `yaml:"level"`
	// Format is text or json.
	Format string `yaml:"format"`
}

// Tracing is where traces go.
type Tracing struct {
	// Endpoint is the URL of an OpenTelemetry collector (OTLP over HTTP), such as
	// "http://localhost:4318"; empty means that traces are passed on, not made.
	Endpoint string `yaml:"endpoint"`
	// SampleRatio is how many of the traces that begin here are kept, from 0 to 1.
	SampleRatio float64 `yaml:"sample_ratio"`
}

// Auth is who may do what.
type Auth struct {
	// Disabled makes everybody an admin; the server then listens on loopback only.
	Disabled bool `yaml:"disabled"`
	// AdminEmails become admins when they are first seen.
	AdminEmails []string `yaml:"admin_emails"`
	// Tokens are API tokens.
	Tokens []Token `yaml:"tokens"`
}

// Token is an API token: its hash or, where it is kept as a secret of its own,
// itself. "tidings token" makes one.
type Token struct {
	// SHA256 is the hash of the token, in hexadecimal.
	SHA256 string `yaml:"sha256"`
	// Token is the token itself.
	Token SecretSource `yaml:"token"`
	// User is the e-mail address of whoever uses it; in a relay, any name.
	User string `yaml:"user"`
	// Role is the most that the token may do: user, developer, admin or reader; in a
	// relay publisher, reader, operator or admin.
	Role string `yaml:"role"`
}

// Console is about the console in the browser.
type Console struct {
	TrustedHeader TrustedHeader `yaml:"trusted_header"`
}

// TrustedHeader is a header by which a proxy that signs people in names them.
type TrustedHeader struct {
	// Name is the header, such as "X-Forwarded-User"; empty means that there is none.
	Name string `yaml:"name"`
	// Networks are the addresses of such proxies.
	Networks []Network `yaml:"networks"`
	// Roles are the roles of people, and under "*" of all others: reader, operator or
	// admin.
	Roles map[string]string `yaml:"roles"`
}

// Prefixes returns the networks.
func (t *TrustedHeader) Prefixes() []netip.Prefix { return prefixes(t.Networks) }

// Webhook is where events go.
type Webhook struct {
	Endpoints []Endpoint `yaml:"endpoints"`
	// EndpointFiles are patterns of files with more endpoints.
	EndpointFiles []string `yaml:"endpoint_files"`
	// Source is the source of events in the CloudEvents format.
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
	// Events are patterns; left out, every event.
	Events []string `yaml:"events"`
	// Start is where an endpoint begins that is new: newest, oldest, or an RFC 3339
	// time.
	Start string `yaml:"start"`
	// CursorFrom is the name of an endpoint that was removed, and where that stopped
	// this one goes on.
	CursorFrom string `yaml:"cursor_from"`

	Secret  SecretSource   `yaml:"secret"`
	Secrets []SecretSource `yaml:"secrets"`
	Timeout Duration       `yaml:"timeout"`
	// MaxInFlight is how many requests may be under way at once.
	MaxInFlight int `yaml:"max_in_flight"`
	// MaxConnectionAge is how long a connection is used, give or take a fifth.
	MaxConnectionAge Duration `yaml:"max_connection_age"`
	Format           string   `yaml:"format"`
	// EventPrefix comes before the event's name in the CloudEvents type.
	EventPrefix string `yaml:"event_prefix"`
	// InfoHeaders sends tidings-sequence and the like.
	InfoHeaders *bool `yaml:"info_headers"`
	Enabled     *bool `yaml:"enabled"`
	// Retry says when an event that failed is tried again.
	Retry Retry `yaml:"retry"`
	// RateLimit bounds how many requests begin in a second.
	RateLimit RateLimit `yaml:"rate_limit"`
	// Coalesce says which waiting events become one: off, updates or latest.
	Coalesce string `yaml:"coalesce"`
	// Partitions is how many replicas may deliver to it at once.
	Partitions int `yaml:"partitions"`
	// History says which attempts are kept: all, failures or off.
	History string `yaml:"history"`
	HTTP    HTTP   `yaml:"http"`

	digest   [sha256.Size]byte // a hash of all that was written for it
	contents string            // a hash of what the files and variables hold that it names
	patterns []tidings.Pattern // Events, once they are checked
}

// RateLimit bounds how many requests begin in a second.
type RateLimit struct {
	// PerSecond may be a fraction; 0 means no limit.
	PerSecond float64 `yaml:"per_second"`
	// Burst is how many may begin at once; 0 means one second's.
	Burst int `yaml:"burst"`
}

// Retry says when an event that failed is tried again; what is left out is as in
// protocol.md.
type Retry struct {
	// Schedule are the pauses after the first, second, … attempt.
	Schedule []Duration `yaml:"schedule"`
	// MaxAttempts is how many there are before the event is given up.
	MaxAttempts int `yaml:"max_attempts"`
	// MaxAge is how long after the first attempt the last one may be.
	MaxAge Duration `yaml:"max_age"`
}

// Egress says which addresses may be connected to.
type Egress struct {
	// DenyNetworks are never connected to.
	DenyNetworks []Network `yaml:"deny_networks"`
	// AllowNetworks, if set, are the only ones that are connected to.
	AllowNetworks []Network `yaml:"allow_networks"`
	UserURLs      UserURLs  `yaml:"user_urls"`
}

// UserURLs is about URLs that users name: agents, MCP servers, model providers.
type UserURLs struct {
	// AllowNetworks are the networks off the public Internet that such URLs may
	// lead to.
	AllowNetworks []Network `yaml:"allow_networks"`
}

// Contexts is about conversations.
type Contexts struct {
	// ExpireAfter is how long a context may be idle before it loses its files and
	// vector stores; 0 keeps them.
	ExpireAfter Duration `yaml:"expire_after"`
}

// Files limits uploads, and says where contents are kept.
type Files struct {
	MaxSize   Size `yaml:"max_size"`
	UserQuota Size `yaml:"user_quota"`
	// S3 is where contents are kept; without it, in DataDir.
	S3 S3 `yaml:"s3"`
}

// S3 is a bucket of an S3-compatible store.
type S3 struct {
	// Endpoint is the URL of the store.
	Endpoint string `yaml:"endpoint"`
	Region   string `yaml:"region"`
	Bucket   string `yaml:"bucket"`
	// Prefix begins the names of all objects.
	Prefix    string       `yaml:"prefix"`
	AccessKey SecretSource `yaml:"access_key"`
	SecretKey SecretSource `yaml:"secret_key"`
}

// Providers is about agents.
type Providers struct {
	// CheckInterval is how often agents are asked for their card.
	CheckInterval Duration `yaml:"check_interval"`
}

// ModelProviders is about sources of models.
type ModelProviders struct {
	// CheckInterval is how often they are asked for their models.
	CheckInterval Duration `yaml:"check_interval"`
}

// Connectors is about MCP servers.
type Connectors struct {
	Presets []Preset `yaml:"presets"`
}

// Preset is an MCP server that users are offered.
type Preset struct {
	URL          string            `yaml:"url"`
	ClientID     string            `yaml:"client_id"`
	ClientSecret SecretSource      `yaml:"client_secret"`
	Metadata     map[string]string `yaml:"metadata"`
}

// Limits bound what one caller can make the server do, and what all of them can
// together. docs/limits.md lists them with those that have no setting.
type Limits struct {
	// RequestsPerSecond is how many requests one caller may make in a second on
	// average, and Burst how many at once.
	RequestsPerSecond float64 `yaml:"requests_per_second"`
	Burst             int     `yaml:"burst"`
	// BodyMemory is how many bytes of large request bodies may be held at once,
	// and UserBodyMemory how many of them may be one user's.
	BodyMemory     Size `yaml:"body_memory"`
	UserBodyMemory Size `yaml:"user_body_memory"`
	// ConcurrentRequests is how many requests may be under way at once, and
	// UserConcurrentRequests how many of them may be one user's. Those of the next
	// two kinds don't count.
	ConcurrentRequests     int `yaml:"concurrent_requests"`
	UserConcurrentRequests int `yaml:"user_concurrent_requests"`
	// EventStreams is how many requests may wait for events at once, as streams or
	// with wait, and UserEventStreams how many of them may be one user's.
	EventStreams     int `yaml:"event_streams"`
	UserEventStreams int `yaml:"user_event_streams"`
	// Uploads is how many contents of files may be written at once, and UserUploads
	// how many of them may be one user's.
	Uploads     int `yaml:"uploads"`
	UserUploads int `yaml:"user_uploads"`
	// Scans is how many requests may read very many rows at once, such as vector
	// searches, and UserScans how many of them may be one user's.
	Scans     int `yaml:"scans"`
	UserScans int `yaml:"user_scans"`

	// What one user may own.
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
	// ModelProviders is how many there may be in all: they have no owner.
	ModelProviders int `yaml:"model_providers"`
}

const (
	day  = 24 * time.Hour
	week = 7 * day
)

// Default returns the settings of a server that nobody configured.
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
			Source: "/tidings", Retention: Duration(week), HistoryRetention: Duration(week),
			DeadLetterRetention: Duration(30 * day),
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

func (e *Endpoint) setDefaults(written *yaml.Node) {
	*e = Endpoint{
		Timeout: Duration(15 * time.Second), MaxInFlight: 16, MaxConnectionAge: Duration(2 * time.Minute),
		Format: "thin", Coalesce: "off", Partitions: 1, History: "all", Start: startNewest,
		digest: sha256.Sum256([]byte(canonical(written))),
	}
}

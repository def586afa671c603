package resource

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/datadir"
	"github.com/tidings-dev/tidings/internal/store"
	"github.com/tidings-dev/tidings/internal/testdb"
)

func TestMain(m *testing.M) { os.Exit(testdb.Main(m)) }

// fixture holds the resources, in a database that the test can inspect.
type fixture struct {
	*testing.T
	*Resources
	db     *sql.DB
	schema string // with its dot
	seen   int64  // position of the last event that the test has looked at
	count  int
}

// noBlobs is an empty file store.
type noBlobs struct{ Blobs }

func (noBlobs) Remove(context.Context, string) error { return nil }

// databases runs a test on both databases.
func databases(t *testing.T, o Options, test func(f *fixture)) {
	t.Parallel()
	o.Logger = slog.New(slog.DiscardHandler)
	run := func(name, driver, schema string, open func(t *testing.T) (s *store.Store, source string, err error)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, source, err := open(t)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			if err := s.Migrate(t.Context()); err != nil {
				t.Fatal(err)
			}
			db, err := sql.Open(driver, source)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { db.Close() })
			r := New(s, Outside{Blobs: noBlobs{}, Box: openBox{}}, o)
			test(&fixture{T: t, db: db, schema: schema, Resources: r})
		})
	}
	run("SQLite", "sqlite", "", func(t *testing.T) (*store.Store, string, error) {
		folder := t.TempDir()
		s, err := store.OpenSQLite(folder)
		return s, "file:" + filepath.Join(folder, datadir.Database) + "?_pragma=busy_timeout(10000)", err
	})
	run("PostgreSQL", "pgx", "tidings.", func(t *testing.T) (*store.Store, string, error) {
		url := testdb.Postgres(t)
		s, err := store.OpenPostgres(url, store.PostgresOptions{})
		return s, url, err
	})
}

func (f *fixture) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// exec runs a statement, bypassing the store.
func (f *fixture) exec(statement string, args ...any) {
	f.Helper()
	_, err := f.db.ExecContext(f.Context(), statement, args...)
	f.must(err)
}

// rows counts the rows of a table whose column has the value.
func (f *fixture) rows(table, column, value string) (n int) {
	f.Helper()
	f.must(f.db.QueryRowContext(f.Context(),
		fmt.Sprintf("SELECT count(*) FROM %s%s WHERE %s = $1", f.schema, table, column), value).Scan(&n))
	return n
}

// events returns the events since the previous call.
func (f *fixture) events() []tidings.Event {
	f.Helper()
	_, err := f.store.Log().Advance(f.Context())
	f.must(err)
	events, err := f.store.Log().Read(f.Context(), f.seen, 1000)
	f.must(err)
	if len(events) > 0 {
		f.seen = events[len(events)-1].Sequence
	}
	return events
}

// user creates a user.
func (f *fixture) user(role Role) Caller {
	f.Helper()
	who := Caller{UserID: newID(), Role: RoleAdmin}
	row := &User{Base: Base{ID: who.UserID}, Email: who.UserID + "@example.com", Role: role}
	_, err := f.Users.create(f.Context(), who, row)
	f.must(err)
	return Caller{UserID: who.UserID, Role: role}
}

// about holds what a sample refers to.
type about struct{ provider, context *string }

// samples create a resource of each type that can be created, as its owner.
var samples = map[tidings.ResourceType]func(f *fixture, who Caller, of about) (Row, error){
	ConnectorType: func(f *fixture, who Caller, _ about) (Row, error) {
		row := &Connector{URL: f.unique(), State: connectorCreated, Metadata: Metadata{}}
		return f.Connectors.create(f.Context(), who, row)
	},
	ContextType: func(f *fixture, who Caller, of about) (Row, error) {
		row := &Context{Metadata: Metadata{}, ProviderID: of.provider, LastActiveAt: now()}
		return f.Contexts.create(f.Context(), who, row)
	},
	FileType: func(f *fixture, who Caller, of about) (Row, error) {
		row := &File{Filename: "f", ContentType: "text/plain", FileType: userUpload, ContextID: of.context}
		return f.Files.create(f.Context(), who, row)
	},
	ModelProviderType: func(f *fixture, who Caller, _ about) (Row, error) {
		row := &ModelProvider{Type: "openai", BaseURL: f.unique(), State: Online, APIKey: []byte("k")}
		return f.ModelProviders.create(f.Context(), who, row)
	},
	ProviderType: func(f *fixture, who Caller, _ about) (Row, error) {
		url := f.unique()
		return f.Providers.create(f.Context(), who, &Provider{
			Base: Base{ID: providerID(url)}, Type: "unmanaged", Source: url, Origin: url, State: Online,
			AgentCard: json.RawMessage(`{"name":"a"}`), LastActiveAt: now(),
		})
	},
	ProviderBuildType: func(f *fixture, who Caller, of about) (Row, error) {
		row := &ProviderBuild{Status: buildMissing, OnComplete: OnComplete{Type: "no_action"}, ProviderID: of.provider}
		return f.ProviderBuilds.create(f.Context(), who, row)
	},
	UserType: func(f *fixture, _ Caller, _ about) (Row, error) {
		who := f.user(RoleUser)
		return f.Users.get(f.Context(), Caller{UserID: who.UserID, Role: RoleAdmin}, who.UserID)
	},
	UserFeedbackType: func(f *fixture, who Caller, of about) (Row, error) {
		row := &UserFeedback{ProviderID: *of.provider, TaskID: newID(), ContextID: *of.context, Rating: 1}
		return f.UserFeedback.create(f.Context(), who, row)
	},
	VectorStoreType: func(f *fixture, who Caller, of about) (Row, error) {
		row := &VectorStore{Name: "s", ModelID: "m", Dimension: 1, ContextID: of.context, LastActiveAt: now()}
		return f.VectorStores.create(f.Context(), who, row)
	},
}

// unique returns a URL that no other sample uses.
func (f *fixture) unique() string {
	f.count++
	return fmt.Sprintf("https://%d.example.com", f.count)
}

// sample creates a resource and returns its id.
func (f *fixture) sample(t tidings.ResourceType, who Caller, of about) *string {
	f.Helper()
	row, err := samples[t](f, who, of)
	if err != nil {
		f.Fatalf("%s: %v", t, err)
	}
	return &row.base().ID
}

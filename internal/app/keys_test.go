package app_test

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // registers the driver "pgx"
	_ "modernc.org/sqlite"             // registers the driver "sqlite"

	"github.com/tidings-dev/tidings/internal/app"
	"github.com/tidings-dev/tidings/internal/config"
	"github.com/tidings-dev/tidings/internal/testdb"
)

// Encryption keys.
var (
	keyA = base64.StdEncoding.EncodeToString([]byte(strings.Repeat("a", 32)))
	keyB = base64.StdEncoding.EncodeToString([]byte(strings.Repeat("b", 32)))
	keyC = base64.StdEncoding.EncodeToString([]byte(strings.Repeat("c", 32)))
)

// withKeys returns a copy of the settings with encryption keys.
func withKeys(settings map[string]any, keys ...any) map[string]any {
	s := maps.Clone(settings)
	s["encryption_key"], s["encryption_keys"] = nil, nil
	if len(keys) == 1 {
		s["encryption_key"] = keys[0]
	} else if len(keys) > 1 {
		s["encryption_keys"] = keys
	}
	return s
}

// load returns the configuration with the settings.
func load(t *testing.T, settings map[string]any) config.Config {
	t.Helper()
	all := map[string]any{"listen": "127.0.0.1:0"}
	maps.Copy(all, settings)
	maps.DeleteFunc(all, func(_ string, value any) bool { return value == nil })
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "tidings.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(config.Input{Files: []string{file}})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// refuses fails the test unless a server with the settings fails to start, with an error
// that contains the texts.
func refuses(t *testing.T, settings map[string]any, texts ...string) {
	t.Helper()
	server, err := app.New(t.Context(), load(t, settings),
		app.Options{Logger: slog.New(slog.DiscardHandler), Version: "test"})
	if err == nil {
		t.Fatal(server.Close(), "the server started")
	}
	for _, text := range append(texts, "tidings keys forget") {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error lacks %q: %v", text, err)
		}
	}
}

// forget does the same as 'tidings keys forget'.
func forget(t *testing.T, settings map[string]any) (lost int64, owners []string) {
	t.Helper()
	lost, owners, err := app.ForgetKeys(t.Context(), load(t, settings), slog.New(slog.DiscardHandler), 10)
	if err != nil {
		t.Fatal(err)
	}
	return lost, owners
}

func (w *world) halt() {
	w.Helper()
	if err := w.stop(); err != nil {
		w.Fatal(err)
	}
}

// secrets holds one secret of each kind.
type secrets struct{ modelProvider, provider string }

// keepSecrets stores one secret of each kind.
func (w *world) keepSecrets() secrets {
	w.Helper()
	w.call("ann", "PUT", "/variables", object{"variables": object{"A": "ann's", "B": "ann's other"}})
	w.call("ann", "POST", "/connectors",
		object{"url": "https://mcp.example.com", "client_id": "c", "client_secret": "connector's"})
	provider := w.call("developer", "POST", "/providers", object{
		"location": w.agent.url, "variables": object{"V": "provider's"},
	}).id()
	model := w.call("admin", "POST", "/model_providers",
		object{"type": "openai", "base_url": w.agent.url + "/v1", "api_key": "model's"}).id()
	return secrets{model, provider}
}

const secretCount = 5

// readSecrets fails the test unless the secrets can be read. The agent receives the model
// provider's key.
func (w *world) readSecrets(s secrets) {
	w.Helper()
	w.wants(w.try("ann", "GET", "/variables", nil), 200, `"A":"ann's"`, `"B":"ann's other"`)
	w.wants(w.try("developer", "GET", "/providers/"+s.provider+"/variables", nil), 200, `"V":"provider's"`)
	w.wants(w.try("admin", "PATCH", "/model_providers/"+s.modelProvider, object{"base_url": w.agent.url + "/v1"}), 200)
	w.agent.mu.Lock()
	defer w.agent.mu.Unlock()
	if !slices.Contains(w.agent.keys, "Bearer model's") {
		w.Errorf("the agent received the keys %q", w.agent.keys)
	}
}

// keys returns the state of each key and the number of its secrets.
func (w *world) keys() (states []string) {
	w.Helper()
	for _, k := range items(w.call("admin", "GET", "/keys", nil)) {
		states = append(states, fmt.Sprintf("%s %s %v", k["setting"], k["state"], k["secrets"]))
	}
	return states
}

func (w *world) wantKeys(want ...string) {
	w.Helper()
	if got := w.keys(); !slices.Equal(got, want) {
		w.Errorf("keys = %q, want %q", got, want)
	}
}

// database opens the database of a server directly.
func database(t *testing.T, settings map[string]any) (db *sql.DB, schema string) {
	t.Helper()
	driver, source := "sqlite", "file:"+filepath.Join(settings["data_dir"].(string), "tidings.db")+
		"?_pragma=busy_timeout(10000)"
	if url, ok := settings["database_url"].(string); ok {
		driver, source, schema = "pgx", url, "tidings."
	}
	db, err := sql.Open(driver, source)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db, schema
}

func inFolder(t *testing.T, settings map[string]any) map[string]any {
	settings["data_dir"] = t.TempDir()
	return settings
}

// A server with another key does not start. With the old key after the new one, everything
// can be read, and after a rotation the old key is not needed.
func TestChangeEncryptionKey(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		settings = inFolder(t, settings)
		first := newWorld(t, withKeys(settings, keyA))
		s := first.keepSecrets()
		first.wantKeys(fmt.Sprintf("encryption_key writes %d", secretCount))
		first.halt()

		refuses(t, withKeys(settings, keyB),
			"encryption_key: the secrets in the database were encrypted with another key, with the id ")
		refuses(t, withKeys(settings, keyB, keyC),
			"encryption_keys: the secrets in the database were encrypted with another key")

		second := newWorld(t, withKeys(settings, keyB, keyA))
		second.readSecrets(s)
		state := func() string {
			return second.call("ann", "GET", "/users/me", nil).text +
				second.call("admin", "GET", "/model_providers/"+s.modelProvider, nil).text +
				second.call("ann", "GET", "/connectors", nil).text +
				second.call("ann", "GET", "/providers/"+s.provider, nil).text
		}
		before := state()
		second.wantKeys("encryption_keys[0] writes 0", fmt.Sprintf("encryption_keys[1] reads %d", secretCount))
		refused := []answer{
			second.try("ann", "GET", "/keys", nil),
			second.try("developer", "POST", "/keys/rotate", nil),
		}
		for _, a := range refused {
			second.wants(a, 403)
		}
		second.wants(second.try("admin", "POST", "/keys/rotate?after=nonsense", nil), 422, "after")
		second.wants(second.try("admin", "POST", "/keys/rotate", nil), 200,
			fmt.Sprintf(`"rotated":%d`, secretCount), `"left":0`, `"unreadable":[]`, `"next":""`)
		second.wants(second.try("admin", "POST", "/keys/rotate", nil), 200, `"rotated":0`) // repeating it is harmless
		second.wantKeys(fmt.Sprintf("encryption_keys[0] writes %d", secretCount), "encryption_keys[1] unused 0")
		if after := state(); after != before {
			t.Errorf("a rotation changed resources and created events:\n%s\n%s", before, after)
		}
		second.readSecrets(s)
		second.halt()

		refuses(t, withKeys(settings, keyA), "encryption_key: ")
		third := newWorld(t, withKeys(settings, keyB))
		third.readSecrets(s)
	})
}

// A rotation loses no concurrent writes, and in the end everything is encrypted with the
// first key. An interrupted rotation can be continued.
func TestRotationWhileSecretsAreWritten(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		settings = inFolder(t, settings)
		users := []string{"ann", "bob", "developer", "leaver"}
		first := newWorld(t, withKeys(settings, keyA))
		for _, user := range users {
			many := object{}
			for n := range 100 {
				many[fmt.Sprint("V", n)] = "0"
			}
			first.call(user, "PUT", "/variables", object{"variables": many})
		}
		first.halt()
		w := newWorld(t, withKeys(settings, keyB, keyA))
		var wg sync.WaitGroup
		stop := make(chan struct{})
		last := make([]int, len(users))
		for i, user := range users {
			wg.Go(func() {
				for n := 1; ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					w.call(user, "PUT", "/variables",
						object{"variables": object{fmt.Sprint("V", n%100): fmt.Sprint(n)}})
					last[i] = n
				}
			})
		}
		for rounds := 0; ; rounds++ {
			a := w.call("admin", "POST", "/keys/rotate", nil)
			if a.body["left"] == 0.0 {
				break
			}
			if rounds == 10 {
				t.Fatalf("the rotation did not finish: %s", a.text)
			}
		}
		close(stop)
		wg.Wait()
		w.wantKeys(fmt.Sprintf("encryption_keys[0] writes %d", 100*len(users)), "encryption_keys[1] unused 0")
		for i, user := range users {
			got := w.call(user, "GET", "/variables", nil).body["variables"].(object)
			for n := range 100 {
				want := 0
				if last[i] >= n {
					want = last[i] - (last[i]-n)%100
				}
				if name := fmt.Sprint("V", n); got[name] != fmt.Sprint(want) {
					t.Errorf("%s has %s = %v, want %d", user, name, got[name], want)
				}
			}
		}
	})
}

// A server that still has the old key first can't write with it once the key was retired:
// servers without the key could not read the result.
func TestRetiredKeyCannotWrite(t *testing.T) {
	t.Parallel()
	settings := map[string]any{"database_url": testdb.Postgres(t)}
	old := newWorld(t, withKeys(settings, keyA, keyB))
	s := old.keepSecrets()
	rotated := newWorld(t, withKeys(settings, keyB, keyA))
	rotated.call("admin", "POST", "/keys/rotate", nil)
	for _, a := range []answer{
		old.try("ann", "PUT", "/variables", object{"variables": object{"A": "late"}}),
		old.try("ann", "POST", "/connectors",
			object{"url": "https://late.example.com", "client_id": "c", "client_secret": "late"}),
		old.try("admin", "PATCH", "/model_providers/"+s.modelProvider, object{"api_key": "late"}),
		old.try("admin", "POST", "/model_providers",
			object{"type": "openai", "base_url": old.agent.url + "/late/v1", "api_key": "late"}),
		old.try("admin", "POST", "/keys/rotate", nil),
	} {
		old.wants(a, 501, "tidings keys rotate", "restart")
	}
	old.readSecrets(s)
	rotated.wantKeys(fmt.Sprintf("encryption_keys[0] writes %d", secretCount), "encryption_keys[1] unused 0")
}

// Secrets that can no longer be decrypted are reported, affect nothing else, and can be set
// again without the old key.
func TestSecretsOfALostKey(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		settings = inFolder(t, settings)
		first := newWorld(t, withKeys(settings, keyA))
		s := first.keepSecrets()
		ann := first.user("ann")
		first.halt()
		lost, owners := forget(t, withKeys(settings, keyB))
		if lost != secretCount || len(owners) != 4 || !slices.Contains(owners, "variables/"+ann) {
			t.Errorf("lost %d, of %q", lost, owners)
		}
		settings["model_providers"] = object{"check_interval": "1s"}
		w := newWorld(t, withKeys(settings, keyB))
		const why = "was encrypted with a key that this server does not have"
		const whyOfVariables = "were encrypted with keys that this server does not have"
		w.wants(w.try("ann", "GET", "/variables", nil), 501, `variables: [\"A\" \"B\"] `+whyOfVariables)
		w.wants(w.try("developer", "GET", "/providers/"+s.provider+"/variables", nil), 501, whyOfVariables)
		good := w.call("admin", "POST", "/model_providers",
			object{"type": "openai", "base_url": w.agent.url + "/good/v1", "api_key": "good"}).id()
		w.agent.away.Store(true) // one failed check does not affect the others
		w.until("admin", "GET", "/model_providers/"+good, nil, has(`"state":"offline"`))
		w.agent.away.Store(false)
		w.call("admin", "DELETE", "/model_providers/"+good, nil)
		path := "/model_providers/" + s.modelProvider
		w.wants(w.try("admin", "PATCH", path, object{"base_url": w.agent.url + "/moved/v1"}), 501, "api_key: "+why)
		w.wants(w.try("admin", "PATCH", path, object{"name": "renamed"}), 200, "renamed")
		w.wants(w.try("ann", "POST", "/model_providers/match", object{"capability": "llm"}), 200, `"items":[]`)
		rotation := w.call("admin", "POST", "/keys/rotate", nil)
		w.wants(rotation, 200, fmt.Sprintf(`"left":%d`, secretCount), "variables/"+ann,
			"model_providers/"+s.modelProvider)
		if strings.Contains(rotation.text, "/A") {
			t.Errorf("an admin sees the names of a user's variables: %s", rotation.text)
		}

		w.call("ann", "PUT", "/variables", object{"variables": object{"A": "again", "B": nil}})
		w.wants(w.try("ann", "GET", "/variables", nil), 200, `{"variables":{"A":"again"}}`)
		w.call("developer", "PUT", "/providers/"+s.provider+"/variables", object{"variables": object{"V": "again"}})
		w.wants(w.try("developer", "GET", "/providers/"+s.provider+"/variables", nil), 200,
			`{"variables":{"V":"again"}}`)
		w.wants(w.try("admin", "PATCH", path, object{"api_key": "model's", "base_url": w.agent.url + "/v1"}), 200)
		w.wants(w.try("ann", "POST", "/model_providers/match", object{"capability": "llm"}), 200, "gpt-4o")
		w.halt()
		newWorld(t, withKeys(settings, keyB)).wants(rotation, 200) // it starts
	})
}

// Secrets of older versions, which have no key id, stay readable. Another key is refused,
// and a rotation adds key ids.
func TestSecretsWithoutKeyIDs(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		settings = inFolder(t, settings)
		first := newWorld(t, withKeys(settings, keyA))
		s := first.keepSecrets()
		ann := first.user("ann")
		first.halt()
		db, schema := database(t, settings)
		for _, row := range [][4]string{
			{"variables", "value", ann + "/A", "ann's"},
			{"variables", "value", ann + "/B", "ann's other"},
			{"variables", "value", s.provider + "/V", "provider's"},
			{"model_providers", "api_key", s.modelProvider, "model's"},
		} {
			owner, name, isVariable := strings.Cut(row[2], "/")
			query, args := fmt.Sprintf("UPDATE %s%s SET %s = $1 WHERE id = $2", schema, row[0], row[1]),
				[]any{sealOld(t, keyA, row[3], row[2]), owner}
			if isVariable {
				query, args = strings.Replace(query, " id = $2", " owner_id = $2 AND name = $3", 1), append(args, name)
			}
			if result, err := db.Exec(query, args...); err != nil {
				t.Fatal(err)
			} else if n, _ := result.RowsAffected(); n != 1 {
				t.Fatalf("%s: %d rows", query, n)
			}
		}
		for _, query := range []string{
			"DELETE FROM " + schema + "encryption_keys",
			"DELETE FROM " + schema + "connectors",
		} {
			if _, err := db.Exec(query); err != nil {
				t.Fatal(err)
			}
		}
		db.Close()
		refuses(t, withKeys(settings, keyB),
			"encryption_key: the secrets in the database were encrypted with another key;")
		if settings["database_url"] != nil {
			refuses(t, withKeys(settings), "encryption_key is not set: the secrets")
		}

		w := newWorld(t, withKeys(settings, keyB, keyA))
		w.readSecrets(s)
		w.wants(w.try("admin", "POST", "/keys/rotate", nil), 200, `"rotated":4`, `"left":0`)
		w.halt()
		newWorld(t, withKeys(settings, keyB)).readSecrets(s)
	})
}

// sealOld encrypts without a key id, like older versions.
func sealOld(t *testing.T, key, plain, bound string) []byte {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(key)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(raw)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatal(err)
	}
	return aead.Seal(nil, nil, []byte(plain), []byte(bound))
}

// With SQLite, the first start creates a key in the data directory. A missing or replaced
// key file is an error.
func TestFirstStartCreatesAKey(t *testing.T) {
	settings := inFolder(t, map[string]any{})
	file := filepath.Join(settings["data_dir"].(string), "encryption-key")
	first := newWorld(t, withKeys(settings))
	first.logged("created an encryption key", "back up this file", "file="+file)
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v, %v", info, err)
	}
	s := first.keepSecrets()
	first.wantKeys(fmt.Sprintf("%s writes %d", file, secretCount))
	first.halt()
	second := newWorld(t, withKeys(settings))
	second.readSecrets(s)
	second.halt()
	if strings.Contains(second.log.String(), "created an encryption key") {
		t.Error("a second start created another key")
	}

	key, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	refuses(t, withKeys(settings), "encryption_key is not set, and "+file+" is missing: ", "restore the file")
	refuses(t, withKeys(settings, keyA), "encryption_key: the secrets in the database were encrypted with another key")
	if _, err := os.Stat(file); err == nil {
		t.Error("a failed start created another key")
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(keyB)
	refuses(t, withKeys(settings), file+": the secrets in the database were encrypted with another key")
	write("")
	_, err = app.New(t.Context(), load(t, withKeys(settings)), app.Options{Logger: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), file+": expected 32 bytes in base64; restore this file") {
		t.Errorf("empty file: %v", err)
	}

	// A key that is configured later encrypts; the file is needed until a rotation.
	write(string(key))
	third := newWorld(t, withKeys(settings, keyA))
	third.readSecrets(s)
	third.call("admin", "POST", "/keys/rotate", nil)
	third.wantKeys(fmt.Sprintf("encryption_key writes %d", secretCount), file+" unused 0")
	third.halt()
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	fourth := newWorld(t, withKeys(settings, keyA))
	fourth.readSecrets(s)
	fourth.halt()

	// After the lost key is forgotten, the next start creates another one.
	if lost, _ := forget(t, withKeys(settings)); lost != secretCount {
		t.Errorf("lost %d secrets", lost)
	}
	fifth := newWorld(t, withKeys(settings))
	fifth.call("bob", "PUT", "/variables", object{"variables": object{"A": "1"}})
	fifth.wantKeys(file + " writes 1")
}

// With PostgreSQL, several servers need the same key, so none is created.
func TestPostgreSQLNeedsAnEncryptionKey(t *testing.T) {
	t.Parallel()
	settings := map[string]any{"database_url": testdb.Postgres(t)}
	settings = inFolder(t, settings)
	first := newWorld(t, withKeys(settings))
	first.wants(first.try("ann", "PUT", "/variables", object{"variables": object{"A": "1"}}), 501, "encryption_key")
	first.wants(first.try("admin", "POST", "/keys/rotate", nil), 501, "encryption_key")
	first.wantKeys()
	first.halt()
	if _, err := os.Stat(filepath.Join(settings["data_dir"].(string), "encryption-key")); err == nil {
		t.Error("a key was created")
	}
	second := newWorld(t, withKeys(settings, keyA))
	second.call("ann", "PUT", "/variables", object{"variables": object{"A": "1"}})
	second.halt()
	refuses(t, withKeys(settings), "encryption_key is not set: ")
	_, _, err := app.ForgetKeys(context.Background(), load(t, withKeys(settings)), slog.New(slog.DiscardHandler), 1)
	if err == nil || !strings.Contains(err.Error(), "encryption_key") {
		t.Errorf("forget without a key: %v", err)
	}
}

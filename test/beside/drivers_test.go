package beside

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/internal/testdb"
	"github.com/tidings-dev/tidings/internal/testtool"
)

// rounds suffice for drivers that prepare statements on the server after several uses.
const rounds = 12

// driver runs a program that makes the changes of [made] in a database.
type driver struct {
	name    string
	command func(t *testing.T, database, first string, pooled bool) *exec.Cmd
}

var drivers = []driver{
	{"psycopg2", func(t *testing.T, database, first string, _ bool) *exec.Cmd {
		needPython(t, "psycopg2")
		return exec.Command(python, "drivers/with_psycopg2.py", database, first, strconv.Itoa(rounds))
	}},
	{"psycopg", func(t *testing.T, database, first string, pooled bool) *exec.Cmd {
		needPython(t, "psycopg")
		return exec.Command(python, "drivers/with_psycopg.py", database, first, strconv.Itoa(rounds),
			strconv.FormatBool(pooled))
	}},
	{"node-postgres", func(t *testing.T, database, first string, _ bool) *exec.Cmd {
		cmd := exec.Command(testtool.Path(t, "node"), "drivers/node.js", database, first, strconv.Itoa(rounds))
		cmd.Env = append(os.Environ(), "NODE_PATH="+need(t, "../../bin/node-postgres"),
			"SNIPPET="+saved(t, "user.js", snippet(t, "Node", "js")+"\nmodule.exports = { withUser };\n"))
		return cmd
	}},
	{"JDBC", func(t *testing.T, database, first string, pooled bool) *exec.Cmd {
		address := jdbc(t, database)
		if pooled {
			address += "&prepareThreshold=0"
		}
		return java(t, "drivers/Jdbc.java", address, first, strconv.Itoa(rounds))
	}},
	{"Active Record", func(t *testing.T, database, first string, pooled bool) *exec.Cmd {
		cmd := exec.Command(testtool.Path(t, "ruby"), "drivers/rails.rb", database, first, strconv.Itoa(rounds),
			strconv.FormatBool(pooled))
		cmd.Env = append(os.Environ(), "SNIPPET="+saved(t, "record.rb", snippet(t, "Rails", "ruby")))
		return cmd
	}},
}

// made returns the events of a program's changes, whose ids start with first.
func made(first int) (want []string) {
	for id := first; id < first+10*rounds; id += 10 {
		want = append(want, fmt.Sprintf("%d: created by ann /invoice/%[1]d, paid by ann /invoice/%[1]d, "+
			"updated by  /invoice/%[1]d, voided by  /invoice/%[1]d", id),
			fmt.Sprintf("%d: created by bob /invoice/%[1]d, paid by carol /gifts/%[1]d", id+1))
	}
	return want
}

// Each driver changes rows and calls emit() in its transactions, directly and through a
// pooler. The events of committed transactions arrive with the transaction's user.
func TestDrivers(t *testing.T) {
	testtool.InAll(t)
	w := newWorld(t)
	w.exec("CREATE TABLE app.invoices (id int PRIMARY KEY, status text, paid_at timestamptz);" +
		"GRANT ALL ON app.invoices TO " + role)
	w.relay(map[string]any{
		"sources": map[string]any{"tables": map[string]any{"app.invoices": map[string]any{"type": "invoice"}}},
		"types":   map[string]any{"invoice": []any{"paid", "voided"}, last: nil},
	})
	w.exec("GRANT USAGE ON SCHEMA tidings TO " + role + "; GRANT EXECUTE ON FUNCTION tidings.emit TO " + role)
	// All drivers share two connections: state left by one would show in another.
	pooler := testdb.PgBouncer(t, w.app, "transaction", "default_pool_size = 2",
		"ignore_startup_parameters = extra_float_digits") // sent by JDBC

	var want []string
	var commands []*exec.Cmd
	for i, d := range drivers {
		direct, pooled := 2000*i+1000, 2000*i+2000
		want = append(append(want, made(direct)...), made(pooled)...)
		commands = append(commands, d.command(t, w.app, strconv.Itoa(direct), false),
			d.command(t, pooler, strconv.Itoa(pooled), true))
	}
	var all sync.WaitGroup
	for _, cmd := range commands {
		all.Go(func() {
			if out, err := output(cmd); err != nil {
				t.Errorf("%v: %v\n%.5000s", cmd.Args, err, out)
			}
		})
	}
	all.Wait()
	if t.Failed() {
		return
	}
	w.exec("INSERT INTO app.invoices VALUES (7)")
	w.run(spring(t, jdbc(t, pooler), "7", "dave"))
	want = append(want, "7: created by  /invoice/7, updated by dave /invoice/7")

	list := make(map[string][]string)
	for _, e := range w.all(strings.Count(strings.Join(want, ""), " by ")) {
		list[e.ResourceID] = append(list[e.ResourceID], fmt.Sprintf("%s by %s %s", e.Action, e.UserID, e.ResourceURL))
	}
	var got []string
	for id, events := range list {
		got = append(got, id+": "+strings.Join(events, ", "))
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("want (-), got (+):\n%s", diff)
	}
}

// jdbc returns a database URL for Java.
func jdbc(t *testing.T, database string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	return "jdbc:postgresql://" + u.Host + u.Path + "?user=" + u.User.Username()
}

// java returns a command that runs a single-file program with Debian's Java libraries.
func java(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	var libraries []string
	for _, name := range []string{
		"postgresql", "spring3-aop", "spring3-beans", "spring3-core", "spring3-jdbc", "spring3-transaction",
		"commons-logging", "aopalliance",
	} {
		libraries = append(libraries, need(t, "/usr/share/java/"+name+".jar"))
	}
	return exec.Command(testtool.Path(t, "java"),
		append([]string{"-XX:TieredStopAtLevel=1", "-cp", strings.Join(libraries, ":")}, args...)...)
}

// spring returns a command that runs the method from the documentation.
func spring(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	text, err := os.ReadFile("drivers/Spring.java")
	if err != nil {
		t.Fatal(err)
	}
	program := strings.Replace(string(text), "// SNIPPET", snippet(t, "Java", "java"), 1)
	return java(t, append([]string{saved(t, "Spring.java", program)}, args...)...)
}

// need returns the absolute path of a file that a make target installs.
func need(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(name)
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		testtool.Missing(t, filepath.Base(name))
	}
	return path
}

// saved writes a file and returns its path.
func saved(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

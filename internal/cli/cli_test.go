package cli_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/internal/cli"
	"github.com/tidings-dev/tidings/internal/testtool"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"tidings":  func() { os.Exit(cli.Main()) },
		"receiver": receiver,
	})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:   "testdata/script",
		Setup: freeAddress,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"waitready": waitReady,
			"answers":   answers,
			"request":   request, "requests": requests, "status": status, "terminal": onTerminal,
			"stranger": stranger,
		},
	})
}

// waitReady waits until a server that the script started is ready at an address.
func waitReady(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: waitready ADDRESS")
	}
	deadline := time.Now().Add(testtool.Allow(10 * time.Second))
	for {
		response, err := http.Get("http://" + args[0] + "/readyz")
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%s is not ready: %v", args[0], err)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// status runs a command and checks its exit code.
func status(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status CODE COMMAND...")
	}
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		code = exit.ExitCode()
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("%s: exit code %d, want %s", strings.Join(args[1:], " "), code, args[0])
	}
}

// answers starts a server that serves a file at each path, and sets TIDINGS_URL to it.
func answers(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 || len(args)%2 != 0 {
		ts.Fatalf("usage: answers PATH FILE ...")
	}
	mux := http.NewServeMux()
	for i := 0; i < len(args); i += 2 {
		text := ts.ReadFile(args[i+1])
		mux.HandleFunc("GET "+args[i], func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, text)
		})
	}
	server := httptest.NewServer(mux)
	ts.Defer(server.Close)
	ts.Setenv("TIDINGS_URL", server.URL)
}

// requests sends the same request a given number of times.
func requests(ts *testscript.TestScript, neg bool, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	for range n {
		request(ts, neg, args[1:])
	}
}

// request sends a request to the server with the admin token in data, and prints the
// response.
func request(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: request METHOD PATH [BODY]")
	}
	body := strings.NewReader(strings.Join(args[2:], ""))
	r, err := http.NewRequest(args[0], "http://"+ts.Getenv("ADDRESS")+"/api/v1"+args[1], body)
	ts.Check(err)
	r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(ts.ReadFile("data/admin-token")))
	r.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(r)
	ts.Check(err)
	defer response.Body.Close()
	_, err = io.Copy(ts.Stdout(), response.Body)
	ts.Check(err)
	if failed := response.StatusCode >= http.StatusBadRequest; failed != neg {
		ts.Fatalf("%s %s: %s", args[0], args[1], response.Status)
	}
}

// freeAddress sets ADDRESS to an unused address.
func freeAddress(e *testscript.Env) error {
	port, err := testtool.FreePort()
	e.Setenv("ADDRESS", "127.0.0.1:"+strconv.Itoa(port))
	return err
}

// stranger starts a server that is not Tidings and sets STRANGER to its address. It
// responds to every request with a status, a content type and the next body, or the last.
func stranger(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: stranger STATUS TYPE BODY...")
	}
	code, err := strconv.Atoi(args[0])
	ts.Check(err)
	bodies, answered := args[2:], atomic.Int64{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", args[1])
		w.WriteHeader(code)
		body := bodies[min(int(answered.Add(1)), len(bodies))-1]
		_, _ = io.WriteString(w, body) // the client may be gone
	}))
	ts.Defer(server.Close)
	ts.Setenv("STRANGER", server.Listener.Addr().String())
}

// The help of each command has examples, whose commands and flags exist.
func TestExamples(t *testing.T) {
	root := cli.Command()
	var check func(cmd *cobra.Command)
	check = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			check(sub)
		}
		if !cmd.Runnable() || cmd.Hidden || cmd.Name() == "help" {
			return
		}
		if !strings.Contains(cmd.Example, cmd.CommandPath()) {
			t.Errorf("%s: no example of this command: %q", cmd.CommandPath(), cmd.Example)
		}
		for line := range strings.Lines(cmd.Example) {
			words := strings.Fields(strings.NewReplacer("'", "", "$(", " ", ")", " ").Replace(line))
			at := slices.Index(words, "tidings")
			if at < 0 {
				t.Errorf("%s: example of another program: %s", cmd.CommandPath(), line)
				continue
			}
			found, rest, err := root.Find(words[at+1:])
			if err != nil || found == root {
				t.Errorf("%s: %s: no such command: %v", cmd.CommandPath(), line, err)
				continue
			}
			for _, word := range rest {
				name, isFlag := strings.CutPrefix(word, "--")
				name, _, _ = strings.Cut(name, "=")
				if isFlag && found.Flag(name) == nil && found.InheritedFlags().Lookup(name) == nil {
					t.Errorf("%s: %s: no flag --%s", cmd.CommandPath(), line, name)
				}
			}
		}
	}
	check(root)
}

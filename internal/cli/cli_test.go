package cli_test

import (
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tidings-dev/tidings/internal/cli"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"tidings": func() { os.Exit(cli.Main()) },
	})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:   "testdata/script",
		Setup: freeAddress,
		Cmds:  map[string]func(*testscript.TestScript, bool, []string){"waitready": waitReady},
	})
}

// waitReady waits until a server that the script started answers on an address.
func waitReady(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: waitready ADDRESS")
	}
	deadline := time.Now().Add(10 * time.Second)
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

// freeAddress is an address that nobody listens on.
func freeAddress(e *testscript.Env) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	e.Setenv("ADDRESS", l.Addr().String())
	return l.Close()
}

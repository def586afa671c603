package app_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/auth"
	"github.com/tidings-dev/tidings/internal/child"
	"github.com/tidings-dev/tidings/internal/testtool"
)

const (
	writers  = 4
	contexts = 5 // per writer
)

// record records the requests of a receiver.
type record struct {
	mu         sync.Mutex
	bodies     map[string][]byte  // by webhook-id
	versions   map[string][]int64 // by resource, in the order of first arrival
	duplicates int
	different  []string // ids of duplicates with another body
}

func (r *record) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	var event struct {
		ResourceID string `json:"resource_id"`
	}
	version, err2 := strconv.ParseInt(request.Header.Get("tidings-resource-version"), 10, 64)
	if err != nil || err2 != nil || json.Unmarshal(body, &event) != nil {
		w.WriteHeader(http.StatusBadRequest) // cut off by a kill
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	id := request.Header.Get("webhook-id")
	if known, ok := r.bodies[id]; ok {
		r.duplicates++
		if !bytes.Equal(known, body) {
			r.different = append(r.different, id)
		}
		return
	}
	r.bodies[id] = body
	r.versions[event.ResourceID] = append(r.versions[event.ResourceID], version)
}

// missing returns how many versions of a resource have not arrived.
func (r *record) missing(id string, version int64) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return version - int64(len(r.versions[id]))
}

// client has a timeout, for servers that do not answer.
var client = &http.Client{Timeout: testTimeout}

// process is a server in a separate process, which can be restarted on the same address.
type process struct {
	relay bool // the server is tidings relay
	*testing.T
	file, address string
	limits        string // a command of the shell that sets some, such as its umask
	cmd           *exec.Cmd
	log           *syncBuffer
	// awayAllowed makes writers retry after a 503.
	awayAllowed bool
}

func newProcess(t *testing.T, settings map[string]any) *process {
	t.Helper()
	port, err := testtool.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	address := "127.0.0.1:" + strconv.Itoa(port)
	all := map[string]any{
		"listen": address, "data_dir": filepath.Join(t.TempDir(), "data"), "shutdown_timeout": "10s",
		"limits": object{"requests_per_second": 1e6, "burst": 1_000_000}, // tests are faster than people
		"auth": map[string]any{"tokens": []any{map[string]any{
			"sha256": auth.Hash("token"),
			"user":   "crash@example.com", "role": "admin",
		}}},
	}
	maps.Copy(all, settings)
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{T: t, file: filepath.Join(t.TempDir(), "tidings.yaml"), address: address, log: new(syncBuffer)}
	if err := os.WriteFile(p.file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.end(syscall.SIGKILL) })
	return p
}

func (p *process) start() {
	p.Helper()
	p.cmd = exec.Command(os.Args[0])
	if p.limits != "" {
		p.cmd = exec.Command("sh", "-c", p.limits+` && exec "$0"`, os.Args[0])
	}
	p.cmd.Env = append(os.Environ(), serveFile+"="+p.file)
	if p.relay {
		p.cmd.Env = append(p.cmd.Env, serveRelay+"=1")
	}
	p.cmd.Stderr = p.log
	child.EndWithUs(p.cmd, syscall.SIGKILL)
	if err := p.cmd.Start(); err != nil {
		p.Fatal(err)
	}
	deadline := time.Now().Add(testTimeout)
	for {
		response, err := client.Get("http://" + p.address + "/readyz")
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			p.Fatalf("not ready: %v; log:\n%s", err, p.log)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// end sends the process a signal, waits for it and returns its error. If the process
// does not end, SIGQUIT makes it dump its goroutines.
func (p *process) end(signal os.Signal) error {
	if p.cmd == nil {
		return nil
	}
	err := p.cmd.Process.Signal(signal)
	if err == nil {
		quit := time.AfterFunc(2*testTimeout, func() { _ = p.cmd.Process.Signal(syscall.SIGQUIT) })
		err = p.cmd.Wait()
		quit.Stop()
	}
	p.cmd = nil
	return err
}

// call makes a request, during which the process may be killed.
func (p *process) call(method, path string, body any) (status int, answer map[string]any, err error) {
	text, err := json.Marshal(body)
	if err != nil {
		return 0, nil, err
	}
	r, err := http.NewRequest(method, "http://"+p.address+"/api/v1"+path, bytes.NewReader(text))
	if err != nil {
		return 0, nil, err
	}
	r.Header.Set("Authorization", "Bearer token")
	r.Header.Set("Content-Type", "application/json")
	response, err := client.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	err = json.NewDecoder(response.Body).Decode(&answer)
	return response.StatusCode, answer, err
}

// write changes contexts of its own until stop is closed, and returns the last
// acknowledged version of each.
func (p *process) write(stop <-chan struct{}) map[string]int64 {
	acknowledged := make(map[string]int64)
	for n := 0; ; n++ {
		select {
		case <-stop:
			return acknowledged
		default:
		}
		method, path, body := "POST", "/contexts", map[string]any{"metadata": map[string]any{"n": "0"}}
		if ids := slices.Sorted(maps.Keys(acknowledged)); len(ids) == contexts {
			method, path = "PUT", "/contexts/"+ids[n%contexts]
			body["metadata"] = map[string]any{"n": strconv.Itoa(n)}
		}
		status, answer, err := p.call(method, path, body)
		if err != nil {
			<-time.After(2 * time.Millisecond) // the process was killed and will restart
			continue
		}
		if status == http.StatusServiceUnavailable && p.awayAllowed {
			<-time.After(2 * time.Millisecond)
			continue
		}
		if status >= 300 {
			p.Errorf("%s %s: %d %v", method, path, status, answer)
			return acknowledged
		}
		acknowledged[answer["id"].(string)] = int64(answer["version"].(float64))
	}
}

// However often the server is killed, every committed change is delivered, nothing else
// is, and each resource's changes arrive in order.
func TestRandomKills(t *testing.T) {
	databases(t, func(t *testing.T, settings map[string]any) {
		got := &record{bodies: make(map[string][]byte), versions: make(map[string][]int64)}
		receiver := httptest.NewServer(got)
		t.Cleanup(receiver.Close) // runs after the clients have stopped
		settings["webhook"] = map[string]any{"endpoints": []any{map[string]any{
			"name": "receiver",
			"url":  receiver.URL,
		}}}
		p := newProcess(t, settings)
		p.start()
		stop := make(chan struct{})
		results := make(chan map[string]int64, writers)
		for range writers {
			go func() { results <- p.write(stop) }()
		}
		kills := testtool.Rounds(30)
		for range kills {
			<-time.After(time.Duration(10+rand.IntN(150)) * time.Millisecond)
			p.end(syscall.SIGKILL)
			p.start()
		}
		close(stop)
		for range writers {
			for id, version := range <-results {
				status, answer, err := p.call("GET", "/contexts/"+id, nil)
				if err != nil || status != http.StatusOK || int64(answer["version"].(float64)) < version {
					t.Errorf("context %s was acknowledged at version %d, but is %v, %v", id, version, answer, err)
				}
			}
		}
		events := p.checkDelivered(got)
		if err := p.end(syscall.SIGTERM); err != nil {
			t.Errorf("SIGTERM: %v; want exit code 0; log:\n%s", err, p.log)
		}
		t.Logf("%d kills, %d events, %d duplicates", kills, events, got.duplicates)
	})
}

// checkDelivered compares the deliveries with the database: a context at version n was
// changed n times.
func (p *process) checkDelivered(got *record) (events int64) {
	p.Helper()
	final := p.contexts()
	deadline := time.Now().Add(3 * testTimeout)
	for id, version := range final {
		for got.missing(id, version) > 0 {
			if time.Now().After(deadline) {
				p.Fatalf("context %s: %d of %d versions never arrived; log:\n%s", id,
					got.missing(id, version), version, p.log)
			}
			<-time.After(10 * time.Millisecond)
		}
	}
	got.mu.Lock()
	defer got.mu.Unlock()
	for id, version := range final {
		want := make([]int64, version)
		for i := range want {
			want[i] = int64(i + 1)
		}
		if !slices.Equal(got.versions[id], want) {
			p.Errorf("context %s is at version %d; versions arrived: %v", id, version, got.versions[id])
		}
		delete(got.versions, id)
		events += version
	}
	if len(got.versions) > 1 { // only the user is left
		p.Errorf("webhooks of resources that do not exist: %v", got.versions)
	}
	if len(got.different) > 0 {
		p.Errorf("different bodies with the same webhook-id: %v", got.different)
	}
	return events
}

// contexts returns the versions of all contexts in the database.
func (p *process) contexts() map[string]int64 {
	p.Helper()
	all := make(map[string]int64)
	token := ""
	for {
		status, page, err := p.call("GET", "/contexts?limit=100"+token, nil)
		if err != nil || status != http.StatusOK {
			p.Fatalf("list contexts: %d %v %v", status, page, err)
		}
		for _, item := range page["items"].([]any) {
			c := item.(map[string]any)
			all[c["id"].(string)] = int64(c["version"].(float64))
		}
		if page["has_more"] != true {
			return all
		}
		token = fmt.Sprintf("&page_token=%s", page["next_page_token"])
	}
}

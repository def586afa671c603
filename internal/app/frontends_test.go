//go:build unix

package app_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/template"
	"time"

	"github.com/tidings-dev/tidings/internal/child"
	"github.com/tidings-dev/tidings/internal/testtls"
	"github.com/tidings-dev/tidings/internal/testtool"
)

// frontend is a web server or proxy in front of a receiver, as packaged by Debian.
type frontend struct {
	*testing.T
	Folder, Port, Upstream string
	Modules                string // directory of Apache's modules
	cmd                    *exec.Cmd
	file                   string // configuration file
}

// libraries returns the directory in which the Makefile unpacks the programs' libraries.
func libraries() string {
	_, here, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(here), "..", "..", "bin", "frontends", "usr", "lib")
}

// newFrontend starts a program with a configuration, which is a template.
func newFrontend(t *testing.T, kind, config, upstream string, ca *testtls.CA) *frontend {
	t.Helper()
	name := map[string]string{"apache": "apache2", "gunicorn": "gunicorn"}[kind]
	if name == "" {
		name = kind
	}
	program := testtool.Path(t, name)
	free, err := testtool.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(free)
	f := &frontend{
		T: t, Folder: t.TempDir(), Port: port, Upstream: upstream,
		Modules: filepath.Join(libraries(), "apache2", "modules"),
	}
	if _, err := os.Stat(f.Modules); err != nil {
		f.Modules = "/usr/lib/apache2/modules"
	}
	f.file = filepath.Join(f.Folder, "config.py")
	f.configure(config)
	certificate := ca.Issue("127.0.0.1")
	key, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	f.write("cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]})))
	f.write("key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
	arguments := map[string][]string{
		"nginx":   {"-p", f.Folder, "-c", f.file, "-e", f.path("log")},
		"haproxy": {"-W", "-f", f.file},
		"apache2": {"-DFOREGROUND", "-d", f.Folder, "-f", f.file, "-E", f.path("log")},
		"gunicorn": {
			program, "--bind", "127.0.0.1:" + port, "--workers", "1", "--chdir", f.Folder, "--worker-tmp-dir", f.Folder,
			"--graceful-timeout", "5", "config:app",
		},
	}[name]
	if name == "gunicorn" {
		program = "/usr/bin/python3"
	}
	f.cmd = exec.Command(program, arguments...)
	f.cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+filepath.Join(libraries(), "x86_64-linux-gnu"),
		"PYTHONPATH="+filepath.Join(libraries(), "python3", "dist-packages"))
	log, err := os.Create(f.path("out"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	f.cmd.Stdout, f.cmd.Stderr = log, log
	f.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // includes child processes
	child.EndWithUs(f.cmd, syscall.SIGTERM)
	if err := f.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-f.cmd.Process.Pid, syscall.SIGKILL)
		_ = f.cmd.Wait()
		if t.Failed() {
			out, _ := os.ReadFile(f.path("out"))
			errors, _ := os.ReadFile(f.path("log"))
			t.Logf("output of %s:\n%.2000s\n%.2000s", name, out, errors)
		}
	})
	for deadline := time.Now().Add(testTimeout); ; <-time.After(10 * time.Millisecond) {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			c.Close()
			return f
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not listen: %v", name, err)
		}
	}
}

func (f *frontend) path(name string) string { return filepath.Join(f.Folder, name) }

func (f *frontend) write(name, text string) {
	f.Helper()
	if err := os.WriteFile(f.path(name), []byte(text), 0o600); err != nil {
		f.Fatal(err)
	}
}

func (f *frontend) configure(text string) {
	f.Helper()
	var b bytes.Buffer
	if err := template.Must(template.New("").Parse(text)).Execute(&b, f); err != nil {
		f.Fatal(err)
	}
	f.write("config.py", b.String())
}

// reload makes the program reload its configuration, like its service does.
func (f *frontend) reload() {
	f.Helper()
	signal := syscall.SIGHUP
	switch filepath.Base(f.cmd.Path) {
	case "haproxy":
		signal = syscall.SIGUSR2
	case "apache2":
		signal = syscall.SIGUSR1
	}
	if err := f.cmd.Process.Signal(signal); err != nil {
		f.Fatal(err)
	}
}

// nginx returns a configuration with directives for http, server and location.
func nginx(http, server, location string) string {
	return `user root; daemon off; worker_processes 2; pid {{.Folder}}/pid;
events { worker_connections 512; }
http {
	access_log off;
	client_body_temp_path {{.Folder}}/body; proxy_temp_path {{.Folder}}/proxy; fastcgi_temp_path {{.Folder}}/fastcgi;
	uwsgi_temp_path {{.Folder}}/uwsgi; scgi_temp_path {{.Folder}}/scgi;
	upstream up { server {{.Upstream}}; keepalive 32; }
	` + http + `
	server {
		listen 127.0.0.1:{{.Port}}` + server + `
		location / { proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ""; ` + location + ` }
	}
}
`
}

const nginxTLS = `ssl_certificate {{.Folder}}/cert.pem; ssl_certificate_key {{.Folder}}/key.pem;`

func haproxy(frontend string) string {
	return `global
	nbthread 2
defaults
	mode http
	timeout connect 5s
	timeout client 30s
	timeout server 30s
frontend front
	bind 127.0.0.1:{{.Port}}
	` + frontend + `
	default_backend back
backend back
	server up {{.Upstream}}
`
}

func apache(directives string) string {
	var b strings.Builder
	for _, m := range []string{"mpm_event", "authz_core", "unixd", "proxy", "proxy_http"} {
		fmt.Fprintf(&b, "<IfModule !%s_module>\nLoadModule %s_module {{.Modules}}/mod_%s.so\n</IfModule>\n", m, m, m)
	}
	return b.String() + `Listen 127.0.0.1:{{.Port}}
ServerName front
PidFile {{.Folder}}/pid
DefaultRuntimeDir {{.Folder}}
Mutex pthread
ErrorLog {{.Folder}}/log
` + directives + `
ProxyPass / http://{{.Upstream}}/
`
}

// oneWorker is a gunicorn application that reports each request and takes 100 ms for it.
const oneWorker = `import time, urllib.request
def app(environ, start_response):
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    time.sleep(0.1)
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(urllib.request.Request(
        "http://{{.Upstream}}/", data=b"", headers={"Webhook-Id": environ["HTTP_WEBHOOK_ID"]}))
    start_response("204 No Content", [])
    return []
`

// states returns the states that an endpoint which is healthy now was in.
func states(w *world, endpoint string) string {
	var names []string
	w.until("admin", "GET", "/webhooks/endpoints/"+endpoint+"/states", nil, func(a answer) bool {
		names = nil
		for _, item := range a.body["items"].([]any) {
			names = append(names, item.(map[string]any)["state"].(string))
		}
		return len(names) > 0 && names[len(names)-1] == "healthy"
	})
	return strings.Join(names, " → ")
}

// Behind common front ends, every event arrives once, as fast as the front end allows.
func TestFrontends(t *testing.T) {
	testtool.InAll(t)
	ca := testtls.NewCA(t)
	limited := func(status string) string {
		return nginx("limit_req_zone $server_addr zone=z:1m rate=50r/s;", ";",
			"limit_req zone=z burst=5 nodelay; "+status)
	}
	for name, tt := range map[string]struct {
		config string
		again  string        // the configuration after the first reload
		pause  time.Duration // between events
		reload time.Duration // between reloads
		delay  time.Duration // the receiver's response time
		secure bool
		http2  bool
		// rate is how many requests per second the front end lets through.
		rate     float64
		failures int // attempts that may fail
		endpoint object
		events   int
	}{
		"nginx":                {config: nginx("", ";", "")},
		"nginx, limit_req 429": {config: limited("limit_req_status 429;"), rate: 50, failures: 40, events: 500},
		"nginx, limit_req 503": {config: limited(""), rate: 50, failures: 40, events: 500},
		"nginx, limit_conn": {
			config: nginx("limit_conn_zone $server_addr zone=z:1m;", ";", "limit_conn z 4;"),
			delay:  20 * time.Millisecond, failures: 60,
		},
		"nginx, keepalive_timeout": {
			config: nginx("", "; keepalive_timeout 100ms;", ""),
			pause:  100 * time.Millisecond, events: 100,
		},
		"nginx, keepalive_requests": {config: nginx("", "; keepalive_requests 10;", "")},
		"nginx, return 444": {
			config: nginx("", ";", "return 444;"), again: nginx("", ";", ""),
			pause: 5 * time.Millisecond, reload: time.Second, failures: 40,
		},
		"nginx, reload": {
			config: nginx("", ";", ""), pause: 5 * time.Millisecond,
			reload: 200 * time.Millisecond,
		},
		"nginx, TLS": {
			config: nginx("", " ssl;"+nginxTLS, ""), secure: true,
			pause: 5 * time.Millisecond, reload: 500 * time.Millisecond,
		},
		"nginx, TLS, HTTP/2": {
			config: nginx("", " ssl http2;"+nginxTLS, ""), secure: true, http2: true,
			pause: 5 * time.Millisecond, reload: 500 * time.Millisecond,
		},
		"nginx, HTTP/2, GOAWAY": {
			config: nginx("", " ssl http2; keepalive_requests 10;"+nginxTLS, ""),
			secure: true, http2: true,
		},
		"HAProxy": {config: haproxy("")},
		"HAProxy, keep-alive": {
			config: haproxy("timeout http-keep-alive 100ms"),
			pause:  100 * time.Millisecond, events: 100,
		},
		"HAProxy, reload": {config: haproxy(""), pause: 5 * time.Millisecond, reload: 500 * time.Millisecond},
		"Apache":          {config: apache("MaxKeepAliveRequests 10")},
		"Apache, keep-alive": {
			config: apache("KeepAliveTimeout 100ms"),
			pause:  100 * time.Millisecond, events: 100,
		},
		"Apache, reload":       {config: apache(""), pause: 5 * time.Millisecond, reload: 500 * time.Millisecond},
		"gunicorn, one worker": {config: oneWorker, rate: 8, events: 80, endpoint: object{"timeout": "2s"}},
		"gunicorn, HUP": {
			config: oneWorker, reload: 2 * time.Second, events: 60,
			endpoint: object{"timeout": "5s"}, failures: 3,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			count := make(map[string]int) // requests by webhook-id
			var times []time.Time         // of first requests
			arrived := make(chan struct{}, 1)
			receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				<-time.After(tt.delay)
				mu.Lock()
				id := r.Header.Get("Webhook-Id")
				if count[id]++; count[id] == 1 {
					times = append(times, time.Now())
				}
				mu.Unlock()
				select {
				case arrived <- struct{}{}:
				default:
				}
				w.WriteHeader(http.StatusNoContent)
			}))
			defer receiver.Close()
			kind, _, _ := strings.Cut(strings.ToLower(name), ",")
			f := newFrontend(t, kind, tt.config, receiver.Listener.Addr().String(), ca)
			endpoint := object{"name": "front", "url": "http://127.0.0.1:" + f.Port, "events": []any{"context.created"}}
			if tt.secure {
				endpoint["url"] = "https://127.0.0.1:" + f.Port
				endpoint["http"] = object{"tls_config": object{"ca": ca.PEM()}, "enable_http2": tt.http2}
			}
			maps.Copy(endpoint, tt.endpoint)
			w := newWorldWith(t, nil, endpoint)
			events := tt.events
			if events == 0 {
				events = 120
			}
			begun := time.Now()
			stop := make(chan struct{})
			var reloading sync.WaitGroup
			if tt.reload > 0 {
				reloading.Go(func() {
					for {
						select {
						case <-time.After(tt.reload):
							if tt.again != "" {
								f.configure(tt.again)
							}
							f.reload()
						case <-stop:
							return
						}
					}
				})
			}
			hasLimit := strings.Contains(name, "limit_req")
			if hasLimit { // a slow writer would not exceed the limit
				w.call("admin", "POST", "/webhooks/endpoints/front/pause", nil)
			}
			for range events {
				w.call("ann", "POST", "/contexts", object{})
				<-time.After(tt.pause)
			}
			written := time.Since(begun)
			if hasLimit {
				begun, written = time.Now(), 0
				w.call("admin", "POST", "/webhooks/endpoints/front/resume", nil)
			}
			for deadline := time.After(90 * time.Second); ; {
				mu.Lock()
				n := len(count)
				mu.Unlock()
				if n == events {
					break
				}
				select {
				case <-arrived:
				case <-deadline:
					t.Fatalf("%d of %d events arrived", n, events)
				}
			}
			took := time.Since(begun)
			close(stop)
			reloading.Wait()
			shown := w.until("admin", "GET", "/webhooks/endpoints/front", nil,
				has(`"state":"healthy"`, `"parked":0`, `"dead":0`, `"lag_events":0`))
			if ceiling, _ := shown.body["ceiling"].(float64); hasLimit && ceiling == 0 {
				t.Errorf("what was learned of the receiver is not shown: %s", shown.text)
			}
			failed := w.call("admin", "GET", "/webhooks/attempts?endpoint=front&outcome=failures&limit=1000", nil).text
			failures := strings.Count(failed, `"outcome":`)
			mu.Lock()
			defer mu.Unlock()
			duplicates := 0
			for _, n := range count {
				duplicates += n - 1
			}
			resent := strings.Count(w.call("admin", "GET", "/webhooks/attempts?endpoint=front&limit=1000", nil).text,
				`"resent":true`)
			t.Logf("%d delivered in %v (written in %v), %d duplicates, %d failed attempts, %d sent twice, %s", len(count),
				took.Round(10*time.Millisecond),
				written.Round(10*time.Millisecond), duplicates, failures, resent, states(w, "front"))
			if duplicates > 0 {
				t.Errorf("%d duplicates", duplicates)
			}
			if failures > tt.failures {
				t.Errorf("%d attempts failed, want %d at most: %.3000s", failures, tt.failures, failed)
			}
			// After all events were written and the relay has learned the receiver's rate.
			from, _ := slices.BinarySearchFunc(times, begun.Add(max(written, 2*time.Second)), time.Time.Compare)
			if n := len(times) - from - 1; tt.rate > 0 && n > events/5 {
				share := 0.7 // at least 0.8 on an idle machine
				if testtool.Raced {
					share = 0.4
				}
				if rate := float64(n) / times[len(times)-1].Sub(times[from]).Seconds(); rate < share*tt.rate {
					t.Errorf("%.1f/s delivered, want %v of %v/s", rate, share, tt.rate)
				}
			}
		})
	}
}

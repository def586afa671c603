package remote

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/internal/resource"
	"github.com/tidings-dev/tidings/sender"
)

// HTTP/2 has the same limits.
func TestHTTP2(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			t.Errorf("the request is %s", r.Proto)
		}
		size, text := 900<<10, "x"
		switch {
		case strings.HasPrefix(r.URL.Path, "/large"):
			size = answerLimit
		case strings.HasPrefix(r.URL.Path, "/header"):
			w.Header().Set("X-Large", strings.Repeat(text, 2*headerLimit))
		}
		fmt.Fprintf(w,
			`{"name":"Echo","description":%q,"url":"http://echo","version":"1","capabilities":{},"skills":[],`+
				`"defaultInputModes":[],"defaultOutputModes":[]}`, strings.Repeat(text, size))
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	c := New(sender.Egress{PublicOnly: true, Private: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
		"Tidings/test")
	defer c.Close()
	c.transport.Load().TLSClientConfig = server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	for path, want := range map[string]string{
		"": "", "/large": string(resource.RemoteUnusable),
		"/header": string(resource.RemoteUnreachable),
	} {
		got := ""
		if _, err := c.Fetch(t.Context(), server.URL+path); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: %q, want %q", path, got, want)
		}
	}
}

package httpapi

import (
	"fmt"
	"net/http"
	"net/netip"

	"github.com/tidings-dev/tidings/internal/limit"
	"github.com/tidings-dev/tidings/internal/rest"
)

// Rates limits the rate of requests; nil fields are unlimited.
type Rates struct {
	// Callers has a bucket per user, by e-mail address.
	Callers *limit.Rate
	// Strangers has a bucket per network, for requests without valid credentials.
	Strangers *limit.Rate
}

// setBudget reports a caller's remaining budget, as in the Internet-Draft
// draft-ietf-httpapi-ratelimit-headers-10.
func setBudget(h http.Header, b limit.Budget) {
	if b.Limit == 0 {
		return
	}
	h.Set("RateLimit-Policy", fmt.Sprintf(`"requests";q=%d;w=%s`, b.Limit, rest.Seconds(b.Window)))
	h.Set("RateLimit", fmt.Sprintf(`"requests";r=%d;t=%s`, b.Left, rest.Seconds(b.Reset)))
}

// network returns the key by which requests are grouped: an IPv4 address, or an
// IPv6 /64, the usual allocation to one customer.
func network(remote string) string {
	address, err := netip.ParseAddrPort(remote)
	if err != nil {
		return remote
	}
	ip := address.Addr().Unmap()
	if ip.Is6() {
		if prefix, err := ip.WithZone("").Prefix(64); err == nil {
			return prefix.String()
		}
	}
	return ip.String()
}

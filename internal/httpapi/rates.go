package httpapi

import (
	"fmt"
	"net/http"
	"net/netip"

	"github.com/tidings-dev/tidings/internal/limit"
	"github.com/tidings-dev/tidings/internal/rest"
)

// Rates are how often requests may come; what is nil is unlimited.
type Rates struct {
	// Callers have a bucket each, by e-mail address.
	Callers *limit.Rate
	// Strangers are those whose credentials don't count, by network.
	Strangers *limit.Rate
}

// setBudget writes what a caller has left, as in the Internet draft
// draft-ietf-httpapi-ratelimit-headers-10.
func setBudget(h http.Header, b limit.Budget) {
	if b.Limit == 0 {
		return
	}
	h.Set("RateLimit-Policy", fmt.Sprintf(`"requests";q=%d;w=%s`, b.Limit, rest.Seconds(b.Window)))
	h.Set("RateLimit", fmt.Sprintf(`"requests";r=%d;t=%s`, b.Left, rest.Seconds(b.Reset)))
}

// network is what counts as one place that requests come from: an IPv4 address,
// or a /64 of IPv6, which one customer has.
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

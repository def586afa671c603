package config

import (
	"net/netip"

	"github.com/tidings-dev/tidings/sender"
)

// EndpointEgress returns the egress rule for webhook endpoints.
func (c *Config) EndpointEgress() sender.Egress {
	return sender.Egress{Deny: prefixes(c.Egress.DenyNetworks), Allow: prefixes(c.Egress.AllowNetworks)}
}

// UserEgress returns the egress rule for user-supplied URLs. Without
// authentication, it allows loopback, since the server runs on the user's machine.
func (c *Config) UserEgress() sender.Egress {
	rule := c.EndpointEgress()
	rule.PublicOnly = true
	rule.Private = prefixes(c.Egress.UserURLs.AllowNetworks)
	if c.Auth.Disabled {
		rule.Private = append(rule.Private, netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"))
	}
	return rule
}

func prefixes(networks []Network) []netip.Prefix {
	list := make([]netip.Prefix, len(networks))
	for i, n := range networks {
		list[i] = n.Prefix
	}
	return list
}

package sender_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/sender"
)

func networks(texts ...string) []netip.Prefix {
	list := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		list[i] = netip.MustParsePrefix(text)
	}
	return list
}

var alwaysRefused = []string{
	"169.254.169.254", "169.254.0.1", "fe80::1%eth0", "168.63.129.16", "100.100.100.200", "192.0.0.192",
	"fd00:ec2::23", "fd00:ec2::254", "fd20:ce::254",
}

func TestEgress(t *testing.T) {
	everything := networks("0.0.0.0/0", "::/0")
	for name, test := range map[string]struct {
		rule             sender.Egress
		allowed, refused []string
	}{
		"none": {
			sender.Egress{},
			[]string{
				"127.0.0.1", "::1", "0.0.0.0", "::", "10.0.0.1", "fd00::1", "8.8.8.8",
				"2606:4700::1111", "64:ff9b::a00:1",
			},
			alwaysRefused,
		},
		"everything is allowed": {
			sender.Egress{Allow: everything, PublicOnly: true, Private: everything},
			[]string{"10.0.0.1", "::1"},
			alwaysRefused,
		},
		"networks": {
			sender.Egress{Deny: networks("10.1.0.0/16"), Allow: networks("10.0.0.0/8", "169.254.0.0/16")},
			[]string{"10.2.0.1", "::ffff:10.2.0.1"},
			append([]string{"10.1.0.1", "::ffff:10.1.0.1", "192.0.2.1", "2606:4700::1111"}, alwaysRefused...),
		},
		"public only": {
			sender.Egress{PublicOnly: true},
			[]string{
				"8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::808:808",
				"64:ff9b:1::808:808", "2002:808:808::1",
			},
			append([]string{
				"127.0.0.1", "127.255.0.1", "::1", "0.0.0.0", "0.1.2.3", "::", "10.0.0.1", "172.16.0.1",
				"172.31.255.255", "192.168.1.1",
				"100.64.0.1", "100.127.255.255", "192.0.0.8", "198.18.0.1", "224.0.0.1", "255.255.255.255",
				"fc00::1", "fdff::1", "fec0::1", "ff02::1", "100::1", "4000::1", "2001:2::1",
			}, alwaysRefused...),
		},
		"public and named": {
			sender.Egress{
				PublicOnly: true,
				Private:    networks("127.0.0.0/8", "::1/128", "10.1.0.0/16", "169.254.0.0/16"),
				Deny:       networks("10.1.2.0/24"),
			},
			[]string{
				"127.0.0.1", "::1", "0.0.0.0", "::", "10.1.0.1", "::ffff:10.1.0.1",
				"64:ff9b::10.1.0.1", "8.8.8.8",
			},
			append([]string{"10.1.2.1", "64:ff9b::10.1.2.1", "10.2.0.1", "fd00::1"}, alwaysRefused...),
		},
		"loopback by all its names": {
			sender.Egress{Deny: networks("127.0.0.0/8")},
			[]string{"::1", "10.0.0.1"},
			[]string{
				"127.0.0.1", "0.0.0.0", "::ffff:0.0.0.0", "::ffff:127.0.0.1", "::", "64:ff9b::",
				"2002::1", "::127.0.0.1",
			},
		},
		"rules with embedded addresses": {
			sender.Egress{Deny: networks("::ffff:10.0.0.0/104", "2002:c0a8::/32", "64:ff9b::ac10:0/108")},
			[]string{"11.0.0.1", "192.169.0.1", "172.32.0.1"},
			[]string{
				"10.0.0.1", "::ffff:10.0.0.1", "192.168.0.1", "2002:c0a8:1::", "172.16.0.1",
				"64:ff9b:1::172.31.0.1",
			},
		},
		"NAT64 as a whole": {
			sender.Egress{Deny: networks("64:ff9b::/96")},
			[]string{"8.8.8.8", "64:ff9b:1::8.8.8.8"},
			[]string{"64:ff9b::8.8.8.8"},
		},
		"NAT64 as a whole does not allow IPv4": {
			sender.Egress{PublicOnly: true, Private: networks("64:ff9b::/96", "::/96")},
			[]string{"64:ff9b::8.8.8.8"},
			[]string{"10.0.0.1", "127.0.0.1", "64:ff9b::10.0.0.1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, address := range test.allowed {
				if err := test.rule.Check(netip.MustParseAddr(address)); err != nil {
					t.Errorf("%s is not allowed: %v", address, err)
				}
			}
			for _, address := range test.refused {
				if err := test.rule.Check(netip.MustParseAddr(address)); err == nil {
					t.Errorf("%s is allowed", address)
				}
			}
		})
	}
}

// forms are the IPv6 addresses that embed an IPv4 address.
func forms(a netip.Addr) map[string]netip.Addr {
	b := a.As4()
	hex := fmt.Sprintf("%02x%02x:%02x%02x", b[0], b[1], b[2], b[3])
	local := func(prefix string, at ...int) netip.Addr {
		long := netip.MustParseAddr(prefix).As16()
		for i, position := range at {
			long[position] = b[i]
		}
		return netip.AddrFrom16(long)
	}
	return map[string]netip.Addr{
		"itself":             a,
		"IPv4-mapped":        netip.AddrFrom16(a.As16()),
		"IPv4-compatible":    netip.MustParseAddr("::" + a.String()),
		"IPv4-translated":    netip.MustParseAddr("::ffff:0:" + a.String()),
		"NAT64":              netip.MustParseAddr("64:ff9b::" + a.String()),
		"NAT64, local":       netip.MustParseAddr("64:ff9b:1::" + a.String()),
		"NAT64, local, /48":  local("64:ff9b:1::", 6, 7, 9, 10),
		"NAT64, local, /56":  local("64:ff9b:1::", 7, 9, 10, 11),
		"NAT64, local, /64":  local("64:ff9b:1::", 9, 10, 11, 12),
		"6to4":               netip.MustParseAddr("2002:" + hex + "::1"),
		"Teredo, its server": netip.MustParseAddr("2001:0:" + hex + "::f7f7:f7f7"), // client 8.8.8.8
		"Teredo": netip.MustParseAddr(fmt.Sprintf("2001:0:808:808::%02x%02x:%02x%02x",
			^b[0], ^b[1], ^b[2], ^b[3])),
		"ISATAP":            netip.MustParseAddr("2606:4700::5efe:" + a.String()),
		"ISATAP, universal": netip.MustParseAddr("2606:4700::200:5efe:" + a.String()),
	}
}

// Every rule that refuses an IPv4 address also refuses the addresses that embed
// it.
func TestEgressSeesThroughEmbeddedAddresses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		address := func(label string) netip.Addr {
			interesting := rapid.SampledFrom([]string{
				"127.0.0.1", "10.9.8.7", "192.168.0.0", "169.254.169.254",
				"100.64.0.0", "8.8.8.8",
			})
			if rapid.Bool().Draw(t, label+" is interesting") {
				return netip.MustParseAddr(interesting.Draw(t, label))
			}
			b := rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, label)
			return netip.AddrFrom4([4]byte{max(b[0], 1), b[1], b[2], b[3]}).Unmap()
		}
		rule := sender.Egress{PublicOnly: rapid.Bool().Draw(t, "public only")}
		network := netip.PrefixFrom(address("network"), rapid.IntRange(1, 32).Draw(t, "bits")).Masked()
		switch rapid.IntRange(0, 2).Draw(t, "kind") {
		case 0:
			rule.Deny = []netip.Prefix{network}
		case 1:
			rule.Private = []netip.Prefix{network}
		}
		a := address("address")
		if rule.Check(a) == nil {
			return
		}
		for form, wrapped := range forms(a) {
			if rule.Check(wrapped) == nil && (!strings.HasPrefix(form, "NAT64, local, /") || a.As4()[0] < 224) {
				t.Fatalf("%+v refuses %v but not its form %s, %v", rule, a, form, wrapped)
			}
		}
	})
}

// The address is checked when it is dialed, whatever the host name.
func TestEgressChecksWhatIsDialled(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	for _, host := range []string{
		"127.0.0.1", "localhost", "0.0.0.0", "[::]",
		"[::ffff:127.0.0.1]", "[::ffff:0.0.0.0]",
	} {
		s := newSender(t, tidings.Endpoint{URL: "http://" + host + ":" + port}, sender.Egress{PublicOnly: true})
		outcome := s.Send(t.Context(), tidings.Attempt{Event: event(), Number: 1})
		if outcome.Verdict != tidings.Blocked || !strings.Contains(outcome.Detail, "egress.user_urls.allow_networks") {
			t.Errorf("%s: %+v", host, outcome)
		}
	}
	dialer := net.Dialer{Control: sender.Egress{Deny: networks("127.0.0.0/8")}.Control}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := dialer.DialContext(ctx, "tcp", server.Listener.Addr().String())
	blocked, ok := errors.AsType[*sender.BlockedError](err)
	if !ok || blocked.Error() != "127.0.0.1 is refused by egress.deny_networks" {
		t.Errorf("error = %v", err)
	}
}

// The error shows the address and the embedded one.
func TestBlockedError(t *testing.T) {
	for address, want := range map[string]string{
		"10.0.0.1": "10.0.0.1 is not a public address, and egress.user_urls.allow_networks does not allow it",
		"64:ff9b::a00:1": "64:ff9b::a00:1 (10.0.0.1) is not a public address, and egress.user_urls.allow_networks " +
			"does not allow it",
		"2002:a9fe:a9fe::1": "2002:a9fe:a9fe::1 (169.254.169.254) is a link-local or metadata address, which is " +
			"always refused",
	} {
		if err := (sender.Egress{PublicOnly: true}).Check(netip.MustParseAddr(address)); err == nil ||
			err.Error() != want {
			t.Errorf("%s: %v, want %s", address, err, want)
		}
	}
}

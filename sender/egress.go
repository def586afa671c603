package sender

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
)

// Egress is a rule for the addresses that may be dialed. The zero value allows
// all addresses except link-local ones and the metadata services of clouds,
// which are always refused.
//
// A rule for an IPv4 network also covers the IPv6 addresses that embed its
// addresses: IPv4-mapped, IPv4-compatible, NAT64, 6to4, Teredo and ISATAP.
// Unspecified addresses count as loopback.
type Egress struct {
	// Deny refuses these networks.
	Deny []netip.Prefix
	// Allow, if not empty, refuses all other networks.
	Allow []netip.Prefix
	// PublicOnly also refuses loopback, private, shared (CGNAT), unique-local
	// and other addresses that are not on the public Internet, except for those
	// in Private. It is meant for URLs chosen by users.
	PublicOnly bool
	Private    []netip.Prefix
}

// alwaysRefused lists link-local networks and the metadata services of clouds.
var alwaysRefused = prefixes(
	"169.254.0.0/16", "fe80::/10",
	"168.63.129.16/32",                      // Azure
	"100.100.100.200/32",                    // Alibaba Cloud
	"192.0.0.192/32",                        // Oracle Cloud
	"fd00:ec2::23/128", "fd00:ec2::254/128", // AWS
	"fd20:ce::254/128", // Google Cloud
)

// notPublic lists the IPv4 and global unicast IPv6 networks that are not on the
// public Internet (IANA special-purpose address registries). Documentation
// networks are omitted, because they are not routed.
var notPublic = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
	"192.0.0.0/24", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4",
	"2001::/23",
)

// globalUnicast contains all IPv6 addresses assigned to the public Internet.
var globalUnicast = netip.MustParsePrefix("2000::/3")

func prefixes(texts ...string) []netip.Prefix {
	list := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		list[i] = netip.MustParsePrefix(text)
	}
	return list
}

func isPublic(address netip.Addr) bool {
	return (address.Is4() || globalUnicast.Contains(address)) && !covers(notPublic, address)
}

// BlockedError reports that the egress rule refuses an address.
type BlockedError struct {
	// Address is the dialed address.
	Address netip.Addr
	// Target is the address that it leads to, which differs if an IPv4 address
	// is embedded in it.
	Target netip.Addr
	// Setting is the setting that refuses it; empty for an address that is
	// always refused.
	Setting string
}

// Error names the address and the setting.
func (e *BlockedError) Error() string {
	address := e.Address.String()
	if e.Target != e.Address {
		address += " (" + e.Target.String() + ")"
	}
	switch e.Setting {
	case "":
		return address + " is a link-local or metadata address, which is always refused"
	case settingPrivate:
		return fmt.Sprintf("%s is not a public address, and %s does not allow it", address, e.Setting)
	}
	return fmt.Sprintf("%s is refused by %s", address, e.Setting)
}

const (
	settingDeny    = "egress.deny_networks"
	settingAllow   = "egress.allow_networks"
	settingPrivate = "egress.user_urls.allow_networks"
)

// Check returns a [BlockedError] if the address may not be dialed.
func (e Egress) Check(address netip.Addr) error {
	address = address.WithZone("")
	if covers(e.Deny, address) {
		return &BlockedError{Address: address, Target: address, Setting: settingDeny}
	}
	for _, target := range targets(address) {
		blocked := func(setting string) error {
			return &BlockedError{Address: address, Target: target, Setting: setting}
		}
		switch {
		case covers(alwaysRefused, target):
			return blocked("")
		case covers(e.Deny, target):
			return blocked(settingDeny)
		case len(e.Allow) > 0 && !covers(e.Allow, target):
			return blocked(settingAllow)
		case e.PublicOnly && !isPublic(target) && !covers(e.Private, target):
			return blocked(settingPrivate)
		}
	}
	return nil
}

// Control checks the address about to be dialed, after DNS resolution. Use it
// as the Control function of a [net.Dialer].
func (e Egress) Control(_, address string, _ syscall.RawConn) error {
	target, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("egress rule: %w", err)
	}
	return e.Check(target.Addr())
}

// covers reports whether one of the networks contains the address. IPv6
// networks of embedded IPv4 addresses are treated as IPv4 networks.
func covers(networks []netip.Prefix, address netip.Addr) bool {
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool {
		return p.Contains(address) || unwrap(p).Contains(address)
	})
}

// embedding is a network of IPv6 addresses that embed an IPv4 address.
type embedding struct {
	network netip.Prefix
	offset  int // of the IPv4 address, in bits
}

var embeddings = []embedding{
	{netip.MustParsePrefix("::ffff:0:0/96"), 96},   // IPv4-mapped (RFC 4291)
	{netip.MustParsePrefix("::/96"), 96},           // IPv4-compatible (RFC 4291)
	{netip.MustParsePrefix("::ffff:0:0:0/96"), 96}, // IPv4-translated (RFC 2765)
	{netip.MustParsePrefix("64:ff9b::/96"), 96},    // NAT64 (RFC 6052)
	{netip.MustParsePrefix("64:ff9b:1::/48"), 96},  // NAT64, local use (RFC 8215)
	{netip.MustParsePrefix("2002::/16"), 16},       // 6to4 (RFC 3056)
}

var (
	localNAT64 = netip.MustParsePrefix("64:ff9b:1::/48")
	teredo     = netip.MustParsePrefix("2001::/32")

	loopback4 = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	loopback6 = netip.IPv6Loopback()
)

// targets returns the addresses that an address leads to: itself, or the IPv4
// addresses embedded in it. All of them must be allowed.
func targets(address netip.Addr) []netip.Addr {
	if address.Is4() {
		return []netip.Addr{unspecifiedToLoopback(address)}
	}
	switch address {
	case netip.IPv6Unspecified():
		return []netip.Addr{loopback6, loopback4}
	case loopback6:
		return []netip.Addr{loopback6}
	}
	b := address.As16()
	if teredo.Contains(address) { // the server, and the client with its bits inverted (RFC 4380)
		return []netip.Addr{embedded(b, 32), netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]})}
	}
	if localNAT64.Contains(address) {
		return append(localTargets(b), embedded(b, 96))
	}
	for _, e := range embeddings {
		if e.network.Contains(address) {
			return []netip.Addr{embedded(b, e.offset)}
		}
	}
	if marker := binary.BigEndian.Uint32(b[8:]); marker&^0x03000000 == 0x00005efe { // ISATAP (RFC 5214)
		return []netip.Addr{address, embedded(b, 96)}
	}
	return []netip.Addr{address}
}

// localTargets returns the possible IPv4 addresses in an address for local
// NAT64, whose prefix may be shorter than 96 bits (RFC 6052, section 2.2: bits
// 64 to 71 are skipped). Values that are no host addresses are omitted.
func localTargets(b [16]byte) []netip.Addr {
	var list []netip.Addr
	for _, bytes := range [][4]byte{
		{b[6], b[7], b[9], b[10]}, {b[7], b[9], b[10], b[11]}, {b[9], b[10], b[11], b[12]},
	} {
		if bytes[0] > 0 && bytes[0] < 224 {
			list = append(list, netip.AddrFrom4(bytes))
		}
	}
	return list
}

func embedded(b [16]byte, offset int) netip.Addr {
	return unspecifiedToLoopback(netip.AddrFrom4([4]byte(b[offset/8:])))
}

func unspecifiedToLoopback(address netip.Addr) netip.Addr {
	if address.IsUnspecified() {
		return loopback4
	}
	return address
}

// unwrap converts a network of embedded IPv4 addresses to IPv4. One that covers
// all of IPv4, such as 64:ff9b::/96, is left alone: denying it does not mean
// denying IPv4 as a whole.
func unwrap(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4() || p.Addr() == loopback6 || p.Addr().IsUnspecified() {
		return p
	}
	for _, e := range embeddings {
		if p.Bits() > e.offset && e.network.Contains(p.Addr()) {
			return netip.PrefixFrom(netip.AddrFrom4([4]byte(p.Addr().AsSlice()[e.offset/8:])),
				min(p.Bits()-e.offset, 32))
		}
	}
	return p
}

package webhook

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/tallystick/tallystick/credit"
)

// Allow says which endpoints there may be besides public ones over HTTPS.
type Allow struct {
	Private bool // any address: private, loopback and link-local ones too
	HTTP    bool // plain HTTP
	Mail    bool // mail addresses: there is a server that takes messages for them
}

const maxURL = 2048

// CheckURL refuses, with an Error coded invalid_request, what is no URL of an endpoint: absolute, https, with a host, without credentials
// and fragment. A host that is an address is checked here too; a name when it is dialled, and every time.
func CheckURL(s string, allow Allow) error {
	if IsMail(s) {
		if !allow.Mail {
			return credit.Errorf(credit.InvalidRequest, "There is no mail server to send messages to addresses by.")
		}
		return mailAddress(strings.TrimPrefix(s, mailScheme))
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || len(s) > maxURL || u.Host == "" || u.Hostname() == "" || u.Opaque != "" || strings.ContainsFunc(s, unprintable):
		return credit.Errorf(credit.InvalidRequest, "This must be an absolute URL of up to %d characters.", maxURL)
	case u.Scheme != "https" && !(u.Scheme == "http" && allow.HTTP):
		return credit.Errorf(credit.InvalidRequest, "The URL must begin with https://.")
	case u.User != nil:
		return credit.Errorf(credit.InvalidRequest, "The URL must not contain credentials: messages are signed.")
	case u.Fragment != "" || strings.Contains(s, "#"):
		return credit.Errorf(credit.InvalidRequest, "The URL must not have a fragment.")
	case allow.Private:
		return nil
	}
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	if addr, err := netip.ParseAddr(host); err == nil && !Public(addr) || host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return credit.Errorf(credit.InvalidRequest, "The URL must lead to a public address.")
	}
	return nil
}

func unprintable(r rune) bool { return r > unicode.MaxASCII || r <= ' ' || r == 0x7f }

// nowhere are the networks within the global unicast ranges that lead to nobody's server: reserved, for documentation, shared, or with an
// IPv4 address inside that says where they really lead.
// Source: IANA IPv4 and IPv6 Special-Purpose Address Registries.
var nowhere = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24",
	"192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
	"2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20",
)

// global is the only part of IPv6 in which there are public addresses.
var global = netip.MustParsePrefix("2000::/3")

func prefixes(list ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, s := range list {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

// Public tells whether an address may be a server on the public internet. One mapped from IPv4 is never: a name that resolves to one
// hides something.
func Public(a netip.Addr) bool {
	if !a.IsValid() || a.Is4In6() || a.Zone() != "" || a.Is6() && !global.Contains(a) {
		return false
	}
	for _, p := range nowhere {
		if p.Contains(a) {
			return false
		}
	}
	return true
}

// notPublic is the error of a dial that was refused.
type notPublic struct{ addr string }

func (e notPublic) Error() string { return fmt.Sprintf("%s is not a public address", e.addr) }

// dialer makes connections to public addresses only. It looks at the very address that is dialled, after the name was resolved: what
// another resolution said does not count.
func dialer(allow Allow) *net.Dialer {
	d := &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}
	if !allow.Private {
		d.ControlContext = func(_ context.Context, network, address string, _ syscall.RawConn) error {
			return control(network, address)
		}
	}
	return d
}

func control(network, address string) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil || network != "tcp4" && network != "tcp6" || !Public(to.Addr()) {
		return notPublic{address}
	}
	return nil
}

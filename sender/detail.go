package sender

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"
)

// phrase returns the text for an error that is known by its type, or "". It contains
// names and addresses of hosts, and nothing else that a receiver or a setting chose.
func phrase(err error) string {
	if proxy, ok := errors.AsType[*net.OpError](err); ok && proxy.Op == "proxyconnect" {
		if text := phrase(proxy.Err); text != "" {
			return "the proxy: " + text
		}
		return ""
	}
	if text := phraseTLS(err); text != "" {
		return text
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		switch {
		case dns.IsNotFound:
			return "no such host: " + dns.Name
		case dns.IsTimeout:
			return "the resolver did not respond for " + dns.Name
		}
		return "the resolver failed for " + dns.Name
	}
	address := "the host"
	if dial, ok := errors.AsType[*net.OpError](err); ok && dial.Addr != nil {
		address = dial.Addr.String()
	}
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused by " + address
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "no route to " + address
	case errors.Is(err, syscall.ETIMEDOUT):
		return "the connection timed out"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "the connection was reset by the receiver"
	case errors.Is(err, io.EOF):
		return errNoResponse.Error()
	}
	return ""
}

func phraseTLS(err error) string {
	var (
		invalid   x509.CertificateInvalidError
		authority x509.UnknownAuthorityError
		host      x509.HostnameError
		record    tls.RecordHeaderError
		operation *net.OpError
	)
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		if time.Now().Before(invalid.Cert.NotBefore) {
			return "the certificate is not valid before " + day(invalid.Cert.NotBefore)
		}
		return "the certificate expired on " + day(invalid.Cert.NotAfter)
	case errors.As(err, &authority):
		return "the certificate is signed by an unknown authority"
	case errors.As(err, &host):
		return fmt.Sprintf("the certificate is not for %s, but for %s", host.Host, offered(host.Certificate))
	case errors.Is(err, http.ErrSchemeMismatch):
		return "the receiver does not speak TLS, but plain HTTP"
	case errors.As(err, &record):
		return "the receiver does not speak TLS"
	case errors.As(err, &operation) && operation.Op == "remote error" && operation.Err != nil:
		alert := strings.TrimPrefix(operation.Err.Error(), "tls: ")
		if strings.Contains(alert, "certificate") {
			return "the receiver refused the client certificate: " + alert
		}
		return "the receiver ended TLS: " + alert
	}
	return ""
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// offered returns the names in a certificate, the first few of many.
func offered(c *x509.Certificate) string {
	names := c.DNSNames
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	const most = 3
	switch n := len(names); {
	case n == 0:
		return "no host"
	case n > most:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), n-most)
	}
	return strings.Join(names, ", ")
}

package sender

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// secretLength is the minimum length of a secret; shorter texts may occur by
// chance.
const secretLength = 6

// basicCredentials matches a proxy's credentials, which are not in the request.
var basicCredentials = regexp.MustCompile(`(?i)\bbasic [A-Za-z0-9+/]+=*`)

// redact removes the secrets of a request, and those that sign it, from the stored
// excerpt of its response, because some receivers echo them.
func redact(excerpt []byte, request *http.Request, signing ...string) []byte {
	if len(excerpt) == 0 || request == nil {
		return excerpt
	}
	excerpt = basicCredentials.ReplaceAllFunc(excerpt, func(found []byte) []byte {
		scheme, encoded, _ := bytes.Cut(found, []byte(" "))
		decoded := make([]byte, base64.StdEncoding.DecodedLen(len(encoded)))
		n, _ := base64.StdEncoding.Decode(decoded, encoded) // as much as is valid
		if !bytes.Contains(decoded[:n], []byte(":")) {
			return found
		}
		return append(bytes.Clone(scheme), " <secret>"...)
	})
	secrets := secretsOf(request)
	for _, secret := range signing {
		_, key, _ := strings.Cut(secret, "_") // after the prefix
		secrets = append(secrets, secret, key)
	}
	for _, secret := range secrets {
		if len(secret) < secretLength {
			continue
		}
		excerpt = bytes.ReplaceAll(excerpt, []byte(secret), []byte("<secret>"))
		for n := min(len(secret)-1, len(excerpt)); n >= secretLength; n-- { // truncated at the end
			if bytes.HasSuffix(excerpt, []byte(secret[:n])) {
				excerpt = append(excerpt[:len(excerpt)-n:len(excerpt)-n], "<secret>"...)
				break
			}
		}
	}
	return excerpt
}

// ours lists headers of every request.
var ours = []string{"Content-Type", "User-Agent", "Traceparent", "Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"}

// secretsOf returns the secrets in a request's headers and URL, which come from
// the operator.
func secretsOf(request *http.Request) []string {
	var secrets []string
	for name, values := range request.Header {
		if slices.Contains(ours, name) || strings.HasPrefix(name, "Tidings-") {
			continue
		}
		for _, value := range values {
			secrets = append(secrets, value)
			if _, credentials, ok := strings.Cut(value, " "); ok { // after the scheme
				secrets = append(secrets, credentials)
			}
		}
	}
	if _, password, ok := request.BasicAuth(); ok {
		secrets = append(secrets, password)
	}
	if password, ok := request.URL.User.Password(); ok {
		secrets = append(secrets, password)
	}
	for _, values := range request.URL.Query() {
		secrets = append(secrets, values...)
	}
	return append(secrets, request.URL.RawQuery)
}

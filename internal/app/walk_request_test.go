package app_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// sent is a request of a walk.
type sent struct {
	call
	as     string
	target string // path and query
	text   string // as sent
	draw   *draw
	stream bool
	hurry  bool // may block, so do not wait for the answer
	cut    bool // the body is truncated
	astray bool // the operation does not exist
}

// overlong reports whether net/http may answer before it has read the whole head, or more
// of a body than it discards. The rest then causes a reset, which can overtake the answer.
func (s sent) overlong() bool {
	head, body, _ := strings.Cut(s.text, "\r\n\r\n")
	return len(head) > 64<<10 || s.astray && len(body) > 256<<10
}

// request draws a request.
func (w *walk) request() sent {
	w.Helper()
	c := w.calls[w.IntN(len(w.calls))]
	d := &draw{Rand: w.Rand, odd: []float64{0, 0, 0.05, 0.15, 0.4}[w.IntN(5)]}
	s := sent{call: c, draw: d, as: pick(d, walkers)}
	d.owned = w.pools[s.as]
	if d.chance(0.2) {
		d.owned = w.pools[pick(d, walkers)]
	}
	if d.chance(0.03) {
		s.as = pick(d, []string{"", "no-such-token"})
	}
	s.target = d.path(c) + d.query(c)
	switch {
	case d.chance(0.02):
		s.method, s.astray = pick(d, []string{"HEAD", "OPTIONS", "TRACE", "get", "PURGE"}), true
	case d.chance(0.01):
		s.target, s.astray = pick(d, undocumented), true
	}
	header := d.header(w, &s)
	body := ""
	switch {
	case c.multipart:
		var kind string
		body, kind = d.upload()
		header = append(header, "Content-Type: "+kind)
	case c.body != nil:
		body = d.body(w, c)
		kind := "application/json"
		if d.chance(d.odd / 2) {
			kind = pick(d, []string{
				"", "text/plain", "application/json; charset=utf-16", "application/merge-patch+json", "a/b; q=\"",
				"application/x-www-form-urlencoded", "*/*",
			})
		}
		header = append(header, "Content-Type: "+kind)
		if d.chance(d.odd / 5) {
			header = append(header, "Content-Encoding: gzip")
			body = pick(d, []string{body, zipped(body)})
		}
	case d.chance(0.03):
		body = pick(d, []string{"{}", "null", "a", "{", strings.Repeat(" ", 100), strings.Repeat("a", 2<<20)})
	}
	length := len(body)
	if d.chance(d.odd/10) && length > 0 { // truncated
		body, s.cut = body[:d.IntN(length)], true
	}
	switch {
	case c.body == nil && body == "":
		s.cut = false
	case d.chance(0.1) && !s.cut:
		header = append(header, "Transfer-Encoding: chunked")
		body = fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body)
		if length == 0 {
			body = "0\r\n\r\n"
		}
	default:
		header = append(header, "Content-Length: "+strconv.Itoa(length))
	}
	header = append([]string{s.method + " " + s.target + " HTTP/1.1", "Host: test", "Connection: close"}, header...)
	s.text = strings.Join(header, "\r\n") + "\r\n\r\n" + body
	s.hurry = strings.Contains(s.target, "wait=") || s.stream
	return s
}

// header draws the headers, except those of the body.
func (d *draw) header(w *walk, s *sent) (lines []string) {
	if s.as != "" {
		lines = append(lines, pick(d, []string{"Authorization: Bearer ", "authorization: Bearer "})+s.as)
	}
	if d.chance(d.odd / 20) {
		lines = append(lines, pick(d, []string{
			"Authorization: Basic YTpi", "Authorization: Bearer", "Authorization: Bearer \xff",
			"Authorization: Bearer a b", "Authorization: ",
		}))
	}
	if s.method != http.MethodGet && d.chance(0.3) {
		version := int64(1)
		for _, slot := range s.slots {
			version = max(version, w.versions[d.ids[slot.kind]])
		}
		match := fmt.Sprintf(`"%d"`, version)
		if d.chance(0.3) {
			match = pick(d, []string{
				"*", `"0"`, `"99"`, "1", `W/"1"`, `"1", "2"`, `""`, `"`, "", "\xff", `"9223372036854775808"`, `"-1"`,
				strings.Repeat("a", 5000),
			})
		}
		lines = append(lines, "If-Match: "+match)
		if d.chance(0.1) {
			lines = append(lines, `If-Match: "2"`)
		}
	}
	ranges := "bytes=0-0" + strings.Repeat(",0-1", 300)
	odd := map[string][]string{
		"Accept": {
			"application/json", "*/*", "text/html", "application/cbor", "a", "", ";;q=9", "text/event-stream",
			"\xff", "application/problem+json;q=0",
		},
		"Range": {
			"bytes=0-0", "bytes=-1", "bytes=5-1", "bytes=99999999999999999999-", ranges, "lines=1-2", "bytes=",
			"bytes=0-0,2-3",
		},
		"If-None-Match":  {"*", `"1"`, `W/"1"`, "1"},
		"If-Range":       {`"1"`, "Wed, 21 Oct 2015 07:28:00 GMT"},
		"Last-Event-ID":  {"0", "1", "-1", "a", "99999999999999999999", "\xff", "1,2"},
		"Origin":         {"https://evil.example", "null", "\xff"},
		"Sec-Fetch-Site": {"cross-site", "same-origin", "a"},
		"Traceparent": {
			"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
			"00-00000000000000000000000000000000-0000000000000000-00", "a",
		},
		"Accept-Encoding": {"gzip", "identity;q=0", "br"}, "If-Modified-Since": {"Wed, 21 Oct 2100 07:28:00 GMT", "a"},
		"X-Forwarded-For": {
			"127.0.0.1", "a",
		}, "X-HTTP-Method-Override": {"DELETE"}, "Expect": {"100-continue", "a"}, "Upgrade": {"h2c"},
	}
	for _, header := range slices.Sorted(maps.Keys(odd)) {
		if d.chance(0.02 + d.odd/20) {
			lines = append(lines, header+": "+pick(d, odd[header]))
		}
	}
	s.stream = s.id == "readEvents" && slices.Contains(lines, "Accept: text/event-stream")
	return lines
}

// body draws a JSON body.
func (d *draw) body(w *walk, c call) string {
	valid := samples(d.owned)[c.id]
	if make := bodies[c.id]; make != nil && d.chance(0.5) {
		valid = make(w.world)
		if members, ok := valid.(object); ok {
			for _, s := range c.slots {
				if s.in == "body" && slices.Contains(c.body.Required, s.name) {
					members[s.name] = d.owned.id(s.kind)
				}
			}
		}
	}
	text, err := json.Marshal(valid)
	if err != nil || json.Unmarshal(text, &valid) != nil {
		w.Fatalf("%s: %v", c.id, err)
	}
	if d.odd == 0 && d.chance(0.8) {
		return string(text)
	}
	if d.chance(d.odd) {
		d.nulls = 0.5
	}
	body := d.json(w.document, "", valid, c.body)
	if d.chance(d.odd / 5) {
		body = pick(d, []string{
			"", " ", "\ufeff" + body, body + body, body + "]", body + "\x00", "\xff\xfe{}", body[:len(body)/2],
			strings.Repeat(" ", 1<<20) + body,
		})
	}
	return body
}

// query draws a query for an operation.
func (d *draw) query(c call) string {
	var parts []string
	add := func(name, value string) {
		if d.chance(d.odd/10) && !strings.ContainsAny(value, "\r\n \x00") {
			parts = append(parts, name+"="+value) // not escaped
			return
		}
		parts = append(parts, url.QueryEscape(name)+"="+url.QueryEscape(value))
	}
	for _, p := range c.parameters {
		if p.In != "query" || !p.Required && d.chance(0.6) {
			continue
		}
		value := d.text(p.Name, p.Schema)
		if i := slices.IndexFunc(c.slots, func(s slot) bool { return s.in == "query" && s.name == p.Name }); i >= 0 {
			value = d.id(c.slots[i])
		} else if d.chance(d.odd) {
			value = d.oddText()
		}
		add(p.Name, value)
		if d.chance(d.odd / 4) {
			add(p.Name, pick(d, []string{value, d.oddText()}))
		}
	}
	if d.chance(d.odd / 4) {
		parts = append(parts, pick(d, []string{
			"a;b", "%zz", "=", "&&", "unknown=1", "limit", "limit=", "=1", "limit[]=1", "Limit=1",
			strings.Repeat("a", 5000),
		}))
	}
	if len(parts) == 0 {
		return pick(d, []string{"", "", "", "?"})
	}
	return "?" + strings.Join(parts, "&")
}

// path draws the path of an operation, with ids.
func (d *draw) path(c call) string {
	path := c.path
	for _, s := range c.slots {
		if s.in == "path" {
			path = strings.ReplaceAll(path, "{"+s.name+"}", strings.ReplaceAll(url.QueryEscape(d.id(s)), "+", "%20"))
		}
	}
	return "/api/v1" + path
}

// upload draws a multipart body and its content type.
func (d *draw) upload() (body, contentType string) {
	name := pick(d, []string{
		`filename="a.txt"`, `filename="Grüße.md"`, `filename*=UTF-8''a%00b`, `filename*=UTF-8''%ff`,
		`filename*=utf-8'en'a`, `filename=`, "filename",
		`filename="a"; filename="b"`, `filename="a"; filename*=UTF-8''b`, `filename=""`, `filename="."`,
		`filename=".."`, `filename="/"`, `filename="a/"`,
		`filename="` + strings.Repeat("x", 300) + `"`, `filename="` + strings.Repeat("x", 5000) + `"`,
		"filename=\"a\xff\"", "filename=\"a\x00\"", `filename="a`,
		`filename="=?utf-8?q?=00?="`, `filename*0="a"; filename*1="b"`, "filename=\"a\tb\x01\"",
	})
	kind := pick(d, []string{
		"Content-Type: text/plain\r\n", "Content-Type: text/markdown; charset=utf-8\r\n",
		"Content-Type: application/pdf\r\n", "", "Content-Type: \r\n", "Content-Type: text/\xff\r\n",
		"Content-Type: " + strings.Repeat("a", 3000) + "/b\r\n", "Content-Type: text/html\r\n",
		"Content-Type: a\x00b\r\n", "Content-Type: multipart/mixed; boundary=x\r\n",
		"Content-Transfer-Encoding: quoted-printable\r\n", "Content-Transfer-Encoding: base64\r\n",
		"Content-Type text/plain\r\n", "Content-Type: text/plain; a=\"\r\n",
	})
	if !d.chance(d.odd * 3) {
		name, kind = `filename="a.txt"`, "Content-Type: text/plain\r\n"
	}
	content := pick(d, []string{
		"text", "", "\x00\xff", "# Title\n\n* a\n", "%PDF-1.4\n%%EOF", "=zz", strings.Repeat("é", 40_000), "--x",
		"\r\n--x\r\n",
	})
	part := "--x\r\nContent-Disposition: form-data; name=\"file\"; " + name + "\r\n" + kind + "\r\n" + content + "\r\n"
	contentType = "multipart/form-data; boundary=x"
	if d.chance(d.odd) {
		contentType = pick(d, []string{
			"multipart/form-data", "multipart/mixed; boundary=x", "multipart/form-data; boundary=",
			"multipart/form-data; boundary=\"\"", "text/plain", "multipart/form-data; boundary=x; boundary=y", "",
		})
	}
	odd := strings.Replace(part, `"file"`, pick(d, []string{`"other"`, `""`, `file`, `"File"`}), 1)
	bodies := []string{
		part + "--x--\r\n", odd + part + "--x--\r\n", part + part + "--x--\r\n", part, odd + "--x--\r\n",
		"--x--\r\n", "", strings.Repeat(odd, 300) + part + "--x--",
	}
	if d.chance(d.odd) {
		return pick(d, bodies), contentType
	}
	return bodies[0], contentType
}

func zipped(text string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(text)) // cannot fail
	_ = z.Close()
	return b.String()
}

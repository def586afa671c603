package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/validation"

	"github.com/tidings-dev/tidings/internal/valid"
)

// Limits on a JSON body, besides its size in bytes.
const (
	// maxValues limits elements and members that no schema limits, such as
	// those of an agent card.
	maxValues = 100_000
	// maxProblems is how many problems a response lists; the others are only
	// counted.
	maxProblems = 20
)

// checkBody returns the problems with a JSON body, or nil. It scans the text
// without building values, so that memory use does not depend on the content.
// It stops at the first array or object with more elements than its schema
// allows, before any of them is decoded. It returns the body with ids in their
// stored form.
func checkBody(registry huma.Registry, schema *huma.Schema, body []byte) ([]byte, *huma.ErrorModel) {
	c := &checker{registry: registry, body: body, path: []byte("body")}
	within := c.value(schema)
	p := NewProblem(http.StatusUnprocessableEntity, validationFailed)
	switch {
	case !within && !c.malformed:
		p.Errors = c.problems[len(c.problems)-1:]
	case !utf8.Valid(body):
		return nil, NewProblem(http.StatusBadRequest, "the body is not valid UTF-8")
	case bytes.HasPrefix(body, []byte(valid.ByteOrderMark)):
		return nil, NewProblem(http.StatusBadRequest, "the body "+valid.ErrMark.Error())
	case !json.Valid(body):
		return nil, NewProblem(http.StatusBadRequest, "the body is not valid JSON: "+syntaxError(body))
	case len(c.problems) > 0:
		p.Errors = c.problems
		p.Detail = listed(validationFailed, c.more)
	default:
		return c.spelled(), nil
	}
	return nil, p
}

const validationFailed = "validation failed"

func syntaxError(body []byte) string {
	err := json.Unmarshal(body, new(any)) // fails before it allocates anything
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Sprintf("%v at byte %d", e, e.Offset)
	}
	return fmt.Sprint(err)
}

// checker scans a JSON text. It accepts some texts that are almost JSON;
// [checkBody] rejects those.
type checker struct {
	registry huma.Registry
	body     []byte
	at       int // the next byte of the body
	path     []byte
	depth    int
	values   int // not limited by a schema
	ids      []respelled
	problems []*huma.ErrorDetail
	more     int // problems not listed
	result   huma.ValidateResult
	// malformed is set when the check stopped at something that is not JSON.
	malformed bool
}

// anything is the schema of values without one.
var anything = new(huma.Schema)

// value checks the next value. False means that the check stopped, because the
// body exceeds a limit, which is the last problem, or is malformed.
func (c *checker) value(s *huma.Schema) bool {
	for s.Ref != "" {
		s = c.registry.SchemaFromRef(s.Ref)
	}
	switch c.next() {
	case '[', '{':
		if c.depth++; c.depth > valid.MaxDepth {
			return c.stop("expected at most %d levels of arrays and objects", valid.MaxDepth)
		}
		var within bool
		if c.body[c.at] == '[' {
			within = c.array(s)
		} else {
			within = c.object(s)
		}
		c.depth--
		return within
	}
	return c.scalar(s)
}

func (c *checker) array(s *huma.Schema) bool {
	items := s.Items
	if s.Type != huma.TypeArray {
		c.validate(s, []any{})
		items = anything
	}
	mark := len(c.path)
	n := 0
	for c.at++; c.next() != ']'; n++ {
		if s.MaxItems != nil && n == *s.MaxItems {
			return c.stop("expected at most %d items", n)
		}
		c.separator(',')
		c.path = append(strconv.AppendInt(append(c.path, '['), int64(n), 10), ']')
		if items == anything && !c.count() || !c.value(items) {
			return false
		}
		c.path = c.path[:mark]
	}
	c.at++
	if s.MinItems != nil && n < *s.MinItems {
		c.add(fmt.Sprintf("expected at least %d items", *s.MinItems))
	}
	return true
}

func (c *checker) object(s *huma.Schema) bool {
	if s.Type != huma.TypeObject {
		c.validate(s, map[string]any{})
		s = anything
	}
	mark, seen := len(c.path), uint64(0)
	n := 0
	for c.at++; c.next() != '}'; n++ {
		if s.MaxProperties != nil && n == *s.MaxProperties {
			return c.stop("expected at most %d members", n)
		}
		c.separator(',')
		key, ok := c.text()
		if !ok {
			return false
		}
		c.separator(':')
		name, property := propertyOf(s, unquote(key))
		c.path = append(append(c.path, '.'), name[:min(len(name), maxLocation)]...)
		required := slices.Index(s.Required, name)
		if required >= 0 {
			seen |= 1 << required
		}
		switch {
		case property == anything:
			if s.AdditionalProperties == false {
				c.add(validation.MsgUnexpectedProperty)
			}
			if !c.count() || !c.value(anything) {
				return false
			}
		case c.next() == 'n' && required < 0 && s.Properties[name] != nil: // null counts as omitted
			c.literal()
		default:
			if !c.value(property) {
				return false
			}
		}
		c.path = c.path[:mark]
	}
	c.at++
	for i, name := range s.Required {
		if seen&(1<<i) == 0 {
			c.add(fmt.Sprintf(validation.MsgExpectedRequiredProperty, name))
		}
	}
	return true
}

// propertyOf returns the name and schema of a member. Like [json.Unmarshal], it
// ignores case.
func propertyOf(s *huma.Schema, key string) (string, *huma.Schema) {
	if p, ok := s.Properties[key]; ok {
		return key, p
	}
	for name, p := range s.Properties {
		if strings.EqualFold(name, key) {
			return name, p
		}
	}
	if p, ok := s.AdditionalProperties.(*huma.Schema); ok {
		return key, p
	}
	return key, anything
}

// scalar checks a string, a number, true, false or null.
func (c *checker) scalar(s *huma.Schema) bool {
	if c.next() == '"' {
		text, ok := c.text()
		switch {
		case !ok:
			return false
		case s.Type == huma.TypeString && s.Format == "uuid":
			c.id(text)
			return true
		case s.Type == huma.TypeString && s.MinLength == nil && s.MaxLength == nil && s.Format == "" &&
			s.Pattern == "" && s.Enum == nil:
			return true // no need to decode it
		}
		c.validate(s, unquote(text))
		return true
	}
	literal := c.literal()
	if len(literal) == 0 {
		return c.broken()
	}
	switch literal[0] {
	case 'n':
		c.validate(s, nil)
	case 't', 'f':
		c.validate(s, literal[0] == 't')
	default:
		c.number(s, literal)
	}
	return true
}

// respelled is a UUID that is not in its stored form.
type respelled struct {
	from, to int // its position in the body, including the quotes
	id       string
}

// id checks a UUID that has just been read.
func (c *checker) id(quoted []byte) {
	switch id, ok := valid.UUID(unquote(quoted)); {
	case !ok:
		c.add(errNoUUID.Error())
	case string(quoted[1:len(quoted)-1]) != id:
		c.ids = append(c.ids, respelled{c.at - len(quoted), c.at, id})
	}
}

// spelled returns the body with all UUIDs in their stored form.
func (c *checker) spelled() []byte {
	if c.ids == nil {
		return c.body
	}
	var body []byte
	done := 0
	for _, r := range c.ids {
		body = append(append(append(append(body, c.body[done:r.from]...), '"'), r.id...), '"')
		done = r.to
	}
	return append(body, c.body[done:]...)
}

func (c *checker) number(s *huma.Schema, literal []byte) {
	switch s.Type {
	case huma.TypeInteger:
		n, err := strconv.ParseInt(string(literal), 10, 64)
		switch {
		case err != nil:
			c.add(validation.MsgExpectedInteger)
		case len(s.Enum) > 0: // its numbers are float64, like JSON's
			c.validate(s, float64(n))
		default:
			c.validate(s, n)
		}
	case huma.TypeNumber:
		if plainNumber(s, literal) {
			return
		}
		bits := 64
		if s.Format == "float" {
			bits = 32
		}
		f, err := strconv.ParseFloat(string(literal), bits)
		if err != nil {
			c.add(fmt.Sprintf("expected a number that fits into %d bits", bits))
			return
		}
		c.validate(s, f)
	default:
		c.validate(s, 0.0)
	}
}

// plainNumber reports whether a number without an exponent needs no check,
// because it is so short that it fits into a float32 and the schema has no
// limits. Vectors have millions of these.
func plainNumber(s *huma.Schema, literal []byte) bool {
	const digits = 38 // below 1e38
	bounded := s.Minimum != nil || s.Maximum != nil || s.ExclusiveMinimum != nil || s.ExclusiveMaximum != nil ||
		s.MultipleOf != nil || len(s.Enum) > 0
	return !bounded && len(literal) <= digits && !bytes.ContainsAny(literal, "eE")
}

// validate checks one value, without its elements.
func (c *checker) validate(s *huma.Schema, v any) {
	if s.Type == "" {
		return
	}
	var path []byte
	if len(c.problems) < maxProblems {
		path = c.path
	}
	c.result.Reset()
	huma.Validate(c.registry, s, huma.NewPathBuffer(path, len(path)), huma.ModeWriteToServer, v, &c.result)
	for _, err := range c.result.Errors {
		c.add(err.(*huma.ErrorDetail).Message) //nolint:errorlint,errcheck,forcetypeassert // Validate returns no others
	}
}

// add records a problem with the value at the current path.
func (c *checker) add(message string) {
	if len(c.problems) == maxProblems {
		c.more++
		return
	}
	c.problems = append(c.problems, &huma.ErrorDetail{Message: message, Location: string(c.path)})
}

// stop records a problem that ends the check.
func (c *checker) stop(format string, args ...any) bool {
	c.problems = append(c.problems, &huma.ErrorDetail{Message: fmt.Sprintf(format, args...), Location: string(c.path)})
	return false
}

// count counts a value that no schema limits.
func (c *checker) count() bool {
	if c.values++; c.values > maxValues {
		return c.stop("expected at most %d values in free-form JSON", maxValues)
	}
	return true
}

func (c *checker) broken() bool {
	c.malformed = true
	return false
}

// next skips whitespace and returns the next byte, or 0 at the end.
func (c *checker) next() byte {
	for ; c.at < len(c.body); c.at++ {
		if b := c.body[c.at]; b > ' ' {
			return b
		}
	}
	return 0
}

// separator skips a comma or colon if it is next.
func (c *checker) separator(b byte) {
	if c.next() == b {
		c.at++
		c.next()
	}
}

// text reads a string and returns it with its quotes; false means that the
// check stopped.
func (c *checker) text() ([]byte, bool) {
	if c.next() != '"' {
		return nil, c.broken()
	}
	start := c.at
	for c.at++; c.at < len(c.body); c.at++ {
		switch c.body[c.at] {
		case '"':
			c.at++
			quoted := c.body[start:c.at]
			if err := valid.Quoted(quoted); err != nil {
				return nil, c.stop("%v", err)
			}
			return quoted, true
		case '\\':
			c.at++
		}
	}
	return nil, c.broken()
}

// unquote decodes a string.
func unquote(quoted []byte) string {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted[1 : len(quoted)-1])
	}
	var text string
	_ = json.Unmarshal(quoted, &text) // if it is malformed, so is the body
	return text
}

// literal reads a number, true, false or null.
func (c *checker) literal() []byte {
	start := c.at
	for c.at < len(c.body) {
		switch c.body[c.at] {
		case ' ', '\t', '\r', '\n', ',', ']', '}':
			return c.body[start:c.at]
		}
		c.at++
	}
	return c.body[start:]
}

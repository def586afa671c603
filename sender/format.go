package sender

import (
	"fmt"
	"strconv"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/jsontext"
)

// encoder writes the body of a webhook.
type encoder struct {
	contentType string
	encode      func(b []byte, e tidings.Event) []byte
}

func encoderFor(e tidings.Endpoint, options Options) (encoder, error) {
	switch e.Format {
	case "", tidings.Thin:
		return encoder{"application/json", func(b []byte, e tidings.Event) []byte { return e.AppendJSON(b) }}, nil
	case tidings.Standard:
		return encoder{"application/json", appendStandard}, nil
	case tidings.CloudEvents:
		prefix, source := e.EventPrefix, options.Source
		return encoder{"application/cloudevents+json", func(b []byte, e tidings.Event) []byte {
			return appendCloudEvent(b, e, prefix, source)
		}}, nil
	}
	return encoder{}, fmt.Errorf("format %q is not one of %v", e.Format, tidings.Formats())
}

// appendStandard appends the envelope of Standard Webhooks.
func appendStandard(b []byte, e tidings.Event) []byte {
	b = appendMember(append(b, '{'), "type", e.Name())
	b = appendMember(append(b, ','), "timestamp", timestamp(e))
	b = appendData(append(b, `,"data":`...), e)
	return append(b, '}')
}

// appendCloudEvent appends a CloudEvents 1.0 event in structured mode.
func appendCloudEvent(b []byte, e tidings.Event, prefix, source string) []byte {
	b = appendMember(append(b, '{'), "specversion", "1.0")
	b = appendMember(append(b, ','), "id", e.ID)
	b = appendMember(append(b, ','), "type", prefix+e.Name())
	b = appendMember(append(b, ','), "source", source)
	b = appendMember(append(b, ','), "subject", e.Resource())
	b = appendMember(append(b, ','), "time", timestamp(e))
	b = appendMember(append(b, ','), "sequence", fmt.Sprintf("%020d", e.Sequence))
	b = appendMember(append(b, ','), "partitionkey", e.Resource())
	b = appendMember(append(b, ','), "datacontenttype", "application/json")
	b = appendData(append(b, `,"data":`...), e)
	return append(b, '}')
}

// appendData appends the members of the thin body that an envelope lacks.
func appendData(b []byte, e tidings.Event) []byte {
	b = appendMember(append(b, '{'), "id", e.ID)
	b = append(b, `,"sequence":`...)
	b = strconv.AppendInt(b, e.Sequence, 10)
	b = append(b, `,"resource_version":`...)
	b = strconv.AppendInt(b, e.ResourceVersion, 10)
	b = appendMember(append(b, ','), "resource_type", string(e.Type))
	b = appendMember(append(b, ','), "resource_id", e.ResourceID)
	b = appendMember(append(b, ','), "resource_url", e.ResourceURL)
	if e.UserID == "" {
		b = append(b, `,"user_id":null`...)
	} else {
		b = appendMember(append(b, ','), "user_id", e.UserID)
	}
	return append(b, '}')
}

func appendMember(b []byte, name, value string) []byte {
	b = jsontext.AppendString(b, name)
	return jsontext.AppendString(append(b, ':'), value)
}

func timestamp(e tidings.Event) string { return e.Time.UTC().Format(tidings.TimeLayout) }

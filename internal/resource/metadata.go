package resource

import (
	"fmt"
	"maps"
	"unicode/utf8"
)

// Metadata is set by clients on a resource.
type Metadata map[string]string

const (
	maxMetadata      = 16
	maxMetadataKey   = 64
	maxMetadataValue = 512
)

func (m Metadata) check() error {
	if len(m) > maxMetadata {
		return fail(Invalid, "metadata", "has %d keys after this change; the limit is %d", len(m), maxMetadata)
	}
	for key, value := range m {
		if key == "" || utf8.RuneCountInString(key) > maxMetadataKey {
			return fail(Invalid, "metadata", "keys must be 1 to %d characters long", maxMetadataKey)
		}
		if utf8.RuneCountInString(value) > maxMetadataValue {
			return fail(Invalid, fmt.Sprintf("metadata.%s", key), "must be at most %d characters long", maxMetadataValue)
		}
	}
	return nil
}

// orEmpty returns an empty map instead of nil.
func (m Metadata) orEmpty() Metadata {
	if m == nil {
		return Metadata{}
	}
	return m
}

// merge applies changes; nil removes a key.
func (m Metadata) merge(changes map[string]*string) Metadata {
	merged := make(Metadata, len(m)+len(changes))
	maps.Copy(merged, m)
	for key, value := range changes {
		if value == nil {
			delete(merged, key)
		} else {
			merged[key] = *value
		}
	}
	return merged
}

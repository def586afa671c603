package resource

import (
	"errors"
	"fmt"

	"github.com/tidings-dev/tidings/internal/store"
)

// Code classifies an error for API clients.
type Code string

// The error codes.
const (
	Invalid         Code = "invalid"         // the request is malformed or contradicts itself
	Unusable        Code = "unusable"        // a remote server that it names does not work
	Unauthenticated Code = "unauthenticated" // missing or bad credentials
	Forbidden       Code = "forbidden"       // insufficient role
	NotFound        Code = "not_found"       // does not exist, or belongs to someone else
	Conflict        Code = "conflict"        // conflicts with the current state
	Changed         Code = "changed"         // If-Match names another version
	TooLarge        Code = "too_large"       // over a limit
	NotConfigured   Code = "not_configured"  // requires a setting that the server lacks
	RemoteFailed    Code = "remote_failed"   // the remote server answered with an error
	RemoteTimeout   Code = "remote_timeout"  // the remote server did not answer
	Busy            Code = "busy"            // too many concurrent requests
)

// Error is an error for the client. Its message is shown to the client; its
// cause is not.
type Error struct {
	Code Code
	// Field is the offending member or parameter, such as "metadata.title".
	Field   string
	Message string
	Cause   error
}

// Error returns the message.
func (e *Error) Error() string {
	if e.Field == "" {
		return e.Message
	}
	return e.Field + ": " + e.Message
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

func fail(code Code, field, format string, args ...any) *Error {
	return &Error{Code: code, Field: field, Message: fmt.Sprintf(format, args...)}
}

func isCode(err error, code Code) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == code
}

// fromStore converts the store's errors to an [Error]; what names the resource.
func fromStore(err error, what string) error {
	for sentinel, e := range map[error]*Error{
		store.ErrNotFound:  fail(NotFound, "", "no such %s", what),
		store.ErrDuplicate: fail(Conflict, "", "this %s already exists", what),
		store.ErrReference: fail(Conflict, "", "a resource that the %s refers to was deleted in the meantime", what),
		store.ErrText:      fail(Invalid, "", "a string contains a NUL byte"),
	} {
		if errors.Is(err, sentinel) {
			e.Cause = err
			return e
		}
	}
	return err
}

package resource

import (
	"errors"
	"fmt"

	"github.com/tidings-dev/tidings/internal/store"
)

// Code says what kind of error it is, in the reader's terms.
type Code string

// The codes.
const (
	Invalid         Code = "invalid"         // the request can't be right
	Unusable        Code = "unusable"        // what it names elsewhere doesn't work
	Unauthenticated Code = "unauthenticated" // no or bad credentials
	Forbidden       Code = "forbidden"       // the role is too low
	NotFound        Code = "not_found"       // not there, or not the caller's
	Conflict        Code = "conflict"        // something else stands against it
	Changed         Code = "changed"         // If-Match names another version
	TooLarge        Code = "too_large"       // over a limit
	NotConfigured   Code = "not_configured"  // the server lacks a setting for it
	RemoteFailed    Code = "remote_failed"   // the other side answered with an error
	RemoteTimeout   Code = "remote_timeout"  // the other side did not answer
	Busy            Code = "busy"            // too many at once
)

// Error is an error for whoever made the request. Its text is shown to them;
// the cause is not.
type Error struct {
	Code Code
	// Field is the member or parameter that is wrong, such as "metadata.title".
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

// known gives the store's errors a code.
func known(err error, what string) error {
	for sentinel, e := range map[error]*Error{
		store.ErrNotFound:  fail(NotFound, "", "there is no such %s", what),
		store.ErrDuplicate: fail(Conflict, "", "there is such a %s already", what),
		store.ErrReference: fail(Conflict, "", "something that the %s refers to was deleted meanwhile", what),
		store.ErrText:      fail(Invalid, "", "a text holds a zero byte"),
	} {
		if errors.Is(err, sentinel) {
			e.Cause = err
			return e
		}
	}
	return err
}

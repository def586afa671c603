// Package resource defines the resource types: their fields, their permissions,
// and the ways in which they change. Each type has a file of its own on top of
// a generic core: a collection implements the verbs once, a kind declares what
// is specific to a type, and the type exports the verbs that apply to it. [New]
// registers the types. Every change goes through one of the store's three write
// methods, which require an event.
package resource

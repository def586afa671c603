// Package tidings defines the types that all parts of Tidings share: the
// [Event] that announces a change, the [Pattern] that selects events, the
// [Endpoint] that receives them, and the [Attempt] and [Outcome] of a delivery.
//
// Programs that announce changes of their own use package outbox, and programs
// that receive webhooks use package receive.
//
// An event names what changed and carries none of its data; the type has no
// field for data. The package has no dependencies outside the standard library.
package tidings

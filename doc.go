// Package tidings holds the words that every part of Tidings shares: the
// [Event] that tells of a change, the [Pattern] that selects events, the
// [Endpoint] that receives them, and the [Attempt] and [Outcome] of a delivery.
//
// Programs that tell of changes of their own use package outbox, and programs that get
// webhooks package receive.
//
// An event names what changed and carries none of its data; the type has no
// field to put data in. The package imports the standard library only.
package tidings

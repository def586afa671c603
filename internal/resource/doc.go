// Package resource is the ten resource types: what each is, who may do what
// with it, and how it changes. One file a type, over one generic core:
// [Collection] writes the verbs once, a [Kind] declares what is particular.
// Every change goes through the store's three writes, which ask for its event.
package resource

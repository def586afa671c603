// Package resource is the resource types: what each is, who may do what with it, and
// how it changes. There is one file a type, over one generic core: a collection has the
// verbs, written once, a kind declares what is particular to a type, and the type
// exports the verbs that are right for it. [New] registers the types.
// Every change goes through the store's three writes, which ask for its event.
package resource

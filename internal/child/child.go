// Package child starts programs that end when this one does, however that ends,
// where the system can do that.
package child

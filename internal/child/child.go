// Package child starts programs that end when this process ends, even if it
// crashes, on systems that support it.
package child

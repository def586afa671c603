//go:build race

package testtool

// Raced reports whether the race detector is enabled. It is slower and allocates
// more, so tests of time and memory must allow for it.
const Raced = true

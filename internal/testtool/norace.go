//go:build !race

package testtool

// Raced reports whether the race detector is enabled.
const Raced = false

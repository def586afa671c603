//go:build !race

package testtool

// Raced says whether the race detector is on.
const Raced = false

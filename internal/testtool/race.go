//go:build race

package testtool

// Raced says that the race detector is on: everything takes longer and allocates
// more, so that tests of rates and memory allow for it.
const Raced = true

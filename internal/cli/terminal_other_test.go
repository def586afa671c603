//go:build !linux

package cli_test

import "github.com/rogpeppe/go-internal/testscript"

// onTerminal is for Linux only.
func onTerminal(ts *testscript.TestScript, _ bool, _ []string) { ts.Fatalf("only on Linux") }

//go:build !unix

package testdb

import "os/exec"

// asAccount does nothing: there is no root on this system.
func asAccount(*exec.Cmd) {}

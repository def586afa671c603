//go:build !unix

package testdb

import "os/exec"

// asAccount does nothing, since this system has no root user.
func asAccount(*exec.Cmd) {}

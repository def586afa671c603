//go:build !linux

package child

import (
	"os/exec"
	"syscall"
)

// EndWithUs does nothing: this system cannot tie a command to its parent, so
// the command keeps running if this process is killed.
func EndWithUs(*exec.Cmd, syscall.Signal) {}

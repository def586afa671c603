//go:build !linux

package child

import (
	"os/exec"
	"syscall"
)

// EndWithUs does nothing: this system can't tie a command to the life of its parent,
// so the command goes on if this process is killed.
func EndWithUs(*exec.Cmd, syscall.Signal) {}

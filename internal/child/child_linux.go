package child

import (
	"os/exec"
	"syscall"
)

// EndWithUs has a command get a signal when this process ends. Call it before the
// command starts.
func EndWithUs(cmd *exec.Cmd, signal syscall.Signal) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Pdeathsig = signal
}

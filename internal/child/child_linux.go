package child

import (
	"os/exec"
	"syscall"
)

// EndWithUs makes a command receive a signal when this process ends. Call it
// before starting the command.
func EndWithUs(cmd *exec.Cmd, signal syscall.Signal) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Pdeathsig = signal
}

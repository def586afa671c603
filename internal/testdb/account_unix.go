//go:build unix

package testdb

import (
	"os"
	"os/exec"
	"syscall"
)

// asAccount makes a command run as [account] if this process is root.
func asAccount(cmd *exec.Cmd) {
	if uid, gid, err := account(); err == nil && os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
}

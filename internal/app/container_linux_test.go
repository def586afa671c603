package app_test

import "syscall"

// inContainer has a process see no other processes.
func inContainer() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
}

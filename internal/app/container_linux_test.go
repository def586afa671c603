package app_test

import "syscall"

// inContainer gives a process its own PID namespace, so that it sees no other processes.
func inContainer() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
}

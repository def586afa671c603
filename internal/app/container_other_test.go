//go:build !linux

package app_test

import "syscall"

// inContainer has no effect on this system.
func inContainer() *syscall.SysProcAttr { return nil }

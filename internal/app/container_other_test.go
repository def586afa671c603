//go:build !linux

package app_test

import "syscall"

// inContainer changes nothing on this system.
func inContainer() *syscall.SysProcAttr { return nil }

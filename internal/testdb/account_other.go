//go:build !unix

package testdb

import "os/exec"

// asAccount changes nothing: nobody is root.
func asAccount(*exec.Cmd) {}

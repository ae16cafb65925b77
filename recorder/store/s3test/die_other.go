//go:build !linux

package s3test

import "syscall"

// dieWithParent: only Linux does that.
func dieWithParent() *syscall.SysProcAttr { return nil }

package s3test

import "syscall"

// dieWithParent: a test that is killed must not leave servers behind.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

//go:build !linux

package b2bua

// makeRoom is for Linux.
func makeRoom(int) {}

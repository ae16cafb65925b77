//go:build !linux

package archive

// beNice does nothing: priorities of threads are known on Linux alone.
func beNice() {}

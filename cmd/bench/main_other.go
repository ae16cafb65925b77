//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "bench: it needs Linux: network namespaces, packet sockets, /proc")
	os.Exit(1)
}

package main

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/trunktap/trunktap/cmd/trunktap/config"
)

// prerollMinuteBytes is what a minute of a preroll takes: two channels of PCM.
const prerollMinuteBytes = 60 * 2 * 8000 * 2

// wantsPreroll tells whether audio of any trunk waits for consent in locked memory.
func wantsPreroll(cfg *config.Config) bool {
	return slices.ContainsFunc(recordedTrunks(cfg), func(t config.Trunk) bool { return t.Recording.Enabled && t.Recording.ConsentPreroll })
}

// canLock says why memory cannot be kept from being swapped out.
func canLock(size int) error {
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return fmt.Errorf("map memory: %w", err)
	}
	defer func() { _ = unix.Munmap(b) }() // unlocks it, nothing was in it
	if err := unix.Mlock(b); err != nil {
		return fmt.Errorf("lock memory: %w", err)
	}
	return nil
}

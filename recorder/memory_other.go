//go:build !linux

package recorder

import "errors"

// lockedMemory has none to give where the system is not known to keep it off
// the disk.
type lockedMemory struct{ budget int64 }

func (*lockedMemory) take(int) ([]int16, error) {
	return nil, errors.New("no locked memory on this system")
}
func (*lockedMemory) give([]int16) {}

package recorder

import (
	"errors"
	"fmt"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// lockedMemory is a vault whose memory is never swapped out nor dumped. Safe
// for concurrent use.
type lockedMemory struct {
	mu     sync.Mutex
	budget int64 // bytes that may still be taken
}

var errVaultFull = errors.New("the memory for audio that waits for consent is used up")

// take maps pages of their own, so that giving them back unmaps them.
func (v *lockedMemory) take(samples int) ([]int16, error) {
	size := int64(samples) * 2
	v.mu.Lock()
	ok := v.budget >= size
	if ok {
		v.budget -= size
	}
	v.mu.Unlock()
	if !ok {
		return nil, errVaultFull
	}
	b, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		v.credit(size)
		return nil, fmt.Errorf("map memory: %w", err)
	}
	err = unix.Mlock(b)
	if err == nil {
		err = unix.Madvise(b, unix.MADV_DONTDUMP)
	}
	if err != nil {
		_ = unix.Munmap(b) // nothing was in it
		v.credit(size)
		return nil, fmt.Errorf("lock memory: %w (RLIMIT_MEMLOCK or CAP_IPC_LOCK)", err)
	}
	return unsafe.Slice((*int16)(unsafe.Pointer(&b[0])), samples), nil
}

func (v *lockedMemory) give(block []int16) {
	if len(block) == 0 {
		return
	}
	clear(block)
	b := unsafe.Slice((*byte)(unsafe.Pointer(&block[0])), 2*len(block))
	_ = unix.Munmap(b) // mapped by take, so this cannot fail
	v.credit(int64(len(b)))
}

func (v *lockedMemory) credit(size int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.budget += size
}

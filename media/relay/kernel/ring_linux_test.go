package kernel

import (
	"encoding/binary"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"
)

// written is a ring in ordinary memory with records of these bytes.
func written(size int, records ...byte) *ring {
	r := &ring{consumer: new(uint64), producer: new(uint64), data: make([]byte, 2*size), mask: uint64(size - 1)}
	for _, b := range records {
		at := *r.producer
		binary.NativeEndian.PutUint32(r.data[at:], 1)
		r.data[at+ringHeaderBytes] = b
		*r.producer += 16
	}
	return r
}

// Whoever takes a flow away waits longer for a record in the making than
// whoever comes back for it.
func TestDrainWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := written(4096, 1, 2, 3)
		header := (*uint32)(unsafe.Pointer(&r.data[16]))
		atomic.StoreUint32(header, 1|ringBusy)
		go func() {
			time.Sleep(100 * time.Millisecond)
			atomic.StoreUint32(header, 1)
		}()
		var got []byte
		each := func(rec []byte) { got = append(got, rec...) }
		if r.drain(busyMax, each); !slices.Equal(got, []byte{1}) {
			t.Fatalf("got %v past a record in the making", got)
		}
		if r.drain(lastBusyMax, each); !slices.Equal(got, []byte{1, 2, 3}) || *r.consumer != *r.producer {
			t.Fatalf("got %v; at %d of %d", got, *r.consumer, *r.producer)
		}
	})
}

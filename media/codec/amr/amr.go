// Package amr binds the AMR decoders of opencore-amr (Apache-2.0), linked dynamically.
package amr

/*
#cgo pkg-config: opencore-amrnb opencore-amrwb
#include <opencore-amrnb/interf_dec.h>
#include <opencore-amrwb/dec_if.h>
*/
import "C"

import (
	"errors"
	"runtime"
	"unsafe"
)

// Frame types that carry no bits (3GPP TS 26.101 and 26.201 table 1a): what the
// decoder is given in place of a lost frame, and where nothing was sent.
const (
	SpeechLost = 14 // AMR-WB alone
	NoData     = 15
)

// FrameBytesMax is the size of the longest frame, its header octet included.
const FrameBytesMax = 61

// Samples of a frame of 20 ms.
const (
	NarrowSamples = 160 // at 8000 Hz
	WideSamples   = 320 // at 16000 Hz
)

var errMemory = errors.New("amr: no memory for a decoder")

// Decoder is one decoder. Not safe for concurrent use.
type Decoder struct {
	state   unsafe.Pointer // C memory; nil once closed
	wide    bool
	cleanup runtime.Cleanup
	in      [FrameBytesMax]byte
	out     [WideSamples]int16
}

// New returns a decoder of AMR, or of AMR-WB. One that is not closed is freed with
// the garbage.
func New(wide bool) (*Decoder, error) {
	d := &Decoder{wide: wide}
	free := narrowExit
	if wide {
		d.state, free = C.D_IF_init(), wideExit
	} else {
		d.state = C.Decoder_Interface_init()
	}
	if d.state == nil {
		return nil, errMemory
	}
	d.cleanup = runtime.AddCleanup(d, free, d.state)
	return d, nil
}

func narrowExit(state unsafe.Pointer) { C.Decoder_Interface_exit(state) }

func wideExit(state unsafe.Pointer) { C.D_IF_exit(state) }

// Frame decodes one frame as it stands in a storage file (RFC 4867 section 5.3: a
// header octet with the frame type, then the bits, padded) and returns its samples,
// which are valid until the next call. The frame type must be one that is defined and
// the bits must all be there; nil once closed.
func (d *Decoder) Frame(frame []byte) []int16 {
	if d.state == nil {
		return nil
	}
	clear(d.in[:])
	copy(d.in[:], frame)
	in, out := (*C.uchar)(&d.in[0]), (*C.short)(&d.out[0])
	if d.wide {
		C.D_IF_decode(d.state, in, out, 0)
		return d.out[:WideSamples]
	}
	C.Decoder_Interface_Decode(d.state, in, out, 0)
	return d.out[:NarrowSamples]
}

// Close frees the decoder; it may be called again.
func (d *Decoder) Close() {
	if d.state == nil {
		return
	}
	d.cleanup.Stop()
	if d.wide {
		wideExit(d.state)
	} else {
		narrowExit(d.state)
	}
	d.state = nil
}

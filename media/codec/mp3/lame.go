//go:build cgo && !nomp3

package mp3

/*
#cgo LDFLAGS: -lmp3lame
#include <lame/lame.h>

static void quiet(const char *format, va_list args) { (void)format; (void)args; }

static lame_t begin(int rate, int channels, int kbps, int tag) {
	lame_t l = lame_init();
	if (l == NULL) return NULL;
	lame_set_errorf(l, quiet);
	lame_set_debugf(l, quiet);
	lame_set_msgf(l, quiet);
	lame_set_in_samplerate(l, rate);
	lame_set_out_samplerate(l, rate);
	lame_set_num_channels(l, channels);
	lame_set_mode(l, channels == 1 ? MONO : STEREO);
	lame_set_VBR(l, vbr_off);
	lame_set_brate(l, kbps);
	lame_set_bWriteVbrTag(l, tag);
	lame_set_write_id3tag_automatic(l, 0);
	if (lame_init_params(l) < 0 || lame_get_brate(l) != kbps || lame_get_out_samplerate(l) != rate) {
		lame_close(l);
		return NULL;
	}
	return l;
}
*/
import "C"

import "unsafe"

// lame is one encoder of libmp3lame. What it returns are numbers of bytes, negative
// ones are errors; no memory of Go outlives a call.
type lame struct{ handle C.lame_t }

// newLame returns false when the library refuses the shape.
func newLame(rate, channels, bitrate int, tag bool) (lame, bool) {
	withTag := C.int(0)
	if tag {
		withTag = 1
	}
	h := C.begin(C.int(rate), C.int(channels), C.int(bitrate/1000), withTag)
	return lame{h}, h != nil
}

// encode codes samples of both channels, of the same length, into dst.
func (l lame) encode(left, right []int16, dst []byte) int {
	return int(C.lame_encode_buffer(l.handle, (*C.short)(unsafe.Pointer(&left[0])), (*C.short)(unsafe.Pointer(&right[0])),
		C.int(len(left)), (*C.uchar)(unsafe.Pointer(&dst[0])), C.int(len(dst))))
}

func (l lame) flush(dst []byte) int {
	return int(C.lame_encode_flush(l.handle, (*C.uchar)(unsafe.Pointer(&dst[0])), C.int(len(dst))))
}

// tag is the frame with the delay and the number of samples; 0 or more than
// dst holds when there is none.
func (l lame) tag(dst []byte) int {
	return int(C.lame_get_lametag_frame(l.handle, (*C.uchar)(unsafe.Pointer(&dst[0])), C.size_t(len(dst))))
}

func (l *lame) close() {
	C.lame_close(l.handle)
	l.handle = nil
}

func (l lame) closed() bool { return l.handle == nil }

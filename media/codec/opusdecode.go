package codec

import (
	"fmt"

	opus "gopkg.in/hraban/opus.v2"
)

const (
	opusClock    = 48000 // of timestamps, whatever the rate of the samples (RFC 7587 section 4.1)
	opusTicksMax = 5760  // of a packet: 120 ms (RFC 6716 section 3.2.5)
	opusUnitHz   = 400   // libopus conceals and recovers in units of 2.5 ms
	opusBytesMax = 61_298
)

// OpusFrames returns the ticks of a frame and the number of frames of a packet
// (RFC 6716 sections 3.1 and 3.2); 0 frames: none can be told.
func OpusFrames(payload []byte) (ticks, count int) {
	if len(payload) == 0 {
		return 0, 0
	}
	switch config := payload[0] >> 3; {
	case config < opusHybrid: // SILK
		ticks = [4]int{480, 960, 1920, 2880}[config&3]
	case config < opusCELT:
		ticks = 480 << (config & 1)
	default:
		ticks = 120 << (config & 3)
	}
	switch payload[0] & 3 {
	case 0:
		return ticks, 1
	case 1, 2:
		return ticks, 2
	}
	if len(payload) < 2 {
		return ticks, 0
	}
	return ticks, int(payload[1] & 0x3f)
}

// opusCELT is the first configuration without SILK (RFC 6716 section 3.1).
const opusCELT = 16

// opusStream decodes a stream to one channel: of a stereo packet the decoder makes the
// middle of the two, in every mode.
type opusStream struct {
	dec     *opus.Decoder
	rate    int
	conceal bool
}

func newOpusStream(o DecoderOptions) (core, error) {
	d := &opusStream{rate: opusClock, conceal: o.Conceal}
	for _, rate := range []int{24000, 16000, 12000, 8000} {
		if o.Rate > 0 && o.Rate <= rate {
			d.rate = rate
		}
	}
	var err error
	if d.dec, err = opus.NewDecoder(d.rate, 1); err != nil {
		return nil, fmt.Errorf("opus decoder at %d Hz: %w", d.rate, err)
	}
	return d, nil
}

func (d *opusStream) Rate() int { return d.rate }

// Close has nothing to free: libopus works in Go's memory.
func (d *opusStream) Close() { d.dec = nil }

func (d *opusStream) Ticks(payload []byte) int {
	ticks, count := OpusFrames(payload)
	if ticks*count > opusTicksMax {
		return 0
	}
	return ticks * count
}

func (d *opusStream) Decode(dst []int16, payload []byte) ([]int16, error) {
	ticks := d.Ticks(payload)
	switch {
	case d.dec == nil:
		return dst, errClosed
	case ticks == 0 || len(payload) > opusBytesMax:
		return dst, fmt.Errorf("opus packet of %d bytes: %w", len(payload), errPayload)
	}
	samples := ticks * d.rate / opusClock
	out, pcm := extend(dst, samples)
	n, err := d.dec.Decode(payload, pcm[:samples:samples])
	if err != nil {
		return dst, fmt.Errorf("decode opus: %w", err)
	}
	return out[:len(dst)+n], nil
}

// Conceal continues as libopus does, which itself fades out.
func (d *opusStream) Conceal(dst []int16, samples int) []int16 {
	samples = min(max(samples, 0), SamplesMax)
	if !d.conceal || d.dec == nil {
		return silence(dst, samples)
	}
	return d.missing(dst, samples, nil)
}

// Recover takes the last lost frame from the packet behind it. Further ones are
// concealed, so a caller that lost several packets asks once for all of them.
func (d *opusStream) Recover(dst []int16, next []byte, samples int) ([]int16, bool) {
	if d.dec == nil || samples <= 0 || samples > SamplesMax || d.Ticks(next) == 0 || !opusHasFEC(next) {
		return dst, false
	}
	return d.missing(dst, samples, next), true
}

// missing lets libopus make what is lost, in the whole units that it can make; what
// it makes too much is left out.
func (d *opusStream) missing(dst []int16, samples int, next []byte) []int16 {
	unit := d.rate / opusUnitHz
	from := len(dst)
	for left := samples; left > 0; {
		n := min(left, opusTicksMax*d.rate/opusClock)
		whole, skip := (n+unit-1)/unit*unit, 0
		fec := next != nil && n == left
		if fec {
			frame, _ := OpusFrames(next)
			whole = max(whole, frame*d.rate/opusClock) // less than a frame libopus does not recover
			skip = whole - n                           // what borders on next is what is wanted
		}
		out, pcm := extend(dst, whole)
		var err error
		if fec {
			err = d.dec.DecodeFEC(next, pcm[:whole:whole])
		} else {
			err = d.dec.DecodePLC(pcm[:whole:whole])
		}
		if err != nil {
			break
		}
		copy(pcm, pcm[skip:skip+n])
		dst, left = out[:len(dst)+n], left-n
	}
	return silence(dst, from+samples-len(dst))
}

// opusHasFEC tells whether a packet carries low bit-rate redundancy of the one
// before it: SILK's first frame begins with a voice activity flag for each of its
// frames of 20 ms, then that flag, for the middle and then for the side channel (RFC
// 6716 sections 4.2.2 to 4.2.4). Flags of even odds are the first bits as they stand.
func opusHasFEC(packet []byte) bool {
	if packet[0]>>3 >= opusCELT {
		return false
	}
	first, ok := opusFirstFrame(packet)
	if !ok {
		return false
	}
	ticks, _ := OpusFrames(packet)
	flags := 1 + max(1, ticks/960) // of one channel
	if first>>(8-flags)&1 != 0 {
		return true
	}
	return packet[0]&4 != 0 && first>>(8-2*flags)&1 != 0
}

// opusFirstFrame returns the first octet of the first frame (RFC 6716 section 3.2);
// false when that frame is empty (DTX) or is not where it should be.
func opusFirstFrame(packet []byte) (octet byte, ok bool) {
	at, sized := 1, false // sized: the length of the first frame stands at at
	switch packet[0] & 3 {
	case 2:
		sized = true
	case 3:
		if len(packet) < 2 {
			return 0, false
		}
		at, sized = 2, packet[1]&0x80 != 0 && packet[1]&0x3f > 1
		for padded := packet[1]&0x40 != 0; padded && at < len(packet); at++ {
			padded = packet[at] == 255
		}
	}
	if !sized {
		return at1(packet, at)
	}
	if sizes := 1; at < len(packet) && packet[at] > 0 {
		if packet[at] >= 252 {
			sizes = 2
		}
		if packet[0]&3 == 3 { // the lengths of all frames but the last stand here
			return opusAfterSizes(packet, at)
		}
		return at1(packet, at+sizes)
	}
	return 0, false
}

// opusAfterSizes skips the lengths of all frames but the last.
func opusAfterSizes(packet []byte, at int) (octet byte, ok bool) {
	for range packet[1]&0x3f - 1 {
		if at >= len(packet) {
			return 0, false
		}
		if packet[at] >= 252 {
			at++
		}
		at++
	}
	return at1(packet, at)
}

func at1(b []byte, at int) (byte, bool) {
	if at >= len(b) {
		return 0, false
	}
	return b[at], true
}

package overlay

import (
	"errors"
	"fmt"

	opus "gopkg.in/hraban/opus.v2"

	"github.com/trunktap/trunktap/media/codec"
)

const (
	opusRate       = 48000 // of timestamps and of samples, RFC 7587 section 4.1
	opusTicksMax   = 5760  // of a packet: 120 ms, RFC 6716 section 3.2.5
	opusUnit       = 120   // ticks of the shortest frame: 2.5 ms
	opusBytesMax   = 1200  // of a payload that we make, so that it fits every path
	opusBitrate    = 64000 // a channel, transparent for speech with a tone in it
	opusComplexity = 1

	// opusSettles is how many ticks after a sound are still coded anew: until the
	// energies that the far end's decoder predicts from have forgotten the tone.
	opusSettles = opusRate * 12 / 100
)

var (
	errOpusTOC      = errors.New("frames of one packet were coded in different ways")
	errOpusDuration = errors.New("an opus packet is not as long as it says")
	errOpusRoom     = errors.New("no room for an opus packet")
)

// opusTranscoder decodes, mixes and codes the packets that a sound covers, as
// many channels and as long as they are. The payload's size changes.
//
// It codes in CELT mode, whose delay is 2.5 ms, whatever mode the sender is in:
// decoders pass from mode to mode without a click (RFC 6716 section 4.5).
type opusTranscoder struct {
	decoder  *opus.Decoder    // makes two channels of any packet
	encoders [2]*opus.Encoder // by channels; nil until the first sound, since most streams need one of them
	coding   int              // channels that are being coded; 0: none
	left     int              // ticks that are still to be coded after the sound

	pcm     [2 * opusTicksMax]int16
	frames  [2 * opusBytesMax]byte // of several
	lengths [opusTicksMax / opusUnit]int
}

func newOpusTranscoder() transcoder {
	decoder, err := opus.NewDecoder(opusRate, 2)
	if err != nil {
		return nil // without memory, and then there is no call either
	}
	return &opusTranscoder{decoder: decoder}
}

func newOpusEncoder(channels int) (*opus.Encoder, error) {
	e, err := opus.NewEncoder(opusRate, channels, opus.AppRestrictedLowdelay)
	if err != nil {
		return nil, fmt.Errorf("opus encoder of %d channels: %w", channels, err)
	}
	if err := e.SetBitrate(channels * opusBitrate); err != nil {
		return nil, fmt.Errorf("opus bit rate: %w", err)
	}
	if err := e.SetComplexity(opusComplexity); err != nil {
		return nil, fmt.Errorf("opus complexity: %w", err)
	}
	return e, nil
}

func (*opusTranscoder) clock() int { return opusRate }

func (*opusTranscoder) duration(payload []byte) (ticks int, ok bool) {
	frame, count := codec.OpusFrames(payload)
	return frame * count, count > 0 && frame*count <= opusTicksMax
}

func opusChannels(payload []byte) int { return 1 + int(payload[0]>>2&1) }

func (t *opusTranscoder) reset() { t.coding, t.left = 0, 0 }

func (t *opusTranscoder) transcode(dst, payload []byte, m *moment) ([]byte, error) {
	if !m.fresh || !m.sound() && t.coding == 0 && !m.soon {
		return nil, nil
	}
	ticks, _ := t.duration(payload)
	n, err := t.decoder.Decode(payload, t.pcm[:2*ticks:2*ticks])
	if err != nil {
		return nil, fmt.Errorf("decode opus: %w", err)
	}
	if n != ticks {
		return nil, errOpusDuration
	}
	if m.sound() {
		t.left = opusSettles
	} else if t.left -= ticks; t.left < 0 {
		t.coding = 0
	}
	if !m.sound() && t.coding == 0 {
		return nil, nil
	}
	channels := opusChannels(payload)
	pcm := t.pcm[:channels*ticks]
	if channels == 1 {
		for i := range pcm {
			pcm[i] = t.pcm[2*i] // both are the same
		}
	}
	m.add(pcm, channels, opusRate, opusRate)
	return t.encode(dst, payload, pcm, channels)
}

// encode codes samples into one packet.
func (t *opusTranscoder) encode(dst, payload []byte, pcm []int16, channels int) ([]byte, error) {
	e := t.encoders[channels-1]
	if e == nil {
		var err error
		if e, err = newOpusEncoder(channels); err != nil {
			return nil, err
		}
		t.encoders[channels-1] = e
	}
	if t.coding != channels {
		if err := e.Reset(); err != nil { // what it heard at its last sound must not be heard again
			return nil, fmt.Errorf("reset the opus encoder: %w", err)
		}
		t.coding = channels
	}
	if opusEncodable(len(pcm) / channels) {
		return appendOpus(dst, e, pcm, opusBytesMax)
	}
	frame, count := codec.OpusFrames(payload)
	return t.several(dst, e, pcm, frame*channels, count)
}

// opusEncodable lists the durations that libopus codes into one packet.
func opusEncodable(ticks int) bool {
	switch ticks {
	case 120, 240, 480, 960, 1920, 2880, 3840, 4800, 5760:
		return true
	}
	return false
}

// several builds a packet of count frames (code 3 of RFC 6716 section 3.2.5) for
// other durations. The frames of these have at most 20 ms, so each is coded to a
// packet of one frame (code 0).
func (t *opusTranscoder) several(dst []byte, e *opus.Encoder, pcm []int16, frame, count int) ([]byte, error) {
	frames := t.frames[:0]
	for i := range count {
		at := len(frames)
		var err error
		if frames, err = appendOpus(frames, e, pcm[i*frame:(i+1)*frame], (opusBytesMax-2)/count-2); err != nil {
			return nil, err
		}
		if toc := frames[at]; toc&3 != 0 || toc != frames[0] {
			return nil, errOpusTOC
		}
		t.lengths[i] = len(frames) - at
	}
	dst = append(dst, frames[0]|3, 0x80|byte(count)) // with the length of each but the last
	for _, n := range t.lengths[:count-1] {
		dst = appendOpusLength(dst, n-1)
	}
	for _, n := range t.lengths[:count] {
		dst = append(dst, frames[1:n]...)
		frames = frames[n:]
	}
	return dst, nil
}

// appendOpusLength writes the length of a frame (RFC 6716 section 3.2.1).
func appendOpusLength(dst []byte, n int) []byte {
	if n < 252 {
		return append(dst, byte(n))
	}
	first := 252 + n&3
	return append(dst, byte(first), byte((n-first)>>2))
}

// appendOpus codes into at most limit octets.
func appendOpus(dst []byte, e *opus.Encoder, pcm []int16, limit int) ([]byte, error) {
	at := len(dst)
	if limit = min(limit, cap(dst)-at); limit < 1 {
		return nil, errOpusRoom
	}
	n, err := e.Encode(pcm, dst[at:at+limit])
	if err != nil {
		return nil, fmt.Errorf("opus encode: %w", err)
	}
	return dst[:at+n], nil
}

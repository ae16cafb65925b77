package codec

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	opus "gopkg.in/hraban/opus.v2"
)

// Values of Options.Application.
const (
	OpusVoIP  = "voip"  // shaped for speech
	OpusAudio = "audio" // nearest to the waveform
)

// Bounds of Options.
const (
	OpusBitrateMin     = 6000 // bit/s
	OpusBitrateMax     = 128_000
	OpusBitrateDefault = 16_000
	OpusComplexityMax  = 10
)

const (
	opusGranuleMS      = 20
	opusPacketBytesMax = 1275 // of one frame (RFC 6716 section 3.2.1)

	// silencePeak is the loudest sample of silence: -66 dBFS. Of G.711 the idle
	// codes alone lie below it (their least steps are 8 in both laws, the next
	// ones 24), of any hearing nothing.
	silencePeak = 16
	// opusHangover is how many silent granules are coded before a channel
	// rests: the decoder rings out, and what follows the last audible sample is
	// in its place.
	opusHangover = 5
	// opusSettle is how many granules of silence an encoder takes until its
	// packets no longer change.
	opusSettle = 25
)

// opusLookahead is the encoder's delay in samples: 2.5 ms of overlap and 4 ms
// of delay compensation, constant in libopus for speech and audio; the tests
// measure it.
func opusLookahead(rate int) int { return rate * 13 / 2000 }

// opusEncoder codes granules of one or two channels.
type opusEncoder struct {
	granule  int
	rate     int
	channels []opusChannel
	packet   []byte
	block    []int16 // one granule: of the mono mix
	in       int     // samples taken
	coded    int     // samples coded
}

// checkOpus refuses options that libopus would not take.
func checkOpus(opt Options) error {
	switch {
	case opt.Bitrate != 0 && (opt.Bitrate < OpusBitrateMin || opt.Bitrate > OpusBitrateMax):
		return fmt.Errorf("%w %s at %d bit/s: %d to %d", ErrFormat, OggOpus, opt.Bitrate, OpusBitrateMin, OpusBitrateMax)
	case opt.Complexity < 0 || opt.Complexity > OpusComplexityMax:
		return fmt.Errorf("%w %s with complexity %d: 0 to %d", ErrFormat, OggOpus, opt.Complexity, OpusComplexityMax)
	case opt.Application != "" && opt.Application != OpusVoIP && opt.Application != OpusAudio:
		return fmt.Errorf("%w %s for %q: %s or %s", ErrFormat, OggOpus, opt.Application, OpusVoIP, OpusAudio)
	}
	return nil
}

func newOpusEncoder(rate int, opt Options) (Encoder, error) {
	if err := checkOpus(opt); err != nil {
		return nil, err
	}
	silent, err := opusSilence(rate, opt)
	if err != nil {
		return nil, err
	}
	e := &opusEncoder{granule: rate * opusGranuleMS / 1000, rate: rate, packet: make([]byte, opusPacketBytesMax)}
	e.block = make([]int16, e.granule)
	zero := make([]int16, e.granule)
	for range opt.Channels {
		enc, err := newLibopus(rate, opt)
		if err != nil {
			return nil, err
		}
		e.channels = append(e.channels, opusChannel{enc: enc, silent: silent, zero: zero, quiet: opusHangover})
	}
	return e, nil
}

// newLibopus returns an encoder of one channel.
func newLibopus(rate int, opt Options) (*opus.Encoder, error) {
	application := opus.AppVoIP
	if opt.Application == OpusAudio {
		application = opus.AppAudio
	}
	if opt.Bitrate == 0 {
		opt.Bitrate = OpusBitrateDefault
	}
	enc, err := opus.NewEncoder(rate, 1, application)
	if err != nil {
		return nil, fmt.Errorf("opus encoder at %d Hz: %w", rate, err)
	}
	if err := enc.SetComplexity(opt.Complexity); err != nil {
		return nil, fmt.Errorf("opus complexity %d: %w", opt.Complexity, err)
	}
	if err := enc.SetBitrate(opt.Bitrate); err != nil {
		return nil, fmt.Errorf("opus bitrate %d: %w", opt.Bitrate, err)
	}
	return enc, nil
}

// silences holds the coded silence of encoders by their options; there are as
// many as the configuration names.
var silences sync.Map

type silenceKey struct {
	rate int
	opt  Options
}

// opusSilence returns a packet of one granule of silence of the mode that an
// encoder with these options is in, so that decoders need not change theirs. It
// is what the encoder gives after long silence; a decoder may take it any
// number of times.
func opusSilence(rate int, opt Options) ([]byte, error) {
	opt.Channels = 1
	key := silenceKey{rate, opt}
	if p, ok := silences.Load(key); ok {
		return p.([]byte), nil
	}
	enc, err := newLibopus(rate, opt)
	if err != nil {
		return nil, err
	}
	zero, buf := make([]int16, rate*opusGranuleMS/1000), make([]byte, opusPacketBytesMax)
	n := 0
	for range opusSettle {
		if n, err = enc.Encode(zero, buf); err != nil {
			return nil, fmt.Errorf("opus encode silence: %w", err)
		}
	}
	p, _ := silences.LoadOrStore(key, buf[:n:n])
	return p.([]byte), nil
}

// opusChannel codes one channel. After opusHangover granules in which no sample
// exceeds silencePeak it rests: silence coded once stands in the place of each
// silent granule and the encoder is not asked. Its delay of 6.5 ms is in no
// harm's way: what it held back when it came to rest is silent too.
type opusChannel struct {
	enc    *opus.Encoder
	silent []byte  // shared, read only
	zero   []int16 // one granule; shared, read only
	quiet  int     // silent granules in a row, at most opusHangover
	rests  bool
}

// code returns the packet of one granule; it lies in buf or is shared.
func (c *opusChannel) code(pcm []int16, buf []byte) ([]byte, error) {
	switch {
	case !isSilent(pcm):
		c.quiet = 0
	case c.quiet == opusHangover:
		c.rests = true
		return c.silent, nil
	default:
		c.quiet++
	}
	if c.rests {
		c.rests = false
		return c.wake(pcm, buf)
	}
	return c.encode(pcm, buf)
}

// wake codes the first audible granule after a rest. The decoder has had only
// silence meanwhile, so the encoder begins anew: in the modes of SILK its first
// frame depends on nothing before it. CELT codes energies by what they were
// (RFC 6716 section 4.3.2.1), in its encoder after a reset and in a decoder after
// silence not the same: there one granule of silence goes before, of which
// the decoder has had its packet.
func (c *opusChannel) wake(pcm []int16, buf []byte) ([]byte, error) {
	if err := c.enc.Reset(); err != nil {
		return nil, fmt.Errorf("opus reset: %w", err)
	}
	p, err := c.encode(pcm, buf)
	if err != nil || p[0]>>3 < opusHybrid {
		return p, err
	}
	if err := c.enc.Reset(); err != nil {
		return nil, fmt.Errorf("opus reset: %w", err)
	}
	if _, err := c.encode(c.zero, buf); err != nil {
		return nil, err
	}
	return c.encode(pcm, buf)
}

// opusHybrid is the first configuration in which CELT takes part (RFC 6716
// section 3.1).
const opusHybrid = 12

func (c *opusChannel) encode(pcm []int16, buf []byte) ([]byte, error) {
	n, err := c.enc.Encode(pcm, buf)
	if err != nil {
		return nil, fmt.Errorf("opus encode: %w", err)
	}
	return buf[:n], nil
}

// isSilent tells whether no sample exceeds silencePeak.
func isSilent(pcm []int16) bool {
	for _, s := range pcm {
		if s > silencePeak || s < -silencePeak {
			return false
		}
	}
	return true
}

// Granule implements Encoder.
func (e *opusEncoder) Granule() int { return e.granule }

// Close implements Encoder.
func (e *opusEncoder) Close() { e.channels = nil }

// Encode implements Encoder.
func (e *opusEncoder) Encode(dst []byte, ch [2][]int16) ([]byte, error) {
	if err := checkChannels(ch, len(e.channels), e.granule); err != nil {
		return dst, err
	}
	for at := 0; at < len(ch[0]); at += e.granule {
		var err error
		if dst, err = e.unit(dst, part(ch, at, at+e.granule)); err != nil {
			return dst, err
		}
		e.in += e.granule
	}
	return dst, nil
}

// Flush pads, and codes as much silence more as the decoder needs to get the
// last sample out past the encoder's delay.
func (e *opusEncoder) Flush(dst []byte, ch [2][]int16) ([]byte, error) {
	if err := checkChannels(ch, len(e.channels), 1); err != nil {
		return dst, err
	}
	whole := len(ch[0]) / e.granule * e.granule
	dst, err := e.Encode(dst, part(ch, 0, whole))
	if err != nil {
		return dst, err
	}
	var last [2][]int16
	for i := range last {
		last[i] = make([]int16, e.granule)
		if ch[i] != nil {
			copy(last[i], ch[i][whole:])
		}
	}
	if ch[1] == nil && len(e.channels) == 1 {
		last[1] = nil
	}
	e.in += len(ch[0]) - whole
	for e.in > 0 && e.coded < e.in+opusLookahead(e.rate) {
		if dst, err = e.unit(dst, last); err != nil {
			return dst, err
		}
		clear(last[0])
		clear(last[1])
	}
	return dst, nil
}

// part is samples from one position to another.
func part(ch [2][]int16, from, to int) [2][]int16 {
	ch[0] = ch[0][from:to]
	if ch[1] != nil {
		ch[1] = ch[1][from:to]
	}
	return ch
}

// unit codes one granule of each channel.
func (e *opusEncoder) unit(dst []byte, ch [2][]int16) ([]byte, error) {
	e.coded += e.granule
	switch len(e.channels) {
	case 0:
		return dst, errors.New("opus encode: encoder is closed")
	case 1:
		e.block = mixed(e.block, ch)
		return e.one(dst, &e.channels[0], e.block)
	}
	dst, err := e.one(dst, &e.channels[0], ch[0])
	if err != nil {
		return dst, err
	}
	return e.one(dst, &e.channels[1], ch[1])
}

func (e *opusEncoder) one(dst []byte, c *opusChannel, pcm []int16) ([]byte, error) {
	p, err := c.code(pcm, e.packet)
	if err != nil {
		return dst, err
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(p)))
	return append(dst, p...), nil
}

package codec

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// ErrSplice says that Opus data of two encoders would meet within one file, or
// data follow padding: its positions could not be kept. Decode and encode anew.
var ErrSplice = errors.New("opus data cannot follow padding in one file")

const (
	oggSegmentsMax  = 255
	oggPageUnitsMax = 50 // 20 ms each: a page is at most 1 s long (RFC 7845 section 9)
	oggHeaderBytes  = 27
	oggFlagFirst    = 2
	oggFlagLast     = 4
	opusRate        = 48000 // of granule positions, whatever the input (RFC 7845 section 4)
)

// oggWriter muxes Ogg Opus. With two channels it is channel mapping family 1
// with two uncoupled mono streams (RFC 7845 section 5.1.1.2), the first in
// self-delimiting framing (RFC 6716 appendix B).
type oggWriter struct {
	w        io.Writer
	rate     int
	channels int
	granule  int
	preskip  int // at 48 kHz
	serial   uint32
	sequence uint32

	units   int64 // granules written and queued
	samples int64 // samples they stand for
	padded  bool  // samples < units: only the end may follow

	segments []byte // lacing values of the page being filled
	body     []byte
	inPage   int   // packets in it
	pageEnd  int64 // granule position of the last packet in it
	packet   []byte
	silent   []byte // one coded granule of silence, both channels
	closed   bool
}

func newOggWriter(w io.Writer, rate, channels int, serial uint32) (*oggWriter, error) {
	o := &oggWriter{
		w: w, rate: rate, channels: channels, granule: rate * opusGranuleMS / 1000,
		preskip: opusLookahead(opusRate), serial: serial,
	}
	head := append([]byte("OpusHead"), 1, byte(channels))
	head = binary.LittleEndian.AppendUint16(head, uint16(o.preskip))
	head = binary.LittleEndian.AppendUint32(head, uint32(rate))
	head = append(head, 0, 0) // output gain
	if channels == 1 {
		head = append(head, 0) // mapping family 0
	} else {
		head = append(head, 1, 2, 0, 0, 1) // family 1, 2 streams, none coupled, channels 0 and 1
	}
	if err := o.headerPage(head, oggFlagFirst); err != nil {
		return nil, err
	}
	const vendor = "trunktap"
	tags := binary.LittleEndian.AppendUint32([]byte("OpusTags"), uint32(len(vendor)))
	tags = append(tags, vendor...)
	tags = binary.LittleEndian.AppendUint32(tags, 0)
	if err := o.headerPage(tags, 0); err != nil {
		return nil, err
	}
	return o, nil
}

func (o *oggWriter) headerPage(packet []byte, flags byte) error {
	o.lace(packet)
	return o.page(flags, 0)
}

// Write adds granules of coded data.
func (o *oggWriter) Write(data []byte, samples int) error {
	if len(data) == 0 && samples == 0 {
		return nil
	}
	if o.padded {
		return fmt.Errorf("write Ogg Opus: %w", ErrSplice)
	}
	before := o.units
	for len(data) > 0 {
		var err error
		o.packet = o.packet[:0]
		for c := range o.channels {
			var packet []byte
			if packet, data, err = nextPacket(data); err != nil {
				return fmt.Errorf("write Ogg Opus: %w", err)
			}
			if o.packet, err = appendStream(o.packet, packet, c == o.channels-1); err != nil {
				return fmt.Errorf("write Ogg Opus: %w", err)
			}
		}
		if err := o.add(o.packet); err != nil {
			return err
		}
	}
	return o.account(o.units-before, samples)
}

// account notes that units more granules stand for samples.
func (o *oggWriter) account(units int64, samples int) error {
	coded := units * int64(o.granule)
	if samples < 0 || int64(samples) > coded {
		return fmt.Errorf("write Ogg Opus: %w: %d samples in %d coded ones", ErrCoded, samples, coded)
	}
	o.samples += int64(samples)
	o.padded = int64(samples) < coded
	return nil
}

// appendStream adds one mono packet; all but the last stream's are
// self-delimiting. Our encoders write one frame a packet (code 0).
func appendStream(dst, packet []byte, last bool) ([]byte, error) {
	if packet[0]&3 != 0 {
		return dst, fmt.Errorf("%w: opus packet with more than one frame", ErrCoded)
	}
	dst = append(dst, packet[0])
	if n := len(packet) - 1; !last {
		if n < 252 {
			dst = append(dst, byte(n))
		} else { // RFC 6716 section 3.2.1
			dst = append(dst, byte(252+n&3), byte((n-252-n&3)>>2))
		}
	}
	return append(dst, packet[1:]...), nil
}

// Silence adds granules of silence; what does not fill one may only stand at
// the end.
func (o *oggWriter) Silence(samples int) error {
	if samples < 0 {
		return fmt.Errorf("write Ogg Opus: %d samples of silence", samples)
	}
	if samples > 0 && o.padded {
		return fmt.Errorf("write Ogg Opus: %w", ErrSplice)
	}
	units := (samples + o.granule - 1) / o.granule
	for range units {
		if err := o.addSilent(); err != nil {
			return err
		}
	}
	return o.account(int64(units), samples)
}

func (o *oggWriter) addSilent() error {
	if o.silent == nil {
		coded, err := opusSilence(o.rate, Options{})
		if err != nil {
			return err
		}
		for c := range o.channels {
			if o.silent, err = appendStream(o.silent, coded, c == o.channels-1); err != nil {
				return err
			}
		}
	}
	return o.add(o.silent)
}

// add queues one Opus packet of one granule.
func (o *oggWriter) add(packet []byte) error {
	if o.inPage >= oggPageUnitsMax || len(o.segments)+len(packet)/255+1 > oggSegmentsMax {
		if err := o.page(0, o.pageEnd); err != nil {
			return err
		}
	}
	o.lace(packet)
	o.units++
	o.inPage++
	o.pageEnd = o.units * int64(o.granule) * int64(opusRate/o.rate)
	return nil
}

func (o *oggWriter) lace(packet []byte) {
	n := len(packet)
	for ; n >= 255; n -= 255 {
		o.segments = append(o.segments, 255)
	}
	o.segments = append(o.segments, byte(n))
	o.body = append(o.body, packet...)
}

// Close writes the last page, whose granule position trims the padding (RFC
// 7845 section 4.4).
func (o *oggWriter) Close() error {
	if o.closed {
		return nil
	}
	o.closed = true
	scale := int64(opusRate / o.rate)
	end := o.samples*scale + int64(o.preskip)
	for o.units*int64(o.granule)*scale < end { // data that was never flushed
		if err := o.addSilent(); err != nil {
			return err
		}
	}
	return o.page(oggFlagLast, end)
}

// page writes what is queued as one page (RFC 3533 section 6).
func (o *oggWriter) page(flags byte, granulePos int64) error {
	h := make([]byte, oggHeaderBytes, oggHeaderBytes+len(o.segments)+len(o.body))
	copy(h, "OggS")
	h[5] = flags
	binary.LittleEndian.PutUint64(h[6:], uint64(granulePos))
	binary.LittleEndian.PutUint32(h[14:], o.serial)
	binary.LittleEndian.PutUint32(h[18:], o.sequence)
	h[26] = byte(len(o.segments))
	h = append(append(h, o.segments...), o.body...)
	binary.LittleEndian.PutUint32(h[22:], oggCRC(h))
	o.sequence++
	o.segments, o.body, o.inPage = o.segments[:0], o.body[:0], 0
	if _, err := o.w.Write(h); err != nil {
		return fmt.Errorf("write Ogg page %d: %w", o.sequence-1, err)
	}
	return nil
}

var oggCRCTable = func() (t [256]uint32) {
	for i := range t {
		r := uint32(i) << 24
		for range 8 {
			r = r<<1 ^ (r>>31)*0x04c11db7
		}
		t[i] = r
	}
	return t
}()

// oggCRC is the checksum of RFC 3533: polynomial 0x04c11db7, not reflected.
func oggCRC(b []byte) (crc uint32) {
	for _, c := range b {
		crc = crc<<8 ^ oggCRCTable[byte(crc>>24)^c]
	}
	return crc
}

package codec

import (
	"encoding/binary"
	"errors"
	"fmt"

	opus "gopkg.in/hraban/opus.v2"
)

// ErrCoded says that coded data is not what an Encoder writes.
var ErrCoded = errors.New("coded audio is malformed")

// CodedDecoder turns the coded data of one segment back into samples.
type CodedDecoder interface {
	// Decode appends samples per channel. samples is what data stands for (see
	// Encoder); what was only padding is left out. For Opus what comes out lags
	// by the codec's delay, which the data of Flush makes up for, so that over a
	// whole segment every sample has its place. With one channel dst[1] stays.
	Decode(dst [2][]int16, data []byte, samples int) ([2][]int16, error)
	// Finish appends, as silence, what the data did not give: a segment that
	// was cut off lacks the last 6.5 ms.
	Finish(dst [2][]int16) [2][]int16
}

// NewCodedDecoder returns a decoder for the data of an Encoder of the same
// format, rate and number of channels.
func NewCodedDecoder(format string, rate, channels int) (CodedDecoder, error) {
	if err := checkShape(format, rate, channels); err != nil {
		return nil, err
	}
	switch format {
	case WAVPCM16:
		return &pcmDecoder{channels: channels, width: 2}, nil
	case WAVPCMU:
		return &pcmDecoder{channels: channels, width: 1, linear: &muLawLinear}, nil
	case WAVPCMA:
		return &pcmDecoder{channels: channels, width: 1, linear: &aLawLinear}, nil
	case FLAC:
		return flacDecoder{rate, channels}, nil
	}
	d := &opusDecoder{rate: rate, skip: opusLookahead(rate), pcm: make([]int16, rate*opusGranuleMS/1000)}
	for range channels {
		dec, err := opus.NewDecoder(rate, 1)
		if err != nil {
			return nil, fmt.Errorf("opus decoder at %d Hz: %w", rate, err)
		}
		d.dec = append(d.dec, dec)
	}
	return d, nil
}

type pcmDecoder struct {
	channels, width int
	linear          *[256]int16
}

func (d *pcmDecoder) Decode(dst [2][]int16, data []byte, samples int) ([2][]int16, error) {
	frame := d.channels * d.width
	if len(data)%frame != 0 || samples < 0 || samples > len(data)/frame {
		return dst, fmt.Errorf("%w: %d bytes for %d samples of %d bytes", ErrCoded, len(data), samples, frame)
	}
	for i := range samples * d.channels {
		var s int16
		if d.linear != nil {
			s = d.linear[data[i]]
		} else {
			s = int16(binary.LittleEndian.Uint16(data[2*i:]))
		}
		dst[i%d.channels] = append(dst[i%d.channels], s)
	}
	return dst, nil
}

func (d *pcmDecoder) Finish(dst [2][]int16) [2][]int16 { return dst }

type opusDecoder struct {
	rate   int
	skip   int // samples of the codec's delay still to drop
	dec    []*opus.Decoder
	pcm    []int16 // one granule
	wanted int     // samples announced
	given  int     // samples returned, per channel
}

func (d *opusDecoder) Decode(dst [2][]int16, data []byte, samples int) ([2][]int16, error) {
	if samples < 0 || samples > codedUnitsMax*len(d.pcm) {
		return dst, fmt.Errorf("%w: %d samples", ErrCoded, samples)
	}
	d.wanted += samples
	for len(data) > 0 {
		drop := min(d.skip, len(d.pcm))
		keep := min(len(d.pcm)-drop, d.wanted-d.given)
		for c, dec := range d.dec {
			packet, rest, err := nextPacket(data)
			if err != nil {
				return dst, err
			}
			data = rest
			n, err := dec.Decode(packet, d.pcm)
			if err != nil {
				return dst, fmt.Errorf("%w: opus: %w", ErrCoded, err)
			}
			if n != len(d.pcm) {
				return dst, fmt.Errorf("%w: opus packet of %d samples, not %d", ErrCoded, n, len(d.pcm))
			}
			dst[c] = append(dst[c], d.pcm[drop:drop+keep]...)
		}
		d.skip -= drop
		d.given += keep
	}
	return dst, nil
}

func (d *opusDecoder) Finish(dst [2][]int16) [2][]int16 {
	for c := range d.dec {
		dst[c] = append(dst[c], make([]int16, min(d.wanted-d.given, d.rate))...)
	}
	d.given = d.wanted
	return dst
}

// codedUnitsMax bounds one piece of coded Opus data: a minute of granules.
const codedUnitsMax = 3000

// nextPacket cuts one length-prefixed Opus packet off data.
func nextPacket(data []byte) (packet, rest []byte, err error) {
	if len(data) < 2 {
		return nil, nil, fmt.Errorf("%w: no packet length", ErrCoded)
	}
	n := int(binary.BigEndian.Uint16(data))
	if n == 0 || n > opusPacketBytesMax || n > len(data)-2 {
		return nil, nil, fmt.Errorf("%w: packet of %d bytes where %d are left", ErrCoded, n, len(data)-2)
	}
	return data[2 : 2+n], data[2+n:], nil
}

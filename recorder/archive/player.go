package archive

import (
	"errors"
	"fmt"
	"io"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/recorder"
)

// output takes the audio of a recording in order, without a gap.
type output interface {
	Write(data []byte, samples int) error
	Silence(samples int) error
}

// player turns the track of a recording into one stream of coded audio: block
// by block, silence where there is none. Where every block is in the format
// that is asked for, it is passed on as it is; else all is decoded and coded anew.
type player struct {
	t        track
	format   string
	rate     int
	channels int
	out      output
	copies   bool
	pos      int64 // sample that goes out next

	// When it does not copy:
	dec    codec.CodedDecoder // nil between runs
	decFmt string
	runEnd int64 // sample behind the run that dec decodes
	limit  int64 // sample at which its segment ends
	enc    codec.Encoder
	pend   [2][]int16 // decoded, not yet a whole granule
	coded  []byte
}

// newPlayer returns a player that stands at the beginning.
func newPlayer(t track, format string, out output) (*player, error) {
	p := &player{t: t, format: format, rate: t.m.SampleRate, channels: len(t.m.Channels), out: out, copies: true}
	for _, s := range t.m.Segments {
		if formatOf(t.m, s) != format {
			p.copies = false
		}
	}
	if format == codec.OggOpus && (len(t.m.Segments) > 1 || t.m.AudioMS != audioOf(t.m)) {
		p.copies = false // the data of two encoders cannot meet in one stream
	}
	err := p.restart(0)
	return p, err
}

func formatOf(m *recorder.Manifest, s recorder.Segment) string {
	if s.Format != "" {
		return s.Format
	}
	return m.Format
}

func audioOf(m *recorder.Manifest) (ms int64) {
	for _, s := range m.Segments {
		ms += s.DurationMS
	}
	return ms
}

// What is coded anew for export keeps more than the recording had, so that the
// second coding is not heard.
const (
	exportBitrate    = 24_000 // bit/s a channel
	exportComplexity = 1
)

// restart goes to the beginning of the segment that holds a sample.
func (p *player) restart(sample int64) error {
	p.pos = p.t.seek(sample)
	p.dec, p.pend = nil, [2][]int16{}
	if p.copies {
		return nil
	}
	p.close()
	enc, err := codec.NewEncoder(p.format, p.rate, codec.Options{Channels: p.channels, Bitrate: exportBitrate, Complexity: exportComplexity})
	if err != nil {
		return err
	}
	p.enc = enc
	return nil
}

func (p *player) close() {
	p.t.close()
	if p.enc != nil {
		p.enc.Close()
		p.enc = nil
	}
}

// step puts out the next block; io.EOF when all is out.
func (p *player) step() error {
	b, err := p.t.next()
	if errors.Is(err, io.EOF) {
		return p.finish()
	}
	if err != nil {
		return err
	}
	if p.copies {
		return p.copy(b)
	}
	return p.convert(b)
}

// finish puts out what is left, and silence up to the recording's end.
func (p *player) finish() error {
	if err := p.endRun(); err != nil {
		return err
	}
	if err := p.silence(p.t.total() - p.pos); err != nil {
		return err
	}
	if p.enc != nil {
		n := len(p.pend[0])
		data, err := p.enc.Flush(nil, p.pend)
		if err != nil {
			return fmt.Errorf("encode: %w", err)
		}
		p.pend = [2][]int16{}
		if err := p.out.Write(data, n); err != nil {
			return err
		}
	}
	return io.EOF
}

func (p *player) copy(b block) error {
	if err := p.silence(b.start - p.pos); err != nil {
		return err
	}
	data := b.data
	if p.format != codec.OggOpus {
		frame := frameBytes(p.format, p.channels)
		skip := int(min(max(p.pos-b.start, 0), int64(b.samples)))
		if len(data) < b.samples*frame {
			return fmt.Errorf("block of %d bytes for %d samples: %w", len(data), b.samples, codec.ErrCoded)
		}
		data, b.samples = data[skip*frame:b.samples*frame], b.samples-skip
	}
	p.pos += int64(b.samples)
	return p.out.Write(data, b.samples)
}

// frameBytes is the size of one sample of all channels in a WAV format.
func frameBytes(format string, channels int) int {
	if format == codec.WAVPCM16 {
		return 2 * channels
	}
	return channels
}

func (p *player) convert(b block) error {
	if b.fresh || b.format != p.decFmt || p.dec == nil {
		if err := p.endRun(); err != nil {
			return err
		}
		dec, err := codec.NewCodedDecoder(b.format, p.rate, p.channels)
		if err != nil {
			return err
		}
		p.dec, p.decFmt = dec, b.format
		if err := p.silence(b.start - p.pos); err != nil {
			return err
		}
	}
	p.runEnd, p.limit = b.start+int64(b.samples), b.end
	ch, err := p.dec.Decode([2][]int16{}, b.data, b.samples)
	if err != nil {
		return fmt.Errorf("recording %s: %w", p.t.m.ID, err)
	}
	return p.samples(ch)
}

// endRun puts out what the decoder still owes, as silence.
func (p *player) endRun() error {
	if p.dec == nil {
		return nil
	}
	ch := p.dec.Finish([2][]int16{})
	p.dec = nil
	if err := p.samples(ch); err != nil {
		return err
	}
	return p.silence(p.runEnd - p.pos)
}

// samples codes decoded audio, as far as its segment reaches.
func (p *player) samples(ch [2][]int16) error {
	n := int(min(int64(len(ch[0])), max(p.limit-p.pos, 0)))
	p.pos += int64(n)
	for i := range p.channels {
		ch[i] = ch[i][:n]
	}
	return p.encode(ch)
}

// encode codes samples; of one channel the second is not looked at, as the first
// is the mix already.
func (p *player) encode(ch [2][]int16) error {
	for i := range p.channels {
		p.pend[i] = append(p.pend[i], ch[i]...)
	}
	n := len(p.pend[0]) - len(p.pend[0])%p.enc.Granule()
	if n == 0 {
		return nil
	}
	data, err := p.enc.Encode(p.coded[:0], first(p.pend, n))
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	p.coded = data
	for i := range p.channels {
		p.pend[i] = append(p.pend[i][:0], p.pend[i][n:]...)
	}
	return p.out.Write(data, n)
}

// first is the first n samples of each channel that there is.
func first(ch [2][]int16, n int) [2][]int16 {
	for i := range ch {
		if ch[i] != nil {
			ch[i] = ch[i][:n]
		}
	}
	return ch
}

// silence puts out silence; a negative length is none.
func (p *player) silence(samples int64) error {
	for samples > 0 {
		n := int(min(samples, int64(p.rate)))
		var err error
		if p.copies {
			err = p.out.Silence(n)
		} else {
			zero := make([]int16, n)
			err = p.encode([2][]int16{zero, zero})
		}
		if err != nil {
			return err
		}
		p.pos += int64(n)
		samples -= int64(n)
	}
	return nil
}

package codec

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"github.com/go-audio/audio"
	"github.com/go-audio/wav"
)

// wavAudioPCM is the WAV tag of linear samples.
const wavAudioPCM = 1

// pcmWriter writes linear WAV files through go-audio/wav. The companded formats
// have a writer of their own (wavWriter), because that library writes neither
// their fact chunk nor the byte that pads an odd length.
type pcmWriter struct {
	enc    *wav.Encoder
	buf    audio.IntBuffer
	frames int64 // written, one sample of all channels each
}

func newPCMWriter(w io.WriteSeeker, rate, channels int) (*pcmWriter, error) {
	p := &pcmWriter{enc: wav.NewEncoder(w, rate, 16, channels, wavAudioPCM)}
	p.buf.Format = &audio.Format{NumChannels: channels, SampleRate: rate}
	p.buf.SourceBitDepth = 16
	err := p.flush() // a file without audio has its header all the same
	return p, err
}

// flush writes what the buffer holds.
func (p *pcmWriter) flush() error {
	frames := int64(len(p.buf.Data) / p.buf.Format.NumChannels)
	if (p.frames+frames)*int64(2*p.buf.Format.NumChannels) > math.MaxUint32-64 {
		return fmt.Errorf("write WAV: %w: ends at %d samples", ErrTooLarge, p.frames)
	}
	if err := p.enc.Write(&p.buf); err != nil {
		return fmt.Errorf("write WAV: %w", err)
	}
	p.frames += frames
	return nil
}

// Write implements FileWriter.
func (p *pcmWriter) Write(data []byte, samples int) error {
	frame := 2 * p.buf.Format.NumChannels
	if len(data)%frame != 0 || samples < 0 || samples > len(data)/frame {
		return fmt.Errorf("write WAV: %w: %d bytes for %d samples of %d bytes", ErrCoded, len(data), samples, frame)
	}
	p.buf.Data = p.buf.Data[:0]
	for at := 0; at < samples*frame; at += 2 {
		p.buf.Data = append(p.buf.Data, int(int16(binary.LittleEndian.Uint16(data[at:]))))
	}
	return p.flush()
}

// Silence implements FileWriter, a second at a time.
func (p *pcmWriter) Silence(samples int) error {
	if samples < 0 {
		return fmt.Errorf("write WAV: %d samples of silence", samples)
	}
	for left := samples; left > 0; {
		n := min(left, p.buf.Format.SampleRate)
		p.buf.Data = append(p.buf.Data[:0], make([]int, n*p.buf.Format.NumChannels)...)
		if err := p.flush(); err != nil {
			return err
		}
		left -= n
	}
	return nil
}

// Close implements FileWriter.
func (p *pcmWriter) Close() error {
	if err := p.enc.Close(); err != nil {
		return fmt.Errorf("complete WAV: %w", err)
	}
	return nil
}

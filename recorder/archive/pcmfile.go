package archive

import (
	"io"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/media/codec/flac"
	"github.com/trunktap/trunktap/media/codec/mp3"
	"github.com/trunktap/trunktap/recorder"
)

// newFile begins a file of a format. The player has to give it audio in the
// format as: FLAC and MP3 are made of samples.
func newFile(m *recorder.Manifest, format string, w io.WriteSeeker) (f codec.FileWriter, as string, err error) {
	rate, channels := m.SampleRate, len(m.Channels)
	var out sampleWriter
	switch format {
	case codec.FLAC:
		out, err = flac.NewWriter(w, rate, channels)
	case FormatMP3:
		out, err = mp3.NewWriter(w, rate, channels, mp3.Options{})
	default:
		f, err = codec.NewFileWriter(format, w, rate, channels)
		return f, format, err
	}
	if err != nil {
		return nil, "", err
	}
	dec, err := codec.NewCodedDecoder(codec.WAVPCM16, rate, channels)
	if err != nil {
		_ = out.Close() // the first error is the one to report
		return nil, "", err
	}
	return &pcmFile{out: out, dec: dec, quiet: make([]int16, rate)}, codec.WAVPCM16, nil
}

// sampleWriter is a file that is made of samples. Calling Close again returns
// what the first call returned.
type sampleWriter interface {
	Write(ch [2][]int16) error
	Close() error
}

// pcmFile gives a file of samples what a player puts out as wav-pcm16.
type pcmFile struct {
	out   sampleWriter
	dec   codec.CodedDecoder
	pcm   [2][]int16
	quiet []int16 // a second
}

// Write implements codec.FileWriter.
func (f *pcmFile) Write(data []byte, samples int) error {
	var err error
	if f.pcm, err = f.dec.Decode([2][]int16{f.pcm[0][:0], f.pcm[1][:0]}, data, samples); err != nil {
		return err
	}
	return f.out.Write(f.pcm)
}

// Silence implements codec.FileWriter.
func (f *pcmFile) Silence(samples int) error {
	for samples > 0 {
		n := min(samples, len(f.quiet))
		if err := f.out.Write([2][]int16{f.quiet[:n], f.quiet[:n]}); err != nil {
			return err
		}
		samples -= n
	}
	return nil
}

// Close implements codec.FileWriter.
func (f *pcmFile) Close() error { return f.out.Close() }

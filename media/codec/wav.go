package codec

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// ErrTooLarge says that a file would outgrow its format: a WAV file ends at
// 4 GiB. Export in parts, or as ogg-opus.
var ErrTooLarge = errors.New("file too large for its format")

// FileWriter puts the coded data of one encoder into a file.
type FileWriter interface {
	// Write adds data as an Encoder returned it. samples is what it stands for
	// per channel: as many as were coded but in the last call, which may hold
	// padding.
	Write(data []byte, samples int) error
	// Silence adds silence on all channels.
	Silence(samples int) error
	// Close completes the file; it does not close the writer beneath.
	Close() error
}

// NewFileWriter returns a writer of WAV (tags 1, 6 and 7), Ogg Opus (RFC 7845)
// or FLAC (RFC 9639) files.
func NewFileWriter(format string, w io.WriteSeeker, rate, channels int) (FileWriter, error) {
	if err := checkShape(format, rate, channels); err != nil {
		return nil, err
	}
	switch format {
	case OggOpus:
		return newOggWriter(w, rate, channels, 1)
	case WAVPCM16:
		return newPCMWriter(w, rate, channels)
	case FLAC:
		return newFLACWriter(w, rate, channels)
	}
	ww := &wavWriter{w: w, format: format, rate: rate, channels: channels, frame: channels * sampleBytes(format)}
	header, err := WAVHeader(format, rate, channels, 0)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(header); err != nil {
		return nil, fmt.Errorf("write WAV header: %w", err)
	}
	ww.silence = silentBlock(format)
	return ww, nil
}

func sampleBytes(format string) int {
	if format == WAVPCM16 {
		return 2
	}
	return 1
}

// silentBlock returns coded silence; it is a multiple of every frame.
func silentBlock(format string) []byte {
	block := make([]byte, 4096)
	var level byte
	switch format {
	case WAVPCMU:
		level = MuLaw(0)
	case WAVPCMA:
		level = ALaw(0)
	}
	for i := range block {
		block[i] = level
	}
	return block
}

// WAVHeader returns what stands before dataBytes of coded data in a WAV file:
// 44 bytes for PCM, 58 for the companded formats, whose header must have a
// fact chunk (RIFF "New Multimedia Data Types", 1994). An odd number of data bytes must be followed by
// one zero byte. ErrTooLarge from 4 GiB on.
func WAVHeader(format string, rate, channels int, dataBytes int64) ([]byte, error) {
	tag := map[string]uint16{WAVPCM16: 1, WAVPCMA: 6, WAVPCMU: 7}[format]
	if tag == 0 {
		return nil, fmt.Errorf("%w %q has no WAV header", ErrFormat, format)
	}
	if err := checkShape(format, rate, channels); err != nil {
		return nil, err
	}
	frame := channels * sampleBytes(format)
	fmtBytes, factBytes := 16, 0
	if tag != 1 {
		fmtBytes, factBytes = 18, 12
	}
	riff := int64(4+8+fmtBytes+factBytes+8) + dataBytes + dataBytes&1
	if dataBytes < 0 || riff > math.MaxUint32 {
		return nil, fmt.Errorf("WAV with %d bytes of audio: %w", dataBytes, ErrTooLarge)
	}
	le := binary.LittleEndian
	h := append([]byte(nil), "RIFF"...)
	h = le.AppendUint32(h, uint32(riff))
	h = append(h, "WAVEfmt "...)
	h = le.AppendUint32(h, uint32(fmtBytes))
	h = le.AppendUint16(h, tag)
	h = le.AppendUint16(h, uint16(channels))
	h = le.AppendUint32(h, uint32(rate))
	h = le.AppendUint32(h, uint32(rate*frame))
	h = le.AppendUint16(h, uint16(frame))
	h = le.AppendUint16(h, uint16(8*sampleBytes(format)))
	if tag != 1 {
		h = le.AppendUint16(h, 0) // no extra format bytes
		h = append(h, "fact"...)
		h = le.AppendUint32(h, 4)
		h = le.AppendUint32(h, uint32(dataBytes/int64(frame)))
	}
	h = append(h, "data"...)
	return le.AppendUint32(h, uint32(dataBytes)), nil
}

type wavWriter struct {
	w              io.WriteSeeker
	format         string
	rate, channels int
	frame          int // bytes of one sample of all channels
	silence        []byte
	dataBytes      int64
}

func (w *wavWriter) Write(data []byte, samples int) error {
	if len(data)%w.frame != 0 || samples < 0 || samples > len(data)/w.frame {
		return fmt.Errorf("write WAV: %w: %d bytes for %d samples of %d bytes", ErrCoded, len(data), samples, w.frame)
	}
	return w.write(data[:samples*w.frame])
}

func (w *wavWriter) Silence(samples int) error {
	if samples < 0 {
		return fmt.Errorf("write WAV: %d samples of silence", samples)
	}
	for left := int64(samples) * int64(w.frame); left > 0; {
		n := min(left, int64(len(w.silence)))
		if err := w.write(w.silence[:n]); err != nil {
			return err
		}
		left -= n
	}
	return nil
}

func (w *wavWriter) write(data []byte) error {
	if w.dataBytes+int64(len(data)) > math.MaxUint32-64 {
		return fmt.Errorf("write WAV: %w: ends at %d bytes", ErrTooLarge, w.dataBytes)
	}
	n, err := w.w.Write(data)
	w.dataBytes += int64(n)
	if err != nil {
		return fmt.Errorf("write WAV: %w", err)
	}
	return nil
}

// Close writes the header again, now with the sizes.
func (w *wavWriter) Close() error {
	if w.dataBytes&1 == 1 {
		if _, err := w.w.Write([]byte{0}); err != nil {
			return fmt.Errorf("pad WAV: %w", err)
		}
	}
	header, err := WAVHeader(w.format, w.rate, w.channels, w.dataBytes)
	if err != nil {
		return err
	}
	if _, err := w.w.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("complete WAV: %w", err)
	}
	if _, err := w.w.Write(header); err != nil {
		return fmt.Errorf("complete WAV: %w", err)
	}
	if _, err := w.w.Seek(0, io.SeekEnd); err != nil {
		return fmt.Errorf("complete WAV: %w", err)
	}
	return nil
}

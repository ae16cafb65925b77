// Package segment is the sealed file: frames of audio, accounts and manifests,
// each authenticated and bound to its place. FORMAT.md describes it byte by
// byte. The cryptography is that of the data key; this package only frames.
package segment

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/trunktap/trunktap/recorder"
)

// Version is the version byte of the format. Files of version 1, which have the
// wrapped key in their header, are read as well.
const (
	Version          = 2
	versionKeyInside = 1
)

// Limits of the format. A file beyond them is refused before it costs anything.
const (
	FrameBytesMax   = 1 << 20  // sealed bytes of one frame
	HeaderBytesMax  = 64 << 10 // JSON of the header
	AccountBytesMax = 16 << 20 // JSON of an account or manifest, inflated
	FramesMax       = 1 << 24  // frames of one file
	sampleRateMax   = 192_000  // Hz
)

const (
	magic         = "TRUNKTAP"
	preambleBytes = len(magic) + 1 + 1 + 4 // magic, version, kind, length of the header
	frameHead     = 1 + 4                  // type, length of the sealed bytes
	audioHead     = 8 + 8 + 8 + 4          // RealMS, AudioMS, SegMS, samples
)

// Kinds of files.
const (
	kindSegment  = 'S'
	kindManifest = 'M'
)

// Types of frames.
const (
	frameAudio    = 1
	frameAccount  = 2
	frameLast     = 3
	frameManifest = 4
	frameLink     = 5 // in plain text, behind the manifest
)

// ManifestFile is the name of a recording's manifest in its folder.
const ManifestFile = "recording.trm"

// KeyFile is the name of the object in a recording's folder that holds its wrapped
// key. Of all objects it alone is ever replaced: by rewrapping and by shredding.
const KeyFile = "recording.key"

// HoldFile begins the names of the objects in a recording's folder that have its legal holds.
const HoldFile = "recording.hold"

// HoldName is the name of the object of a hold.
func HoldName(hold string) string {
	sum := sha256.Sum256([]byte(hold))
	return HoldFile + "." + hex.EncodeToString(sum[:8])
}

// IsHold tells whether an object has legal holds, by its name.
func IsHold(object string) bool { return object == HoldFile || strings.HasPrefix(object, HoldFile+".") }

// FileName returns the name of segment n in its recording's folder.
func FileName(n int) string { return fmt.Sprintf("%04d.seg", n) }

// Header is the plaintext beginning of a file. It is no secret and
// authenticated: every frame is bound to its hash.
type Header struct {
	Recording  string              `json:"recording"`
	Prefix     string              `json:"prefix"`       // folder in the store
	Key        recorder.WrappedKey `json:"key,omitzero"` // of version 1 only
	N          int                 `json:"n,omitempty"`  // segments only, from here on
	Format     string              `json:"format,omitempty"`
	SampleRate int                 `json:"sample_rate,omitempty"` // Hz
	Channels   int                 `json:"channels,omitempty"`
	RealMS     int64               `json:"real_ms,omitempty"`
	AudioMS    int64               `json:"audio_ms,omitempty"`
	Start      time.Time           `json:"start,omitzero"`
}

// CheckID tells whether a recording's id can name files: 1 to 128 letters,
// digits, '-', '_' and '.', not beginning with '.'.
func CheckID(id string) error {
	if id == "" || len(id) > 128 || id[0] == '.' {
		return fmt.Errorf("recording id %q: want 1 to 128 letters, digits, '-', '_' and '.', not beginning with '.'", id)
	}
	for _, c := range id {
		if !strings.ContainsRune("-_.", c) && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return fmt.Errorf("recording id %q: character %q is not allowed", id, c)
		}
	}
	return nil
}

func (h Header) check(kind byte) error {
	if err := CheckID(h.Recording); err != nil {
		return err
	}
	if h.Prefix == "" || len(h.Prefix) > 512 || path.Clean(h.Prefix) != h.Prefix || path.IsAbs(h.Prefix) || strings.HasPrefix(h.Prefix, "..") {
		return fmt.Errorf("folder %q: want a clean relative path", h.Prefix)
	}
	if kind == kindManifest {
		return nil
	}
	switch {
	case h.N < 1 || h.N > 1<<20:
		return fmt.Errorf("segment number %d: want 1 to %d", h.N, 1<<20)
	case h.SampleRate < 1 || h.SampleRate > sampleRateMax:
		return fmt.Errorf("sample rate %d Hz: want 1 to %d", h.SampleRate, sampleRateMax)
	case h.Channels < 1 || h.Channels > 2:
		return fmt.Errorf("%d channels: want 1 or 2", h.Channels)
	case h.Format == "" || len(h.Format) > 32:
		return fmt.Errorf("format %q: want a name of 1 to 32 bytes", h.Format)
	case h.RealMS < 0 || h.AudioMS < 0:
		return errors.New("position before the origin")
	}
	return nil
}

// checkKey tells whether the key is where the version of the file has it.
func (h Header) checkKey(version byte) error {
	if inside := version == versionKeyInside; inside == h.Key.IsZero() {
		return fmt.Errorf("key in the header: %v, in version %d it is %v", !h.Key.IsZero(), version, inside)
	}
	return nil
}

// encode returns preamble and header as they stand at the beginning of the file.
func (h Header) encode(kind byte) ([]byte, error) {
	if err := h.check(kind); err != nil {
		return nil, err
	}
	if err := h.checkKey(Version); err != nil {
		return nil, err
	}
	js, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	if len(js) > HeaderBytesMax {
		return nil, fmt.Errorf("header of %d bytes: at most %d", len(js), HeaderBytesMax)
	}
	b := append(make([]byte, 0, preambleBytes+len(js)), magic...)
	b = append(b, Version, kind)
	b = binary.BigEndian.AppendUint32(b, uint32(len(js)))
	return append(b, js...), nil
}

// parsePreamble returns the length of the header that follows.
func parsePreamble(b []byte, kind byte) (int, error) {
	switch {
	case len(b) < preambleBytes || string(b[:len(magic)]) != magic:
		return 0, errors.New("not a trunktap file")
	case b[len(magic)] != Version && b[len(magic)] != versionKeyInside:
		return 0, fmt.Errorf("version %d of the format: this program reads %d and %d", b[len(magic)], versionKeyInside, Version)
	case b[len(magic)+1] != kind:
		return 0, fmt.Errorf("kind %q: want %q", b[len(magic)+1], kind)
	}
	n := binary.BigEndian.Uint32(b[len(magic)+2:])
	if n > HeaderBytesMax {
		return 0, fmt.Errorf("header of %d bytes: at most %d", n, HeaderBytesMax)
	}
	return int(n), nil
}

// binding is the associated data of the frames of one file: a domain, the
// hash of everything before the first frame, and the place of the frame.
type binding struct{ b []byte }

const bindDomain = "trunktap frame 1\x00"

func newBinding(head []byte) binding {
	h := sha256.Sum256(head)
	b := append(make([]byte, 0, len(bindDomain)+len(h)+6), bindDomain...)
	return binding{append(b, h[:]...)}
}

// at returns the associated data of one frame; it is valid until the next call.
func (b *binding) at(index int, typ byte) []byte {
	last := byte(0)
	if typ == frameLast || typ == frameManifest {
		last = 1
	}
	n := len(bindDomain) + sha256.Size
	b.b = binary.BigEndian.AppendUint32(b.b[:n], uint32(index))
	b.b = append(b.b, typ, last)
	return b.b
}

// appendFrame seals plaintext as the frame of that index.
func appendFrame(dst []byte, key recorder.DataKey, bind *binding, index int, typ byte, plaintext []byte) ([]byte, error) {
	if index >= FramesMax {
		return dst, fmt.Errorf("frame %d: a file has at most %d", index, FramesMax)
	}
	start := len(dst)
	dst = append(dst, typ, 0, 0, 0, 0)
	dst, err := appendSealed(dst, key, plaintext, bind.at(index, typ))
	if err != nil {
		return dst[:start], fmt.Errorf("seal frame %d: %w", index, err)
	}
	n := len(dst) - start - frameHead
	if n > FrameBytesMax {
		return dst[:start], fmt.Errorf("frame %d of %d bytes: at most %d", index, n, FrameBytesMax)
	}
	binary.BigEndian.PutUint32(dst[start+1:], uint32(n))
	return dst, nil
}

// appender is a data key that can seal into a buffer of ours.
type appender interface {
	AppendSeal(dst, plaintext, bind []byte) ([]byte, error)
}

func appendSealed(dst []byte, key recorder.DataKey, plaintext, bind []byte) ([]byte, error) {
	if a, ok := key.(appender); ok {
		return a.AppendSeal(dst, plaintext, bind)
	}
	sealed, err := key.Seal(plaintext, bind)
	return append(dst, sealed...), err
}

func appendAudio(dst []byte, a recorder.Audio) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(a.RealMS))
	dst = binary.BigEndian.AppendUint64(dst, uint64(a.AudioMS))
	dst = binary.BigEndian.AppendUint64(dst, uint64(a.SegMS))
	dst = binary.BigEndian.AppendUint32(dst, uint32(a.Samples))
	return append(dst, a.Data...)
}

func parseAudio(b []byte, h Header) (recorder.Audio, error) {
	if len(b) < audioHead {
		return recorder.Audio{}, fmt.Errorf("audio frame of %d bytes: at least %d", len(b), audioHead)
	}
	a := recorder.Audio{
		RealMS:  int64(binary.BigEndian.Uint64(b)),
		AudioMS: int64(binary.BigEndian.Uint64(b[8:])),
		SegMS:   int64(binary.BigEndian.Uint64(b[16:])),
		Samples: int(binary.BigEndian.Uint32(b[24:])),
		Data:    b[audioHead:],
	}
	return a, checkAudio(a, h)
}

func checkAudio(a recorder.Audio, h Header) error {
	switch {
	case a.Samples < 1 || a.Samples > h.SampleRate:
		return fmt.Errorf("audio of %d samples: want 1 to %d, one second", a.Samples, h.SampleRate)
	case a.RealMS < h.RealMS || a.AudioMS < h.AudioMS || a.SegMS < 0:
		return fmt.Errorf("audio at %d ms: before the segment's start", a.RealMS)
	case a.RealMS > 1<<50 || a.AudioMS > 1<<50 || a.SegMS > 1<<50:
		return errors.New("audio at a position beyond reason")
	}
	return nil
}

// totals is the content of the last frame.
type totals struct {
	samples int64 // of all audio frames
	audios  int64 // audio frames
	endMS   int64 // position in the segment's audio after the last sample
}

const totalsBytes = 8 + 8 + 8

func (t totals) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(t.samples))
	b = binary.BigEndian.AppendUint64(b, uint64(t.audios))
	return binary.BigEndian.AppendUint64(b, uint64(t.endMS))
}

func parseTotals(b []byte) (totals, error) {
	if len(b) != totalsBytes {
		return totals{}, fmt.Errorf("last frame of %d bytes: want %d", len(b), totalsBytes)
	}
	return totals{
		samples: int64(binary.BigEndian.Uint64(b)),
		audios:  int64(binary.BigEndian.Uint64(b[8:])),
		endMS:   int64(binary.BigEndian.Uint64(b[16:])),
	}, nil
}

// add counts an audio frame.
func (t *totals) add(a recorder.Audio, rate int) {
	t.samples += int64(a.Samples)
	t.audios++
	t.endMS = a.SegMS + int64(a.Samples)*1000/int64(rate)
}

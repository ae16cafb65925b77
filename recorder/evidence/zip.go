// Package evidence is the evidence bundle: one recording as a ZIP file that
// somebody who trusts nothing but a public key can verify.
package evidence

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
)

// Bounds of a bundle.
const (
	bytesMax   = 1<<32 - 1<<20 // of the whole file: ZIP without extensions
	entriesMax = 20_000
	nameMax    = 64 // bytes of a name
)

// ErrTooLarge says that a recording does not fit into a bundle.
var ErrTooLarge = fmt.Errorf("a bundle holds at most %d bytes and %d files: export the recording's segments in parts", int64(bytesMax), entriesMax)

// entry is a file in the container.
type entry struct {
	name   string
	offset int64 // of its local header
	size   int64
	crc    uint32
}

// The container is ZIP (APPNOTE 6.3.10) in the one form that zipWriter writes:
// files stored as they are, sizes behind them, no extra fields, no comments, all
// of 1 January 1980. So each byte is either content or follows from the rest.
const (
	sigLocal      = 0x04034b50
	sigDescriptor = 0x08074b50
	sigCentral    = 0x02014b50
	sigEnd        = 0x06054b50
	zipVersion    = 20
	zipFlags      = 1 << 3 // sizes behind the content
	zipDate       = 1<<5 | 1
	zipMode       = 0o100644
	localBytes    = 30
	descBytes     = 16
	centralBytes  = 46
	endBytes      = 22
)

func localHeader(name string) []byte {
	b := make([]byte, localBytes, localBytes+len(name))
	le := binary.LittleEndian
	le.PutUint32(b, sigLocal)
	le.PutUint16(b[4:], zipVersion)
	le.PutUint16(b[6:], zipFlags)
	le.PutUint16(b[12:], zipDate)
	le.PutUint16(b[26:], uint16(len(name)))
	return append(b, name...)
}

func descriptor(e entry) []byte {
	b := make([]byte, descBytes)
	le := binary.LittleEndian
	le.PutUint32(b, sigDescriptor)
	le.PutUint32(b[4:], e.crc)
	le.PutUint32(b[8:], uint32(e.size))
	le.PutUint32(b[12:], uint32(e.size))
	return b
}

// directory returns what stands behind the files; at is its offset.
func directory(entries []entry, at int64) []byte {
	var out []byte
	le := binary.LittleEndian
	for _, e := range entries {
		b := make([]byte, centralBytes)
		le.PutUint32(b, sigCentral)
		le.PutUint16(b[4:], 3<<8|zipVersion) // made on UNIX
		le.PutUint16(b[6:], zipVersion)
		le.PutUint16(b[8:], zipFlags)
		le.PutUint16(b[14:], zipDate)
		le.PutUint32(b[16:], e.crc)
		le.PutUint32(b[20:], uint32(e.size))
		le.PutUint32(b[24:], uint32(e.size))
		le.PutUint16(b[28:], uint16(len(e.name)))
		le.PutUint32(b[38:], zipMode<<16)
		le.PutUint32(b[42:], uint32(e.offset))
		out = append(append(out, b...), e.name...)
	}
	end := make([]byte, endBytes)
	le.PutUint32(end, sigEnd)
	le.PutUint16(end[8:], uint16(len(entries)))
	le.PutUint16(end[10:], uint16(len(entries)))
	le.PutUint32(end[12:], uint32(len(out)))
	le.PutUint32(end[16:], uint32(at))
	return append(out, end...)
}

// zipWriter writes the container.
type zipWriter struct {
	w       io.Writer
	off     int64
	entries []entry
}

func (z *zipWriter) write(b []byte) error {
	if z.off+int64(len(b)) > bytesMax {
		return ErrTooLarge
	}
	n, err := z.w.Write(b)
	z.off += int64(n)
	return err
}

// file writes one file; f writes its content.
func (z *zipWriter) file(name string, f func(io.Writer) error) error {
	if len(z.entries) >= entriesMax {
		return ErrTooLarge
	}
	e := entry{name: name, offset: z.off}
	if err := z.write(localHeader(name)); err != nil {
		return err
	}
	c := &content{z: z, e: &e}
	if err := f(c); err != nil {
		return err
	}
	z.entries = append(z.entries, e)
	return z.write(descriptor(e))
}

func (z *zipWriter) close() error { return z.write(directory(z.entries, z.off)) }

// content counts and sums what is written of a file.
type content struct {
	z *zipWriter
	e *entry
}

func (c *content) Write(b []byte) (int, error) {
	if err := c.z.write(b); err != nil {
		return 0, err
	}
	c.e.crc = crc32.Update(c.e.crc, crc32.IEEETable, b)
	c.e.size += int64(len(b))
	return len(b), nil
}

// formError says where a container is not in its one form.
type formError struct {
	at  int64 // byte
	why string
}

func (e *formError) Error() string { return fmt.Sprintf("byte %d: %s", e.at, e.why) }

// readZip reads the directory of a container and checks every byte of it that is
// not content. What it takes in memory is bounded by entriesMax.
func readZip(r io.ReaderAt, size int64) ([]entry, error) {
	if size < endBytes || size > bytesMax {
		return nil, &formError{0, fmt.Sprintf("a bundle has %d to %d bytes, this has %d", endBytes, int64(bytesMax), size)}
	}
	end, err := readAt(r, size-endBytes, endBytes)
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	count, length, at := int(le.Uint16(end[10:])), int64(le.Uint32(end[12:])), int64(le.Uint32(end[16:]))
	if le.Uint32(end) != sigEnd || count > entriesMax || at+length+endBytes != size {
		return nil, &formError{size - endBytes, "the end of the container is not there, or the file is cut off"}
	}
	if length > int64(count)*(centralBytes+nameMax) {
		return nil, &formError{at, "the directory is too long"}
	}
	dir, err := readAt(r, at, int(length)+endBytes)
	if err != nil {
		return nil, err
	}
	entries, err := parseDirectory(dir[:length], count)
	if err != nil {
		return nil, err
	}
	if again := directory(entries, at); !bytes.Equal(again, dir) {
		return nil, &formError{at + int64(differ(again, dir)), "the directory of the container is altered"}
	}
	return entries, checkLayout(r, entries, at)
}

func parseDirectory(b []byte, count int) (out []entry, err error) {
	le := binary.LittleEndian
	seen := map[string]bool{}
	for range count {
		if len(b) < centralBytes {
			return nil, &formError{0, "the directory of the container is cut off"}
		}
		n := int(le.Uint16(b[28:]))
		if n == 0 || n > nameMax || len(b) < centralBytes+n {
			return nil, &formError{0, "a name in the directory has no sensible length"}
		}
		e := entry{name: string(b[centralBytes : centralBytes+n]), offset: int64(le.Uint32(b[42:])), size: int64(le.Uint32(b[24:])), crc: le.Uint32(b[16:])}
		if err := checkName(e.name); err != nil || seen[e.name] {
			return nil, errors.Join(&formError{0, fmt.Sprintf("%q is no file of a bundle, or stands in it twice", e.name)}, err)
		}
		seen[e.name] = true
		out, b = append(out, e), b[centralBytes+n:]
	}
	return out, nil
}

// checkLayout demands that the files lie one behind the other.
func checkLayout(r io.ReaderAt, entries []entry, end int64) error {
	off := int64(0)
	for _, e := range entries {
		head := localHeader(e.name)
		if e.offset != off || off+int64(len(head))+e.size+descBytes > end {
			return &formError{off, fmt.Sprintf("%s does not lie where the directory says", e.name)}
		}
		for _, part := range []struct {
			at   int64
			want []byte
		}{{off, head}, {off + int64(len(head)) + e.size, descriptor(e)}} {
			got, err := readAt(r, part.at, len(part.want))
			if err != nil {
				return err
			}
			if !bytes.Equal(got, part.want) {
				return &formError{part.at + int64(differ(got, part.want)), fmt.Sprintf("the frame of %s in the container is altered", e.name)}
			}
		}
		off += int64(len(head)) + e.size + descBytes
	}
	if off != end {
		return &formError{off, "something stands between the files and their directory"}
	}
	return nil
}

// open returns the content of a file.
func (e entry) open(r io.ReaderAt) *io.SectionReader {
	return io.NewSectionReader(r, e.offset+localBytes+int64(len(e.name)), e.size)
}

func readAt(r io.ReaderAt, at int64, n int) ([]byte, error) {
	b := make([]byte, n)
	if got, err := r.ReadAt(b, at); got < n {
		if err == nil || errors.Is(err, io.EOF) {
			return nil, &formError{at, "the file is cut off"}
		}
		return nil, err
	}
	return b, nil
}

// differ returns where two slices begin to differ.
func differ(a, b []byte) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// folders of a bundle.
const (
	keysDir  = "keys/"
	audioDir = "audio/"

	playableBase   = "recording"
	playablePrefix = playableBase + "."
)

// checkName tells whether a file can be in a bundle.
func checkName(name string) error {
	switch name {
	case readmeFile, manifestFile, linkFile, linkSigFile, entryFile, proofFile, pointFile, pointSigFile, logFile, sumsFile, sumsSigFile:
		return nil
	case "recording.wav", "recording.ogg", "recording.flac":
		return nil
	}
	for _, dir := range []string{keysDir, audioDir} {
		base, ok := strings.CutPrefix(name, dir)
		if ok && base != "" && base[0] != '.' && !strings.ContainsFunc(base, func(c rune) bool {
			return c != '.' && c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z')
		}) {
			return nil
		}
	}
	return errors.New("names of a bundle are fixed")
}

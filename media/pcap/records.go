package pcap

import (
	"bufio"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// Why no pcapgo here: its pcapng reader keeps every name resolution and
// comment of the file, subtracts lengths that it does not check, and cannot say
// at which byte a file breaks off. The tests hold this reader against it.

// record is one captured frame.
type record struct {
	at   time.Time
	link uint32 // LINKTYPE_ value
	data []byte // valid until the next record
	cut  bool   // the frame was longer
	lost uint64 // live: frames before it that could not be kept
	idle bool   // live: no frame, the time alone
}

// recordReader yields the frames of a file; io.EOF at the end of a whole file,
// *TruncatedError where it breaks off.
type recordReader interface {
	next() (record, error)
}

// input is a file with its position.
type input struct {
	r    *bufio.Reader
	name string
	off  int64 // bytes read
	head int64 // where the record being read begins
	buf  []byte
}

// broken makes the error for the record being read.
func (in *input) broken(format string, args ...any) error {
	return &TruncatedError{File: in.name, Offset: in.head, Reason: fmt.Sprintf(format, args...)}
}

// read fills b; the file must have the bytes.
func (in *input) read(b []byte) error {
	n, err := io.ReadFull(in.r, b)
	in.off += int64(n)
	return in.missing(err)
}

// skip passes over n bytes; the file must have them.
func (in *input) skip(n int64) error {
	for n > 0 {
		m, err := in.r.Discard(int(min(n, 1<<30)))
		in.off += int64(m)
		n -= int64(m)
		if err != nil {
			return in.missing(err)
		}
	}
	return nil
}

func (in *input) missing(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return in.broken("the file ends within a record, after byte %d", in.off)
	default:
		return in.broken("%v", err)
	}
}

// atEnd tells whether the file ends here, which is fine between records.
func (in *input) atEnd() bool {
	in.head = in.off
	_, err := in.r.Peek(1)
	return err == io.EOF
}

// packet reads n captured bytes into the reused buffer.
func (in *input) packet(n uint32) ([]byte, error) {
	if n > packetBytesMax {
		return nil, in.broken("a packet claims %d bytes, at most %d are possible", n, packetBytesMax)
	}
	if cap(in.buf) < int(n) {
		in.buf = make([]byte, max(int(n), 4096))
	}
	b := in.buf[:n]
	return b, in.read(b)
}

const (
	magicMicro   = 0xa1b2c3d4
	magicNano    = 0xa1b23c4d
	magicSection = 0x0a0d0d0a
)

func openRecords(src io.Reader, name string) (recordReader, error) {
	in := &input{r: bufio.NewReaderSize(src, 64<<10), name: name}
	if magic, _ := in.r.Peek(2); len(magic) == 2 && magic[0] == 0x1f && magic[1] == 0x8b {
		z, err := gzip.NewReader(in.r)
		if err != nil {
			return nil, in.formatError("gzip: %v", err)
		}
		in.r = bufio.NewReaderSize(z, 64<<10)
	}
	magic, err := in.r.Peek(4)
	if err != nil {
		return nil, in.formatError("only %d bytes long", len(magic))
	}
	if binary.LittleEndian.Uint32(magic) == magicSection {
		return &ngReader{in: in, order: binary.LittleEndian}, nil
	}
	return openClassic(in, magic)
}

func (in *input) formatError(format string, args ...any) error {
	name := in.name
	if name == "" {
		name = "input"
	}
	return fmt.Errorf("read %s: %w: %s", name, ErrFormat, fmt.Sprintf(format, args...))
}

// classicReader reads the pcap format (draft-ietf-opsawg-pcap).
type classicReader struct {
	in    *input
	order binary.ByteOrder
	unit  time.Duration // of the fraction of a second
	link  uint32
	hdr   [16]byte
}

func openClassic(in *input, magic []byte) (recordReader, error) {
	c := &classicReader{in: in}
	little, big := binary.LittleEndian.Uint32(magic), binary.BigEndian.Uint32(magic)
	switch {
	case little == magicMicro:
		c.order, c.unit = binary.LittleEndian, time.Microsecond
	case little == magicNano:
		c.order, c.unit = binary.LittleEndian, time.Nanosecond
	case big == magicMicro:
		c.order, c.unit = binary.BigEndian, time.Microsecond
	case big == magicNano:
		c.order, c.unit = binary.BigEndian, time.Nanosecond
	default:
		return nil, in.formatError("it begins with % x", magic)
	}
	var hdr [24]byte
	if err := in.read(hdr[:]); err != nil {
		return nil, err
	}
	if major := c.order.Uint16(hdr[4:]); major != 2 {
		return nil, in.formatError("pcap version %d.%d, only 2 is known", major, c.order.Uint16(hdr[6:]))
	}
	c.link = c.order.Uint32(hdr[20:]) & 0xffff // the upper bits tell of frame check sequences
	return c, nil
}

func (c *classicReader) next() (record, error) {
	if c.in.atEnd() {
		return record{}, io.EOF
	}
	if err := c.in.read(c.hdr[:]); err != nil {
		return record{}, err
	}
	sec, frac := c.order.Uint32(c.hdr[0:]), c.order.Uint32(c.hdr[4:])
	captured, original := c.order.Uint32(c.hdr[8:]), c.order.Uint32(c.hdr[12:])
	data, err := c.in.packet(captured)
	if err != nil {
		return record{}, err
	}
	at := time.Unix(int64(sec), int64(frac)*int64(c.unit)).UTC()
	return record{at: at, link: c.link, data: data, cut: original > captured}, nil
}

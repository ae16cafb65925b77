// Package pcap reads UDP datagrams and TCP byte streams out of packet captures
// and writes captures.
//
// Captures are evidence from strangers: every length in them may lie. Reading
// streams, keeps at most a few tens of megabytes whatever the capture says, and
// ends with a *TruncatedError that names the place where sense ends.
package pcap

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"
)

// Limits of what is kept of a capture.
const (
	packetBytesMax      = 256 << 10 // one captured packet, libpcap's MAXIMUM_SNAPLEN
	interfacesMax       = 1024      // interface descriptions in one pcapng section
	tunnelDepthMax      = 8         // headers of one kind nested in each other
	fragmentedMax       = 1024      // datagrams under reassembly
	fragmentBytesMax    = 16 << 20  // their bytes in all
	streamsMax          = 8192      // TCP directions that are tracked
	streamQueueBytesMax = 256 << 10 // bytes of one direction that wait for a hole to fill
	queueBytesMax       = 16 << 20  // such bytes in all
)

// fragmentAge is how long the fragments of a datagram wait for the missing
// ones, in capture time (RFC 791 section 3.2 and RFC 8200 section 4.5 give 15
// to 60 s).
const fragmentAge = 30 * time.Second

// ErrFormat is wrapped by the errors of files that are no captures.
var ErrFormat = errors.New("not a pcap or pcapng capture")

// TruncatedError says that a capture breaks off: its file ends within a
// record, or a record makes no sense. Everything before it was delivered.
type TruncatedError struct {
	File   string // as given to Open; empty for NewReader
	Offset int64  // bytes from the start (of the uncompressed file) to the record that breaks off
	Reason string
}

// Error names the file, the place and the reason.
func (e *TruncatedError) Error() string {
	name := e.File
	if name == "" {
		name = "capture"
	}
	return fmt.Sprintf("%s breaks off at byte %d: %s; everything before it was used", name, e.Offset, e.Reason)
}

// Proto is the transport of a Packet.
type Proto uint8

// Transports, numbered as in the IP header.
const (
	None Proto = 0 // of a live link: nothing came, only the time went on
	TCP  Proto = 6
	UDP  Proto = 17
)

// Packet is one UDP datagram, or a run of in-order bytes of one direction of a
// TCP connection.
type Packet struct {
	// At is the capture's time of the datagram, of the fragment that completed
	// it, or of the segment that completed the run. Times may go backwards
	// where the capture's do.
	At       time.Time
	Proto    Proto
	Src, Dst netip.AddrPort

	// Payload is valid until the next call of Next. Never empty for TCP unless
	// End is set.
	Payload []byte

	// Cut says that the datagram was longer: the capture's snap length cut it.
	Cut bool

	// Gap (TCP) says that bytes are missing before Payload, or that the
	// connection was open before the capture began: framing must be found anew.
	Gap bool

	// Lost (of a live link) counts the frames that were lost before this one.
	Lost uint64

	// End (TCP) says that no more bytes will come in this direction.
	End bool
}

// Source yields packets in order. Next returns io.EOF at the end, or a
// *TruncatedError in its place.
type Source interface {
	Next() (Packet, error)
}

// Stats counts what a Reader met.
type Stats struct {
	Packets          int64 // records of the capture
	Bytes            int64 // captured bytes in them
	Datagrams        int64 // UDP datagrams delivered
	Segments         int64 // TCP segments seen
	NonIP            int64 // frames that carry no IP (ARP, LLDP, ...)
	OtherIP          int64 // IP packets that are neither UDP nor TCP
	Undecodable      int64 // headers that lie or are cut, unknown link types, times out of range
	Cut              int64 // packets shortened by the snap length
	Fragments        int64 // IP fragments seen
	FragmentsDropped int64 // of them, those that never became a datagram
	StreamGaps       int64 // holes in TCP streams that were skipped
	StreamsDropped   int64 // TCP directions given up because there were too many
}

// Reader reads one capture. It is not safe for concurrent use.
type Reader struct {
	file    io.Closer // nil for NewReader
	records recordReader
	frags   fragments
	streams streams
	pending []Packet // what the last record gave
	told    int      // of them, how many Next has returned
	stats   Stats
	last    time.Time // of the last record
	lost    uint64    // frames lost since the last packet was returned
	err     error     // sticky
}

// Open opens a capture file: pcap (microseconds or nanoseconds, either byte
// order) or pcapng, plain or compressed by gzip.
func Open(path string) (*Reader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open capture: %w", err)
	}
	r, err := newReader(f, path)
	if err != nil {
		_ = f.Close() // read only
		return nil, err
	}
	r.file = f
	return r, nil
}

// NewReader reads a capture from src; see Open.
func NewReader(src io.Reader) (*Reader, error) { return newReader(src, "") }

func newReader(src io.Reader, name string) (*Reader, error) {
	records, err := openRecords(src, name)
	if err != nil {
		return nil, err
	}
	r := &Reader{records: records}
	r.frags.init(&r.stats)
	r.streams.init(&r.stats)
	return r, nil
}

// Next returns the next datagram or TCP run, in the order of the capture.
func (r *Reader) Next() (Packet, error) {
	for {
		if r.told < len(r.pending) {
			r.told++
			p := r.pending[r.told-1]
			p.Lost, r.lost = r.lost, 0
			return p, nil
		}
		if r.err != nil {
			return Packet{}, r.err
		}
		r.pending, r.told = r.pending[:0], 0
		rec, err := r.records.next()
		if err != nil {
			r.finish(err)
			continue
		}
		r.last, r.lost = rec.at, r.lost+rec.lost
		if rec.idle {
			r.pending = append(r.pending, Packet{At: rec.at})
			continue
		}
		r.stats.Packets++
		r.stats.Bytes += int64(len(rec.data))
		r.frame(rec)
	}
}

// finish lets out what waited for bytes that will not come.
func (r *Reader) finish(err error) {
	r.err = err
	r.pending = r.streams.drain(r.pending, r.last)
	r.frags.drain()
}

// Stats returns the counts so far.
func (r *Reader) Stats() Stats { return r.stats }

// Close closes the file that Open opened.
func (r *Reader) Close() error {
	if r.file == nil {
		return nil
	}
	if err := r.file.Close(); err != nil {
		return fmt.Errorf("close capture: %w", err)
	}
	return nil
}

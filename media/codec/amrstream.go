package codec

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/codec/amr"
)

// Bits of a frame by its type (3GPP TS 26.101 table 1a and TS 26.201 table 1a); -1: not
// to be sent (RFC 4867 section 4.3.2).
var (
	amrNarrowBits = [16]int{95, 103, 118, 134, 148, 159, 204, 244, 39, -1, -1, -1, -1, -1, -1, 0}
	amrWideBits   = [16]int{132, 177, 253, 285, 317, 365, 397, 461, 477, 40, -1, -1, -1, -1, 0, 0}
)

// amrFramesMax bounds the frames of a payload, by the samples of AMR-WB.
const amrFramesMax = SamplesMax / amr.WideSamples

// amrStream decodes RFC 4867 payloads of one channel. What mode the other side asks
// for (CMR) is none of our business.
type amrStream struct {
	dec     *amr.Decoder
	bits    *[16]int
	rate    int
	lost    byte // type of the frame that stands for a lost one
	aligned bool // octet-aligned, else bandwidth-efficient
	conceal bool
	frame   [amr.FrameBytesMax]byte
}

func newAMR(f media.Format, o DecoderOptions) (core, error) {
	d := &amrStream{bits: &amrNarrowBits, rate: 8000, lost: amr.NoData, conceal: o.Conceal}
	if f.Name == "AMR-WB" {
		d.bits, d.rate, d.lost = &amrWideBits, 16000, amr.SpeechLost
	}
	if f.ClockRate != d.rate {
		return nil, ErrUndecodable
	}
	d.aligned = param(f.Params, "octet-align") == "1"
	for _, p := range []string{"crc", "robust-sorting", "interleaving"} {
		if v := param(f.Params, p); v != "" && v != "0" {
			return nil, fmt.Errorf("with %s=%s: %w", p, v, ErrUndecodable)
		}
	}
	var err error
	d.dec, err = amr.New(f.Name == "AMR-WB")
	return d, err
}

// param returns the value of a parameter of an fmtp attribute (RFC 4855 section 3).
func param(params, name string) string {
	for p := range strings.SplitSeq(params, ";") {
		if k, v, _ := strings.Cut(p, "="); strings.EqualFold(strings.TrimSpace(k), name) {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// intParam is param as a number, or otherwise.
func intParam(params, name string, otherwise int) int {
	if n, err := strconv.Atoi(param(params, name)); err == nil {
		return n
	}
	return otherwise
}

func (d *amrStream) Rate() int { return d.rate }

func (d *amrStream) Close() { d.dec.Close() }

// Ticks counts the frames of the table of contents.
func (d *amrStream) Ticks(payload []byte) int {
	frames, _ := d.contents(payload)
	return frames * d.rate / 50
}

// contents counts the frames of a payload, 0 when it is malformed, and leaves its
// reader behind the table of contents (RFC 4867 sections 4.3.2 and 4.4.2).
func (d *amrStream) contents(payload []byte) (frames int, r bitReader) {
	r = bitReader{b: payload}
	r.take(4)
	d.align(&r)
	need := 0
	for more := 1; more == 1; {
		if frames++; frames > amrFramesMax {
			return 0, r
		}
		more = r.take(1)
		bits := d.bits[r.take(4)]
		r.take(1)
		d.align(&r)
		if bits < 0 || r.at > 8*len(payload) {
			return 0, r
		}
		need += bits
		if d.aligned {
			need = (need + 7) &^ 7
		}
	}
	if r.at+need > 8*len(payload) {
		return 0, r
	}
	return frames, r
}

// align goes to the next octet where the format does.
func (d *amrStream) align(r *bitReader) {
	if d.aligned {
		r.at = (r.at + 7) &^ 7
	}
}

func (d *amrStream) Decode(dst []int16, payload []byte) ([]int16, error) {
	frames, data := d.contents(payload)
	if frames == 0 {
		return dst, fmt.Errorf("AMR payload of %d bytes: %w", len(payload), errPayload)
	}
	toc := bitReader{b: payload, at: 4}
	d.align(&toc)
	out := dst
	for range frames {
		toc.take(1)
		kind, good := toc.take(4), toc.take(1)
		d.align(&toc)
		pcm := d.one(&data, kind, good == 1)
		if pcm == nil {
			return dst, errClosed
		}
		out = append(out, pcm...)
	}
	return out, nil
}

// one decodes the next frame; a damaged one counts as lost (RFC 4867 section 4.3.2).
func (d *amrStream) one(data *bitReader, kind int, good bool) []int16 {
	bits := d.bits[kind]
	d.frame[0] = byte(kind)<<3 | 4
	for i := 0; i < bits; i += 8 {
		n := min(8, bits-i)
		d.frame[1+i/8] = byte(data.take(n) << (8 - n))
	}
	d.align(data)
	if !good && bits > 0 {
		d.frame[0] = d.lost << 3
		bits = 0
	}
	return d.dec.Frame(d.frame[:1+(bits+7)/8])
}

// Conceal lets the decoder continue, or make its comfort noise; it fades out itself.
func (d *amrStream) Conceal(dst []int16, samples int) []int16 {
	samples = min(max(samples, 0), SamplesMax)
	for d.conceal && samples > 0 {
		d.frame[0] = d.lost << 3
		pcm := d.dec.Frame(d.frame[:1])
		if pcm == nil {
			break
		}
		n := min(samples, len(pcm))
		dst, samples = append(dst, pcm[:n]...), samples-n
	}
	return silence(dst, samples)
}

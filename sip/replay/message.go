package replay

import (
	"bytes"
	"container/list"
	"net/netip"
	"strconv"
	"strings"

	"github.com/trunktap/trunktap/media/pcap"
	"github.com/trunktap/trunktap/sip"
)

// Messages are read by the daemon's own parser, so that replay understands what
// the daemon would have. What that refuses because it could be read in two ways
// gets a second chance here: nobody is attacked by a capture.

// message is one SIP message with its place in the capture.
type message struct {
	*sip.Message
	src, dst       netip.AddrPort
	fromTag, toTag string
	cseq           uint32
	method         string // of the request, or that a response answers
	branch         string // of the top Via
}

// startsMessage tells whether data begins with a SIP start line (RFC 3261
// section 7), as far as it is there.
func startsMessage(data []byte) bool {
	if len(data) < 12 || data[0] < 'A' || data[0] > 'z' {
		return false
	}
	if bytes.HasPrefix(data, []byte("SIP/2.0 ")) {
		return true
	}
	line := data
	if end := bytes.IndexByte(data, '\n'); end >= 0 {
		line = bytes.TrimRight(data[:end], "\r")
	}
	return bytes.HasSuffix(line, []byte(" SIP/2.0")) && bytes.Count(line, []byte(" ")) >= 2
}

// raw parses a message and takes it.
func (t *tracker) raw(data []byte, src, dst netip.AddrPort) {
	m, _, err := sip.Parse(data, false)
	if err != nil {
		if m, _, err = sip.Parse(repair(data), false); err != nil {
			t.stats.Unparsable++
			return
		}
	}
	t.stats.Messages++
	m.Arrival, m.Flow.Remote = t.now, src
	in := message{Message: m, src: src, dst: dst, fromTag: m.FromTag(), toTag: m.ToTag()}
	in.cseq, in.method = m.CSeq()
	if via, err := m.TopVia(); err == nil {
		in.branch = via.Branch()
	}
	t.message(&in)
}

// repair makes the best of a message that the parser refuses: bare line feeds
// get their carriage returns, and of the fields that a listener needs what is
// wrong is left out.
func repair(data []byte) []byte {
	head, body, ok := bytes.Cut(data, []byte("\r\n\r\n"))
	if !ok {
		if head, body, ok = bytes.Cut(data, []byte("\n\n")); !ok {
			return data
		}
	}
	var out []byte
	had := map[string]bool{}
	for line := range strings.SplitSeq(strings.ReplaceAll(string(head), "\r", ""), "\n") {
		line, once := repairLine(line, len(body))
		if once != "" && had[once] {
			continue
		}
		had[once] = true
		if line != "" {
			out = append(append(out, line...), "\r\n"...)
		}
	}
	return append(append(out, "\r\n"...), body...)
}

// repairLine returns a header line with what is needed of it, and its name when
// the first of that name is enough.
func repairLine(line string, bodyBytes int) (repaired, once string) {
	name, value, _ := strings.Cut(line, ":")
	switch name = strings.ToLower(strings.TrimSpace(name)); name {
	case "from", "f", "to", "t":
		open := strings.LastIndexByte(value, '<')
		if open >= 0 { // the display name is not needed
			line = name + ": " + value[open:]
		}
		return line, name[:1]
	case "via", "v":
		protocol, rest, _ := strings.Cut(strings.TrimSpace(value), " ")
		if _, params, ok := strings.Cut(rest, ";"); ok { // neither is the host
			line = "Via: " + protocol + " unknown.invalid;" + params
		}
		return line, ""
	case "content-length", "l":
		if n, _ := contentLength(line); n < 0 || n > bodyBytes {
			return "", "l"
		}
		return line, "l"
	case "call-id", "i", "cseq":
		return line, name
	}
	return line, ""
}

// contentLength reads a header line, when it is that field.
func contentLength(line string) (n int, is bool) {
	name, value, _ := strings.Cut(line, ":")
	switch strings.ToLower(strings.TrimSpace(name)) {
	case "content-length", "l":
	default:
		return 0, false
	}
	v, err := strconv.ParseUint(strings.TrimSpace(value), 10, 31)
	if err != nil {
		return -1, true
	}
	return int(v), true
}

// flowKey names one direction of a TCP connection.
type flowKey struct{ src, dst netip.AddrPort }

// framer cuts the bytes of one TCP direction into messages.
type framer struct {
	key   flowKey
	buf   []byte
	other bool // not SIP: it did not begin with a message
	begun bool // a message was found, or bytes were missing at the begin
}

// framers holds those in use, the longest silent first.
type framers struct {
	byKey map[flowKey]*list.Element
	order list.List // of *framer
	bytes int       // in all buffers
}

// get finds or makes the framer of a direction.
func (f *framers) get(k flowKey) *framer {
	if f.byKey == nil {
		f.byKey = map[flowKey]*list.Element{}
	}
	if el, ok := f.byKey[k]; ok {
		f.order.MoveToBack(el)
		return el.Value.(*framer)
	}
	if f.order.Len() >= framersMax {
		f.remove(f.order.Front())
	}
	fr := &framer{key: k}
	f.byKey[k] = f.order.PushBack(fr)
	return fr
}

func (f *framers) remove(el *list.Element) {
	fr := el.Value.(*framer)
	f.bytes -= len(fr.buf)
	delete(f.byKey, fr.key)
	f.order.Remove(el)
}

// stream takes bytes of a TCP direction.
func (t *tracker) stream(p pcap.Packet) {
	key := flowKey{p.Src, p.Dst}
	fr := t.framers.get(key)
	if p.Gap {
		t.stats.StreamSkipped += int64(len(fr.buf))
		t.framers.bytes -= len(fr.buf)
		fr.buf, fr.begun, fr.other = fr.buf[:0], true, false
	}
	if len(p.Payload) > 0 && !fr.other {
		was := len(fr.buf)
		fr.buf = append(fr.buf, p.Payload...)
		rest := t.frames(fr, fr.buf)
		fr.buf = append(fr.buf[:0], rest...)
		t.framers.bytes += len(fr.buf) - was
		if t.framers.bytes > framerBytesMax {
			t.stats.StreamSkipped += int64(len(fr.buf))
			t.framers.bytes -= len(fr.buf)
			fr.buf = nil
		}
	}
	if p.End {
		t.framers.remove(t.framers.byKey[key])
	}
}

// frames takes the whole messages at the front of buf and returns the rest.
func (t *tracker) frames(fr *framer, buf []byte) []byte {
	for {
		buf = bytes.TrimLeft(buf, "\r\n") // RFC 3261 section 7.5, keep-alives of RFC 5626
		if len(buf) == 0 {
			return nil
		}
		if !startsMessage(buf) {
			var more bool
			if buf, more = t.resync(fr, buf); !more {
				return buf
			}
			continue
		}
		size := messageSize(buf)
		if size > sip.MessageBytesMax {
			t.stats.Unparsable++
			buf = t.skipLine(buf)
			continue
		}
		if size > len(buf) || size < 0 {
			return buf
		}
		fr.begun = true
		t.raw(buf[:size], fr.key.src, fr.key.dst)
		buf = buf[size:]
	}
}

// resync looks for the next line that begins a message; more says that it may
// have found one. A stream that does not begin with one is not SIP.
func (t *tracker) resync(fr *framer, buf []byte) (rest []byte, more bool) {
	end := bytes.IndexByte(buf, '\n')
	switch {
	case end < 0 && len(buf) <= sip.MessageBytesMax && (fr.begun || couldStart(buf)):
		return buf, false
	case !fr.begun:
		fr.other = true
		return nil, false
	case end < 0:
		t.stats.StreamSkipped += int64(len(buf))
		return nil, false
	}
	return t.skipLine(buf), true
}

// couldStart tells whether an unfinished first line may become a start line.
func couldStart(buf []byte) bool {
	for _, c := range buf[:min(len(buf), 256)] {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}

func (t *tracker) skipLine(buf []byte) []byte {
	end := bytes.IndexByte(buf, '\n') + 1
	if end == 0 {
		end = len(buf)
	}
	t.stats.StreamSkipped += int64(end)
	return buf[end:]
}

// messageSize is the length of the message at the front of buf by its
// Content-Length (RFC 3261 section 18.3; zero without one), -1 when its header
// is not all there.
func messageSize(buf []byte) int {
	end := bytes.Index(buf, []byte("\r\n\r\n"))
	if end < 0 {
		if len(buf) > sip.MessageBytesMax {
			return len(buf)
		}
		return -1
	}
	for line := range strings.SplitSeq(string(buf[:end]), "\r\n") {
		if n, is := contentLength(line); is && n >= 0 {
			return end + 4 + n
		}
	}
	return end + 4
}

// Package sdp reads session descriptions (RFC 8866) as they come, rewrites
// their addresses without touching another byte, and keeps the offer/answer
// state of a call (RFC 3264).
//
// The parser is lenient: it keeps the lines and looks only at those it needs.
// Line ends may be CRLF or LF and may be mixed, the last may be missing; lines
// of no known form stay where they are.
package sdp

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/trunktap/trunktap/media"
)

// Limits of a description.
const (
	bodyBytesMax = 64 << 10
	linesMax     = 2000
	mediaMax     = 64 // m= lines
)

// Errors of Parse. Callers branch on them to refuse an offer (488) or a body.
var (
	ErrTooLarge     = fmt.Errorf("session description larger than %d bytes", bodyBytesMax)
	ErrTooManyLines = fmt.Errorf("session description with more than %d lines", linesMax)
	ErrTooManyMedia = fmt.Errorf("session description with more than %d m= lines", mediaMax)
	ErrNotSDP       = errors.New("not a session description: it does not begin with v=")
)

// Direction values of a media description (RFC 8866 section 6.7).
const (
	SendRecv = "sendrecv"
	SendOnly = "sendonly"
	RecvOnly = "recvonly"
	Inactive = "inactive"
)

// Description is one session description. It is not changed after Parse and
// safe for concurrent use.
type Description struct {
	body    string
	lines   []line
	media   []Media
	session section    // the lines before the first m=
	conn    connection // of the session
	parts   []section
}

// line is one line of the body, its parts by their offsets.
type line struct {
	start int // of the type letter
	end   int // of the content
	next  int // of the next line: what lies between end and next is the line end
}

// section is a run of lines: the session's, or a media description's.
type section struct {
	from, to int
	ownConn  bool // a media description with a c= of its own
}

// Media is one media description, with what it inherits from the session.
type Media struct {
	Index    int            // of its m= line, from 0
	Kind     string         // audio, video, image, ... in lower case
	Port     uint16         // of RTP; 0 when refused
	Proto    string         // RTP/AVP, RTP/SAVPF, udptl, ... as written
	Formats  []media.Format // of RTP only, in order; static types filled in (RFC 3551 section 6). Read only
	Addr     netip.Addr     // from c=; invalid when it is missing or a host name
	Host     string         // the host name of c=, when it is no address
	RTCP     netip.AddrPort // from a=rtcp (RFC 3605), else the port above Port
	RTCPMux  bool           // a=rtcp-mux (RFC 5761)
	Zero     bool           // Addr is 0.0.0.0 or ::, the hold of RFC 2543
	Secure   bool           // SRTP by profile, a=crypto or a=fingerprint
	ICE      string         // the user name fragment of ICE (RFC 8839 section 5.4); empty: none
	Rejected bool           // port 0, or an m= line that cannot be read
	Ptime    time.Duration  // a=ptime, 0 without

	// Direction as seen from the side that made the description: sendrecv,
	// sendonly, recvonly or inactive.
	Direction string
}

// Parse reads a description. It keeps a copy of the body.
func Parse(body []byte) (*Description, error) {
	if len(body) > bodyBytesMax {
		return nil, ErrTooLarge
	}
	if !bytes.HasPrefix(bytes.TrimLeft(body, "\r\n"), []byte("v=")) {
		return nil, ErrNotSDP
	}
	d := &Description{body: string(body)}
	if err := d.split(); err != nil {
		return nil, err
	}
	d.media = make([]Media, len(d.parts))
	session := d.readAttrs(d.session)
	d.conn = session.conn
	for i := range d.parts {
		d.media[i] = d.readMedia(i, session)
	}
	return d, nil
}

// split finds the lines and the sections.
func (d *Description) split() error {
	d.lines = make([]line, 0, min(strings.Count(d.body, "\n")+1, linesMax))
	for pos := 0; pos < len(d.body); {
		if len(d.lines) == linesMax {
			return ErrTooManyLines
		}
		l := line{start: pos, end: len(d.body), next: len(d.body)}
		if i := strings.IndexByte(d.body[pos:], '\n'); i >= 0 {
			l.end, l.next = pos+i, pos+i+1
		}
		for l.end > l.start && d.body[l.end-1] == '\r' {
			l.end--
		}
		if d.body[l.start] == 'm' && l.end > l.start+1 && d.body[l.start+1] == '=' {
			if len(d.parts) == mediaMax {
				return ErrTooManyMedia
			}
			d.closeSection(len(d.lines))
			d.parts = append(d.parts, section{from: len(d.lines)})
		}
		d.lines = append(d.lines, l)
		pos = l.next
	}
	d.closeSection(len(d.lines))
	return nil
}

func (d *Description) closeSection(at int) {
	if n := len(d.parts); n > 0 {
		d.parts[n-1].to = at
		return
	}
	d.session.to = at
}

// Bytes returns the body as it came.
func (d *Description) Bytes() []byte { return []byte(d.body) }

// Media returns the media descriptions in their order. Read only.
func (d *Description) Media() []Media { return slices.Clip(d.media) }

// protections are the attributes that say how media is protected (RFC 4568, RFC
// 8122, RFC 4145, RFC 8842).
var protections = []string{"crypto", "fingerprint", "setup", "tls-id"}

// Protection returns the attributes of protection that the session and the i-th
// media description have of their own, as "name:value". They may hold keys.
func (d *Description) Protection(i int) (session, own []string) {
	list := func(s section) (out []string) {
		for _, l := range d.lines[s.from:s.to] {
			if d.isProtection(l) {
				_, value := d.field(l)
				out = append(out, value)
			}
		}
		return out
	}
	return list(d.session), list(d.parts[i])
}

func (d *Description) isProtection(l line) bool {
	typ, value := d.field(l)
	name, _ := attribute(value)
	return typ == 'a' && slices.Contains(protections, name)
}

// capabilities are the attributes by which a section proposes other configurations
// of itself (RFC 5939 sections 3.3 to 3.5, RFC 6871).
var capabilities = []string{"tcap", "acap", "mcap", "omcap", "rmcap", "mfcap", "mscap", "pcfg", "lcfg", "acfg"}

func (d *Description) isCapability(l line) bool {
	typ, value := d.field(l)
	name, _ := attribute(value)
	return typ == 'a' && slices.Contains(capabilities, name)
}

// field returns the type letter and the value of a line; 0 for one that is no field.
func (d *Description) field(l line) (byte, string) {
	if l.end < l.start+2 || d.body[l.start+1] != '=' {
		return 0, ""
	}
	return d.body[l.start], d.body[l.start+2 : l.end]
}

// attribute splits "name:value" of an a= line; names are lower-cased.
func attribute(value string) (name, rest string) {
	name, rest, _ = strings.Cut(value, ":")
	return strings.ToLower(strings.TrimSpace(name)), rest
}

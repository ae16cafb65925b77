package sdp

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/trunktap/trunktap/media"
)

const ptimeMax = 10 * time.Second // a longer packet time is taken for a fault and ignored

// staticTypes are the payload types that need no rtpmap (RFC 3551 section 6).
// G722 is 8000 Hz there though it samples at 16000.
var staticTypes = map[uint8]media.Format{
	0:  {Name: "PCMU", ClockRate: 8000, Channels: 1},
	3:  {Name: "GSM", ClockRate: 8000, Channels: 1},
	4:  {Name: "G723", ClockRate: 8000, Channels: 1},
	5:  {Name: "DVI4", ClockRate: 8000, Channels: 1},
	6:  {Name: "DVI4", ClockRate: 16000, Channels: 1},
	7:  {Name: "LPC", ClockRate: 8000, Channels: 1},
	8:  {Name: "PCMA", ClockRate: 8000, Channels: 1},
	9:  {Name: "G722", ClockRate: 8000, Channels: 1},
	10: {Name: "L16", ClockRate: 44100, Channels: 2},
	11: {Name: "L16", ClockRate: 44100, Channels: 1},
	12: {Name: "QCELP", ClockRate: 8000, Channels: 1},
	13: {Name: "CN", ClockRate: 8000, Channels: 1},
	14: {Name: "MPA", ClockRate: 90000, Channels: 1},
	15: {Name: "G728", ClockRate: 8000, Channels: 1},
	16: {Name: "DVI4", ClockRate: 11025, Channels: 1},
	17: {Name: "DVI4", ClockRate: 22050, Channels: 1},
	18: {Name: "G729", ClockRate: 8000, Channels: 1},
	25: {Name: "CELB", ClockRate: 90000},
	26: {Name: "JPEG", ClockRate: 90000},
	28: {Name: "NV", ClockRate: 90000},
	31: {Name: "H261", ClockRate: 90000},
	32: {Name: "MPV", ClockRate: 90000},
	33: {Name: "MP2T", ClockRate: 90000},
	34: {Name: "H263", ClockRate: 90000},
}

// connection is a c= line's address.
type connection struct {
	given bool
	addr  netip.Addr
	host  string
}

// parseConnection reads "IN IP4 192.0.2.1/127" (RFC 8866 section 5.7); what is
// no address is kept as host name.
func parseConnection(value string) connection {
	fields := strings.Fields(value)
	if len(fields) < 3 {
		return connection{given: true}
	}
	text, _, _ := strings.Cut(fields[2], "/")
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return connection{given: true, host: text}
	}
	return connection{given: true, addr: addr.Unmap().WithZone("")}
}

// mLine is what stands in "audio 49170/2 RTP/AVP 0 8".
type mLine struct {
	kind, proto    string
	formats        []string
	port           uint16
	portAt, portTo int // the port's digits, offsets within the value; equal when it cannot be read
}

func parseMLine(value string) mLine {
	var m mLine
	var at int
	next := func() (string, int) {
		for at < len(value) && (value[at] == ' ' || value[at] == '\t') {
			at++
		}
		from := at
		for at < len(value) && value[at] != ' ' && value[at] != '\t' {
			at++
		}
		return value[from:at], from
	}
	kind, _ := next()
	m.kind = strings.ToLower(kind)
	port, portAt := next()
	port, _, _ = strings.Cut(port, "/")
	if n, err := strconv.ParseUint(port, 10, 16); err == nil {
		m.port, m.portAt, m.portTo = uint16(n), portAt, portAt+len(port)
	}
	m.proto, _ = next()
	m.formats = strings.Fields(value[at:])
	return m
}

// attrs are the attributes of one section that matter here.
type attrs struct {
	direction         string
	rtcp              string
	mux               bool
	crypto, fprint    bool
	ufrag             string
	ptime             time.Duration
	rtpmap, fmtp      perType
	conn              connection
	hasRTCP, hasPtime bool
}

func (d *Description) readAttrs(s section) attrs {
	var a attrs
	for _, l := range d.lines[s.from:s.to] {
		typ, value := d.field(l)
		switch {
		case typ == 'c' && !a.conn.given:
			a.conn = parseConnection(value)
		case typ == 'a':
			a.take(attribute(value))
		}
	}
	return a
}

// take notes an attribute; of several of one name the first counts.
func (a *attrs) take(name, value string) {
	switch name {
	case SendRecv, SendOnly, RecvOnly, Inactive:
		if a.direction == "" {
			a.direction = name
		}
	case "rtcp":
		if !a.hasRTCP {
			a.rtcp, a.hasRTCP = value, true
		}
	case "rtcp-mux":
		a.mux = true
	case "crypto":
		a.crypto = true
	case "fingerprint":
		a.fprint = true
	case "ice-ufrag":
		if a.ufrag == "" {
			a.ufrag = value
		}
	case "ptime":
		if !a.hasPtime {
			a.ptime, a.hasPtime = parsePtime(value), true
		}
	case "rtpmap":
		a.rtpmap.keep(value)
	case "fmtp":
		a.fmtp.keep(value)
	}
}

// perType is the attributes of one name that are about one payload type each.
type perType []struct{ pt, rest string }

// keep notes "96 rest" under "96".
func (p *perType) keep(value string) {
	pt, rest, ok := strings.Cut(strings.TrimSpace(value), " ")
	if ok {
		*p = append(*p, struct{ pt, rest string }{pt, strings.TrimSpace(rest)})
	}
}

// of returns what the first attribute says of a payload type.
func (p perType) of(pt string) (rest string, ok bool) {
	for i := range p {
		if p[i].pt == pt {
			return p[i].rest, true
		}
	}
	return "", false
}

func parsePtime(value string) time.Duration {
	ms, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
	if err != nil || !(ms > 0 && ms <= float64(ptimeMax/time.Millisecond)) {
		return 0
	}
	return time.Duration(ms * float64(time.Millisecond))
}

// readMedia puts one media description together with what it inherits.
func (d *Description) readMedia(i int, session attrs) Media {
	part := d.parts[i]
	_, value := d.field(d.lines[part.from])
	line, own := parseMLine(value), d.readAttrs(part)
	conn := own.conn
	d.parts[i].ownConn = conn.given
	if !conn.given {
		conn = session.conn
	}
	m := Media{
		Index: i, Kind: line.kind, Port: line.port, Proto: line.proto,
		Addr: conn.addr, Host: conn.host, Zero: conn.addr.IsValid() && conn.addr.IsUnspecified(),
		RTCPMux: own.mux, Ptime: own.ptime, Rejected: line.port == 0,
		Direction: firstOf(own.direction, session.direction, SendRecv),
	}
	m.ICE = firstOf(own.ufrag, session.ufrag)
	proto := strings.ToUpper(line.proto)
	m.Secure = strings.Contains(proto, "SAVP") || own.crypto || own.fprint || session.fprint
	if strings.Contains(proto, "RTP/") {
		m.Formats = formats(line.formats, own)
	}
	m.RTCP = rtcpAddr(own, m.Addr, m.Port)
	return m
}

func firstOf(names ...string) string {
	for _, n := range names {
		if n != "" {
			return n
		}
	}
	return ""
}

// rtcpAddr reads a=rtcp, "53020 IN IP4 192.0.2.1" (RFC 3605 section 2.1).
func rtcpAddr(a attrs, addr netip.Addr, port uint16) netip.AddrPort {
	if fields := strings.Fields(a.rtcp); len(fields) > 0 {
		if n, err := strconv.ParseUint(fields[0], 10, 16); err == nil {
			if len(fields) >= 4 {
				if own := parseConnection(strings.Join(fields[1:], " ")); own.addr.IsValid() {
					addr = own.addr
				}
			}
			return netip.AddrPortFrom(addr, uint16(n))
		}
	}
	if port == 0 || port == 65535 {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(addr, port+1)
}

// formats builds the payload type table of an m= line.
func formats(types []string, a attrs) []media.Format {
	if len(types) == 0 {
		return nil
	}
	list := make([]media.Format, 0, min(len(types), 128))
	var have [128]bool
	for _, text := range types {
		pt, err := strconv.ParseUint(text, 10, 8)
		if err != nil || pt > 127 || have[pt] {
			continue
		}
		have[pt] = true
		f := staticTypes[uint8(pt)]
		if m, ok := a.rtpmap.of(text); ok {
			f = parseRTPMap(m, f)
		}
		f.PayloadType = uint8(pt)
		f.Params, _ = a.fmtp.of(text)
		list = append(list, f)
	}
	return list
}

// parseRTPMap reads "opus/48000/2"; what is missing or wrong stays as the
// static table has it.
func parseRTPMap(value string, f media.Format) media.Format {
	name, rest, _ := strings.Cut(value, "/")
	rate, rest, _ := strings.Cut(rest, "/")
	channels, _, _ := strings.Cut(rest, "/")
	if name = strings.ToUpper(strings.TrimSpace(name)); name != f.Name {
		f = media.Format{Name: name, Channels: 1}
	}
	if n, err := strconv.ParseUint(strings.TrimSpace(rate), 10, 31); err == nil && n > 0 {
		f.ClockRate = int(n)
	}
	if n, err := strconv.ParseUint(strings.TrimSpace(channels), 10, 8); err == nil && n > 0 {
		f.Channels = int(n)
	}
	return f
}

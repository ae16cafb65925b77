package siptest

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Codec of the audio that an Agent speaks.
type Codec struct {
	Name        string
	PayloadType uint8
}

// The codecs that an Agent knows (RFC 3551 table 4).
var (
	PCMU = Codec{"PCMU", 0}
	PCMA = Codec{"PCMA", 8}
)

// eventPayloadType carries digits (RFC 4733).
const eventPayloadType = 101

// Direction of a media description (RFC 3264 section 5.1).
type Direction string

// Directions.
const (
	SendRecv Direction = "sendrecv"
	SendOnly Direction = "sendonly"
	RecvOnly Direction = "recvonly"
	Inactive Direction = "inactive"
)

func (d Direction) sends() bool    { return d == SendRecv || d == SendOnly }
func (d Direction) receives() bool { return d == SendRecv || d == RecvOnly }

func direction(send, receive bool) Direction {
	switch {
	case send && receive:
		return SendRecv
	case send:
		return SendOnly
	case receive:
		return RecvOnly
	}
	return Inactive
}

// SDP is what an Agent understands of a session description: its first audio.
type SDP struct {
	Addr      netip.AddrPort // where the sender of the description wants its RTP; unspecified address: hold of RFC 2543
	RTCP      netip.AddrPort // where it wants its RTCP
	Mux       bool           // a=rtcp-mux
	Direction Direction
	Payloads  []uint8 // in order of preference
	Profile   string  // of the m= line

	crypto []sdesLine // that an Agent could use
}

// ParseSDP reads the first audio media description of body.
func ParseSDP(body []byte) (SDP, error) {
	var (
		session, conn string // addresses
		port, rtcp    string
		sdp           = SDP{Direction: SendRecv}
		inAudio, seen bool
	)
	for line := range strings.Lines(string(body)) {
		kind, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), "=")
		if !ok {
			continue
		}
		if kind == "m" {
			f := strings.Fields(value)
			inAudio = !seen && len(f) >= 4 && f[0] == "audio"
			if inAudio {
				seen, port = true, f[1]
				sdp.Profile, sdp.Payloads = f[2], payloads(f[3:])
			}
			continue
		}
		if seen && !inAudio {
			continue
		}
		switch {
		case kind == "c" && seen:
			conn = lastField(value)
		case kind == "c":
			session = lastField(value)
		case kind == "a" && value == "rtcp-mux":
			sdp.Mux = true
		case kind == "a" && strings.HasPrefix(value, "rtcp:"):
			rtcp, _, _ = strings.Cut(value[len("rtcp:"):], " ")
		case kind == "a" && strings.HasPrefix(value, "crypto:"):
			if l, ok := parseSDES(value[len("crypto:"):]); ok && seen {
				sdp.crypto = append(sdp.crypto, l)
			}
		case kind == "a" && slices.Contains([]string{"sendrecv", "sendonly", "recvonly", "inactive"}, value):
			sdp.Direction = Direction(value)
		}
	}
	if !seen {
		return SDP{}, fmt.Errorf("session description without audio")
	}
	if conn == "" {
		conn = session
	}
	err := sdp.address(conn, port, rtcp)
	return sdp, err
}

func (s *SDP) address(conn, port, rtcp string) error {
	addr, err := netip.ParseAddr(conn)
	if err != nil {
		return fmt.Errorf("session description: connection address: %w", err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return fmt.Errorf("session description: port: %w", err)
	}
	s.Addr = netip.AddrPortFrom(addr, uint16(n))
	s.RTCP = netip.AddrPortFrom(addr, uint16(n)+1)
	if s.Mux {
		s.RTCP = s.Addr
	} else if r, err := strconv.ParseUint(rtcp, 10, 16); err == nil {
		s.RTCP = netip.AddrPortFrom(addr, uint16(r))
	}
	return nil
}

func payloads(fields []string) []uint8 {
	var out []uint8
	for _, f := range fields {
		if n, err := strconv.ParseUint(f, 10, 7); err == nil {
			out = append(out, uint8(n))
		}
	}
	return out
}

func lastField(s string) string {
	f := strings.Fields(s)
	if len(f) == 0 {
		return ""
	}
	return f[len(f)-1]
}

// Offer says how an offer or an answer of an Agent differs from its usual one.
type Offer struct {
	Direction Direction // "": sendrecv
	Codecs    []Codec   // nil: those of the Agent's Config
	Zero      bool      // c=0.0.0.0, the hold of RFC 2543
	Mux       bool      // a=rtcp-mux
	Lines     []string  // further lines of the media description, such as "a=label:1"
	NoSDP     bool      // no body: the other side makes the offer
	SRTP      *SRTP     // nil: plain RTP alone

	profile string // "": RTP/AVP
	crypto  []string
}

func (o Offer) direction() Direction {
	if o.Direction == "" {
		return SendRecv
	}
	return o.Direction
}

// build writes the description of an audio stream at local.
func (o Offer) build(user string, session, version uint64, local netip.AddrPort) []byte {
	family, host := "IP4", local.Addr()
	if host.Is6() {
		family = "IP6"
	}
	connection := host
	if o.Zero {
		connection = netip.IPv4Unspecified()
		if host.Is6() {
			connection = netip.IPv6Unspecified()
		}
	}
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	line("v=0")
	line("o=%s %d %d IN %s %s", user, session, version, family, host)
	line("s=-")
	line("c=IN %s %s", family, connection)
	line("t=0 0")
	profile := o.profile
	if profile == "" {
		profile = "RTP/AVP"
	}
	media := fmt.Sprintf("m=audio %d %s", local.Port(), profile)
	for _, c := range o.Codecs {
		media += fmt.Sprintf(" %d", c.PayloadType)
	}
	line("%s %d", media, eventPayloadType)
	for _, c := range o.Codecs {
		line("a=rtpmap:%d %s/8000", c.PayloadType, c.Name)
	}
	line("a=rtpmap:%d telephone-event/8000", eventPayloadType)
	line("a=fmtp:%d 0-16", eventPayloadType)
	line("a=ptime:20")
	if o.Mux {
		line("a=rtcp-mux")
	}
	for _, l := range slices.Concat(o.crypto, o.Lines) {
		line("%s", l)
	}
	line("a=%s", o.direction())
	return []byte(b.String())
}

// choose returns the first codec of the description that is in known.
func (s SDP) choose(known []Codec) (Codec, bool) {
	for _, pt := range s.Payloads {
		for _, c := range known {
			if c.PayloadType == pt {
				return c, true
			}
		}
	}
	return Codec{}, false
}

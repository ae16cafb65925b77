package siprec

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/relay"
	"github.com/trunktap/trunktap/media/report"
	"github.com/trunktap/trunktap/media/srtp"
	"github.com/trunktap/trunktap/sip/sdp"
)

// relaySide is the side of a relay's stream that the client sends to; nothing is
// sent to the other.
const relaySide = media.External

// line is one m= line of a recording dialog. Once its leg belongs to a recording it
// is guarded by that one's mu.
type line struct {
	stream port       // nil: refused, or not audio
	sec    *srtp.Line // nil: no SRTP
	addr   netip.AddrPort

	// of the client's latest description
	kind, proto string
	label       string
	formats     []media.Format // of the answer
	direction   string
	zero        bool // c=0.0.0.0, the pause of RFC 2543
	mux         bool
	remote      netip.AddrPort
	rtcp        netip.AddrPort
	ptime       time.Duration
	protect     srtp.Media // what we write about protection

	// what the recorder was told
	told    bool
	again   bool // it was told by a process before this one, as id
	id      media.StreamID
	as      media.Stream
	place   place
	senders []string // ids of the participants that contributed last
	held    bool     // the metadata says that nobody sends it
	fresh   bool     // it has another label since: what was found about its side is of another stream
}

// port is what a line's packets come through: a *relay.Stream, or the path of a
// dialog that is only followed.
type port interface {
	Local(media.Side) netip.AddrPort
	SetTap(media.Side, media.Tap)
	SetRemote(media.Side, relay.Remote)
	Protect([2]srtp.End) error
	SetReports(*report.Config) error
	Report(time.Time)
	Stats() relay.Stats
	Close() error
}

func (n *line) live() bool { return n.stream != nil }

// sends says whether the client agreed to send: it may call its copies sendonly or
// sendrecv.
func (n *line) sends() bool {
	return !n.zero && (n.direction == sdp.SendOnly || n.direction == sdp.SendRecv)
}

// ours is our direction, as an answer to the client's.
func (n *line) ours() string {
	if n.direction == sdp.SendOnly || n.direction == sdp.SendRecv {
		return sdp.RecvOnly
	}
	return sdp.Inactive
}

var (
	errNoAudio = errors.New("no audio over RTP is offered")
	errLines   = fmt.Errorf("more than %d media are offered", linesMax)
)

// offered takes a description in which the client offers, and prepares the answer.
func (l *leg) offered(d *sdp.Description) error {
	list := d.Media()
	if len(list) > linesMax {
		return errLines
	}
	for len(l.lines) < len(list) {
		l.lines = append(l.lines, &line{})
	}
	for _, n := range l.lines[len(list):] { // RFC 3264 section 8 has a client keep them; some do not
		l.refuse(n)
	}
	l.shown = len(list)
	audio := false
	for i, m := range list {
		n := l.lines[i]
		n.kind, n.proto = m.Kind, m.Proto
		if m.Rejected || m.Kind != "audio" || !strings.Contains(strings.ToUpper(m.Proto), "RTP/") {
			l.refuse(n)
			audio = audio || m.Rejected && m.Kind == "audio"
			continue
		}
		if err := l.open(n); err != nil {
			return err
		}
		if err := l.protectOffer(n, d, m); err != nil {
			return err
		}
		l.describe(n, d, m)
		audio = true
	}
	if !audio {
		return errNoAudio
	}
	return l.settle()
}

// describe takes over what the client says of a line. Of the formats those are
// answered that can be decoded; all when none can, so that the account is kept.
func (l *leg) describe(n *line, d *sdp.Description, m sdp.Media) {
	label, _ := d.Attribute(m.Index, "label")
	label = clip(label)
	n.fresh = n.fresh || label != n.label
	n.label = label
	n.direction, n.zero, n.mux, n.ptime = m.Direction, m.Zero, m.RTCPMux, m.Ptime
	n.remote, n.rtcp = netip.AddrPort{}, m.RTCP
	if m.Addr.IsValid() {
		n.remote = netip.AddrPortFrom(m.Addr, m.Port)
	}
	n.formats = slices.Clone(m.Formats)
	if f := l.srv.cfg.Decodable; f != nil {
		n.formats = slices.DeleteFunc(n.formats, func(x media.Format) bool { return !f(x) })
		if !slices.ContainsFunc(n.formats, isAudio) {
			n.formats = slices.Clone(m.Formats)
		}
	}
}

// isAudio says whether a format is more than digits and comfort noise.
func isAudio(f media.Format) bool { return f.Name != "TELEPHONE-EVENT" && f.Name != "CN" }

func (l *leg) refuse(n *line) {
	if n.stream != nil {
		if err := n.stream.Close(); err != nil {
			l.log.Warn("close media ports", "error", err)
		}
		n.stream = nil
	}
	if n.sec != nil {
		n.sec.Wipe()
		n.sec = nil
	}
	n.protect = srtp.Media{}
}

// open makes sure that a line has ports.
func (l *leg) open(n *line) error {
	if n.stream != nil {
		return nil
	}
	if l.paths != nil {
		n.stream = followedPort{l.paths(slices.Index(l.lines, n))}
		return nil
	}
	s := l.source
	bind := s.MediaBind
	if !bind.IsValid() {
		bind = s.MediaAddr
	}
	stream, err := l.srv.cfg.Relay.Open([2]netip.Addr{relaySide: bind}, l.options())
	if err != nil {
		return fmt.Errorf("ports for a stream: %w", err)
	}
	n.stream = stream
	n.addr = netip.AddrPortFrom(s.MediaAddr, stream.Local(relaySide).Port())
	return nil
}

// options are those of the relay for a line.
func (l *leg) options() relay.Options {
	opt := relay.Options{RTP: true, ReceiveOnly: true, Keyed: l.keyed}
	if l.source.SRTP != nil {
		opt.Suites[relaySide] = l.source.SRTP.Sides[relaySide].Suites
	}
	return opt
}

// plainMedia is what the side that we do not have says about protection.
var plainMedia = srtp.Media{Profile: "RTP/AVP"}

func (l *leg) secures() bool {
	return l.source.SRTP != nil && l.source.SRTP.Sides[relaySide].Policy != srtp.Off
}

func (l *leg) readProtection(n *line, d *sdp.Description, m sdp.Media) srtp.Media {
	session, own := d.Protection(m.Index)
	s, faults := srtp.ReadMedia(m.Proto, session, own)
	for _, err := range faults {
		l.log.Debug("a line about SRTP is left out", "error", err)
	}
	is := netip.AddrPortFrom(m.Addr, m.Port)
	s.Moved = n.remote.IsValid() && is.IsValid() && n.remote != is && !m.Zero
	return s
}

func (l *leg) protectOffer(n *line, d *sdp.Description, m sdp.Media) error {
	n.protect = srtp.Media{}
	if l.paths != nil {
		return nil // whoever answers it has the keys
	}
	if !l.secures() {
		return l.unprotected(m)
	}
	if n.sec == nil {
		n.sec = srtp.NewLine(l.source.SRTP)
	}
	if _, err := n.sec.Offer(relaySide, l.readProtection(n, d, m)); err != nil {
		return err
	}
	answer, err := n.sec.Answer(plainMedia)
	if err != nil {
		return err
	}
	n.protect = answer
	return nil
}

// unprotected refuses media that nobody could read.
func (l *leg) unprotected(m sdp.Media) error {
	if p := strings.ToUpper(m.Proto); strings.Contains(p, "SAVP") {
		return fmt.Errorf("%w: %s is offered, but the source has srtp: off", srtp.ErrNotAcceptable, p)
	}
	return nil
}

// settle lets media flow as it was agreed.
func (l *leg) settle() error {
	for _, n := range l.lines {
		if n.stream == nil {
			continue
		}
		if n.sec != nil {
			if err := n.stream.Protect(n.sec.Ends()); err != nil {
				return fmt.Errorf("protect media: %w", err)
			}
		}
		r := relay.Remote{RTP: n.remote, RTCP: n.rtcp, Mux: n.mux}
		for _, f := range n.formats {
			r.PayloadTypes = append(r.PayloadTypes, f.PayloadType)
		}
		n.stream.SetRemote(relaySide, r)
		if err := n.stream.SetReports(l.reports(n)); err != nil {
			return fmt.Errorf("reports of a stream: %w", err)
		}
	}
	return nil
}

// tracks are the leg's lines as sides are decided by them.
func (l *leg) tracks() []track {
	out := make([]track, len(l.lines))
	for i, n := range l.lines {
		out[i] = track{label: n.label, half: l.half, aor: l.halfAOR, was: n.place}
		out[i].stream, out[i].bound = l.streams[n.label]
		if n.fresh {
			out[i].was = place{}
		}
	}
	return out
}

// ourFormats are offered where the client leaves the offer to us.
var ourFormats = []media.Format{
	{PayloadType: 8, Name: "PCMA", ClockRate: 8000},
	{PayloadType: 0, Name: "PCMU", ClockRate: 8000},
	{PayloadType: 9, Name: "G722", ClockRate: 8000},
	{PayloadType: 18, Name: "G729", ClockRate: 8000},
	{PayloadType: 101, Name: "TELEPHONE-EVENT", ClockRate: 8000, Params: "0-15"},
}

// offer prepares our own description: what was agreed before, else lines to
// receive on, one for a dialog that says it carries one end, else two.
func (l *leg) offer() error {
	count := len(l.lines)
	if count == 0 {
		if count = 2; l.half != wholeCall {
			count = 1
		}
	}
	for i := range count {
		if i >= len(l.lines) {
			l.lines = append(l.lines, &line{kind: "audio", label: strconv.Itoa(i + 1), formats: slices.Clone(ourFormats), direction: sdp.SendOnly, proto: "RTP/AVP"})
		} else if l.lines[i].stream == nil {
			continue
		}
		n := l.lines[i]
		if err := l.open(n); err != nil {
			return err
		}
		if !l.secures() {
			continue
		}
		if n.sec == nil {
			n.sec = srtp.NewLine(l.source.SRTP)
		}
		offer, err := n.sec.Offer(relaySide.Other(), plainMedia)
		if err != nil {
			return err
		}
		n.protect, n.proto = offer, offer.Profile
	}
	return nil
}

// accepted takes the client's answer to our offer.
func (l *leg) accepted(d *sdp.Description) error {
	list := d.Media()
	for i, n := range l.lines {
		if i >= len(list) || list[i].Rejected || list[i].Kind != "audio" {
			l.refuse(n)
			continue
		}
		m := list[i]
		if n.stream == nil {
			continue
		}
		if n.sec != nil {
			if _, err := n.sec.Answer(l.readProtection(n, d, m)); err != nil {
				return err
			}
		} else if err := l.unprotected(m); err != nil && l.paths == nil {
			return err
		}
		own, fresh := n.label, n.fresh
		l.describe(n, d, m)
		if n.label == "" {
			n.label, n.fresh = own, fresh
		}
		n.proto = m.Proto
	}
	return l.settle()
}

// description writes our side: each line with the label that the client gave it.
func (l *leg) description() []byte {
	var b strings.Builder
	addr := l.source.MediaAddr
	fmt.Fprintf(&b, "v=0\r\no=trunktap %d %d IN %s %s\r\ns=-\r\nc=IN %s %s\r\nt=0 0\r\n",
		l.sdpID, l.sdpVersion, family(addr), addr, family(addr), addr)
	lines := l.lines
	if l.shown > 0 {
		lines = lines[:l.shown]
	}
	for _, n := range lines {
		n.write(&b)
	}
	return []byte(b.String())
}

func family(a netip.Addr) string {
	if a.Is4() {
		return "IP4"
	}
	return "IP6"
}

func (n *line) write(b *strings.Builder) {
	if n.stream == nil {
		pt := "0"
		if len(n.formats) > 0 {
			pt = strconv.Itoa(int(n.formats[0].PayloadType))
		}
		fmt.Fprintf(b, "m=%s 0 %s %s\r\n", orText(n.kind, "audio"), orText(n.proto, "RTP/AVP"), pt)
		return
	}
	proto := n.proto
	if n.protect.Profile != "" {
		proto = n.protect.Profile
	}
	fmt.Fprintf(b, "m=audio %d %s", n.addr.Port(), proto)
	for _, f := range n.formats {
		fmt.Fprintf(b, " %d", f.PayloadType)
	}
	b.WriteString("\r\n")
	for _, f := range n.formats {
		if f.Name == "" {
			continue
		}
		fmt.Fprintf(b, "a=rtpmap:%d %s/%d", f.PayloadType, spelled(f.Name), f.ClockRate)
		if f.Channels > 1 {
			fmt.Fprintf(b, "/%d", f.Channels)
		}
		b.WriteString("\r\n")
		if f.Params != "" {
			fmt.Fprintf(b, "a=fmtp:%d %s\r\n", f.PayloadType, f.Params)
		}
	}
	if n.label != "" {
		fmt.Fprintf(b, "a=label:%s\r\n", n.label)
	}
	if n.mux {
		b.WriteString("a=rtcp-mux\r\n")
	}
	for _, a := range n.protect.Attributes() {
		fmt.Fprintf(b, "a=%s\r\n", a)
	}
	fmt.Fprintf(b, "a=%s\r\n", n.ours())
}

func orText(s, or string) string {
	if s == "" {
		return or
	}
	return s
}

// spelled is an encoding name as it is registered.
func spelled(name string) string {
	switch name {
	case "TELEPHONE-EVENT", "OPUS":
		return strings.ToLower(name)
	}
	return name
}

// lastMedia returns when the client sent last, and whether anything is to come.
func (l *leg) lastMedia() (last time.Time, expected bool) {
	for _, n := range l.lines {
		if n.stream == nil {
			continue
		}
		expected = expected || n.sends() && !n.held
		if at := n.stream.Stats()[relaySide].LastRTP; at.After(last) {
			last = at
		}
	}
	return last, expected
}

// closeMedia gives the ports back. The recorder uses them no more.
func (l *leg) closeMedia() {
	for _, n := range l.lines {
		l.refuse(n)
	}
}

package src

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/sdp"
	"github.com/trunktap/trunktap/sip/siprec"
)

// offered returns the codecs in the order in which they are offered.
func (f *Fork) offered() []wire {
	if f.wide {
		return wires
	}
	return append(slices.Clone(wires[1:]), wires[0])
}

// labels of the streams of both sides (RFC 4574), external and internal.
var labels = [2]string{"1", "2"}

// description offers both channels (RFC 7866 section 7.1.1).
func (f *Fork) description(version uint64, paused bool) []byte {
	return f.describe(version, directionsOf(paused), f.offered())
}

// directionsOf are those of both channels.
func directionsOf(paused bool) [2]string {
	if paused {
		return [2]string{sdp.Inactive, sdp.Inactive}
	}
	return [2]string{sdp.SendOnly, sdp.SendOnly}
}

// describe describes both channels: their directions, none for one that the server does
// not want, and the codecs.
func (f *Fork) describe(version uint64, directions [2]string, codecs []wire) []byte {
	family, addr := "IP4", f.c.cfg.Address
	if addr.Is6() {
		family = "IP6"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "v=0\r\no=- %d %d IN %s %s\r\ns=-\r\nc=IN %s %s\r\nt=0 0\r\n", f.id>>2, version, family, addr, family, addr)
	for i, label := range labels {
		port := f.c.port
		if directions[i] == "" {
			port = 0
		}
		fmt.Fprintf(&b, "m=audio %d RTP/AVP", port)
		for _, w := range codecs {
			fmt.Fprintf(&b, " %d", w.payloadType)
		}
		b.WriteString("\r\n")
		for _, w := range codecs {
			fmt.Fprintf(&b, "a=rtpmap:%d %s/%d\r\n", w.payloadType, w.name, w.clock)
		}
		fmt.Fprintf(&b, "a=rtcp:%d\r\na=ptime:%d\r\na=%s\r\na=label:%s\r\n", f.c.port, packetMS, cmp.Or(directions[i], sdp.Inactive), label)
	}
	return []byte(b.String())
}

// errNoAudio means that a server takes none of the streams.
var errNoAudio = errors.New("the server takes no audio")

// agree reads a server's description: the codec, and where each channel goes. One
// without our lines in their order (RFC 3264 section 6) does not say who is heard where.
func (f *Fork) agree(m *sip.Message) (*wire, [2]remote, error) {
	var to [2]remote
	body, _, ok := sdp.SplitBody(m.Get("Content-Type"), m.Body)
	if !ok {
		return nil, to, errNoAudio
	}
	d, err := sdp.Parse(body)
	if err != nil {
		return nil, to, fmt.Errorf("answer of the server: %w", err)
	}
	lines := d.Media()
	if !inOrder(d) {
		return nil, to, errLines
	}
	chosen := f.common(lines)
	if chosen == nil {
		return nil, to, errNoAudio
	}
	for i := range lines {
		if takes(&lines[i], *chosen) && wanted(&lines[i]) {
			to[i] = remote{rtp: netip.AddrPortFrom(lines[i].Addr, lines[i].Port), rtcp: lines[i].RTCP}
		}
	}
	return chosen, to, nil
}

// inOrder tells whether the lines can be ours. A server may have labels of its own;
// with ours in another order its streams are exchanged.
func inOrder(d *sdp.Description) bool {
	lines := d.Media()
	if len(lines) != len(labels) {
		return false
	}
	for i := range lines {
		label, _ := d.Attribute(i, "label")
		if at := slices.Index(labels[:], label); lines[i].Kind != "audio" || at >= 0 && at != i {
			return false
		}
	}
	return true
}

// common returns the codec that most of the lines take, of equals the first that we offer.
func (f *Fork) common(lines []sdp.Media) (best *wire) {
	most := 0
	for _, w := range f.offered() {
		n := 0
		for i := range lines {
			if takes(&lines[i], w) {
				n++
			}
		}
		if n > most {
			best, most = &w, n
		}
	}
	return best
}

func takes(m *sdp.Media, w wire) bool {
	return !m.Rejected && !m.Secure && slices.ContainsFunc(m.Formats, func(x media.Format) bool { return x.PayloadType == w.payloadType })
}

// wanted tells whether a server wants to hear a stream now, at an address that
// is one host's.
func wanted(m *sdp.Media) bool {
	return (m.Direction == sdp.RecvOnly || m.Direction == sdp.SendRecv) && m.Addr.IsValid() && !m.Addr.IsUnspecified() && !m.Addr.IsMulticast()
}

// idOf makes an id of 16 bytes out of names (RFC 7865 section 6.10).
func idOf(names ...string) string {
	h := sha256.Sum256([]byte(strings.Join(names, "\x00")))
	return base64.StdEncoding.EncodeToString(h[:16])
}

// metadata is a snapshot of the call (RFC 7865).
func (f *Fork) metadata(since time.Time) *siprec.Metadata {
	s := &f.session
	id := func(names ...string) string { return idOf(append([]string{s.ID}, names...)...) }
	parties, _, _ := f.state()
	m := &siprec.Metadata{
		Mode:       siprec.Complete,
		Sessions:   []siprec.Session{{ID: id("session"), Start: s.Start}},
		Recordings: []siprec.SessionRecording{{Session: id("session"), Associate: since}},
	}
	for i, label := range labels {
		m.Streams = append(m.Streams, siprec.Stream{ID: id("stream", label), Session: id("session"), Label: label})
		for _, p := range f.present(media.Side(i), parties) {
			who := id("participant", label, p.URI, p.Name)
			m.Participants = append(m.Participants, siprec.Participant{ID: who, Names: []siprec.NameID{{AOR: p.URI, Name: p.Name}}})
			m.Memberships = append(m.Memberships, siprec.ParticipantSession{Participant: who, Session: id("session"), Associate: since})
			m.Flows = append(m.Flows, siprec.ParticipantStream{
				Participant: who, Send: []string{id("stream", label)}, Recv: []string{id("stream", labels[1-i])},
			})
		}
	}
	return m
}

// present returns the participants of a side: agents where call state names them.
func (f *Fork) present(side media.Side, agents []string) (out []media.Participant) {
	if side == media.Internal {
		for _, name := range agents {
			if strings.Contains(name, ":") {
				out = append(out, media.Participant{Side: side, URI: name})
				continue
			}
			out = append(out, media.Participant{Side: side, URI: "sip:" + name, Name: name})
		}
		if len(out) > 0 {
			return out
		}
	}
	for _, p := range f.session.Parties {
		if p.Side == side {
			out = append(out, p)
		}
	}
	return out
}

const boundary = "trunktap-recording-session"

// body joins a description and metadata (RFC 7866 section 9.1). Neither holds
// the boundary: both are of ours, and what they quote has no line of that kind.
func body(description, metadata []byte) (contentType string, out []byte) {
	var b strings.Builder
	fmt.Fprintf(&b, "--%s\r\nContent-Type: application/sdp\r\n\r\n%s\r\n", boundary, description)
	fmt.Fprintf(&b, "--%s\r\nContent-Type: %s\r\nContent-Disposition: %s\r\n\r\n%s\r\n--%s--\r\n",
		boundary, siprec.TypeMetadata, siprec.Disposition, metadata, boundary)
	return "multipart/mixed;boundary=" + boundary, []byte(b.String())
}

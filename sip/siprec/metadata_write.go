package siprec

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"time"
)

// Append writes the document in the form of RFC 7865 section 10 behind dst.
// Objects without an id are left out, for nothing can refer to them. Extensions are
// written as they stood, with their prefixes declared at the root, unless they are not
// well-formed.
func (m *Metadata) Append(dst []byte) []byte {
	w := &writer{}
	w.open("recording", append([]string{"xmlns", Namespace}, m.declarations()...)...)
	mode := m.Mode
	if mode == "" {
		mode = Complete
	}
	w.leaf("datamode", string(mode))
	for _, g := range m.Groups {
		w.group(g)
	}
	for _, s := range m.Sessions {
		w.session(s)
	}
	for _, p := range m.Participants {
		w.participant(p)
	}
	for _, s := range m.Streams {
		w.stream(s)
	}
	for _, a := range m.Recordings {
		w.open("sessionrecordingassoc", "session_id", a.Session)
		w.times("associate-time", a.Associate, "disassociate-time", a.Disassociate)
		w.extensions(a.Extensions)
		w.shut("sessionrecordingassoc")
	}
	for _, a := range m.Memberships {
		w.membership(a)
	}
	for _, a := range m.Flows {
		w.flow(a)
	}
	w.extensions(m.Extensions)
	w.shut("recording")
	return append(append(dst, xml.Header...), w.out.Bytes()...)
}

// AppendSnapshotRequest writes the body by which a server asks for a snapshot
// (RFC 7866 section 9.2).
func AppendSnapshotRequest(dst []byte, r SnapshotRequest) []byte {
	w := &writer{}
	w.open("requestsnapshot", "xmlns", Namespace)
	if r.Reason != "" {
		w.leaf("requestreason", r.Reason, "xml:lang", r.Lang)
	}
	w.shut("requestsnapshot")
	return append(append(dst, xml.Header...), w.out.Bytes()...)
}

func (m *Metadata) declarations() []string {
	var out []string
	for _, p := range m.Prefixes {
		if p.Name != "" && p.URI != "" && p.Name != "xml" && p.Name != "xmlns" {
			out = append(out, "xmlns:"+p.Name, p.URI)
		}
	}
	return out
}

// writer writes elements; empty values and attributes are left out.
type writer struct{ out bytes.Buffer }

func (w *writer) open(name string, attrs ...string) {
	w.tag(name, attrs)
	w.out.WriteString(">")
	if name == "recording" {
		w.out.WriteByte('\n')
	}
}

func (w *writer) tag(name string, attrs []string) {
	w.out.WriteString("<" + name)
	for i := 0; i+1 < len(attrs); i += 2 {
		if attrs[i+1] != "" {
			w.out.WriteString(" " + attrs[i] + `="` + escape(attrs[i+1]) + `"`)
		}
	}
}

func (w *writer) shut(name string) { w.out.WriteString("</" + name + ">\n") }

func (w *writer) leaf(name, text string, attrs ...string) {
	if text == "" {
		return
	}
	w.tag(name, attrs)
	w.out.WriteString(">" + escape(text))
	w.shut(name)
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder does not fail
	return b.String()
}

func (w *writer) times(from string, a time.Time, to string, b time.Time) {
	for _, t := range []struct {
		name string
		at   time.Time
	}{{from, a}, {to, b}} {
		if !t.at.IsZero() {
			w.leaf(t.name, t.at.Round(0).UTC().Format(time.RFC3339Nano))
		}
	}
}

func (w *writer) extensions(list []Extension) {
	for _, e := range list {
		if wellFormed(e.XML) {
			w.out.WriteString(e.XML)
			w.out.WriteByte('\n')
		}
	}
}

func (w *writer) group(g Group) {
	if g.ID == "" {
		return
	}
	w.open("group", "group_id", g.ID)
	w.times("associate-time", g.Associate, "disassociate-time", g.Disassociate)
	w.extensions(g.Extensions)
	w.shut("group")
}

func (w *writer) session(s Session) {
	if s.ID == "" {
		return
	}
	w.open("session", "session_id", s.ID)
	for _, id := range s.SIPSessionIDs {
		w.leaf("sipSessionID", id)
	}
	for _, r := range s.Reasons {
		w.leaf("reason", r.Text, "protocol", r.Protocol)
	}
	w.leaf("group-ref", s.GroupRef)
	w.times("start-time", s.Start, "stop-time", s.Stop)
	w.extensions(s.Extensions)
	w.shut("session")
}

func (w *writer) participant(p Participant) {
	if p.ID == "" {
		return
	}
	w.open("participant", "participant_id", p.ID)
	for i := 0; i < len(p.Names); {
		aor := p.Names[i].AOR
		w.open("nameID", "aor", aor)
		for ; i < len(p.Names) && p.Names[i].AOR == aor; i++ {
			w.leaf("name", p.Names[i].Name, "xml:lang", p.Names[i].Lang)
		}
		w.shut("nameID")
	}
	w.extensions(p.Extensions)
	w.shut("participant")
}

func (w *writer) stream(s Stream) {
	if s.ID == "" {
		return
	}
	w.open("stream", "stream_id", s.ID, "session_id", s.Session)
	w.leaf("label", s.Label)
	w.leaf("content-type", s.ContentType)
	if s.Mixed {
		w.leaf("mode", "mixed")
	}
	w.extensions(s.Extensions)
	w.shut("stream")
}

func (w *writer) membership(a ParticipantSession) {
	w.open("participantsessionassoc", "participant_id", a.Participant, "session_id", a.Session)
	w.times("associate-time", a.Associate, "disassociate-time", a.Disassociate)
	for _, v := range a.Params {
		w.tag("param", []string{"pname", v.Name, "pval", v.Text})
		w.out.WriteString("/>\n")
	}
	w.extensions(a.Extensions)
	w.shut("participantsessionassoc")
}

func (w *writer) flow(a ParticipantStream) {
	w.open("participantstreamassoc", "participant_id", a.Participant)
	for _, id := range a.Send {
		w.leaf("send", id)
	}
	for _, id := range a.Recv {
		w.leaf("recv", id)
	}
	w.times("associate-time", a.Associate, "disassociate-time", a.Disassociate)
	w.extensions(a.Extensions)
	w.shut("participantstreamassoc")
}

// wellFormed says whether an element of a lenient document may stand in a strict one.
func wellFormed(element string) bool {
	if element == "" {
		return false
	}
	d := xml.NewDecoder(strings.NewReader(element))
	for {
		if _, err := d.Token(); err != nil {
			return errors.Is(err, io.EOF)
		}
	}
}

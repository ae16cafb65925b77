package siprec

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Parse reads a document of recording metadata, or a request for a snapshot. It is
// lenient: namespaces and the case of names do not matter, associations may stand
// inside the participant as drafts before RFC 7865 had them, unknown elements are
// kept, and a document that breaks off gives what was read of it, with a fault.
//
// Errors are ErrNotMetadata, ErrTooLarge and ErrEntities, wrapped.
func Parse(body []byte) (*Metadata, error) {
	root, fault, err := tree(body)
	if err != nil {
		return nil, err
	}
	m := &Metadata{}
	if fault != "" {
		m.fault(fault)
	}
	switch fold(root.name) {
	case "recording", "recordingmetadata", "recordingsession":
	case "requestsnapshot":
		m.SnapshotRequest = snapshotRequest(root)
		return m, nil
	default:
		return nil, fmt.Errorf("%w: the root element is not recording", ErrNotMetadata)
	}
	p := parser{m: m}
	p.prefixes(root)
	p.mode(root.attr("datamode"))
	for _, n := range root.kids {
		p.element(n)
	}
	p.orphans()
	return m, nil
}

func snapshotRequest(n *node) *SnapshotRequest {
	r := &SnapshotRequest{}
	for _, k := range n.kids {
		if fold(k.name) == "requestreason" {
			r.Reason, r.Lang = clip(k.text), k.attr("lang")
		}
	}
	return r
}

// parser fills a document from the children of its root.
type parser struct{ m *Metadata }

func (p *parser) element(n *node) {
	switch fold(n.name) {
	case "datamode":
		p.mode(n.text)
	case "group":
		take(p, &p.m.Groups, n, group(p, n))
	case "session":
		take(p, &p.m.Sessions, n, session(p, n))
	case "participant":
		p.participant(n)
	case "stream":
		take(p, &p.m.Streams, n, stream(p, n))
	case "sessionrecordingassoc":
		take(p, &p.m.Recordings, n, sessionRecording(p, n))
	case "participantsessionassoc":
		take(p, &p.m.Memberships, n, participantSession(p, n))
	case "participantstreamassoc":
		take(p, &p.m.Flows, n, participantStream(p, n))
	case "requestsnapshot":
		p.m.SnapshotRequest = snapshotRequest(n)
	default:
		take(p, &p.m.Extensions, n, n.extension())
	}
}

// take appends an object unless there are too many of its kind.
func take[T any](p *parser, list *[]T, n *node, v T) {
	if len(*list) >= metadataItemsMax {
		p.m.fault(fmt.Sprintf("more than %d elements %q", metadataItemsMax, printable(n.name)))
		return
	}
	*list = append(*list, v)
}

// printable bounds a name for a fault.
func printable(name string) string {
	return strings.ToValidUTF8(name[:min(len(name), 40)], "")
}

func (p *parser) mode(text string) {
	switch fold(strings.TrimSpace(text)) {
	case "":
	case "complete", "full", "snapshot":
		p.m.Mode = Complete
	case "partial", "update", "incremental":
		p.m.Mode = Partial
	default:
		p.m.fault("datamode is neither complete nor partial")
	}
}

// prefixes notes namespace declarations, those of n and below.
func (p *parser) prefixes(n *node) {
	for _, a := range n.attrs {
		if a.Name.Space != "xmlns" || len(p.m.Prefixes) >= metadataItemsMax {
			continue
		}
		known := slices.ContainsFunc(p.m.Prefixes, func(x Prefix) bool { return x.Name == a.Name.Local })
		if !known {
			p.m.Prefixes = append(p.m.Prefixes, Prefix{a.Name.Local, clip(a.Value)})
		}
	}
	for _, k := range n.kids {
		p.prefixes(k)
	}
}

func group(p *parser, n *node) Group {
	g := Group{ID: n.id("groupid", "id")}
	for _, k := range n.kids {
		if !p.times(k, &g.Associate, &g.Disassociate) && !isID(k, "group") {
			take(p, &g.Extensions, k, k.extension())
		}
	}
	return g
}

func session(p *parser, n *node) Session {
	s := Session{ID: n.id("sessionid", "id")}
	for _, k := range n.kids {
		switch fold(k.name) {
		case "sipsessionid":
			take(p, &s.SIPSessionIDs, k, clip(k.text))
		case "reason":
			take(p, &s.Reasons, k, Reason{k.attr("protocol"), clip(k.text)})
		case "groupref", "group":
			s.GroupRef = clip(k.text)
		default:
			if !p.times(k, &s.Start, &s.Stop) && !isID(k, "session") {
				take(p, &s.Extensions, k, k.extension())
			}
		}
	}
	return s
}

// participant reads a participant together with the associations that drafts
// before RFC 7865 wrote into it.
func (p *parser) participant(n *node) {
	x := Participant{ID: n.id("participantid", "id")}
	in := ParticipantSession{Participant: x.ID, Session: n.attr("sessionid", "session")}
	flow := ParticipantStream{Participant: x.ID}
	for _, k := range n.kids {
		switch fold(k.name) {
		case "nameid":
			p.names(&x, k)
		case "aor":
			alone(&x).AOR = clip(k.text)
		case "name":
			alone(&x).Name = clip(k.text)
		case "session", "sessionid":
			in.Session = clip(k.text)
		case "send":
			take(p, &flow.Send, k, clip(k.text))
		case "recv", "receive":
			take(p, &flow.Recv, k, clip(k.text))
		default:
			if !p.times(k, &in.Associate, &in.Disassociate) && !isID(k, "participant") {
				take(p, &x.Extensions, k, k.extension())
			}
		}
	}
	take(p, &p.m.Participants, n, x)
	if in.Session != "" && !in.Associate.IsZero() || !in.Disassociate.IsZero() {
		take(p, &p.m.Memberships, n, in)
	}
	if len(flow.Send)+len(flow.Recv) > 0 {
		flow.Associate, flow.Disassociate = in.Associate, in.Disassociate
		take(p, &p.m.Flows, n, flow)
	}
}

// alone returns the name of a participant whose aor and name stand beside each other.
func alone(x *Participant) *NameID {
	if len(x.Names) == 0 {
		x.Names = append(x.Names, NameID{})
	}
	return &x.Names[0]
}

func (p *parser) names(x *Participant, n *node) {
	aor := n.attr("aor")
	if aor == "" {
		aor = n.kid("aor")
	}
	before := len(x.Names)
	for _, k := range n.kids {
		if fold(k.name) == "name" {
			take(p, &x.Names, k, NameID{AOR: aor, Name: clip(k.text), Lang: k.attr("lang")})
		}
	}
	if len(x.Names) == before {
		take(p, &x.Names, n, NameID{AOR: aor})
	}
}

func stream(p *parser, n *node) Stream {
	s := Stream{ID: n.id("streamid", "id"), Session: n.attr("sessionid", "session")}
	for _, k := range n.kids {
		switch fold(k.name) {
		case "label":
			s.Label = clip(k.text)
		case "contenttype":
			s.ContentType = clip(k.text)
		case "mode":
			s.Mixed = strings.EqualFold(k.text, "mixed")
		case "session", "sessionid":
			s.Session = clip(k.text)
		case "associatetime", "disassociatetime", "starttime", "stoptime", "id", "streamid":
		default:
			take(p, &s.Extensions, k, k.extension())
		}
	}
	if s.Label == "" {
		s.Label = n.attr("label")
	}
	return s
}

func sessionRecording(p *parser, n *node) SessionRecording {
	a := SessionRecording{Session: n.id("sessionid", "session")}
	for _, k := range n.kids {
		if !p.times(k, &a.Associate, &a.Disassociate) && !isID(k, "session") {
			take(p, &a.Extensions, k, k.extension())
		}
	}
	return a
}

func participantSession(p *parser, n *node) ParticipantSession {
	a := ParticipantSession{Participant: n.id("participantid", "participant"), Session: n.id("sessionid", "session")}
	for _, k := range n.kids {
		if fold(k.name) == "param" {
			take(p, &a.Params, k, Value{clip(k.id("pname")), clip(k.id("pval"))})
			continue
		}
		if !p.times(k, &a.Associate, &a.Disassociate) && !isID(k, "session") && !isID(k, "participant") {
			take(p, &a.Extensions, k, k.extension())
		}
	}
	return a
}

func participantStream(p *parser, n *node) ParticipantStream {
	a := ParticipantStream{Participant: n.id("participantid", "participant")}
	for _, k := range n.kids {
		switch fold(k.name) {
		case "send":
			take(p, &a.Send, k, clip(k.text))
		case "recv", "receive":
			take(p, &a.Recv, k, clip(k.text))
		default:
			if !p.times(k, &a.Associate, &a.Disassociate) && !isID(k, "participant") {
				take(p, &a.Extensions, k, k.extension())
			}
		}
	}
	a.Send, a.Recv = filled(a.Send), filled(a.Recv)
	return a
}

// filled leaves out ids without text: some clients write an empty send to say that
// nothing is sent.
func filled(ids []string) []string {
	return slices.DeleteFunc(ids, func(id string) bool { return id == "" })
}

// isID says whether a child is the id of its object, written as an element.
func isID(k *node, kind string) bool {
	switch fold(k.name) {
	case "id", kind, kind + "id":
		return true
	}
	return false
}

// times takes a child that is a time and says whether it was one. A start is to a
// session what an association is to the rest.
func (p *parser) times(k *node, from, to *time.Time) bool {
	switch fold(k.name) {
	case "associatetime", "starttime", "participantstarttime":
		p.time(k, from)
	case "disassociatetime", "stoptime", "endtime", "participantstoptime":
		p.time(k, to)
	default:
		return false
	}
	return true
}

// timeLayouts are the spellings that clients use; without a zone it is UTC.
var timeLayouts = []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999Z0700", "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999"}

func (p *parser) time(k *node, out *time.Time) {
	for _, layout := range timeLayouts {
		if t, err := time.Parse(layout, k.text); err == nil {
			*out = t
			return
		}
	}
	if k.text != "" {
		p.m.fault(fmt.Sprintf("element %q: not a time of RFC 3339", printable(k.name)))
	}
}

// orphans notes objects without an id, which nothing can refer to.
func (p *parser) orphans() {
	for _, x := range p.m.Participants {
		if x.ID == "" {
			p.m.fault("a participant has no id")
		}
	}
	for _, s := range p.m.Streams {
		if s.ID == "" {
			p.m.fault("a stream has no id")
		}
	}
}

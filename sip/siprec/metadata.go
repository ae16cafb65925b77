package siprec

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
	"time"
)

// Namespace is the XML namespace of recording metadata (RFC 7865 section 10).
const Namespace = "urn:ietf:params:xml:ns:recording:1"

// Media types and the content disposition of RFC 7866 sections 9 and 13.
const (
	TypeMetadata        = "application/rs-metadata+xml"
	TypeMetadataRequest = "application/rs-metadata-request"
	Disposition         = "recording-session"
)

// Limits of a metadata document. What is beyond a limit of counts is left out and
// noted as a fault; a document beyond the others is refused.
const (
	MetadataBytesMax  = 256 << 10
	metadataDepthMax  = 24
	metadataNodesMax  = 8192
	metadataItemsMax  = 256 // of one kind: participants, streams, ...
	metadataFaultsMax = 16
	metadataValueMax  = 1024 // bytes of an id, a name, an address or a label
)

// Errors of Parse that callers branch on.
var (
	ErrNotMetadata = errors.New("not recording metadata")
	ErrTooLarge    = errors.New("recording metadata beyond its limits")
	ErrEntities    = errors.New("recording metadata with a document type declaration")
)

// DataMode says whether a document is everything or what has changed (RFC 7865
// section 6.1.1).
type DataMode string

// Data modes. The zero value: the document does not say.
const (
	Complete DataMode = "complete"
	Partial  DataMode = "partial"
)

// Metadata is one document, or the snapshot that documents have added up to. The
// zero value is an empty one. It is a plain value; whoever holds it owns it.
type Metadata struct {
	Mode            DataMode
	Groups          []Group
	Sessions        []Session
	Participants    []Participant
	Streams         []Stream
	Recordings      []SessionRecording
	Memberships     []ParticipantSession
	Flows           []ParticipantStream
	SnapshotRequest *SnapshotRequest // the document asks for a snapshot (RFC 7866 section 9.2)

	// Extensions are elements directly below recording that are not of RFC 7865.
	Extensions []Extension
	// Prefixes are namespace prefixes that extensions may use.
	Prefixes []Prefix
	// Faults say in words what could not be understood and was left out. They
	// name elements and positions, never values.
	Faults []string
}

// Prefix is a namespace declaration.
type Prefix struct{ Name, URI string }

// Extension is an element that is not of RFC 7865, verbatim.
type Extension struct {
	Name   string // local name
	XML    string // the element as it stood
	Values []Value
}

// Value is an element with text and without elements in it, somewhere in an
// extension.
type Value struct{ Name, Text string }

// Group is a communication session group (RFC 7865 section 6.2).
type Group struct {
	ID                      string
	Associate, Disassociate time.Time
	Extensions              []Extension
}

// Session is a communication session (section 6.3).
type Session struct {
	ID            string
	SIPSessionIDs []string // RFC 7989: "local;remote=..."
	Reasons       []Reason // why it ended
	GroupRef      string
	Start, Stop   time.Time
	Extensions    []Extension
}

// Reason is why a session ended, in the words of RFC 3326.
type Reason struct{ Protocol, Text string }

// Participant is a party (section 6.5).
type Participant struct {
	ID         string
	Names      []NameID
	Extensions []Extension
}

// NameID is an address-of-record with the names that go with it.
type NameID struct {
	AOR  string
	Name string
	Lang string // xml:lang of the name
}

// Stream is a media stream of the recording session (section 6.7).
type Stream struct {
	ID          string
	Session     string // id of its session; may be empty
	Label       string // a=label of its m= line (RFC 4574)
	ContentType string
	Mixed       bool // older drafts: mode mixed
	Extensions  []Extension
}

// SessionRecording associates a session with the recording session (section 6.4).
type SessionRecording struct {
	Session                 string
	Associate, Disassociate time.Time
	Extensions              []Extension
}

// ParticipantSession associates a participant with a session (section 6.6).
type ParticipantSession struct {
	Participant, Session    string
	Associate, Disassociate time.Time
	Params                  []Value // param: pname and pval
	Extensions              []Extension
}

// ParticipantStream associates a participant with the streams that it contributes
// to and receives (section 6.8).
type ParticipantStream struct {
	Participant             string
	Send, Recv              []string // ids of streams
	Associate, Disassociate time.Time
	Extensions              []Extension
}

// SnapshotRequest is a request of the server for a snapshot (RFC 7866 section 9.2).
type SnapshotRequest struct{ Reason, Lang string }

// Left says whether the participant is no longer in the session.
func (p ParticipantSession) Left() bool { return !p.Disassociate.IsZero() }

// AOR returns the participant's first address, "" without one.
func (p Participant) AOR() string {
	for _, n := range p.Names {
		if n.AOR != "" {
			return n.AOR
		}
	}
	return ""
}

// Name returns the participant's first name, "" without one.
func (p Participant) Name() string {
	for _, n := range p.Names {
		if n.Name != "" {
			return n.Name
		}
	}
	return ""
}

// Value returns the text of the first element of that local name in the
// participant's extensions, and whether there is one.
func (p Participant) Value(name string) (string, bool) { return valueOf(p.Extensions, name) }

func valueOf(list []Extension, name string) (string, bool) {
	for _, e := range list {
		for _, v := range e.Values {
			if strings.EqualFold(v.Name, name) {
				return v.Text, true
			}
		}
	}
	return "", false
}

// SameID says whether two ids name one object: ids are base64 of a UUID (RFC 7865
// section 6.10), but some clients write the UUID itself, as a URN or in braces.
func SameID(a, b string) bool { return a == b || idKey(a) == idKey(b) }

// idKey is the form of an id by which it is compared.
func idKey(id string) string {
	s := strings.TrimSpace(id)
	if len(s) > 9 && strings.EqualFold(s[:9], "urn:uuid:") {
		s = s[9:]
	}
	s = strings.Trim(s, "{}")
	if u := uuidHex(s); u != "" {
		return u
	}
	if b := uuidBase64(s); b != "" {
		return b
	}
	return s
}

func uuidHex(s string) string {
	if len(s) == 36 && s[8] == '-' && s[13] == '-' && s[18] == '-' && s[23] == '-' {
		s = strings.ReplaceAll(s, "-", "")
	}
	if len(s) != 32 {
		return ""
	}
	if _, err := hex.DecodeString(s); err != nil {
		return ""
	}
	return "uuid:" + strings.ToLower(s)
}

func uuidBase64(s string) string {
	s = strings.TrimRight(s, "=")
	if len(s) != 22 {
		return ""
	}
	s = strings.NewReplacer("-", "+", "_", "/").Replace(s)
	raw, err := base64.RawStdEncoding.DecodeString(s)
	if err != nil || len(raw) != 16 {
		return ""
	}
	return "uuid:" + hex.EncodeToString(raw)
}

// Participant returns the participant of that id.
func (m *Metadata) Participant(id string) (Participant, bool) {
	for _, p := range m.Participants {
		if SameID(p.ID, id) {
			return p, true
		}
	}
	return Participant{}, false
}

// Stream returns the stream of that id.
func (m *Metadata) Stream(id string) (Stream, bool) {
	for _, s := range m.Streams {
		if SameID(s.ID, id) {
			return s, true
		}
	}
	return Stream{}, false
}

// Labelled returns the stream with that label.
func (m *Metadata) Labelled(label string) (Stream, bool) {
	for _, s := range m.Streams {
		if s.Label == label && label != "" {
			return s, true
		}
	}
	return Stream{}, false
}

// Senders returns the participants that contribute to a stream at the moment, in
// the order of the document. More than one: the stream is mixed.
func (m *Metadata) Senders(stream string) []Participant {
	var out []Participant
	for _, p := range m.Participants {
		if !m.Left(p.ID) && m.flows(p.ID, stream, func(f ParticipantStream) []string { return f.Send }) {
			out = append(out, p)
		}
	}
	return out
}

func (m *Metadata) flows(participant, stream string, of func(ParticipantStream) []string) bool {
	for _, f := range m.Flows {
		if !SameID(f.Participant, participant) || !f.Disassociate.IsZero() {
			continue
		}
		for _, id := range of(f) {
			if SameID(id, stream) {
				return true
			}
		}
	}
	return false
}

// Left says whether a participant was in sessions and is in none any more.
func (m *Metadata) Left(participant string) bool {
	left := false
	for _, a := range m.Memberships {
		if SameID(a.Participant, participant) {
			if !a.Left() {
				return false
			}
			left = true
		}
	}
	return left
}

// Empty says whether the document tells of nothing.
func (m *Metadata) Empty() bool {
	return len(m.Groups)+len(m.Sessions)+len(m.Participants)+len(m.Streams)+len(m.Recordings)+
		len(m.Memberships)+len(m.Flows)+len(m.Extensions) == 0
}

func (m *Metadata) fault(text string) {
	if len(m.Faults) < metadataFaultsMax {
		m.Faults = append(m.Faults, text)
	}
}

package recorder

import (
	"slices"
	"strings"
	"time"

	"github.com/trunktap/trunktap/media"
)

// Limits of what the signalling tells beside audio and signals.
const (
	labelsMax        = 128      // of a recording
	rawBytesMax      = 64 << 10 // of all raw metadata of a recording
	rawDocumentsMax  = 64
	metadataWhyMax   = 512 // bytes
	labelBytesMax    = 128
	labelPartiesMax  = 16
	metadataTypeMax  = 128
	metadataPartsMax = 256 // bytes of a party's address
)

// Label tells of one stream of a recording session from some time on. A stream
// that is listed again is what it says there from then on.
type Label struct {
	AtMS    int64    `json:"real_ms"`           // negative: before the origin
	Label   string   `json:"label"`             // of the m= line, empty when it has none
	Channel int      `json:"channel"`           // where it is heard
	SideBy  string   `json:"side_by"`           // how its side was found; "unknown": nobody could tell
	Mixed   bool     `json:"mixed,omitempty"`   // several parties are heard in it
	Parties []string `json:"parties,omitempty"` // their addresses
}

// RawMetadata is a document of the signalling as it came.
type RawMetadata struct {
	At      time.Time `json:"at"`
	Type    string    `json:"type,omitempty"`
	Text    string    `json:"text"`               // what is no UTF-8 is replaced
	Why     string    `json:"why,omitempty"`      // what of it was not understood
	LeftOut int       `json:"left_out,omitempty"` // bytes at its end for which there was no room
}

// documents is what the signalling told of a call, for all of its recordings.
// Entries are added and never changed.
type documents struct {
	labels []callLabel
	raw    []RawMetadata
	bytes  int // of raw
}

type callLabel struct {
	at   int64 // ns
	side media.Side
	Label
}

// Metadata implements media.MetadataTap.
func (s *session) Metadata(m media.Metadata) {
	s.enqueue(control{at: m.At, kind: controlMetadata, doc: m})
}

// metadata keeps a document.
func (c *core) metadata(m media.Metadata) {
	if c.ended {
		return
	}
	d := &c.docs
	room := rawBytesMax - d.bytes
	if len(d.raw) >= rawDocumentsMax || room <= 0 {
		c.refuse("raw_metadata")
		return
	}
	text := strings.ToValidUTF8(string(m.Body), "\uFFFD")
	x := RawMetadata{At: m.At.UTC().Round(0), Type: cut(m.Type, metadataTypeMax), Text: cut(text, room), Why: cut(m.Why, metadataWhyMax)}
	x.LeftOut = len(text) - len(x.Text)
	d.raw = append(d.raw, x)
	d.bytes += len(x.Text)
	c.dirty()
}

// cut bounds a text.
func cut(s string, bytesMax int) string {
	if len(s) <= bytesMax {
		return s
	}
	return strings.ToValidUTF8(s[:bytesMax], "")
}

// labelled notes where a stream of a recording session is heard.
func (c *core) labelled(s media.Stream) {
	if s.SideBy == "" {
		return
	}
	x := callLabel{at: c.ns(s.At), side: s.Side, Label: Label{Label: cut(s.Label, labelBytesMax), SideBy: cut(s.SideBy, labelBytesMax), Mixed: s.Mixed}}
	for _, p := range s.Parties[:min(len(s.Parties), labelPartiesMax)] {
		x.Parties = append(x.Parties, cut(p.URI, metadataPartsMax))
	}
	d := &c.docs
	for i := len(d.labels) - 1; i >= 0; i-- {
		if l := &d.labels[i]; l.Label.Label == x.Label.Label {
			if l.side == x.side && l.SideBy == x.SideBy && l.Mixed == x.Mixed && slices.Equal(l.Parties, x.Parties) {
				return
			}
			break
		}
	}
	if len(d.labels) >= labelsMax {
		c.refuse("labels")
		return
	}
	d.labels = append(d.labels, x)
	c.dirty()
}

// dirty makes all recordings write their account soon.
func (c *core) dirty() {
	for _, r := range c.recs {
		r.account.dirty = true
	}
}

// labels lists the streams as this recording has them.
func (r *recording) labels() []Label {
	var out []Label
	for _, l := range r.docs.labels {
		x := l.Label
		x.AtMS, x.Channel = r.realMSOf(l.at), r.channel(l.side)
		if r.plan.Mono {
			x.Channel = 0
		}
		out = append(out, x)
	}
	return out
}

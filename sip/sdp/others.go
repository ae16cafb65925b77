package sdp

import (
	"strings"

	"github.com/trunktap/trunktap/media"
)

// otherFormatsBytesMax bounds what is told of the formats of one m= line.
const otherFormatsBytesMax = 128

// others returns what both sides accept beside audio over RTP; nil is the usual.
func (a *Agreement) others() (list []media.OtherMedia) {
	for i := range min(len(a.Offer.media), len(a.Answer.media)) {
		o, w := &a.Offer.media[i], &a.Answer.media[i]
		if o.Rejected || w.Rejected || w.Kind == "audio" && w.rtp() {
			continue
		}
		list = append(list, media.OtherMedia{Line: i, Kind: w.Kind, Proto: w.Proto, Formats: a.Answer.formatNames(i)})
	}
	return list
}

// formatNames returns the encodings of an m= line over RTP, else the formats that
// it lists.
func (d *Description) formatNames(i int) string {
	m := &d.media[i]
	var names []string
	for _, f := range m.Formats {
		if f.Name != "" {
			names = append(names, f.Name)
		}
	}
	if !m.rtp() {
		_, value := d.field(d.lines[d.parts[i].from])
		names = parseMLine(value).formats
	}
	text := strings.Join(names, ",")
	return strings.ToValidUTF8(text[:min(len(text), otherFormatsBytesMax)], "")
}

package recorder

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/trunktap/trunktap/media"
)

// What a recording session's client tells stands in the manifest: where its streams
// are heard and why, and the documents that were not understood, within a bound.
func TestRecordingSessionIsNamed(t *testing.T) {
	named := func(ms int, side media.Side, by string) step {
		return step{at: at(ms), do: func(c *testCall) {
			c.tap.StreamStarted(media.Stream{
				ID: media.StreamID(side), Side: side, At: at(ms), Formats: g711Formats, Sending: true, Label: "16", SideBy: by,
				Parties: []media.Participant{{URI: "sip:a@b"}},
			})
		}}
	}
	doc := func(ms int, text string) step {
		return step{at: at(ms), do: func(c *testCall) {
			c.tap.(media.MetadataTap).Metadata(media.Metadata{At: at(ms), Type: "application/rs-metadata+xml", Body: []byte(text), Why: "x"})
		}}
	}
	steps := script(answered(2000), talk(media.External, 0, 2000, constant(0x10)), []step{
		named(0, media.Internal, "domain"), named(100, media.Internal, "domain"), named(200, media.Internal, "rule"),
		doc(0, "<recording>\xff"), doc(10, strings.Repeat("a", rawBytesMax)), doc(20, "too much"),
	})
	_, m := replayed(t, testPlan(), steps)
	if len(m.Labels) != 2 || m.Labels[0].SideBy != "domain" || m.Labels[1].AtMS != 200 || m.Labels[1].Channel != 1 || m.Labels[1].Parties[0] != "sip:a@b" {
		t.Errorf("labels %+v", m.Labels)
	}
	if len(m.RawMetadata) != 2 || m.RawMetadata[0].Text != "<recording>\uFFFD" || m.RawMetadata[1].LeftOut == 0 || m.Refused["raw_metadata"] != 1 {
		t.Fatalf("%d documents, refused %v", len(m.RawMetadata), m.Refused)
	}
	total := 0
	for _, d := range m.RawMetadata {
		total += len(d.Text)
		if !utf8.ValidString(d.Text) {
			t.Error("a document is cut within a rune")
		}
	}
	if total != rawBytesMax {
		t.Errorf("%d bytes are kept", total)
	}
}

func TestCutKeepsRunes(t *testing.T) {
	for s, want := range map[string]string{"abc": "abc", "abcd": "abc", "abä": "ab", "äbc": "äb"} {
		if got := cut(s, 3); got != want {
			t.Errorf("cut(%q, 3) = %q, want %q", s, got, want)
		}
	}
}

func TestStreamsOfTrunksHaveNoLabels(t *testing.T) {
	_, m := replayed(t, testPlan(), script(answered(200)))
	if m.Labels != nil || m.RawMetadata != nil {
		t.Errorf("%+v %+v", m.Labels, m.RawMetadata)
	}
}

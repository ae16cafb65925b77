package recorder

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What the signalling of a recording session told before a restart stays, and what is
// told again of it is no news.
func TestStitchTellings(t *testing.T) {
	label := func(ms int64, name string, channel int, party string) Label {
		return Label{AtMS: ms, Label: name, Channel: channel, SideBy: "domain", Parties: []string{party}}
	}
	before := &Manifest{RealMS: 1000, Labels: []Label{label(0, "1", 0, "a"), label(0, "2", 1, "b"), label(0, "", 0, "c"), label(0, "", 1, "d")}, RawMetadata: []RawMetadata{{Text: "one"}}}
	after := &Manifest{
		RealMS:      500,
		Labels:      []Label{label(10, "1", 0, "a"), label(10, "2", 1, "b"), label(10, "", 0, "c"), label(10, "", 1, "d"), label(200, "2", 1, "e"), label(300, "2", 1, "b")},
		RawMetadata: []RawMetadata{{Text: "two"}, {Text: strings.Repeat("x", rawBytesMax)}},
	}
	m := Stitch(before, after)
	if diff := cmp.Diff(append(before.Labels[:4:4], label(1200, "2", 1, "e"), label(1300, "2", 1, "b")), m.Labels); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]RawMetadata{{Text: "one"}, {Text: "two"}}, m.RawMetadata); diff != "" {
		t.Error(diff)
	}
}

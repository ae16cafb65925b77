package recorder

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/media"
)

func besideAt(ms int, all ...media.OtherMedia) step {
	t := at(ms)
	return step{at: t, do: func(c *testCall) { c.tap.(media.MediaTap).OtherMedia(t, all) }}
}

// anew is talk of a sender that begins again.
func anew(side media.Side, fromMS, toMS int) (out []step) {
	for ms, n := fromMS, 0; ms < toMS; ms, n = ms+20, n+1 {
		t, wire := at(ms), packet(0, uint16(n), uint32(160*n), 0x2000+uint32(side), bytes.Repeat([]byte{0x30}, 160))
		out = append(out, step{at: t, do: func(c *testCall) { c.put(side, t, wire) }})
	}
	return out
}

// TestFaxInTheCallIsNamed: a call that becomes a fax and audio again. While no audio
// is agreed nothing is missing, so that time is no gap, least of all a loss.
func TestFaxInTheCallIsNamed(t *testing.T) {
	fax := media.OtherMedia{Kind: "image", Proto: "udptl", Formats: "t38"}
	video := media.OtherMedia{Line: 1, Kind: "video", Proto: "RTP/AVP", Formats: "H264,VP8"}
	sides := []media.Side{media.External, media.Internal}
	ended := step{at: at(1000), do: func(c *testCall) {
		for _, side := range sides {
			c.tap.StreamEnded(media.StreamID(side), at(1000))
		}
	}}
	again := step{at: at(3000), do: func(c *testCall) {
		for _, side := range sides {
			c.stream(side, at(3000), true)
		}
	}}
	parts := [][]step{answered(5000), {ended, besideAt(1000, fax), besideAt(3000), again, besideAt(4000, video)}}
	for _, side := range sides {
		parts = append(parts, talk(side, 0, 1000, constant(0x30)), anew(side, 3000, 5000))
	}
	sink, m := replayed(t, testPlan(), script(parts...))
	checkAccount(t, m, sink)
	if len(m.Gaps) != 0 {
		t.Errorf("gaps %+v", m.Gaps)
	}
	want := []UnrecordedMedia{
		{Kind: "image", Protocol: "udptl", Formats: "t38", RealMS: 1000, EndRealMS: 3000},
		{Kind: "video", Protocol: "RTP/AVP", Formats: "H264,VP8", RealMS: 4000, EndRealMS: 5000},
	}
	if d := cmp.Diff(want, m.UnrecordedMedia); d != "" {
		t.Error(d)
	}
}

func TestOtherMediaIsBounded(t *testing.T) {
	parts := [][]step{answered(1000), talk(media.External, 0, 1000, constant(0x30)), talk(media.Internal, 0, 1000, constant(0x30))}
	for i := range othersMax + 3 {
		parts = append(parts, []step{besideAt(10*i, media.OtherMedia{Kind: "video", Formats: fmt.Sprint(i)})})
	}
	_, m := replayed(t, testPlan(), script(parts...))
	if len(m.UnrecordedMedia) != othersMax || m.Refused["unrecorded_media"] != 3 {
		t.Errorf("%d are listed, refused %v", len(m.UnrecordedMedia), m.Refused)
	}
}

package sdp

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/suppress"
)

// say makes a description of a side out of a word: a direction, "zero" for the
// zero address (with a direction after a blank), "none" without audio.
func say(side media.Side, word string) []byte {
	first, second, _ := strings.Cut(word, " ")
	switch first {
	case "none":
		return []byte(strings.Replace(string(desc(side)), "m=audio", "m=image", 1))
	case "zero":
		b := desc(side, "a="+second)
		return []byte(strings.Replace(string(b), "c=IN IP4 192.0.2.", "c=IN IP4 0.0.0.0\r\nx=", 1))
	}
	return desc(side, "a="+word)
}

func TestHold(t *testing.T) {
	type exchange struct {
		offerer       media.Side
		offer, answer string
		want          string // signals: + begins, - ends, e external, i internal
	}
	start := exchange{ext, "sendrecv", "sendrecv", ""}
	for _, c := range []struct {
		name  string
		steps []exchange
	}{
		{"sendonly and back", []exchange{start, {in, "sendonly", "recvonly", "+i"}, {in, "sendrecv", "sendrecv", "-i"}}},
		{"the external side", []exchange{start, {ext, "sendonly", "recvonly", "+e"}, {ext, "sendrecv", "sendrecv", "-e"}}},
		{"said again", []exchange{start, {in, "sendonly", "recvonly", "+i"}, {in, "sendonly", "recvonly", ""}, {in, "sendrecv", "sendrecv", "-i"}}},
		{"inactive, mirrored", []exchange{start, {in, "inactive", "inactive", "+i"}, {in, "sendrecv", "sendrecv", "-i"}}},
		{"inactive, mirrored, then offered", []exchange{
			start,
			{in, "inactive", "inactive", "+i"},
			{ext, "inactive", "inactive", "+e"},
			{in, "sendrecv", "inactive", "-i"},
			{ext, "sendrecv", "sendrecv", "-e"},
		}},
		{"an answer of inactive to sendonly holds too", []exchange{start, {in, "sendonly", "inactive", "+e+i"}, {in, "sendrecv", "sendonly", "-i"}, {ext, "sendrecv", "sendrecv", "-e"}}},
		{"recvonly, turned round", []exchange{start, {in, "recvonly", "sendonly", "+e"}, {in, "sendrecv", "sendrecv", "-e"}}},
		{"recvonly is no hold of its own", []exchange{start, {in, "recvonly", "sendrecv", ""}}},
		{"zero address", []exchange{start, {in, "zero sendrecv", "sendrecv", "+i"}, {in, "sendrecv", "sendrecv", "-i"}}},
		{"zero address, mirrored", []exchange{start, {in, "zero sendrecv", "zero sendrecv", "+i"}, {in, "sendrecv", "sendrecv", "-i"}}},
		{"zero address and inactive", []exchange{start, {in, "zero inactive", "inactive", "+i"}, {in, "sendrecv", "sendrecv", "-i"}}},
		{"zero address and sendonly leaves the answer a choice", []exchange{start, {in, "zero sendonly", "inactive", "+e+i"}, {in, "sendrecv", "sendrecv", "-e-i"}}},
		{"zero address in an answer", []exchange{start, {in, "sendrecv", "zero sendrecv", "+e"}, {in, "sendrecv", "sendrecv", "-e"}}},
		{"both, the first resumes", []exchange{
			start,
			{in, "sendonly", "recvonly", "+i"},
			{ext, "inactive", "inactive", "+e"},
			{in, "sendrecv", "sendonly", "-i"},
			{ext, "sendrecv", "sendrecv", "-e"},
		}},
		{"both, the second resumes", []exchange{
			start,
			{in, "sendonly", "recvonly", "+i"},
			{ext, "sendonly", "inactive", "+e"},
			{ext, "recvonly", "sendonly", "-e"},
			{in, "sendrecv", "sendrecv", "-i"},
		}},
		{"both at once, both resume", []exchange{start, {in, "sendonly", "inactive", "+e+i"}, {ext, "sendrecv", "sendrecv", "-e-i"}}},
		{"from the first exchange on", []exchange{{ext, "inactive", "inactive", "+e"}, {ext, "sendrecv", "sendrecv", "-e"}}},
		{"no audio changes nothing", []exchange{start, {in, "sendonly", "recvonly", "+i"}, {ext, "none", "none", ""}, {in, "sendrecv", "sendrecv", "-i"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := NewNegotiation()
			for i, s := range c.steps {
				at := epoch.Add(time.Duration(i) * time.Second)
				res := mustExchange(t, n, s.offerer, say(s.offerer, s.offer), say(s.offerer.Other(), s.answer), at)
				if got := letters(t, res.Signals, at); got != s.want {
					t.Fatalf("step %d: %q, want %q", i, got, s.want)
				}
			}
			if n.Holding(ext) || n.Holding(in) {
				t.Error("somebody holds at the end")
			}
		})
	}
}

// letters writes signals in short, and checks their other fields.
func letters(t *testing.T, signals []suppress.Signal, at time.Time) string {
	t.Helper()
	var b strings.Builder
	for _, s := range signals {
		if diff := cmp.Diff(suppress.Signal{V: 1, Event: s.Event, At: at, Source: "sdp", Party: s.Party}, s); diff != "" {
			t.Error(diff)
		}
		if err := s.Validate(); err != nil {
			t.Error(err)
		}
		fmt.Fprintf(&b, "%s%c", map[suppress.Event]string{suppress.HoldStart: "+", suppress.HoldEnd: "-"}[s.Event], s.Party[0])
	}
	return b.String()
}

func TestHoldOfSeveralStreams(t *testing.T) {
	two := func(side media.Side, a, b string) []byte {
		return append(say(side, a), crlf("m=audio 7000 RTP/AVP 0", "a="+b)...)
	}
	n := NewNegotiation()
	if res := mustExchange(t, n, ext, two(ext, "sendonly", "sendrecv"), two(in, "recvonly", "sendrecv"), epoch); len(res.Signals) != 0 || len(res.Streams) != 4 {
		t.Errorf("one stream that goes on is no hold: %+v", res)
	}
	if res := mustExchange(t, n, ext, two(ext, "sendonly", "inactive"), two(in, "recvonly", "inactive"), epoch); letters(t, res.Signals, epoch) != "+e" {
		t.Errorf("both are held: %+v", res.Signals)
	}
	if res := mustExchange(t, n, ext, []byte("v=0"), []byte("v=0"), epoch); !slices.Equal(res.Ended, []media.StreamID{0, 1, 2, 3}) {
		t.Errorf("all ended: %v", res.Ended)
	}
}

func TestHoldInLateOffer(t *testing.T) {
	n := NewNegotiation()
	mustExchange(t, n, ext, desc(ext), desc(in), epoch)
	if err := n.Offer(ext, nil); err != nil { // re-INVITE without description
		t.Fatal(err)
	}
	if res, err := n.Answer(in, say(in, "sendonly"), epoch, false); err != nil || len(res.Signals) > 0 { // 200
		t.Fatalf("%+v %v", res, err)
	}
	res, err := n.Answer(ext, say(ext, "recvonly"), epoch, false) // ACK
	if err != nil || letters(t, res.Signals, epoch) != "+i" {
		t.Errorf("%+v %v", res, err)
	}
}

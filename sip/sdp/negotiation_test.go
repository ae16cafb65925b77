package sdp

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/suppress"
)

const (
	ext = media.External
	in  = media.Internal
)

var epoch = time.Date(2026, 11, 22, 16, 0, 0, 0, time.UTC)

// desc makes the description of a side: 192.0.2.1:4000 or 192.0.2.2:5000, PCMU
// and what the lines add.
func desc(side media.Side, lines ...string) []byte {
	host, port := "192.0.2.1", 4000
	if side == in {
		host, port = "192.0.2.2", 5000
	}
	return []byte(fmt.Sprintf("v=0\r\no=- 1 1 IN IP4 %s\r\ns=-\r\nc=IN IP4 %s\r\nt=0 0\r\nm=audio %d RTP/AVP 0\r\n", host, host, port) + crlf(lines...))
}

func stream(side media.Side, change func(*media.Stream)) media.Stream {
	s := media.Stream{
		ID: media.StreamID(side), Side: side, At: epoch, Formats: []media.Format{pcmu}, Sending: true,
		Source: ap(addr1, 4000), Local: ap(addr2, 5000),
	}
	if side == in {
		s.Source, s.Local = s.Local, s.Source
	}
	if change != nil {
		change(&s)
	}
	return s
}

func mustExchange(t *testing.T, n *Negotiation, offerer media.Side, offer, answer []byte, at time.Time) Result {
	t.Helper()
	if err := n.Offer(offerer, offer); err != nil {
		t.Fatal(err)
	}
	res, err := n.Answer(offerer.Other(), answer, at, false)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func wantResult(t *testing.T, what string, want, got Result) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpAddr); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestStreams(t *testing.T) {
	replace := func(b []byte, old, new string) []byte { return []byte(strings.Replace(string(b), old, new, 1)) }
	dynamic := func(b []byte, pt string) []byte {
		return append(replace(b, "RTP/AVP 0", "RTP/AVP 0 8 "+pt), crlf("a=rtpmap:"+pt+" telephone-event/8000", "a=fmtp:"+pt+" 0-16")...)
	}
	l16 := func(b []byte, types ...string) []byte {
		b = replace(b, "AVP 0", "AVP "+strings.Join(types, " "))
		for _, pt := range types {
			b = append(b, crlf("a=rtpmap:"+pt+" L16/"+map[string]string{"96": "8000", "97": "16000", "98": "16000/2"}[pt])...)
		}
		return b
	}
	opus := func(b []byte, pt, event string) []byte {
		return append(replace(b, "AVP 0", "AVP "+pt+" "+event), crlf("a=rtpmap:"+pt+" opus/48000/2", "a=rtpmap:"+event+" telephone-event/48000")...)
	}
	opusOf := func(pt uint8) media.Format {
		return media.Format{PayloadType: pt, Name: "OPUS", ClockRate: 48000, Channels: 2}
	}
	eventOf := func(pt uint8) media.Format {
		return media.Format{PayloadType: pt, Name: "TELEPHONE-EVENT", ClockRate: 48000, Channels: 1}
	}
	wide := []media.Format{{PayloadType: 97, Name: "L16", ClockRate: 16000, Channels: 1}}
	event96, event101 := event, event
	event96.PayloadType = 96
	for _, c := range []struct {
		name          string
		offer, answer []byte
		want          []media.Stream
	}{
		{"plain", desc(ext), desc(in), []media.Stream{stream(ext, nil), stream(in, nil)}},
		{"payload types of the receiver", dynamic(desc(ext), "96"), replace(dynamic(desc(in), "101"), " 0 8 ", " 8 "), []media.Stream{
			stream(ext, func(s *media.Stream) { s.Formats = []media.Format{pcma, event101} }),
			stream(in, func(s *media.Stream) { s.Formats = []media.Format{pcma, event96} }),
		}},
		{"payload types crossed", opus(desc(ext), "96", "111"), opus(desc(in), "111", "96"), []media.Stream{
			stream(ext, func(s *media.Stream) { s.Formats = []media.Format{opusOf(111), eventOf(96)} }),
			stream(in, func(s *media.Stream) { s.Formats = []media.Format{opusOf(96), eventOf(111)} }),
		}},
		{"events that one side alone announces", dynamic(desc(ext), "101"), desc(in), []media.Stream{
			stream(ext, func(s *media.Stream) { s.Formats = []media.Format{pcmu, event101} }), stream(in, nil),
		}},
		{"an answer of other codecs", replace(desc(ext), "AVP 0", "AVP 8"), desc(in), []media.Stream{
			stream(ext, nil), stream(in, func(s *media.Stream) { s.Formats = []media.Format{pcma} }),
		}},
		{"rates and channels tell codecs apart", l16(desc(ext), "96", "97", "98"), l16(desc(in), "97"), []media.Stream{
			stream(ext, func(s *media.Stream) { s.Formats = wide }), stream(in, func(s *media.Stream) { s.Formats = wide }),
		}},
		{"one way", desc(ext, "a=sendonly"), desc(in, "a=recvonly"), []media.Stream{
			stream(ext, nil), stream(in, func(s *media.Stream) { s.Sending = false }),
		}},
		{"a direction that only one side says", desc(ext, "a=sendonly"), desc(in), []media.Stream{
			stream(ext, nil), stream(in, func(s *media.Stream) { s.Sending = false }),
		}},
		{"zero address", replace(desc(ext), "c=IN IP4 192.0.2.1", "c=IN IP4 0.0.0.0"), desc(in), []media.Stream{
			stream(ext, func(s *media.Stream) { s.Source = netip.AddrPort{} }),
			stream(in, func(s *media.Stream) { s.Sending, s.Local = false, netip.AddrPort{} }),
		}},
		{"ptime of the receiver, else of the sender", desc(ext, "a=ptime:20"), desc(in, "a=ptime:30"), []media.Stream{
			stream(ext, func(s *media.Stream) { s.Ptime = 30 * time.Millisecond }), stream(in, func(s *media.Stream) { s.Ptime = 20 * time.Millisecond }),
		}},
		{"ptime of one", desc(ext, "a=ptime:20"), desc(in), []media.Stream{
			stream(ext, func(s *media.Stream) { s.Ptime = 20 * time.Millisecond }), stream(in, func(s *media.Stream) { s.Ptime = 20 * time.Millisecond }),
		}},
		{"secure", desc(ext, "a=crypto:1 X inline:x"), desc(in, "a=crypto:1 X inline:y"), []media.Stream{
			stream(ext, func(s *media.Stream) { s.Secure = true }), stream(in, func(s *media.Stream) { s.Secure = true }),
		}},
		{"secure was not taken", desc(ext, "a=crypto:1 X inline:x"), desc(in), []media.Stream{stream(ext, nil), stream(in, nil)}},
		{"refused", desc(ext), replace(desc(in), "5000", "0"), nil},
		{"an answer without media", desc(ext), []byte("v=0\r\n"), nil},
		{"no RTP", replace(desc(ext), "RTP/AVP", "udptl"), replace(desc(in), "RTP/AVP", "udptl"), nil},
		{"the second m= line", replace(desc(ext), "m=", "m=image 1 udptl t38\r\nm="), replace(desc(in), "m=", "m=image 0 udptl t38\r\nm="), []media.Stream{
			stream(ext, func(s *media.Stream) { s.ID = 2 }), stream(in, func(s *media.Stream) { s.ID = 3 }),
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := mustExchange(t, NewNegotiation(), ext, c.offer, c.answer, epoch)
			if diff := cmp.Diff(c.want, got.Streams, cmpAddr); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			n := NewNegotiation() // the same, seen from the other side
			got = mustExchange(t, n, in, c.offer, c.answer, epoch)
			for _, s := range got.Streams {
				twin := got.Streams[1-s.Side]
				if s.ID%2 != media.StreamID(s.Side) || s.Source != twin.Local && s.Local.IsValid() && twin.Local.IsValid() {
					t.Errorf("from inside: %+v", got.Streams)
				}
			}
		})
	}
}

func TestRenegotiation(t *testing.T) {
	n := NewNegotiation()
	wantResult(t, "first", Result{Streams: []media.Stream{stream(ext, nil), stream(in, nil)}}, mustExchange(t, n, ext, desc(ext), desc(in), epoch))
	later := epoch.Add(time.Second)
	wantResult(t, "refresh", Result{}, mustExchange(t, n, in, desc(in), desc(ext), later))
	moved := []byte(strings.Replace(string(desc(ext)), "4000", "4444", 1))
	wantResult(t, "moved", Result{Streams: []media.Stream{
		stream(ext, func(s *media.Stream) { s.At, s.Source = later, ap(addr1, 4444) }),
		stream(in, func(s *media.Stream) { s.At, s.Local = later, ap(addr1, 4444) }),
	}}, mustExchange(t, n, ext, moved, desc(in), later))
	refused := []byte(strings.Replace(string(desc(in)), "5000", "0", 1))
	wantResult(t, "refused", Result{Ended: []media.StreamID{0, 1}}, mustExchange(t, n, ext, moved, refused, later))
}

func isEarly(s *media.Stream) { s.Early = true }

func TestEarly(t *testing.T) {
	later := epoch.Add(time.Second)
	answered := []media.Stream{stream(ext, func(s *media.Stream) { s.At = later }), stream(in, func(s *media.Stream) { s.At = later })}
	begin := func() *Negotiation {
		n := NewNegotiation()
		if err := n.Offer(ext, desc(ext, "a=sendonly")); err != nil {
			t.Fatal(err)
		}
		res, err := n.Answer(in, desc(in, "a=recvonly"), epoch, true)
		if err != nil {
			t.Fatal(err)
		}
		wantResult(t, "183", Result{Streams: []media.Stream{stream(ext, isEarly), stream(in, func(s *media.Stream) { s.Early, s.Sending = true, false })}}, res)
		return n
	}
	answered[1].Sending = false
	hold := []suppress.Signal{{V: 1, Event: suppress.HoldStart, At: later, Source: "sdp", Party: "external"}}

	n := begin()
	res, err := n.Answer(in, desc(in, "a=recvonly"), later, false)
	if err != nil {
		t.Fatal(err)
	}
	wantResult(t, "200 with the same", Result{Streams: answered, Signals: hold}, res)
	if res, err := n.Answer(in, desc(in, "a=recvonly"), later, false); err != nil || len(res.Streams)+len(res.Signals) > 0 {
		t.Errorf("the 200 again: %+v, %v", res, err)
	}

	n = begin()
	wantResult(t, "200 without", Result{Streams: answered, Signals: hold}, n.Confirm(later))
	wantResult(t, "200 without, again", Result{}, n.Confirm(later))
	if _, err := n.Answer(in, desc(in), later, false); !errors.Is(err, ErrNoOffer) {
		t.Errorf("another answer after the final one: %v", err)
	}

	n = begin()
	if res, err := n.Answer(in, nil, later, true); err != nil || len(res.Streams) > 0 {
		t.Errorf("180: %+v %v", res, err)
	}
	res, err = n.Answer(in, nil, later, false)
	if err != nil {
		t.Fatal(err)
	}
	wantResult(t, "200 given to Answer without a body", Result{Streams: answered, Signals: hold}, res)

	n = begin() // another fork answers early, and then finally
	fork := []byte(strings.Replace(string(desc(in)), "192.0.2.2\r\nt", "192.0.2.9\r\nt", 1))
	if res, err = n.Answer(in, fork, later, true); err != nil || len(res.Streams) != 2 || res.Streams[1].Source.Addr().String() != "192.0.2.9" || !res.Streams[1].Early {
		t.Errorf("183 of another fork: %+v %v", res, err)
	}
	if res, err = n.Answer(in, fork, later, false); err != nil || len(res.Streams) != 2 || res.Streams[1].Early {
		t.Errorf("200 of that fork: %+v %v", res, err)
	}
}

// TestEarlyUpdate: 183 and PRACK, UPDATE from the called side, then a 200 that
// repeats the description of the 183.
func TestEarlyUpdate(t *testing.T) {
	n := NewNegotiation()
	if err := n.Offer(ext, desc(ext)); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Answer(in, desc(in), epoch, true); err != nil {
		t.Fatal(err)
	}
	moved := []byte(strings.Replace(string(desc(in)), "5000", "5555", 1))
	if err := n.Offer(in, moved); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Answer(ext, desc(ext), epoch, true); err != nil {
		t.Fatal(err)
	}
	res, err := n.Answer(in, desc(in), epoch, false)
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Streams) != 2 || res.Streams[1].Source.Port() != 5555 || res.Streams[1].Early {
		t.Errorf("the UPDATE was lost: %+v", res)
	}
}

func TestLateOffer(t *testing.T) {
	want := Result{Streams: []media.Stream{stream(ext, nil), stream(in, nil)}}
	n := NewNegotiation()
	if err := n.Offer(ext, nil); err != nil {
		t.Fatal(err)
	}
	for _, body := range [][]byte{nil, desc(in, "a=inactive"), desc(in)} { // 180, 183 that is superseded, 200
		if res, err := n.Answer(in, body, epoch, body == nil); err != nil || len(res.Streams) > 0 {
			t.Fatalf("%+v %v", res, err)
		}
	}
	res, err := n.Answer(ext, desc(ext), epoch, false) // ACK
	if err != nil {
		t.Fatal(err)
	}
	wantResult(t, "through Answer", want, res)
	wantResult(t, "through Offer", want, mustExchange(t, NewNegotiation(), in, desc(in), desc(ext), epoch))

	if err := n.Offer(ext, nil); err != nil { // a re-INVITE without offer that is refused
		t.Fatal(err)
	}
	n.Reject()
	if _, err := n.Answer(in, desc(in, "a=inactive"), epoch, false); !errors.Is(err, ErrNoOffer) {
		t.Errorf("after the refusal: %v", err)
	}
	if err := n.Offer(ext, nil); err != nil { // one whose offer came, but no answer
		t.Fatal(err)
	}
	if _, err := n.Answer(in, desc(in), epoch, false); err != nil {
		t.Fatal(err)
	}
	n.RejectFrom(ext)
	if _, err := n.Answer(ext, desc(ext, "a=inactive"), epoch, false); !errors.Is(err, ErrNoOffer) {
		t.Errorf("after the refusal of what was asked for: %v", err)
	}
}

func TestRejectAndGlare(t *testing.T) {
	n := NewNegotiation()
	mustExchange(t, n, ext, desc(ext), desc(in), epoch)
	offer := func(side media.Side) {
		if err := n.Offer(side, desc(side, "a=sendonly")); err != nil {
			t.Fatal(err)
		}
	}
	offer(ext)
	offer(in) // crossed; the first is refused, the second goes through
	n.RejectFrom(ext)
	res, err := n.Answer(ext, desc(ext, "a=recvonly"), epoch, false)
	if err != nil || len(res.Signals) != 1 || res.Signals[0].Party != "internal" {
		t.Errorf("%+v %v", res, err)
	}
	offer(ext)
	offer(in)
	n.Reject()
	n.Reject()
	for _, side := range []media.Side{ext, in} {
		if _, err := n.Answer(side, desc(side, "a=inactive"), epoch, false); !errors.Is(err, ErrNoOffer) {
			t.Errorf("the %s side: %v", side, err)
		}
	}
	if n.Holding(ext) || !n.Holding(in) {
		t.Error("refused offers changed who holds")
	}
	offer(ext) // an early answer to a re-INVITE that is refused in the end
	if res, err := n.Answer(in, desc(in, "a=inactive"), epoch, true); err != nil || len(res.Streams)+len(res.Signals) > 0 {
		t.Errorf("%+v %v", res, err)
	}
	n.Reject()
	wantResult(t, "after the refusal", Result{}, n.Confirm(epoch))
	offer(ext) // the same, but confirmed by a 200 without description
	if _, err := n.Answer(in, desc(in, "a=inactive"), epoch, true); err != nil {
		t.Fatal(err)
	}
	if res := n.Confirm(epoch); len(res.Signals) != 1 || !n.Holding(ext) {
		t.Errorf("%+v", res)
	}
}

func TestBadBodies(t *testing.T) {
	n := NewNegotiation()
	if err := n.Offer(ext, []byte("x")); !errors.Is(err, ErrNotSDP) {
		t.Error(err)
	}
	if _, err := n.Answer(in, desc(in), epoch, false); !errors.Is(err, ErrNoOffer) {
		t.Error(err)
	}
	if err := n.Offer(ext, desc(ext)); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Answer(in, []byte{}, epoch, false); !errors.Is(err, ErrNotSDP) {
		t.Error(err)
	}
	if res, err := n.Answer(in, desc(in), epoch, false); err != nil || len(res.Streams) != 2 {
		t.Errorf("a bad answer must not lose the offer: %+v %v", res, err)
	}
}

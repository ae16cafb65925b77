package replay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media/pcap"
)

// Drop notes what a live link lost.
func (n *notedStream) Drop(lost uint32) {
	n.call.log = append(n.call.log, fmt.Sprintf("stream %d lost %d", n.stream.ID, lost))
}

// onLink turns a capture into what a live link gives: lost frames before some
// packets, and the time up to the last millisecond, each second.
type onLink struct {
	pcap.Source
	lost map[int]uint64 // frames lost before the packet of that number
	n    int
	now  time.Time
	last time.Time
}

func (l *onLink) Next() (pcap.Packet, error) {
	p, err := l.Source.Next()
	if err != nil && l.now.Before(l.last) {
		l.now = l.now.Add(time.Second)
		return pcap.Packet{At: l.now}, nil
	}
	if err == nil {
		p.Lost, l.now = l.lost[l.n], p.At
		l.n++
	}
	return p, err
}

func (s *script) live(cfg Config, lost map[int]uint64, until time.Duration) (*notebook, Stats) {
	s.t.Helper()
	r, err := pcap.NewReader(bytes.NewReader(s.buf.Bytes()))
	if err != nil {
		s.t.Fatal(err)
	}
	if cfg.Live == nil {
		cfg.Live = &Live{}
	}
	cfg.Trunks = append(cfg.Trunks, Trunk{Name: "carrier", External: prefixes("198.51.100.0/24"), Internal: prefixes("10.0.0.0/24")})
	b := &notebook{start: t0, refuse: map[string]error{"refused": errors.New("no room")}}
	stats, err := Run(context.Background(), &onLink{Source: r, lost: lost, last: t0.Add(until)}, cfg, b, nil)
	if err := errors.Join(err, b.err()); err != nil {
		s.t.Error(err)
	}
	return b, stats
}

func TestLiveLossesAreTheLinks(t *testing.T) {
	// Packets of two streams, after the five messages of the call: numbers 5 and on.
	s := newScript(t).call(d1)
	for _, p := range []struct {
		seq      int
		external bool
	}{{10, true}, {20, false}, {11, true}, {15, true}, {16, true}, {21, false}, {24, false}, {14, true}, {18, true}} {
		src, dst := aliceM, bobM
		if !p.external {
			src, dst = bobM, aliceM
		}
		s.udp(400+p.seq, src, dst, rtpPacket(uint16(p.seq), "x"))
	}
	tests := []struct {
		name string
		lost map[int]uint64
		want []string
	}{
		{"nothing", nil, nil},
		{"as many as are missing", map[int]uint64{8: 3}, []string{"stream 0 lost 3"}},
		{"fewer than are missing: the rest was lost elsewhere", map[int]uint64{8: 2}, []string{"stream 0 lost 2"}},
		{"more than are missing", map[int]uint64{8: 100}, []string{"stream 0 lost 3"}},
		{"before the stream's last packet", map[int]uint64{7: 3}, nil},
		{"after the hole", map[int]uint64{9: 3}, nil},
		{"nobody knows of which stream", map[int]uint64{11: 2}, []string{"stream 1 lost 2", "stream 0 lost 1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, stats := s.live(Config{}, tt.lost, 0)
			var got []string
			for _, line := range b.calls[0].log {
				if strings.Contains(line, "lost") {
					got = append(got, line)
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			var sum uint64
			for _, n := range tt.lost {
				sum += n
			}
			if uint64(stats.Lost) != sum {
				t.Errorf("%d lost in all, want %d", stats.Lost, sum)
			}
		})
	}
}

func TestLiveCallsOfNoTrunkAreLeftAlone(t *testing.T) {
	s := newScript(t).sip(0, relay, relay, d1.first(1, sdpOf(aliceM))).
		sip(5, relay, relay, d1.res(200, "INVITE", 1, sdpOf(bobM)))
	b, stats := s.live(Config{}, nil, 0)
	if len(b.calls) != 0 || stats.Strangers != 2 || stats.Calls != 0 {
		t.Errorf("%d calls, counts %+v", len(b.calls), stats)
	}
}

func TestLiveObserverErrorsEndNothing(t *testing.T) {
	refused := dlg{"refused", "r1", "r2"}
	s := newScript(t).call(refused).call(d1).rtp(400, aliceM, bobM, "x")
	b, stats := s.live(Config{}, nil, 0)
	if len(b.calls) != 1 || b.calls[0].session.SIPCallID != "call-1" || stats.Unrecorded != 1 || stats.Calls != 2 {
		t.Errorf("%d calls, counts %+v", len(b.calls), stats)
	}
}

func TestLiveSilentCallsEnd(t *testing.T) {
	hold := dlg{"held", "h1", "h2"}
	ringing := dlg{"ringing", "n1", "n2"}
	s := newScript(t).call(d1).rtp(500, aliceM, bobM, "x").call(hold).
		sip(600, alice, bob, hold.req("INVITE", 2, sdpOf(aliceM, "a=sendonly"))).
		sip(650, bob, alice, hold.res(200, "INVITE", 2, sdpOf(bobM, "a=recvonly"))).
		sip(700, alice, bob, ringing.first(1, sdpOf(aliceM)))
	told := 0
	live := &Live{IdleMax: 30 * time.Second, Tell: func(Stats) { told++ }}
	b, _ := s.live(Config{Live: live}, nil, time.Minute)
	ends := map[string]string{}
	for _, c := range b.calls {
		ends[c.session.SIPCallID] = fmt.Sprintf("%s at %d", c.cause, c.end.Sub(t0).Milliseconds())
	}
	want := map[string]string{"call-1": "media-silence at 500", "held": "shutdown at 650", "ringing": "failed at 700"}
	if fmt.Sprint(ends) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", ends, want)
	}
	if told < 30 {
		t.Errorf("told %d times in a minute", told)
	}
}

func TestLiveCallsThatNobodyAnswersEnd(t *testing.T) {
	s := newScript(t).sip(0, alice, bob, dlg{"scan", "n1", "n2"}.first(1, sdpOf(aliceM)))
	trunk := Trunk{Name: "carrier", External: prefixes("198.51.100.0/24"), Internal: prefixes("10.0.0.0/24")}
	tr := newTracker(context.Background(), Config{Live: &Live{IdleMax: 30 * time.Second}, Trunks: []Trunk{trunk}}, &notebook{start: t0})
	r, err := pcap.NewReader(&s.buf)
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.run(r, func(Progress) {}); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	for _, c := range []struct{ minutes, open int }{{9, 1}, {11, 0}} {
		tr.now = t0.Add(time.Duration(c.minutes) * time.Minute)
		tr.expire()
		if tr.active.Len() != c.open {
			t.Errorf("after %d minutes of silence %d calls are open", c.minutes, tr.active.Len())
		}
	}
}

// TestLiveEachPacketTwice: a mirror of both ports of a link, or two interfaces that a
// call passes, show everything twice.
func TestLiveEachPacketTwice(t *testing.T) {
	logs := func(times int) string {
		s := newScript(t)
		for range times {
			s.sip(0, alice, bob, d1.first(1, sdpOf(aliceM)))
		}
		for range times {
			s.sip(200, bob, alice, d1.res(200, "INVITE", 1, sdpOf(bobM)))
		}
		for range times {
			s.sip(300, alice, bob, d1.req("ACK", 1, ""))
		}
		for range times {
			s.udp(400, aliceM, bobM, rtpPacket(7, "x"))
		}
		for range times {
			s.sip(500, alice, bob, d1.req("BYE", 2, ""))
		}
		for range times {
			s.sip(510, bob, alice, d1.res(200, "BYE", 2, ""))
		}
		b, stats := s.live(Config{}, nil, 0)
		if len(b.calls) != 1 || stats.Calls != 1 || stats.RTP != int64(times) {
			t.Errorf("%d calls, counts %+v", len(b.calls), stats)
			return ""
		}
		var lines []string
		for _, l := range b.calls[0].log {
			if !strings.HasPrefix(l, "rtp") {
				lines = append(lines, l)
			}
		}
		return fmt.Sprint(lines)
	}
	if once, twice := logs(1), logs(2); once != twice {
		t.Errorf("once\n%s\ntwice\n%s", once, twice)
	}
}

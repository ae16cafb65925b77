package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/rtp"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/mediatest"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/siprec/src"
	"github.com/trunktap/trunktap/suppress"
)

// nothing is a sink that keeps nothing.
type nothing struct{}

func (nothing) Begin(recorder.SegmentInfo) (recorder.SegmentWriter, error) { return nothing{}, nil }
func (nothing) Publish(*recorder.Manifest) error                           { return nil }
func (nothing) Discard() error                                             { return nil }
func (nothing) Close() error                                               { return nil }
func (nothing) Write(recorder.Audio, *recorder.Manifest) error             { return nil }
func (nothing) Abort() error                                               { return nil }
func (nothing) Finish(*recorder.Manifest) (recorder.Segment, error) {
	return recorder.Segment{File: "x", Bytes: 1, SHA256: "x"}, nil
}

type onePlan struct{ plan recorder.Plan }

func (p onePlan) Plan(media.Session) (recorder.Plan, bool) { return p.plan, true }

// wiretap is a recorder in memory that keeps all that comes to its two ports.
type wiretap struct {
	mu    sync.Mutex
	heard [2][]rtp.Packet
	conns []*mediatest.Conn
	wg    sync.WaitGroup
}

func newWiretap(t *testing.T, n *mediatest.Net, addr netip.Addr) *wiretap {
	t.Helper()
	w := &wiretap{}
	listen := func(port uint16, take func(c *mediatest.Conn, b []byte, from netip.AddrPort)) {
		c, err := n.Listen(netip.AddrPortFrom(addr, port))
		if err != nil {
			t.Fatal(err)
		}
		w.conns = append(w.conns, c)
		w.wg.Go(func() {
			buf := make([]byte, 65536)
			for {
				n, from, err := c.ReadFromUDPAddrPort(buf)
				if err != nil {
					return
				}
				take(c, slices.Clone(buf[:n]), from)
			}
		})
	}
	listen(5060, func(c *mediatest.Conn, b []byte, from netip.AddrPort) {
		m, _, err := sip.Parse(b, false)
		if err != nil || !m.IsRequest() || m.Method == sip.Ack {
			return
		}
		m.Flow.Remote = from
		res := sip.ResponseTo(m, 200, "OK")
		if m.ToTag() == "" {
			res.Set("To", m.Get("To")+";tag=srs")
		}
		res.Add("Contact", fmt.Sprintf("<sip:%s>", addr))
		if m.Method == sip.Invite { // it listens all the time, whatever is offered
			res.Add("Content-Type", "application/sdp")
			res.Body = fmt.Appendf(nil, "v=0\r\no=- 1 1 IN IP4 %s\r\ns=-\r\nc=IN IP4 %[1]s\r\nt=0 0\r\nm=audio 7000 RTP/AVP 0\r\na=recvonly\r\nm=audio 7002 RTP/AVP 0\r\na=recvonly\r\n", addr)
		}
		if _, err := c.WriteToUDPAddrPort(res.Append(nil), from); err != nil {
			t.Error(err)
		}
	})
	for i := range w.heard {
		listen(uint16(7000+2*i), func(_ *mediatest.Conn, b []byte, _ netip.AddrPort) {
			var p rtp.Packet
			if err := p.Unmarshal(b); err != nil || p.PayloadType != 0 || len(p.Payload) != 160 || len(p.Extensions) > 0 || len(p.CSRC) > 0 {
				t.Errorf("%v: %+v is no packet of audio", err, p.Header)
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			w.heard[i] = append(w.heard[i], p)
		})
	}
	return w
}

func (w *wiretap) close() {
	for _, c := range w.conns {
		_ = c.Close() // its reader ends with it
	}
	w.wg.Wait()
}

// leakCall is a call of which each millisecond sounds like no other.
type leakCall struct {
	plan    func(*recorder.Plan)
	signals []leakSignal
	keys    map[int]byte   // external side, by the ms when they go down, for 100 ms
	never   [2][][2]int    // ms that nobody may hear, of each side
	losing  func(int) bool // packets that are lost, by number
	late    func(int) int  // ms by which packets come later
}

type leakSignal struct {
	ms, late int
	event    suppress.Event
}

const leakMS = 8000

// voice is the audio of one side: no eight samples of it come twice.
func leakVoice(side int) []byte {
	rng := rand.New(rand.NewPCG(uint64(side), 7))
	out := make([]byte, 8*leakMS)
	for i := range out {
		for out[i] = 0x7f; out[i]&0x7f >= 0x70; { // silence has two forms
			out[i] = byte(rng.Uint32())
		}
	}
	return out
}

func rtpOf(pt uint8, seq uint16, ts, ssrc uint32, payload []byte) []byte {
	b := make([]byte, 12, 12+len(payload))
	b[0], b[1] = 0x80, pt
	binary.BigEndian.PutUint16(b[2:], seq)
	binary.BigEndian.PutUint32(b[4:], ts)
	binary.BigEndian.PutUint32(b[8:], ssrc)
	return append(b, payload...)
}

// wire is the packet of a number: what it carries, and what the one before did (RFC 2198).
func (c *leakCall) wire(side, n int, voice []byte) []byte {
	for down, digit := range c.keys {
		if into := 20*n - down; side == 0 && into >= 0 && into < 100 {
			end := byte(0)
			if into == 80 {
				end = 0x80
			}
			return rtpOf(101, uint16(n), uint32(8*down), 0x100, []byte{digit - '0', end | 10, byte((into + 20) * 8 >> 8), byte((into + 20) * 8)})
		}
	}
	now := voice[160*n : 160*n+160]
	if n == 0 {
		return rtpOf(0, 0, 0, 0x100+uint32(side), now)
	}
	head := []byte{0x80, byte(160 << 2 >> 8), byte(160<<2&0xff) | byte(160>>8), 160, 0}
	head[1], head[2] = byte(160>>6), byte(160<<2&0xfc) // offset of 14 bits, length of 10
	return rtpOf(97, uint16(n), uint32(160*n), 0x100+uint32(side), slices.Concat(head, voice[160*n-160:160*n], now))
}

// leakFormats are those of both sides.
var leakFormats = []media.Format{
	{PayloadType: 0, Name: "PCMU", ClockRate: 8000},
	{PayloadType: 97, Name: "RED", ClockRate: 8000, Params: "0/0"},
	{PayloadType: 101, Name: "TELEPHONE-EVENT", ClockRate: 8000},
}

// play gives the call to a recorder as it goes on.
func (c *leakCall) play(tap media.SessionTap, start time.Time, voices [2][]byte) {
	type step struct {
		ms int
		do func(time.Time)
	}
	var steps []step
	var taps [2]media.Tap
	for side := range taps {
		taps[side] = tap.StreamStarted(media.Stream{ID: media.StreamID(side), Side: media.Side(side), At: start, Formats: leakFormats, Sending: true})
		for n := range leakMS / 20 {
			if c.losing != nil && c.losing(n) {
				continue
			}
			b, at := c.wire(side, n, voices[side]), 20*n
			if c.late != nil {
				at += c.late(n)
			}
			steps = append(steps, step{at, func(now time.Time) { taps[side].Put(now, b) }})
		}
	}
	for _, s := range c.signals {
		steps = append(steps, step{s.ms + s.late, func(time.Time) {
			tap.Signal(suppress.Signal{V: 1, Event: s.event, At: start.Add(time.Duration(s.ms) * time.Millisecond), Source: "test"})
		}})
	}
	slices.SortStableFunc(steps, func(a, b step) int { return a.ms - b.ms })
	for _, s := range steps {
		time.Sleep(time.Until(start.Add(time.Duration(s.ms) * time.Millisecond)))
		s.do(time.Now())
	}
	time.Sleep(time.Until(start.Add(leakMS * time.Millisecond)))
	tap.Ended(time.Now(), media.CauseBye)
}

// TestWhatIsSuppressedDoesNotLeave compares what another recorder is sent with what came,
// sample by sample.
func TestWhatIsSuppressedDoesNotLeave(t *testing.T) {
	pause := []leakSignal{{2000, 0, suppress.PauseStart}, {4000, 0, suppress.PauseEnd}}
	both := func(from, to int) [2][][2]int { return [2][][2]int{{{from, to}}, {{from, to}}} }
	for name, c := range map[string]leakCall{
		"a pause":                     {signals: pause, never: both(2000, 4000)},
		"a pause not on the edges":    {signals: []leakSignal{{2003, 0, suppress.PauseStart}, {4011, 0, suppress.PauseEnd}}, never: both(2003, 4011)},
		"a pause told late":           {signals: []leakSignal{{2000, 450, suppress.PauseStart}, {4000, 0, suppress.PauseEnd}}, never: both(2000, 4000)},
		"hold":                        {signals: []leakSignal{{2000, 0, suppress.HoldStart}, {4000, 0, suppress.HoldEnd}}, never: both(2000, 4000)},
		"windows, one behind another": {signals: append(slices.Clone(pause), leakSignal{4040, 0, suppress.HoldStart}, leakSignal{4600, 0, suppress.HoldEnd}), never: both(2000, 4000)},
		"silence in the place of it": {
			plan:    func(p *recorder.Plan) { p.Suppressed = recorder.SuppressedSilence },
			signals: pause, never: both(2000, 4000),
		},
		"losses, brought back by later packets": {signals: pause, never: both(2000, 4000), losing: func(n int) bool { return n%3 == 1 }},
		"losses on the edges, made up": {
			plan:    func(p *recorder.Plan) { p.Conceal = true },
			signals: pause, never: both(2000, 4000), losing: func(n int) bool { return slices.Contains([]int{99, 100, 101, 199, 200, 201, 202}, n) },
		},
		"jitter and reordering": {signals: pause, never: both(2000, 4000), late: func(n int) int {
			if n < 50 {
				return 0
			}
			return n * 7919 % 90
		}},
		"packets of the pause that come after it": {signals: pause, never: both(2000, 4000), late: func(n int) int {
			if n >= 190 && n < 200 {
				return 150
			}
			return 0
		}},
		"before consent": {
			plan:    func(p *recorder.Plan) { p.Rules.ConsentRequired = true },
			signals: []leakSignal{{3000, 0, suppress.ConsentGranted}}, never: both(0, 3000),
		},
		"withdrawn consent": {signals: []leakSignal{{3000, 0, suppress.ConsentDenied}}, never: both(3000, leakMS)},
		"masked keys": {
			plan: func(p *recorder.Plan) { p.MaskDTMF = true },
			keys: map[int]byte{2000: '4', 3000: '1', 3240: '1'}, never: [2][][2]int{{{1945, 2115}, {2945, 3115}, {3185, 3355}}, {}},
		},
		"masked keys, jitter": {
			plan: func(p *recorder.Plan) { p.MaskDTMF = true },
			keys: map[int]byte{2000: '4'}, never: [2][][2]int{{{1945, 2115}}, {}},
			late: func(n int) int {
				if n < 50 {
					return 0
				}
				return n * 7919 % 90
			},
		},
		"a code": {
			plan: func(p *recorder.Plan) {
				p.Codes[media.External] = []suppress.Code{{Digits: "12", Event: suppress.PauseStart}, {Digits: "13", Event: suppress.PauseEnd}}
			},
			keys: map[int]byte{2000: '1', 2400: '2', 5000: '1', 5400: '3'}, never: both(2000, 5500),
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { c.check(t) })
		})
	}
}

func (c *leakCall) check(t *testing.T) {
	ours, theirs := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.9")
	n := mediatest.NewNet(1)
	tapped := newWiretap(t, n, theirs)
	defer tapped.close()
	client, err := src.New(src.Config{
		Address: ours, Listen: []sip.Listen{{Network: "udp", Addr: netip.AddrPortFrom(ours, 5070)}},
		Net:  sip.Net{ListenPacket: func(_ string, a netip.AddrPort) (net.PacketConn, error) { return n.Listen(a) }},
		Open: func(a netip.Addr) (net.PacketConn, error) { return n.Listen(netip.AddrPortFrom(a, 30000)) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Start(); err != nil {
		t.Fatal(err)
	}
	server, err := src.ParseServer("sip:record@" + theirs.String())
	if err != nil {
		t.Fatal(err)
	}
	plan := recorder.DefaultPlan()
	plan.SampleRate, plan.Conceal, plan.Format = 8000, false, recorder.FormatWAVPCM16
	if c.plan != nil {
		c.plan(&plan)
	}
	r, err := recorder.New(recorder.Config{
		Policy: onePlan{plan}, Synchronous: true,
		NewSink: func(context.Context, string, string) (recorder.Sink, error) { return nothing{}, nil },
		Monitor: func(s media.Session) recorder.Monitor {
			p := forkPlan{groups: [][]src.Server{{server}}}
			return &copier{client: client, session: s, plan: p, list: make([]*src.Fork, 1)}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	tap, err := r.SessionStarted(t.Context(), media.Session{ID: "call", Trunk: "carrier", SIPCallID: "call", Start: start})
	if err != nil {
		t.Fatal(err)
	}
	tap.Answered(start)
	voices := [2][]byte{leakVoice(0), leakVoice(1)}
	c.play(tap, start, voices)
	time.Sleep(3 * time.Second)
	if err := client.Close(); err != nil {
		t.Error(err)
	}
	c.compare(t, voices, tapped)
}

// compare looks for what came in what left, whichever side it left as.
func (c *leakCall) compare(t *testing.T, voices [2][]byte, tapped *wiretap) {
	tapped.mu.Lock()
	defer tapped.mu.Unlock()
	left := map[[8]byte]bool{}
	for ch := range tapped.heard {
		var all []byte
		for _, p := range tapped.heard[ch] {
			all = append(all, p.Payload...)
		}
		for i := 0; i+8 <= len(all); i++ {
			left[[8]byte(all[i:])] = true
		}
	}
	for side, voice := range voices {
		for _, w := range c.never[side] {
			for i := 8 * w[0]; i+8 <= 8*w[1]; i++ {
				if left[[8]byte(voice[i:])] {
					t.Errorf("side %d: what came %.1f ms into the call has left, in a window of %d to %d ms", side, float64(i)/8, w[0], w[1])
					break
				}
			}
		}
		kept, all := 0, 0
		for ms := 0; ms < leakMS-50; ms++ {
			forbidden := slices.ContainsFunc(c.never[side], func(w [2]int) bool { return ms >= w[0]-150 && ms < w[1]+150 })
			keyed := false
			for down := range c.keys {
				keyed = keyed || ms >= down-150 && ms < down+250
			}
			if !forbidden && !keyed {
				all++
				if left[[8]byte(voice[8*ms:])] {
					kept++
				}
			}
		}
		if kept < all*85/100 {
			t.Errorf("side %d: %d of %d ms outside the windows have left", side, kept, all)
		}
	}
}

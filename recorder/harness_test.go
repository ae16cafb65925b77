package recorder

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/suppress"
)

// t0 is the INVITE of the calls in these tests; they are answered a second later.
var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func at(ms int) time.Time { return t0.Add(time.Second + time.Duration(ms)*time.Millisecond) }

// step is one thing that happens in a call.
type step struct {
	at   time.Time
	do   func(c *testCall)
	last bool
}

// testCall drives a session tap through a script.
type testCall struct {
	tap  media.SessionTap
	taps map[media.StreamID]media.Tap
}

func testSession(id string) media.Session {
	return media.Session{
		ID: id, Trunk: "carrier", SIPCallID: id + "@test", FromTag: "a", Direction: media.Inbound,
		From: "sip:alice@carrier.example", To: "sip:desk@pbx.example", Start: t0,
		Parties: []media.Participant{{Side: media.External, URI: "sip:alice@carrier.example"}, {Side: media.Internal, URI: "sip:desk@pbx.example"}},
	}
}

var g711Formats = []media.Format{
	{PayloadType: 0, Name: "PCMU", ClockRate: 8000},
	{PayloadType: 8, Name: "PCMA", ClockRate: 8000},
	{PayloadType: 101, Name: "TELEPHONE-EVENT", ClockRate: 8000},
	{PayloadType: 13, Name: "CN", ClockRate: 8000},
	{PayloadType: 18, Name: "G729", ClockRate: 8000},
}

// answered is the script of a call from 200 OK to BYE, lasting ms.
func answered(ms int) []step {
	return []step{
		{at: at(0), do: func(c *testCall) {
			c.tap.Answered(at(0))
			for _, side := range []media.Side{media.External, media.Internal} {
				c.stream(side, at(0), true)
			}
		}},
		{at: at(ms), last: true, do: func(c *testCall) { c.tap.Ended(at(ms), media.CauseBye) }},
	}
}

func (c *testCall) stream(side media.Side, t time.Time, sending bool) {
	id := media.StreamID(side)
	c.taps[id] = c.tap.StreamStarted(media.Stream{ID: id, Side: side, At: t, Formats: g711Formats, Sending: sending})
}

func (c *testCall) put(side media.Side, t time.Time, wire []byte) {
	if tap := c.taps[media.StreamID(side)]; tap != nil {
		tap.Put(t, wire)
	}
}

// packet builds an RTP packet.
func packet(pt uint8, seq uint16, ts, ssrc uint32, payload []byte) []byte {
	b := make([]byte, 12, 12+len(payload))
	b[0], b[1] = 0x80, pt
	binary.BigEndian.PutUint16(b[2:], seq)
	binary.BigEndian.PutUint32(b[4:], ts)
	binary.BigEndian.PutUint32(b[8:], ssrc)
	return append(b, payload...)
}

// talk is 20 ms packets of a constant mu-law byte from fromMS to toMS.
func talk(side media.Side, fromMS, toMS int, value func(ms int) byte) []step {
	var out []step
	for ms, n := fromMS, 0; ms < toMS; ms, n = ms+20, n+1 {
		payload := make([]byte, 160)
		for i := range payload {
			payload[i] = value(ms + i/8)
		}
		wire := packet(0, uint16(65500+n), uint32(4294960000+160*n), 0x1000+uint32(side), payload)
		t := at(ms)
		out = append(out, step{at: t, do: func(c *testCall) { c.put(side, t, wire) }})
	}
	return out
}

func constant(b byte) func(int) byte { return func(int) byte { return b } }

func signalAt(ms int, e suppress.Event) step {
	t := at(ms)
	return step{at: t, do: func(c *testCall) { c.tap.Signal(suppress.Signal{V: 1, Event: e, At: t, Source: "test"}) }}
}

func script(parts ...[]step) []step {
	all := slices.Concat(parts...)
	slices.SortStableFunc(all, func(a, b step) int {
		if d := a.at.Compare(b.at); d != 0 {
			return d
		}
		if a.last != b.last {
			if a.last {
				return 1
			}
			return -1
		}
		return 0
	})
	return all
}

// memSink keeps what a recording consists of, decoded from wav-pcm16.
type memSink struct {
	mu        sync.Mutex
	segments  map[int][]Audio
	infos     map[int]SegmentInfo
	accounts  []*Manifest
	manifest  *Manifest
	discarded bool
	failWrite func() error
}

func (m *memSink) Begin(i SegmentInfo) (SegmentWriter, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failWrite != nil {
		if err := m.failWrite(); err != nil {
			return nil, err
		}
	}
	m.infos[i.N] = i
	return &memSegment{m, i.N}, nil
}

func (m *memSink) Publish(x *Manifest) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failWrite != nil {
		if err := m.failWrite(); err != nil {
			return err
		}
	}
	m.manifest = x
	return nil
}

func (m *memSink) Discard() error { m.discarded = true; return nil }
func (m *memSink) Close() error   { return nil }

type memSegment struct {
	m *memSink
	n int
}

func (s *memSegment) Write(a Audio, account *Manifest) error {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if s.m.failWrite != nil {
		if err := s.m.failWrite(); err != nil {
			return err
		}
	}
	a.Data = slices.Clone(a.Data) // it is ours during the call alone
	if a.Samples > 0 {
		s.m.segments[s.n] = append(s.m.segments[s.n], a)
	}
	if account != nil {
		s.m.accounts = append(s.m.accounts, account)
	}
	return nil
}

func (s *memSegment) Finish(*Manifest) (Segment, error) {
	return Segment{N: s.n, File: fmt.Sprintf("%04d.seg", s.n), Bytes: 1, SHA256: "x"}, nil
}

func (s *memSegment) Abort() error {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if len(s.m.segments[s.n]) > 0 {
		return errors.New("a segment with audio was abandoned")
	}
	delete(s.m.infos, s.n)
	return nil
}

// pcm joins the audio of all segments, missing frames as silence.
func (m *memSink) pcm() [2][]int16 {
	var out [2][]int16
	for n := 1; n <= len(m.infos); n++ {
		for _, a := range m.segments[n] {
			for int64(len(out[0])) < a.AudioMS*int64(m.infos[n].SampleRate)/1000 {
				out[0], out[1] = append(out[0], 0), append(out[1], 0)
			}
			for i := 0; i < len(a.Data); i += 4 {
				out[0] = append(out[0], int16(binary.LittleEndian.Uint16(a.Data[i:])))
				out[1] = append(out[1], int16(binary.LittleEndian.Uint16(a.Data[i+2:])))
			}
		}
	}
	return out
}

func testPlan() Plan {
	p := DefaultPlan()
	p.SampleRate = 8000
	p.Conceal = false // what is filled is told from what was captured by its silence
	p.Format = FormatWAVPCM16
	return p
}

type fixedPolicy struct{ plan Plan }

func (f fixedPolicy) Plan(media.Session) (Plan, bool) { return f.plan, true }

// replayed runs a script through a synchronous recorder.
func replayed(t testing.TB, plan Plan, steps []step) (*memSink, *Manifest) {
	t.Helper()
	sink := newMemSink()
	r := mustRecorder(t, Config{Policy: fixedPolicy{plan}, NewSink: sink.open, Synchronous: true})
	tap, err := r.SessionStarted(context.Background(), testSession("call-1"))
	if err != nil {
		t.Fatal(err)
	}
	c := &testCall{tap: tap, taps: map[media.StreamID]media.Tap{}}
	for _, s := range steps {
		s.do(c)
	}
	if _, err := r.Results(); err != nil {
		t.Fatal(err)
	}
	return sink, sink.manifest
}

func newMemSink() *memSink {
	return &memSink{segments: map[int][]Audio{}, infos: map[int]SegmentInfo{}}
}

func (m *memSink) open(context.Context, string, string) (Sink, error) { return m, nil }

func mustRecorder(t testing.TB, cfg Config) *Recorder {
	t.Helper()
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// checkAccount holds promise 4: audio and windows make up real time, gaps lie
// inside the audio, and the samples written are as many as the account says.
func checkAccount(t testing.TB, m *Manifest, sink *memSink) {
	t.Helper()
	if err := accountFault(m, sink); err != nil {
		t.Fatal(err)
	}
}

func accountFault(m *Manifest, sink *memSink) error {
	if m == nil {
		return errors.New("nothing was published")
	}
	cut := make([]bool, m.RealMS)
	for _, w := range m.Windows {
		if w.Channel != nil {
			continue // takes nothing out
		}
		for ms := w.RealMS; ms < w.EndRealMS; ms++ {
			cut[ms] = true
		}
	}
	kept := int64(0)
	for _, c := range cut {
		if !c {
			kept++
		}
	}
	switch refused := m.Consent == "none" || m.Consent == "denied"; {
	case m.Suppressed != SuppressedSilence:
	case refused && len(m.Segments) == 0: // not even silence
		kept = 0
	default:
		kept = m.RealMS
	}
	if kept != m.AudioMS {
		return fmt.Errorf("real %d ms less windows is %d ms, audio_ms says %d", m.RealMS, kept, m.AudioMS)
	}
	if n := int64(len(sink.pcm()[0])) * 1000 / int64(m.SampleRate); n != m.AudioMS {
		return fmt.Errorf("%d ms were written, audio_ms says %d", n, m.AudioMS)
	}
	sum := int64(0)
	for _, s := range m.Segments {
		if s.AudioMS != sum {
			return fmt.Errorf("segment %d begins at audio %d, want %d", s.N, s.AudioMS, sum)
		}
		sum += s.DurationMS
	}
	if sum != m.AudioMS {
		return fmt.Errorf("segments last %d ms, audio_ms says %d", sum, m.AudioMS)
	}
	last := [2]int64{}
	for _, g := range m.Gaps {
		if g.RealMS < last[g.Channel] || g.RealMS+g.DurationMS > m.RealMS || g.DurationMS <= 0 {
			return fmt.Errorf("gap %+v overlaps, is empty or lies outside 0…%d", g, m.RealMS)
		}
		last[g.Channel] = g.RealMS + g.DurationMS
		for ms := g.RealMS; ms < g.RealMS+g.DurationMS; ms++ {
			if cut[ms] {
				return fmt.Errorf("gap %+v reaches into a window", g)
			}
		}
	}
	return nil
}

package quality

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pion/rtcp"
)

// Sources of the tests: A is of side 0, B of side 1.
const ssrcA, ssrcB = 0xaaaa0001, 0xbbbb0002

func marshal(t testing.TB, packets ...rtcp.Packet) []byte {
	t.Helper()
	b, err := rtcp.Marshal(packets)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var block = rtcp.ReceptionReport{SSRC: ssrcB, FractionLost: 64, TotalLost: 70, LastSequenceNumber: 1<<16 | 900, Jitter: 160, LastSenderReport: 0x12345678, Delay: 65536}

func report(t testing.TB) []byte {
	return marshal(t,
		&rtcp.SenderReport{SSRC: ssrcA, NTPTime: 0x11112222_33334444, RTPTime: 7, PacketCount: 8, OctetCount: 9, Reports: []rtcp.ReceptionReport{block}},
		rtcp.NewCNAMESourceDescription(ssrcA, "a@b"),
		&rtcp.ExtendedReport{SenderSSRC: ssrcA, Reports: []rtcp.ReportBlock{
			&rtcp.ReceiverReferenceTimeReportBlock{NTPTimestamp: 0x0102030405060708},
			&rtcp.DLRRReportBlock{Reports: []rtcp.DLRRReport{{SSRC: ssrcB, LastRR: 5, DLRR: 6}, {SSRC: 77, LastRR: 7, DLRR: 8}}},
			&rtcp.StatisticsSummaryReportBlock{LossReports: true, DuplicateReports: true, JitterReports: true, TTLorHopLimit: 1, SSRC: ssrcB, LostPackets: 11, DupPackets: 12, MinJitter: 13, MaxJitter: 14, MeanJitter: 15, DevJitter: 16, MinTTLOrHL: 17, MaxTTLOrHL: 18, MeanTTLOrHL: 19, DevTTLOrHL: 20},
			&rtcp.VoIPMetricsReportBlock{SSRC: ssrcB, LossRate: 26, DiscardRate: 3, BurstDensity: 128, GapDensity: 1, BurstDuration: 120, GapDuration: 9000, RoundTripDelay: 80, EndSystemDelay: 60, SignalLevel: 236, NoiseLevel: 127, RERL: 55, Gmin: 16, RFactor: 81, ExtRFactor: 127, MOSLQ: 41, MOSCQ: 39, RXConfig: 0xd5, JBNominal: 40, JBMaximum: 80, JBAbsMax: 200},
			&rtcp.LossRLEReportBlock{SSRC: ssrcB, BeginSeq: 1, EndSeq: 2, Chunks: []rtcp.Chunk{1, 2}},
		}})
}

func TestParse(t *testing.T) {
	var c Control
	if err := c.Parse(report(t)); err != nil {
		t.Fatal(err)
	}
	want := Control{
		Senders:    []Reference{{ssrcA, 0x11112222_33334444}},
		Blocks:     []Block{{ssrcA, block}},
		References: []Reference{{ssrcA, 0x0102030405060708}},
		Delays:     []Delay{{ssrcA, ssrcB, 5, 6}, {ssrcA, 77, 7, 8}},
		Statistics: []Statistics{{ssrcA, ssrcB, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20}},
		VoIP: []VoIPMetrics{{
			Reporter: ssrcA, SSRC: ssrcB, LossRate: 26, DiscardRate: 3, BurstDensity: 128, GapDensity: 1, BurstMS: 120, GapMS: 9000, RoundTripMS: 80, EndSystemMS: 60,
			Signal: -20, Noise: 127, RERL: 55, Gmin: 16, R: 81, ExternalR: 127, MOSLQ: 41, MOSCQ: 39, Receiver: 0xd5, BufferNominalMS: 40, BufferMaxMS: 80, BufferAbsMax: 200,
		}},
	}
	if d := cmp.Diff(want, c); d != "" {
		t.Error(d)
	}
	if err := c.Parse(marshal(t, &rtcp.ReceiverReport{SSRC: 9})); err != nil || len(c.Blocks)+len(c.Senders)+len(c.VoIP)+len(c.Delays) != 0 {
		t.Errorf("%v: the last datagram is still there: %+v", err, c)
	}
}

// A datagram cut anywhere is an error, and what stands before the cut is read.
func TestParseCut(t *testing.T) {
	var c Control
	wire := report(t)
	whole := map[int]bool{52: true, 52 + 16: true, len(wire): true}
	for n := range len(wire) + 1 {
		err := c.Parse(wire[:n])
		if whole[n] != (err == nil) || err != nil && !errors.Is(err, ErrControl) {
			t.Errorf("%d of %d bytes: %v", n, len(wire), err)
		}
		if n >= 52 && len(c.Blocks) != 1 {
			t.Errorf("%d bytes: the report is gone", n)
		}
	}
	if err := c.Parse(make([]byte, ControlBytesMax+1)); !errors.Is(err, ErrControl) {
		t.Error(err)
	}
}

func TestParseHasLimits(t *testing.T) {
	var many []rtcp.Packet
	for range 10 {
		many = append(many, &rtcp.ReceiverReport{SSRC: 1, Reports: make([]rtcp.ReceptionReport, 7)})
	}
	var c Control
	if err := c.Parse(marshal(t, many...)); err != nil || len(c.Blocks) != ControlItemsMax {
		t.Errorf("%d blocks, %v", len(c.Blocks), err)
	}
	wire := report(t)
	if got := testing.AllocsPerRun(200, func() {
		if err := c.Parse(wire); err != nil {
			t.Fatal(err)
		}
	}); got != 0 {
		t.Errorf("%v allocations", got)
	}
}

// Statistics that the flags deny are not taken.
func TestStatisticsFlags(t *testing.T) {
	for _, tt := range []struct {
		flags uint8
		want  Statistics
	}{
		{0, Statistics{}},
		{0x80, Statistics{Lost: 3}},
		{0x40, Statistics{Duplicate: 4}},
		{0x20, Statistics{MinJitter: 5, MaxJitter: 6, MeanJitter: 7, DevJitter: 8}},
		{0x08, Statistics{MinTTL: 9, MaxTTL: 10, MeanTTL: 11, DevTTL: 12}},
		{0x10, Statistics{MinTTL: 9, MaxTTL: 10, MeanTTL: 11, DevTTL: 12}},
	} {
		words := []uint32{0x80cf000b, 1, 0x06000009 | uint32(tt.flags)<<16, 2, 0, 3, 4, 5, 6, 7, 8, 0x090a0b0c}
		tt.want.Reporter, tt.want.SSRC = 1, 2
		var c Control
		if err := c.Parse(wireOf(words)); err != nil || c.Statistics[0] != tt.want {
			t.Errorf("flags %#x: %+v, %v", tt.flags, c.Statistics, err)
		}
	}
}

func wireOf(words []uint32) (b []byte) {
	for _, w := range words {
		b = binary.BigEndian.AppendUint32(b, w)
	}
	return b
}

// Packets and blocks that are shorter than their kind are refused.
func TestParseShort(t *testing.T) {
	var c Control
	for name, words := range map[string][]uint32{
		"five report blocks said":  {0x85c90007, 1, 2, 3, 4, 5, 6, 7},
		"a sender report of less":  {0x80c80005, 1, 2, 3, 4, 5},
		"no reporter":              {0x80cf0000},
		"reference time of a word": {0x80cf0003, 1, 0x04000001, 2},
		"delays of four words":     {0x80cf0006, 1, 0x05000004, 2, 3, 4, 5},
		"statistics of eight":      {0x80cf000a, 1, 0x06000008, 2, 3, 4, 5, 6, 7, 8, 9},
		"metrics of seven":         {0x80cf0009, 1, 0x07000007, 2, 3, 4, 5, 6, 7, 8},
		"a block behind the end":   {0x80cf0002, 1, 0x04000002},
	} {
		if err := c.Parse(wireOf(words)); !errors.Is(err, ErrControl) || len(c.Blocks)+len(c.Delays) > 1 {
			t.Errorf("%s: %v, %+v", name, err, c)
		}
	}
}

func TestRemote(t *testing.T) {
	var s Stream
	if s.Snapshot(Inputs{}).Remote != nil {
		t.Error("a report that nobody made")
	}
	feed(&s, count(0, 100), nil)
	s.Report(rtcp.ReceptionReport{LastSequenceNumber: 100, Jitter: 80})
	s.Report(rtcp.ReceptionReport{LastSequenceNumber: 400, FractionLost: 64, TotalLost: 75, Jitter: 400})
	s.Report(rtcp.ReceptionReport{LastSequenceNumber: 500, FractionLost: 0, TotalLost: 0xfffffe, Jitter: 160}) // duplicates: -2
	var c Control
	if err := c.Parse(report(t)); err != nil {
		t.Fatal(err)
	}
	s.VoIP(c.VoIP[0])
	s.Summary(c.Statistics[0])
	want := &Remote{
		Reports: 3, Lost: -2, LossPct: 18.7, LossMaxPct: 25, JitterMS: 20, JitterMaxMS: 50, Duplicates: 12,
		VoIP: &FarMetrics{
			LossPct: 10.16, DiscardPct: 1.17, BurstPct: 50, GapPct: 0.39, BurstMS: 120, GapMS: 9000, RTTMS: 80, EndSystemMS: 60,
			SignalDBm0: -20, R: 81, MOSLQ: 4.1, MOSCQ: 3.9, Concealment: "standard", BufferMS: 40,
		},
	}
	got := s.Snapshot(Inputs{}).Remote
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	b, err := json.Marshal(got)
	if err != nil || strings.Contains(string(b), "noise") {
		t.Errorf("%s, %v", b, err)
	}
}

// ntp makes a clock of a party that is hours off and runs with ms.
func ntp(offsetS uint64, ms int64) uint64 {
	return (3_900_000_000+offsetS)<<32 + uint64(ms)<<32/1000
}

// What A and B send each other passes the tap in their middle, 10 ms from A and
// 25 ms from B; they hold a report for a second before they answer.
func TestRoundTrips(t *testing.T) {
	const toA, toB, held = 10, 25, 1000
	var r Relay
	streams := [2]*Stream{new(Stream), new(Stream)}
	find := func(side int, ssrc uint32) *Stream {
		if ssrc == [2]uint32{ssrcA, ssrcB}[side] {
			return streams[side]
		}
		return nil
	}
	send := func(from int, tapMS int64, p ...rtcp.Packet) {
		t.Helper()
		if err := r.RTCP(from, marshal(t, p...), tapMS*1e6, find); err != nil {
			t.Fatal(err)
		}
	}
	middle := func(n uint64) uint32 { return uint32(n >> 16) }
	for i := range int64(20) {
		at := i * 5000
		fromA, fromB := ntp(0, at), ntp(7200, at)
		send(0, at+toA, &rtcp.SenderReport{SSRC: ssrcA, NTPTime: fromA})
		send(1, at+toB, &rtcp.SenderReport{SSRC: ssrcB, NTPTime: fromB})
		// B has A's report at toA+toB and answers after a second.
		back := at + toA + toB + held
		send(1, back+toB, &rtcp.ReceiverReport{SSRC: ssrcB, Reports: []rtcp.ReceptionReport{{SSRC: ssrcA, LastSenderReport: middle(fromA), Delay: held << 16 / 1000}}})
		send(0, back+toA, &rtcp.ReceiverReport{SSRC: ssrcA, Reports: []rtcp.ReceptionReport{{SSRC: ssrcB, LastSenderReport: middle(fromB), Delay: held << 16 / 1000}}})
	}
	a, b := r.Halves[0].Trip(), r.Halves[1].Trip()
	if a.Count != 20 || b.Count != 20 {
		t.Fatalf("%+v %+v", a, b)
	}
	near(t, "tap to A and back", a.MeanMS, 2*toA, 0.1)
	near(t, "tap to B and back", b.MeanMS, 2*toB, 0.1)
	near(t, "least", b.MinMS, 2*toB, 0.1)
	near(t, "last", b.LastMS, 2*toB, 0.1)
	if streams[0].remote.reports != 20 || streams[1].remote.reports != 20 {
		t.Errorf("%d and %d reports", streams[0].remote.reports, streams[1].remote.reports)
	}
	acc := streams[0].Snapshot(Inputs{Near: a, Far: b})
	near(t, "whole", acc.RTTMS, 2*(toA+toB), 0.2)
}

// Where no sender reports answer, the reference times of extended reports do.
func TestRoundTripOfReferenceTimes(t *testing.T) {
	var r Relay
	none := func(int, uint32) *Stream { return nil }
	xr := func(from int, ms int64, b rtcp.ReportBlock) {
		t.Helper()
		ssrc := [2]uint32{ssrcA, ssrcB}[from]
		if err := r.RTCP(from, marshal(t, &rtcp.ExtendedReport{SenderSSRC: ssrc, Reports: []rtcp.ReportBlock{b}}), ms*1e6, none); err != nil {
			t.Fatal(err)
		}
	}
	at := ntp(5, 0)
	xr(0, 100, &rtcp.ReceiverReferenceTimeReportBlock{NTPTimestamp: at})
	xr(1, 160, &rtcp.DLRRReportBlock{Reports: []rtcp.DLRRReport{{SSRC: ssrcA, LastRR: uint32(at >> 16), DLRR: 20 << 16 / 1000}}})
	near(t, "tap to B and back", r.Halves[1].Trip().MeanMS, 40, 0.1)
	if r.Halves[0].Trip().Count != 0 {
		t.Error("the other half measured something")
	}
}

func TestHalfRefuses(t *testing.T) {
	tests := []struct {
		name              string
		ssrc, last, since uint32
		atMS              int64
	}{
		{"no report yet", 1, 0, 0, 10},
		{"another source", 2, 0x00020003, 0, 10},
		{"a report that did not pass", 1, 0x00020004, 0, 10},
		{"held for longer than it was away", 1, 0x00020003, 65536, 100},
		{"older than a minute", 1, 0x00020003, 0, 61_000},
	}
	for _, tt := range tests {
		var h Half
		h.Passed(Reference{SSRC: 1, NTP: 0x00010002_00030004}, 0)
		if ns, ok := h.Returned(tt.ssrc, tt.last, tt.since, tt.atMS*1e6); ok || h.Trip() != (Trip{}) {
			t.Errorf("%s: %d ns", tt.name, ns)
		}
		if _, ok := h.Returned(1, 0x00020003, 0, 10e6); !ok {
			t.Errorf("%s: the true answer is refused", tt.name)
		}
		for range referencesMax {
			h.Passed(Reference{SSRC: 3, NTP: 1 << 40}, 0)
		}
		if _, ok := h.Returned(1, 0x00020003, 0, 10e6); ok {
			t.Error("a report that was forgotten is answered")
		}
	}
	var h Half
	h.Passed(Reference{SSRC: 1, NTP: 0x00010002_00030004}, 0)
	h.Returned(1, 0x00020003, 0, 30e6)
	h.Returned(1, 0x00020003, 0, 10e6)
	if want := (Trip{Count: 2, LastMS: 10, MinMS: 10, MeanMS: 20, MaxMS: 30}); h.Trip() != want {
		t.Errorf("%+v, want %+v", h.Trip(), want)
	}
	if ns, ok := h.Returned(1, 0x00020003, 3*65536/1000, 1e6); !ok || ns != 0 {
		t.Errorf("2 ms below zero: %d, %v", ns, ok)
	}
}

func FuzzRTCP(f *testing.F) {
	f.Add(report(f))
	f.Add(report(f)[:100])
	f.Add(marshal(f, &rtcp.Goodbye{Sources: []uint32{1}}))
	f.Add([]byte{0x9f, 201, 0, 1, 0, 0, 0, 1})
	f.Add(binary.BigEndian.AppendUint32([]byte{0x80, 207, 0, 2, 0, 0, 0, 1}, 0x07000000))
	f.Fuzz(func(t *testing.T, wire []byte) {
		var r Relay
		var s Stream
		feed(&s, count(0, 3), nil)
		find := func(int, uint32) *Stream { return &s }
		for i := range int64(3) {
			if err := r.RTCP(int(i), wire, i*1e9, find); err != nil && !errors.Is(err, ErrControl) {
				t.Fatal(err)
			}
		}
		for _, n := range []int{len(r.control.Blocks), len(r.control.VoIP), len(r.control.Delays), len(r.control.Senders), len(r.control.References), len(r.control.Statistics)} {
			if n > ControlItemsMax {
				t.Fatalf("%d items", n)
			}
		}
		if _, err := json.Marshal(s.Snapshot(Inputs{Codec: "PCMU", Near: r.Halves[0].Trip(), Far: r.Halves[1].Trip()})); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzStream(f *testing.F) {
	f.Add([]byte{1, 1, 1, 1, 2, 1, 0, 255, 3, 1})
	f.Add([]byte{0, 0, 200, 3, 128, 7, 64, 64, 1, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		var s Stream
		var at, seq, ts int64
		for ; len(b) >= 4; b = b[4:] {
			step := int64(int8(b[1]))
			if b[0]&1 != 0 {
				step <<= b[0] >> 3
			}
			at += int64(b[2]) * 1e6
			seq += step
			ts += step * int64(int8(b[3])) * 40
			switch b[0] & 6 {
			case 2:
				s.Unseen(step)
			case 4:
				s.Late()
			}
			s.Packet(at, seq, ts, int(int8(b[3]))*1000, int(b[2]))
		}
		a := s.Snapshot(Inputs{Codec: "PCMU", PLC: true})
		if a.LossPct < 0 || a.LossPct > 100 || a.DiscardPct < 0 || a.DiscardPct > 100 || a.MOS > 4.5 || a.MOS != 0 && a.MOS < 1 || a.JitterMS < 0 {
			t.Fatalf("%+v", a)
		}
		if _, err := json.Marshal(a); err != nil {
			t.Fatal(err)
		}
	})
}

package recorder

import (
	"encoding/binary"
	"math"
	"testing"

	"gopkg.in/hraban/opus.v2"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/media/mediatest"
	"github.com/trunktap/trunktap/suppress"
)

const toneHz, toneAmplitude = 440, 8000

// tone is the sample at a time of a sine.
func tone(seconds float64) int16 {
	return int16(math.Round(toneAmplitude * math.Sin(2*math.Pi*toneHz*seconds)))
}

// toneBytes is 20 ms of the tone from fromMS on, as coded by code.
func toneBytes(fromMS, rate int, code func([]byte, int16) []byte) []byte {
	var b []byte
	for i := range rate / 50 {
		b = code(b, tone(float64(fromMS)/1000+float64(i)/float64(rate)))
	}
	return b
}

func l16(b []byte, s int16) []byte     { return binary.BigEndian.AppendUint16(b, uint16(s)) }
func inMuLaw(b []byte, s int16) []byte { return append(b, codec.MuLaw(s)) }

// speak is 20 ms packets of a format from fromMS to toMS; lost ones are left out.
func speak(side media.Side, fromMS, toMS int, pt uint8, ticks int, payload func(n, ms int) []byte, lost func(n int) bool) []step {
	var out []step
	for ms, n := fromMS, 0; ms < toMS; ms, n = ms+20, n+1 {
		if lost != nil && lost(n) {
			continue
		}
		wire, t := packet(pt, uint16(n), uint32(ticks*n), 0x2000+uint32(side), payload(n, ms)), at(ms)
		out = append(out, step{at: t, do: func(c *testCall) { c.put(side, t, wire) }})
	}
	return out
}

// inFormats is answered with other formats.
func inFormats(ms int, formats ...media.Format) []step {
	return []step{
		{at: at(0), do: func(c *testCall) {
			c.tap.Answered(at(0))
			for _, side := range []media.Side{media.External, media.Internal} {
				id := media.StreamID(side)
				c.taps[id] = c.tap.StreamStarted(media.Stream{ID: id, Side: side, At: at(0), Formats: formats, Sending: true})
			}
		}},
		{at: at(ms), last: true, do: func(c *testCall) { c.tap.Ended(at(ms), media.CauseBye) }},
	}
}

// toneError is the worst distance between samples and the tone, over the
// positions [fromMS, toMS), when they are shifted by up to a packet.
func toneError(pcm []int16, rate, fromMS, toMS int) float64 {
	best := math.Inf(1)
	for shift := -rate / 1000; shift <= rate/1000; shift++ {
		worst := 0.0
		for i := fromMS * rate / 1000; i < toMS*rate/1000; i++ {
			worst = max(worst, math.Abs(float64(pcm[i])-float64(tone(float64(i+shift)/float64(rate)))))
		}
		best = min(best, worst)
	}
	return best
}

// TestRates records a call whose parties have codecs of different rates, at each
// rate of a recording: both are the tone, at its pitch and in its place.
func TestRates(t *testing.T) {
	wide := media.Format{PayloadType: 96, Name: "L16", ClockRate: 16000}
	narrow := media.Format{PayloadType: 0, Name: "PCMU", ClockRate: 8000}
	for _, rate := range []int{8000, 16000, 48000} {
		p := testPlan()
		p.SampleRate = rate
		sink, m := replayed(t, p, script(inFormats(3000, wide, narrow),
			speak(media.External, 0, 3000, 96, 320, func(_, ms int) []byte { return toneBytes(ms, 16000, l16) }, nil),
			speak(media.Internal, 0, 3000, 0, 160, func(_, ms int) []byte { return toneBytes(ms, 8000, inMuLaw) }, nil)))
		if m.SampleRate != rate || m.AudioMS != 3000 || len(m.Gaps) != 0 {
			t.Errorf("%d Hz: %d Hz, %d ms, gaps %v", rate, m.SampleRate, m.AudioMS, m.Gaps)
		}
		pcm := sink.pcm()
		if len(pcm[0]) != 3*rate {
			t.Fatalf("%d Hz: %d samples", rate, len(pcm[0]))
		}
		for ch, bound := range []float64{20, 300} { // the second is what mu-law does to it
			if e := toneError(pcm[ch], rate, 100, 2900); e > bound {
				t.Errorf("%d Hz, channel %d: off by %.0f of %d", rate, ch, e, toneAmplitude)
			}
		}
	}
}

// losing is a talker who loses packets while the other side is quiet.
func losing(lost func(n int) bool, more ...step) []step {
	return script(answered(3000), talk(media.Internal, 0, 3000, constant(0xff)), more,
		speak(media.External, 0, 3000, 0, 160, func(_, ms int) []byte { return toneBytes(ms, 8000, inMuLaw) }, lost))
}

func concealing() Plan {
	p := testPlan()
	p.Conceal = true
	return p
}

// energy is the mean square of samples.
func energy(pcm []int16) float64 {
	sum := 0.0
	for _, s := range pcm {
		sum += float64(s) * float64(s)
	}
	return sum / float64(len(pcm))
}

// TestConcealment: what is lost sounds like what was before it, and is listed.
func TestConcealment(t *testing.T) {
	for _, packets := range []int{1, 3, 5} {
		sink, m := replayed(t, concealing(), losing(func(n int) bool { return n >= 50 && n < 50+packets }))
		checkAccount(t, m, sink)
		want := Gap{Channel: 0, RealMS: 1000, AudioMS: 1000, DurationMS: int64(20 * packets), Cause: GapLoss, Filled: "concealed"}
		if len(m.Gaps) != 1 || m.Gaps[0] != want {
			t.Errorf("%d lost: %+v", packets, m.Gaps)
		}
		if e := energy(sink.pcm()[0][8000:8080]); e < toneAmplitude*toneAmplitude/4 {
			t.Errorf("%d lost: the first 10 ms have an energy of %.0f", packets, e)
		}
	}
}

// TestLongLossIsSilence: nothing is made up beyond what a codec can know.
func TestLongLossIsSilence(t *testing.T) {
	sink, m := replayed(t, concealing(), losing(func(n int) bool { return n >= 50 && n < 80 }))
	checkAccount(t, m, sink)
	if e := energy(sink.pcm()[0][8000+100*8 : 8000+590*8]); e != 0 {
		t.Errorf("energy %.0f where 600 ms were lost", e)
	}
}

// TestConcealmentKeepsWindowsShut: audio of a window must not be heard behind it
// in the disguise of concealment.
func TestConcealmentKeepsWindowsShut(t *testing.T) {
	for _, mode := range []string{SuppressedCut, SuppressedSilence} {
		p := concealing()
		p.Suppressed = mode
		sink, m := replayed(t, p, losing(func(n int) bool { return n >= 50 && n < 54 },
			signalAt(700, suppress.PauseStart), signalAt(1000, suppress.PauseEnd)))
		checkAccount(t, m, sink)
		from := m.Windows[0].AudioMS * 8
		if mode == SuppressedSilence {
			from += 300 * 8
		}
		if e := energy(sink.pcm()[0][from : from+79*8]); e != 0 {
			t.Errorf("%s: energy %.0f in what was lost right behind the window", mode, e)
		}
		total := int64(0)
		for _, g := range m.Gaps {
			if g.Filled != "silence" || g.Cause != GapLoss {
				t.Errorf("%s: gap %+v", mode, g)
			}
			total += g.DurationMS
		}
		if total < 80+blendMS || total > 80+blendMS+10 {
			t.Errorf("%s: gaps %+v", mode, m.Gaps)
		}
	}
}

// TestRedundantAudio: RFC 2198 brings back what was lost.
func TestRedundantAudio(t *testing.T) {
	red := media.Format{PayloadType: 97, Name: "RED", ClockRate: 8000, Params: "0/0"}
	payload := func(n, ms int) []byte {
		primary := toneBytes(ms, 8000, inMuLaw)
		if n == 0 {
			return append([]byte{0}, primary...)
		}
		before := toneBytes(ms-20, 8000, inMuLaw)
		head := binary.BigEndian.AppendUint32(nil, 0x80<<24|160<<10|uint32(len(before)))
		return append(append(append(head, 0), before...), primary...)
	}
	lost := func(n int) bool { return n > 10 && n%5 == 0 }
	sink, m := replayed(t, testPlan(), script(inFormats(3000, red, g711Formats[0]), talk(media.Internal, 0, 3000, constant(0xff)),
		speak(media.External, 0, 3000, 97, 160, payload, lost)))
	checkAccount(t, m, sink)
	if len(m.Gaps) != 0 || m.Streams[0].Lost == 0 || m.Streams[0].Recovered != m.Streams[0].Lost {
		t.Errorf("gaps %+v, %+v", m.Gaps, m.Streams[0])
	}
	if e := toneError(sink.pcm()[0], 8000, 100, 2900); e > 300 {
		t.Errorf("off by %.0f", e)
	}
}

// TestQuality: the account of a stream that loses one packet in ten.
func TestQuality(t *testing.T) {
	_, m := replayed(t, concealing(), losing(func(n int) bool { return n%10 == 5 }))
	q := m.Streams[0].Quality
	if q == nil || q.LossPct < 8 || q.LossPct > 12 || q.MOS < 2 || q.MOS > 4.2 || q.ConcealedMS < 200 {
		t.Fatalf("quality of 10 %% loss: %+v", q)
	}
	clean := m.Streams[1].Quality
	if clean == nil || clean.LossPct != 0 || clean.MOS <= q.MOS {
		t.Errorf("quality without loss: %+v", clean)
	}
}

// TestSenderReportsAreRead: RTCP in a tap neither disturbs the audio nor counts
// as RTP, and report blocks come into the account of the other side's stream.
func TestSenderReportsAreRead(t *testing.T) {
	report := func(side media.Side, ms int) step {
		b := make([]byte, 28+24)
		b[0], b[1] = 0x81, 200
		binary.BigEndian.PutUint16(b[2:], 12)
		binary.BigEndian.PutUint32(b[4:], 0x1000+uint32(side))
		binary.BigEndian.PutUint32(b[8:], uint32(3_900_000_000+ms/1000))
		binary.BigEndian.PutUint32(b[12:], uint32(uint64(ms%1000)<<32/1000))
		first := uint32(4294960000 & math.MaxUint32)
		binary.BigEndian.PutUint32(b[16:], first+uint32(8*ms))
		binary.BigEndian.PutUint32(b[28:], 0x1000+uint32(side.Other()))
		b[32] = 64 // a quarter lost
		t := at(ms)
		return step{at: t, do: func(c *testCall) { c.put(side, t, b) }}
	}
	steps := script(answered(12000), talk(media.External, 0, 12000, constant(0x30)), talk(media.Internal, 0, 12000, constant(0x31)),
		[]step{report(media.Internal, 5000), report(media.External, 5001), report(media.Internal, 10000), report(media.External, 10001)})
	sink, m := replayed(t, testPlan(), steps)
	checkAccount(t, m, sink)
	if len(m.Gaps) != 0 || m.Streams[0].Packets != 600 || m.Streams[0].Rejected != 0 {
		t.Errorf("gaps %v, %+v", m.Gaps, m.Streams[0])
	}
	if r := m.Streams[0].Quality.Remote; r == nil || r.Reports != 2 || r.LossPct != 25 {
		t.Errorf("what the far end says: %+v", r)
	}
}

// voice is what a speech coder takes for speech: a pitch with its harmonics, in
// syllables.
func voice(seconds float64) int16 {
	sum := 0.0
	for k := 1.0; k < 20; k++ {
		sum += math.Sin(2*math.Pi*k*130*seconds+k*k) / k
	}
	return int16(toneAmplitude * sum / 2 * (0.6 + 0.4*math.Sin(2*math.Pi*4*seconds)))
}

// TestInBandFEC: what Opus sends twice, which is what its encoder takes for speech,
// is no gap, whether losses are made up for or not.
func TestInBandFEC(t *testing.T) {
	enc, err := opus.NewEncoder(48000, 1, opus.AppVoIP)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{enc.SetInBandFEC(true), enc.SetPacketLossPerc(30), enc.SetBitrate(20000), enc.SetMaxBandwidth(opus.Wideband)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var packets [][]byte
	for n := range 150 {
		pcm, buf := make([]int16, 960), make([]byte, 400)
		for i := range pcm {
			pcm[i] = voice(float64(n)/50 + float64(i)/48000)
		}
		size, err := enc.Encode(pcm, buf)
		if err != nil {
			t.Fatal(err)
		}
		packets = append(packets, buf[:size])
	}
	for _, conceal := range []bool{false, true} {
		p := testPlan()
		p.Conceal = conceal
		sink, m := replayed(t, p, script(inFormats(3000, media.Format{PayloadType: 98, Name: "OPUS", ClockRate: 48000, Channels: 2}, g711Formats[0]),
			talk(media.Internal, 0, 3000, constant(0xff)),
			speak(media.External, 0, 3000, 98, 960, func(n, _ int) []byte { return packets[n] }, func(n int) bool { return n%7 == 6 && n > 20 })))
		checkAccount(t, m, sink)
		if s := m.Streams[0]; s.Lost < 15 || s.Recovered < s.Lost/2 || int64(len(m.Gaps)) != s.Lost-s.Recovered {
			t.Errorf("conceal %v: lost %d, recovered %d, gaps %+v", conceal, s.Lost, s.Recovered, m.Gaps)
		}
		if e := energy(sink.pcm()[0][8000:20000]); e < toneAmplitude*toneAmplitude/40 {
			t.Errorf("conceal %v: energy %.0f", conceal, e)
		}
	}
}

// TestDigitByFEC: a key whose tone comes by in-band FEC in half is a key like
// another, and masked.
func TestDigitByFEC(t *testing.T) {
	enc, err := opus.NewEncoder(48000, 1, opus.AppVoIP)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{enc.SetInBandFEC(true), enc.SetPacketLossPerc(30), enc.SetBitrate(20000), enc.SetMaxBandwidth(opus.Wideband)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	speech := make([]int16, 150*960)
	for i := range speech {
		speech[i] = voice(float64(i) / 48000)
	}
	clear(speech[50*960 : 55*960])
	mediatest.DTMF{Rate: 48000, Low: -10, High: -10}.Add(speech[50*960:55*960], '5')
	var packets [][]byte
	for n := range 150 {
		buf := make([]byte, 400)
		size, err := enc.Encode(speech[n*960:(n+1)*960], buf)
		if err != nil {
			t.Fatal(err)
		}
		packets = append(packets, buf[:size])
	}
	p := testPlan()
	p.MaskDTMF, p.Conceal = true, false
	sink, m := replayed(t, p, script(inFormats(3000, media.Format{PayloadType: 98, Name: "OPUS", ClockRate: 48000, Channels: 2}, g711Formats[0]),
		talk(media.Internal, 0, 3000, constant(0xff)),
		speak(media.External, 0, 3000, 98, 960, func(n, _ int) []byte { return packets[n] }, func(n int) bool { return n == 51 || n == 53 })))
	checkAccount(t, m, sink)
	if s := m.Streams[0]; s.Recovered != 2 {
		t.Fatalf("%d packets came by FEC", s.Recovered)
	}
	if len(m.DTMF) != 1 || m.DTMF[0].Digit != "5" {
		t.Errorf("digits %+v, gaps %+v", m.DTMF, m.Gaps)
	}
	pcm := sink.pcm()[0]
	for i := 8 * 1000; i < 8*1100; i += 80 {
		if e := toneEnergy(pcm[i:i+160], '5'); e > 1e4 {
			t.Errorf("%d ms: the tone has the energy %.0f", i/8, e)
		}
	}
}

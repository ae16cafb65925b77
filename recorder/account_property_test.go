package recorder

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/hraban/opus.v2"
	"pgregory.net/rapid"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/media/mediatest"
	"github.com/trunktap/trunktap/suppress"
)

// anyFormats are what the talkers of the property may send.
var anyFormats = append(slices.Clone(g711Formats),
	media.Format{PayloadType: 9, Name: "G722", ClockRate: 8000},
	media.Format{PayloadType: 96, Name: "L16", ClockRate: 8000},
	media.Format{PayloadType: 97, Name: "L16", ClockRate: 16000},
	media.Format{PayloadType: 98, Name: "L16", ClockRate: 48000, Channels: 2},
	media.Format{PayloadType: 100, Name: "RED", ClockRate: 8000, Params: "0/0"},
	media.Format{PayloadType: 102, Name: "AMR", ClockRate: 8000, Params: "octet-align=1"},
	media.Format{PayloadType: 111, Name: "OPUS", ClockRate: 48000, Channels: 2, Params: "useinbandfec=1;usedtx=1"},
)

// sound is a format that a talker codes into.
type sound struct {
	pt                    uint8
	clock, rate, channels int
}

var sounds = []sound{
	{0, 8000, 8000, 1},
	{8, 8000, 8000, 1},
	{9, 8000, 16000, 1},
	{96, 8000, 8000, 1},
	{97, 16000, 16000, 1},
	{98, 48000, 48000, 2},
	{100, 8000, 8000, 1},
	{102, 8000, 8000, 1},
	{111, 48000, 48000, 1},
}

const (
	voiceHz  = 400
	canaryHz = 1700 // is sent inside windows alone
)

// road is what happens to a talker's packets, and what the talker does.
type road struct {
	loss                          float64
	jitterMS, ppm                 int
	reorder, duplicate, drop, dtx bool
	sources, resets, jumps, wraps bool
	digits, renegotiate, odd      bool
	codecs                        []int
	fromMS, toMS, lengthMS        int
}

func drawRoad(rt *rapid.T, name string, lengthMS int) road {
	flag := func(s string) bool { return rapid.Bool().Draw(rt, name+s) }
	return road{
		loss:     float64(rapid.IntRange(0, 20).Draw(rt, name+"loss")) / 100,
		jitterMS: rapid.IntRange(0, 200).Draw(rt, name+"jitter"), ppm: rapid.IntRange(-200, 200).Draw(rt, name+"ppm"),
		reorder: flag("reorder"), duplicate: flag("duplicate"), drop: flag("drop"), dtx: flag("dtx"),
		sources: flag("sources"), resets: flag("resets"), jumps: flag("jumps"), wraps: flag("wraps"),
		digits: flag("digits"), renegotiate: flag("renegotiate"), odd: flag("odd"),
		codecs:   rapid.SliceOfN(rapid.IntRange(0, len(sounds)-1), 1, 3).Draw(rt, name+"codecs"),
		fromMS:   rapid.IntRange(-800, 1500).Draw(rt, name+"from"),
		lengthMS: lengthMS,
		toMS:     lengthMS - rapid.IntRange(0, 1500).Draw(rt, name+"to"),
	}
}

// talker makes the packets of one side.
type talker struct {
	road
	rng       *rand.Rand
	side      media.Side
	canary    [][2]int // ms
	ssrc, ts  uint32
	seq       uint16
	g722      codec.G722Encoder
	opus      *opus.Encoder
	redundant []byte
	until     int // ms, where what is redundant ends
	distinct  int // packets that arrive, copies left out
	out       []step
}

func newTalker(rt testing.TB, r road, rng *rand.Rand, side media.Side, canary [][2]int) *talker {
	enc, err := opus.NewEncoder(48000, 1, opus.AppVoIP)
	if err != nil {
		rt.Fatal(err)
	}
	for _, err := range []error{enc.SetInBandFEC(true), enc.SetPacketLossPerc(20), enc.SetDTX(true), enc.SetComplexity(0)} {
		if err != nil {
			rt.Fatal(err)
		}
	}
	t := &talker{road: r, rng: rng, side: side, canary: canary, g722: codec.NewG722Encoder(), opus: enc}
	t.source()
	return t
}

// source begins a new synchronisation source.
func (t *talker) source() {
	t.ssrc, t.seq, t.ts = t.rng.Uint32(), uint16(t.rng.Uint32()), t.rng.Uint32()
	if t.wraps {
		t.seq, t.ts = 65530, 1<<32-8000
	}
}

// pcm is what the talker says from a moment on.
func (t *talker) pcm(ms, durMS, rate int) []int16 {
	hz := float64(voiceHz)
	for _, c := range t.canary {
		if ms >= c[0] && ms+durMS <= c[1] {
			hz = canaryHz
		}
	}
	return mediatest.Tone(hz, rate, rate*durMS/1000, 8000)
}

// payload codes a packet time.
func (t *talker) payload(s sound, ms, durMS int) []byte {
	pcm := t.pcm(ms, durMS, s.rate)
	out := make([]byte, 0, 1500)
	switch s.pt {
	case 0, 100:
		for _, v := range pcm {
			out = append(out, mediatest.MuLaw(v))
		}
		if s.pt == 100 {
			out = t.red(out, ms, durMS)
		}
	case 8:
		for _, v := range pcm {
			out = append(out, mediatest.ALaw(v))
		}
	case 9:
		out = out[:len(pcm)/2]
		t.g722.Encode(out, pcm)
	case 111:
		n, err := t.opus.Encode(pcm, out[:1500])
		if err != nil {
			panic(err)
		}
		out = out[:n]
	case 102: // a frame of no data for each 20 ms
		out = append(out, 0xf0)
		for n := range durMS / 20 {
			out = append(out, map[bool]byte{true: 0xfc, false: 0x7c}[n < durMS/20-1])
		}
	default:
		for _, v := range pcm {
			for range s.channels {
				out = binary.BigEndian.AppendUint16(out, uint16(v))
			}
		}
	}
	return out
}

// red puts the payload before into a packet, too (RFC 2198), when it is of the time before.
func (t *talker) red(primary []byte, ms, durMS int) []byte {
	before, at := t.redundant, t.until
	t.redundant, t.until = primary, ms+durMS
	if at != ms || len(before) == 0 || len(before) > 1023 || len(before) != len(primary) {
		return append([]byte{0}, primary...)
	}
	head := binary.BigEndian.AppendUint32(nil, 1<<31|uint32(len(before))<<10|uint32(len(before)))
	return slices.Concat(head, []byte{0}, before, primary)
}

// send puts a packet on the road.
func (t *talker) send(ms float64, wire []byte) {
	if t.rng.Float64() < t.loss {
		return
	}
	if t.drop && t.rng.IntN(40) == 0 {
		moment := at(0).Add(time.Duration(ms * 1e6))
		side := t.side
		t.out = append(t.out, step{at: moment, do: func(c *testCall) {
			if d, ok := c.taps[media.StreamID(side)].(interface{ Drop(n uint32) }); ok {
				d.Drop(1)
			}
		}})
		return
	}
	copies, before := 1, len(t.out)
	if t.duplicate && t.rng.IntN(20) == 0 {
		copies = 2
	}
	for range copies {
		delay := t.rng.Float64() * float64(t.jitterMS)
		if t.reorder && t.rng.IntN(20) == 0 {
			delay += 45
		}
		moment := at(0).Add(time.Duration((ms + delay) * 1e6))
		side := t.side
		if !moment.After(at(t.lengthMS)) {
			t.out = append(t.out, step{at: moment, do: func(c *testCall) { c.put(side, moment, wire) }})
		}
	}
	t.distinct += min(1, len(t.out)-before)
}

// event sends a key by RFC 4733, or comfort noise.
func (t *talker) event(ms float64) {
	if t.rng.IntN(2) == 0 {
		t.send(ms, packet(13, t.seq, t.ts, t.ssrc, []byte{60}))
		t.seq++
		return
	}
	for n := range 5 {
		end := byte(0)
		if n > 2 {
			end = 0x80
		}
		t.send(ms, packet(101, t.seq, t.ts, t.ssrc, []byte{5, end | 10, 0, byte(40 * (n + 1))}))
		t.seq++
	}
}

// turn is what a talker does before a packet, once in a while.
func (t *talker) turn(ms float64) (pauseMS int) {
	switch t.rng.IntN(80) {
	case 0:
		if t.sources {
			t.source()
		}
	case 1:
		if t.resets {
			t.seq = uint16(t.rng.Uint32())
		}
	case 2:
		if t.jumps {
			t.ts += t.rng.Uint32N(1 << 24)
		}
	case 3:
		if t.dtx {
			return 20 * (1 + t.rng.IntN(40))
		}
	case 4, 5:
		if t.digits {
			t.event(ms)
		}
	case 6:
		if t.renegotiate {
			t.again(ms)
		}
	case 7:
		if t.odd { // a stranger on the port, or another's SSRC
			t.send(ms, packet(0, uint16(t.rng.Uint32()), t.rng.Uint32(), t.ssrc^uint32(t.rng.IntN(2)), make([]byte, 160)))
		}
	}
	return 0
}

// again announces the stream once more, in another order and maybe on hold.
func (t *talker) again(ms float64) {
	formats := slices.Clone(anyFormats)
	t.rng.Shuffle(len(formats), func(i, k int) { formats[i], formats[k] = formats[k], formats[i] })
	moment, sending, side := at(0).Add(time.Duration(ms*1e6)), t.rng.IntN(3) > 0, t.side
	t.out = append(t.out, step{at: moment, do: func(c *testCall) {
		id := media.StreamID(side)
		c.taps[id] = c.tap.StreamStarted(media.Stream{ID: id, Side: side, At: moment, Formats: formats, Sending: sending})
	}})
}

// talk makes all packets of the talker.
func (t *talker) talk() []step {
	kind, dur := sounds[t.codecs[0]], 20
	for ms := t.fromMS; ms+dur < t.toMS; {
		if t.rng.IntN(60) == 0 {
			kind, dur = sounds[t.codecs[t.rng.IntN(len(t.codecs))]], []int{10, 20, 20, 40, 60}[t.rng.IntN(5)]
			if kind.pt == 102 || kind.channels == 2 {
				dur = 20
			}
		}
		sent := float64(ms) / (1 + float64(t.ppm)/1e6)
		if pause := t.turn(sent); pause > 0 {
			ms, t.ts = ms+pause, t.ts+uint32(pause*kind.clock/1000)
			continue
		}
		t.send(sent, packet(kind.pt, t.seq, t.ts, t.ssrc, t.payload(kind, ms, dur)))
		t.seq, t.ts, ms = t.seq+1, t.ts+uint32(dur*kind.clock/1000), ms+dur
	}
	return t.out
}

func drawPlan(rt *rapid.T) Plan {
	p := testPlan()
	p.SampleRate = rapid.SampledFrom([]int{8000, RateAuto, 16000, 48000}).Draw(rt, "rate")
	p.Mono, p.Conceal = rapid.Bool().Draw(rt, "mono"), rapid.Bool().Draw(rt, "conceal")
	p.MaskDTMF, p.EarlyMedia = rapid.Bool().Draw(rt, "mask"), rapid.Bool().Draw(rt, "early")
	p.Suppressed = rapid.SampledFrom([]string{SuppressedCut, SuppressedSilence}).Draw(rt, "suppressed")
	p.SegmentMax = rapid.SampledFrom([]time.Duration{time.Hour, time.Second, 1730 * time.Millisecond}).Draw(rt, "segment")
	p.Rules = suppress.Rules{
		IVR: true, Queue: rapid.Bool().Draw(rt, "queue"), Hold: rapid.Bool().Draw(rt, "hold"),
		ConsentRequired: rapid.IntRange(0, 5).Draw(rt, "consent") == 5,
	}
	return p
}

var anyEvents = []suppress.Event{
	suppress.IVRStart, suppress.IVREnd, suppress.QueueStart, suppress.QueueEnd, suppress.HoldStart, suppress.HoldEnd,
	suppress.PauseStart, suppress.PauseEnd, suppress.ConsentGranted, suppress.ConsentDenied, suppress.AgentJoin, suppress.AgentLeave,
	suppress.TransferExternal, suppress.TransferInternal,
}

// noise is random signals, some of which come late.
func noise(rt *rapid.T, lengthMS int) (out []step) {
	for range rapid.IntRange(0, 8).Draw(rt, "signals") {
		ms := rapid.IntRange(0, lengthMS-1).Draw(rt, "at")
		lag := min(rapid.SampledFrom([]int{0, 0, 150, 900, 2600}).Draw(rt, "lag"), lengthMS-ms)
		s := suppress.Signal{
			V: 1, Event: rapid.SampledFrom(anyEvents).Draw(rt, "event"), At: at(ms), Received: at(ms + lag), Source: "test", User: "desk",
		}
		out = append(out, step{at: at(ms + lag), do: func(c *testCall) { c.tap.Signal(s) }})
	}
	return out
}

// secret is a window of a source that nothing else ends, and when its canary sounds.
func secret(rt *rapid.T, lengthMS int) (steps []step, canary [][2]int) {
	if lengthMS < 2500 || !rapid.Bool().Draw(rt, "secret") {
		return nil, nil
	}
	from := rapid.IntRange(0, lengthMS-2000).Draw(rt, "secret from")
	to := rapid.IntRange(from+1500, lengthMS).Draw(rt, "secret to")
	put := func(ms int, e suppress.Event) step {
		return step{at: at(ms), do: func(c *testCall) {
			c.tap.Signal(suppress.Signal{V: 1, Event: e, At: at(ms), Source: "vault"})
		}}
	}
	return []step{put(from, suppress.DTMFStart), put(to, suppress.DTMFEnd)}, [][2]int{{from + 300, to - 600}}
}

// stereo gives a mono recording a second channel, so that both are read alike.
func (m *memSink) stereo() {
	for _, segment := range m.segments {
		for i, a := range segment {
			twice := make([]byte, 0, 2*len(a.Data))
			for k := 0; k+1 < len(a.Data); k += 2 {
				twice = append(twice, a.Data[k], a.Data[k+1], a.Data[k], a.Data[k+1])
			}
			segment[i].Data = twice
		}
	}
}

// canaryFault looks for what was sent inside windows alone.
func canaryFault(m *Manifest, sink *memSink) error {
	block := m.SampleRate / 20
	for ch, pcm := range sink.pcm() {
		for i := 0; i+block <= len(pcm); i += block {
			if e := mediatest.Energy(pcm[i:i+block], canaryHz, m.SampleRate); e > 4e6 {
				return fmt.Errorf("channel %d at audio %d ms holds what was sent in a window (energy %.0f)", ch, i*1000/m.SampleRate, e)
			}
		}
	}
	return nil
}

// countFault compares the rows of streams with what was put.
func countFault(m *Manifest, talkers [2]*talker) error {
	for ch, t := range talkers {
		taken := int64(0)
		for _, s := range m.Streams {
			if s.Channel == ch {
				taken += s.Packets
			}
		}
		if taken > int64(t.distinct) {
			return fmt.Errorf("channel %d: %d packets are taken and %d were put", ch, taken, t.distinct)
		}
		steady := !t.sources && !t.resets && !t.jumps && !t.odd && !t.renegotiate && t.fromMS >= 0 // the rest comes before the origin
		if steady && taken < int64(t.distinct) {
			return fmt.Errorf("channel %d: %d packets are taken of %d: %+v", ch, taken, t.distinct, m.Streams)
		}
	}
	return nil
}

// recordAny runs a script and holds all that must be true of any call.
func recordAny(t testing.TB, plan Plan, steps []step, secrets bool, talkers [2]*talker) (*memSink, *Manifest, error) {
	sink, m := replayed(t, plan, steps)
	if m == nil {
		return sink, nil, errors.New("nothing was published")
	}
	if plan.Mono {
		sink.stereo()
	}
	if err := accountFault(m, sink); err != nil {
		return sink, m, err
	}
	if secrets {
		if err := canaryFault(m, sink); err != nil {
			return sink, m, err
		}
	}
	return sink, m, countFault(m, talkers)
}

// TestAccountOfAnyCall holds the account over random talkers, networks, signals
// and plans, and that the same call gives the same recording again. The calls are those
// of -rapid.seed, the same in each run; make account looks at many others.
func TestAccountOfAnyCall(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		length := rapid.IntRange(3000, 12000).Draw(rt, "length")
		plan := drawPlan(rt)
		hidden, canary := secret(rt, length)
		start := []step{{at: at(-900), do: func(c *testCall) {
			for _, side := range []media.Side{media.External, media.Internal} {
				id := media.StreamID(side)
				c.taps[id] = c.tap.StreamStarted(media.Stream{ID: id, Side: side, At: at(-900), Formats: anyFormats, Sending: true, Early: true})
			}
		}}, {at: at(0), do: func(c *testCall) { c.tap.Answered(at(0)) }}}
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 7))
		parts := [][]step{start, hidden, noise(rt, length)}
		var talkers [2]*talker
		for _, side := range []media.Side{media.External, media.Internal} {
			tk := newTalker(t, drawRoad(rt, side.String()+" ", length), rng, side, canary)
			talkers[side] = tk
			if rapid.IntRange(0, 9).Draw(rt, side.String()+" mute") < 9 {
				parts = append(parts, tk.talk())
			}
		}
		parts = append(parts, []step{{at: at(length), last: true, do: func(c *testCall) { c.tap.Ended(at(length), media.CauseBye) }}})
		steps := slices.DeleteFunc(script(parts...), func(s step) bool { return s.at.After(at(length)) })
		once, m, err := recordAny(t, plan, steps, canary != nil, talkers)
		if err != nil {
			rt.Fatal(err)
		}
		twice, again, err := recordAny(t, plan, steps, canary != nil, talkers)
		if err != nil {
			rt.Fatal(err)
		}
		if d := cmp.Diff(m, again); d != "" {
			rt.Fatalf("the same call has another account: %s", d)
		}
		a, b := once.pcm(), twice.pcm()
		if !slices.Equal(a[0], b[0]) || !slices.Equal(a[1], b[1]) {
			rt.Fatal("the same call has other samples")
		}
	})
}

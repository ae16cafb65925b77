package overlay

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	opus "gopkg.in/hraban/opus.v2"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/media/mediatest"
)

var epoch = time.Date(2026, 11, 22, 16, 0, 0, 0, time.UTC)

// genesys is the preset of that name.
var genesys = Beep{Frequency: 1400, Duration: 200 * time.Millisecond, Interval: 14 * time.Second, LevelDB: -24}

var (
	pcmu = media.Format{PayloadType: 0, Name: "PCMU", ClockRate: 8000}
	pcma = media.Format{PayloadType: 8, Name: "PCMA", ClockRate: 8000}
	g722 = media.Format{PayloadType: 9, Name: "G722", ClockRate: 8000}
	opu  = media.Format{PayloadType: 111, Name: "OPUS", ClockRate: 48000, Channels: 2}
)

// coder is one end of a codec as a test needs it: what senders and receivers have.
type coder struct {
	format   media.Format
	rate     int // of samples
	channels int
	encode   func([]int16) []byte
	decode   func([]byte) []int16
}

func g711Coder(f media.Format, code func(int16) byte, linear func(byte) int16) coder {
	return coder{f, 8000, 1, func(pcm []int16) []byte {
		out := make([]byte, len(pcm))
		for i, v := range pcm {
			out[i] = code(v)
		}
		return out
	}, func(b []byte) []int16 {
		out := make([]int16, len(b))
		for i, v := range b {
			out[i] = linear(v)
		}
		return out
	}}
}

func g722Coder() coder {
	e, d := codec.NewG722Encoder(), codec.NewG722Decoder()
	return coder{g722, 16000, 1, func(pcm []int16) []byte {
		out := make([]byte, len(pcm)/2)
		e.Encode(out, pcm)
		return out
	}, func(b []byte) []int16 {
		out := make([]int16, 2*len(b))
		d.Decode(out, b)
		return out
	}}
}

func opusCoder(t testing.TB, app opus.Application, channels, bitrate int) coder {
	t.Helper()
	e, err := opus.NewEncoder(48000, channels, app)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.SetBitrate(bitrate); err != nil {
		t.Fatal(err)
	}
	d, err := opus.NewDecoder(48000, channels)
	if err != nil {
		t.Fatal(err)
	}
	return coder{opu, 48000, channels, func(pcm []int16) []byte {
		b := make([]byte, 4000)
		n, err := e.Encode(pcm, b)
		if err != nil {
			t.Fatal(err)
		}
		return b[:n]
	}, func(b []byte) []int16 {
		pcm := make([]int16, 5760*channels)
		n, err := d.Decode(b, pcm)
		if err != nil {
			t.Fatalf("the far end cannot decode: %v", err)
		}
		return pcm[:n*channels]
	}}
}

func coders(t testing.TB) map[string]coder {
	return map[string]coder{
		"PCMU":        g711Coder(pcmu, codec.MuLaw, codec.MuLawLinear),
		"PCMA":        g711Coder(pcma, codec.ALaw, codec.ALawLinear),
		"G722":        g722Coder(),
		"opus speech": opusCoder(t, opus.AppVoIP, 1, 20000),
		"opus music":  opusCoder(t, opus.AppAudio, 2, 96000),
	}
}

// speech is noise and a few tones whose level goes up and down, as talk does; a
// tone of 1400 Hz is not among them.
func speech(rate, n, channels int, peak float64) []int16 {
	rng := rand.New(rand.NewPCG(1, 2))
	out := make([]int16, n*channels)
	var smooth float64
	for i := range n {
		at := float64(i) / float64(rate)
		level := 0.5 + 0.5*math.Sin(2*math.Pi*2.3*at)
		smooth += (rng.Float64()*2 - 1 - smooth) * 0.2
		v := 0.5*math.Sin(2*math.Pi*210*at) + 0.25*math.Sin(2*math.Pi*640*at) + 0.1*math.Sin(2*math.Pi*2600*at) + 0.2*smooth
		for c := range channels {
			out[i*channels+c] = int16(peak * level * v * float64(1+c) / float64(channels))
		}
	}
	return out
}

// call is a sender whose packets went through an overlay.
type call struct {
	coder
	ptime    time.Duration
	sent     [][]byte // as the sender made them
	got      [][]byte // as they went on
	arrivals []time.Time
	clean    []int16 // as the far end would have heard the first channel
	heard    []int16 // as it heard it
}

// first returns one channel of interleaved samples.
func first(pcm []int16, channels int) []int16 {
	if channels == 1 {
		return pcm
	}
	out := make([]int16, len(pcm)/channels)
	for i := range out {
		out[i] = pcm[i*channels]
	}
	return out
}

// run sends pcm through an overlay. far is a second receiver.
func run(c, far coder, o media.Overlay, pcm []int16, ptime time.Duration, begin time.Time, jitter time.Duration) *call {
	frame := int(int64(ptime)*int64(c.rate)/int64(time.Second)) * c.channels
	ticks := int(int64(ptime) * int64(c.format.ClockRate) / int64(time.Second))
	s := mediatest.RTPStream{SSRC: 7, Seq: 65500, Timestamp: math.MaxUint32 - 50000, PayloadType: c.format.PayloadType}
	rng := rand.New(rand.NewPCG(3, 4))
	out := &call{coder: c, ptime: ptime}
	for i := 0; (i+1)*frame <= len(pcm); i++ {
		payload := c.encode(pcm[i*frame : (i+1)*frame])
		wire := s.Next(payload, ticks)
		at := begin.Add(time.Duration(i) * ptime)
		if jitter > 0 {
			at = at.Add(time.Duration(rng.Int64N(int64(jitter))))
		}
		keep := append([]byte(nil), wire...)
		got := append([]byte(nil), o.Apply(at, wire)...)
		if string(wire) != string(keep) {
			panic("the overlay wrote into the packet that it was given")
		}
		out.sent, out.got, out.arrivals = append(out.sent, keep), append(out.got, got), append(out.arrivals, at)
		out.clean = append(out.clean, first(c.decode(payload), c.channels)...)
		out.heard = append(out.heard, first(far.decode(got[12:]), c.channels)...)
	}
	return out
}

// changed returns the first and the last packet that differ from what was sent.
func (c *call) changed() (spans [][2]int) {
	for i := range c.sent {
		if string(c.sent[i]) == string(c.got[i]) {
			continue
		}
		if n := len(spans); n > 0 && spans[n-1][1] == i {
			spans[n-1][1] = i + 1
			continue
		}
		spans = append(spans, [2]int{i, i + 1})
	}
	return spans
}

// slice cuts a time out of samples.
func (c *call) slice(pcm []int16, from, to time.Duration) []int16 {
	at := func(d time.Duration) int { return min(len(pcm), int(int64(d)*int64(c.rate)/int64(time.Second))) }
	return pcm[at(from):at(to)]
}

// levelDB is the power of one frequency relative to a sine of full scale.
func (c *call) levelDB(pcm []int16, frequency float64) float64 {
	return 10 * math.Log10(2*mediatest.Energy(pcm, frequency, c.rate)/(32767*32767)+1e-12)
}

// snrDB compares samples with what they should be.
func snrDB(got, want []int16) float64 {
	var noise, signal float64
	for i := range want {
		d := float64(got[i]) - float64(want[i])
		noise += d * d
		signal += float64(want[i]) * float64(want[i])
	}
	return 10 * math.Log10((signal+1e-9)/(noise+1e-9))
}

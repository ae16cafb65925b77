package quality

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func near(t *testing.T, what string, got, want, within float64) {
	t.Helper()
	if math.IsNaN(got) || math.Abs(got-want) > within {
		t.Errorf("%s: %.3f, want %.3f", what, got, want)
	}
}

// G.107 clause 7.7: all parameters by default give R = 93.2.
func TestDefaults(t *testing.T) {
	r := Defaults().Rate()
	near(t, "R", r.R, 93.2, 0.05)
	near(t, "Ro", r.Noise, 94.77, 0.01)
	near(t, "Is", r.Simultaneous, 1.41, 0.01)
	near(t, "Id", r.Delay, 0.15, 0.02)
	near(t, "MOS", MOS(r.R), 4.41, 0.005)
}

// G.107 annex B, table B.1: R against MOS-CQE.
func TestMOS(t *testing.T) {
	for _, tt := range []struct{ r, mos float64 }{
		{-5, 1}, {0, 1}, {50, 2.58}, {60, 3.10}, {70, 3.60}, {80, 4.03}, {90, 4.34}, {100, 4.5}, {120, 4.5},
	} {
		near(t, "MOS", MOS(tt.r), tt.mos, 0.007) // 80 is given as 4.03, where (B-4) makes 4.024
	}
	if MOS(math.NaN()) != 1 {
		t.Error("no number has a MOS above 1")
	}
	// G.107.1: Ie,WB 0, 13 and 41.
	for _, tt := range []struct{ r, mos float64 }{{129, 4.5}, {116, 4.337}, {88, 3.512}} {
		near(t, "wideband MOS", MOSWideband(tt.r), tt.mos, 0.001)
	}
}

// G.113 appendix I tabulates Ie,eff over loss as it was measured; the formula
// with its Ie and Bpl is a fit of that.
func TestEquipmentAgainstTables(t *testing.T) {
	tests := []struct {
		name      string
		ie, bpl   float64
		within    float64
		loss, ie2 []float64
	}{
		{"G.729A+VAD", 11, 19, 1, []float64{0, 0.5, 1, 1.5, 2, 3, 4, 8, 16}, []float64{11, 13, 15, 17, 19, 23, 26, 36, 49}},
		{"G.723.1+VAD", 15, 16.1, 2, []float64{0, 0.5, 1, 1.5, 2, 3, 4, 8, 16}, []float64{15, 17, 19, 22, 24, 27, 32, 41, 55}},
		{"G.711 with PLC", 0, 25.1, 3, []float64{0, 1, 2, 3, 5, 7, 10, 15, 20}, []float64{0, 5, 7, 10, 15, 20, 25, 35, 45}},
	}
	for _, tt := range tests {
		for i, loss := range tt.loss {
			p := Defaults()
			p.Ie, p.Bpl, p.Ppl = tt.ie, tt.bpl, loss
			near(t, tt.name, p.Rate().Equipment, tt.ie2[i], tt.within)
		}
	}
	// Wideband: AMR-WB 12.65 at 2 % (G.107.1 (7-15) with 95, not 129).
	near(t, "wideband", Parameters{Ie: 20, Bpl: 4.3, Ppl: 2, BurstR: 1, MT: 100, ST: 1}.RateWideband().Equipment, 43.81, 0.01)
}

// Without echo the impairment by delay is that of G.107's curve, which R.
// Cole and J. Rosenbluth fitted as 0.024 d + 0.11 (d - 177.3) beyond 177.3 ms.
func TestDelay(t *testing.T) {
	for _, d := range []float64{0, 50, 100, 150, 200, 250, 300, 350, 400} {
		p := Defaults()
		p.T, p.Ta, p.Tr = d, d, 2*d
		fit := 0.024 * d
		if d > 177.3 {
			fit += 0.11 * (d - 177.3)
		}
		near(t, "Id", p.Rate().Delay, fit, 3.5)
	}
	p := Defaults()
	p.Ta = 100
	near(t, "Idd at 100 ms", p.absoluteDelay(), 0, 0)
	p.Ta = 400 // X = 2
	near(t, "Idd at 400 ms", p.absoluteDelay(), 25*(math.Pow(65, 1.0/6)-3*math.Pow(1+math.Pow(2.0/3, 6), 1.0/6)+2), 1e-9)
}

// An echo of 65 dB is not heard at once, and is after 300 ms; one of 25 dB is
// bad at 50 ms already (G.131).
func TestEcho(t *testing.T) {
	at := func(telr, ms float64) float64 {
		p := Defaults()
		p.TELR, p.T, p.Ta, p.Tr = telr, ms, ms, 2*ms
		return p.Rate().R
	}
	if at(65, 20) < 90 || at(25, 50) > 60 || at(45, 100) > at(65, 100) {
		t.Errorf("%.1f %.1f %.1f %.1f", at(65, 20), at(25, 50), at(45, 100), at(65, 100))
	}
	p := Defaults()
	p.STMR = 5 // a loud sidetone
	if r := p.Rate().R; r > 90 || math.IsNaN(r) {
		t.Errorf("STMR 5: %.1f", r)
	}
	p.STMR = 25 // none
	if r := p.Rate().R; r > 93.2 || math.IsNaN(r) {
		t.Errorf("STMR 25: %.1f", r)
	}
}

// The sidetone's impairment over its whole range, and an echo that is so early
// that it is one.
func TestSidetone(t *testing.T) {
	for _, tt := range []struct{ stmr, ist float64 }{{5, 4.1920}, {12, 0.0000}, {15, 0}, {30, 5.1875}, {38, 8.5123}} {
		near(t, "Ist", Parameters{STMR: tt.stmr, TELR: 200}.sidetone(), tt.ist, 0.001)
	}
	early := Parameters{STMR: 15, TELR: 15, T: 4}
	near(t, "Ist of an echo", early.sidetone(), Parameters{STMR: 15 - 10*math.Log10(1+math.Exp(-1)), TELR: 200}.sidetone(), 1e-9)
}

// More loss, more delay, longer bursts and a worse codec never sound better.
func TestRatingIsMonotonous(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := func(name string, lo, hi float64) float64 { return rapid.Float64Range(lo, hi).Draw(t, name) }
		p := Defaults()
		p.Ie, p.Bpl, p.Ppl, p.BurstR = f("ie", 0, 50), f("bpl", 4.3, 40), f("ppl", 0, 50), f("burst", 1, 8)
		p.Ta = f("ta", 0, 1000)
		p.T, p.Tr = p.Ta, 2*p.Ta
		for _, rate := range []func(Parameters) Rating{Parameters.Rate, Parameters.RateWideband} {
			base := max(rate(p).R, 0) // below, (7-29) rates a worse codec higher, and MOS is 1
			for _, worse := range []func(*Parameters){
				func(q *Parameters) { q.Ppl += f("more", 0, 50) },
				func(q *Parameters) { q.Ie += f("more", 0, 40) },
				func(q *Parameters) { q.BurstR += f("more", 0, 4) },
				func(q *Parameters) { q.Bpl -= f("more", 0, 4) },
				func(q *Parameters) { d := f("more", 0, 500); q.Ta, q.T, q.Tr = q.Ta+d, q.T+d, q.Tr+2*d },
			} {
				q := p
				worse(&q)
				// The echo and its sidetone are not strictly monotonous below 20 ms.
				if got := rate(q).R; got > base+0.35 || math.IsNaN(got) {
					t.Fatalf("%.2f is better than %.2f: %+v, %+v", got, base, q, p)
				}
			}
		}
	})
}

func TestImpairments(t *testing.T) {
	tests := []struct {
		codec   string
		clock   int
		plc     bool
		bytes   int
		ie, bpl float64
		wide    bool
		missing string
		assumed bool
	}{
		{codec: "PCMU", bpl: 4.3},
		{codec: "pcma", plc: true, bpl: 25.1},
		{codec: "G729", ie: 11, bpl: 19},
		{codec: "GSM", ie: 20, bpl: 4.3, assumed: true},
		{codec: "GSM-EFR", ie: 5, bpl: 10},
		{codec: "G726-32", ie: 7, bpl: 4.3, assumed: true},
		{codec: "AAL2-G726-16", ie: 50, bpl: 4.3, assumed: true},
		{codec: "G723", bytes: 24, ie: 15, bpl: 16.1},
		{codec: "G723", bytes: 20, ie: 19, bpl: 16.1, assumed: true},
		{codec: "G722", clock: 8000, ie: 13, bpl: 4.3, wide: true, assumed: true},
		{codec: "L16", clock: 8000, bpl: 4.3, assumed: true},
		{codec: "L16", clock: 16000, bpl: 4.3, wide: true, assumed: true},
		{codec: "AMR", bytes: 33, ie: 5, bpl: 10},
		{codec: "AMR", bytes: 32, ie: 5, bpl: 10},
		{codec: "AMR", bytes: 21, ie: 10, bpl: 4.3, assumed: true},
		{codec: "AMR", bytes: 18, missing: "AMR 6.7"},
		{codec: "AMR", bytes: 7, missing: "7 bytes"},
		{codec: "AMR-WB", bytes: 33, ie: 13, bpl: 4.3, wide: true, assumed: true},
		{codec: "AMR-WB", bytes: 60, ie: 1, bpl: 4.6, wide: true, assumed: true},
		{codec: "AMR-WB", bytes: 61, ie: 8, bpl: 4.9, wide: true, assumed: true},
		{codec: "AMR-WB", bytes: 18, ie: 41, bpl: 4.3, wide: true, assumed: true},
		{codec: "OPUS", missing: "OPUS"},
		{codec: "ILBC", missing: "ILBC"},
		{codec: "", missing: "publishes"},
	}
	for _, tt := range tests {
		i, missing := impairmentOf(Inputs{Codec: tt.codec, ClockRate: tt.clock, PLC: tt.plc}, tt.bytes)
		if tt.missing != "" {
			if !strings.Contains(missing, tt.missing) {
				t.Errorf("%s of %d bytes: %q, %+v", tt.codec, tt.bytes, missing, i)
			}
			continue
		}
		if missing != "" || i.ie != tt.ie || i.bpl != tt.bpl || i.wideband != tt.wide || (i.assumed != "") != tt.assumed || i.source == "" {
			t.Errorf("%s of %d bytes: %+v, %q", tt.codec, tt.bytes, i, missing)
		}
	}
}

// Every size names one mode only, in either packing.
func TestModesAreTold(t *testing.T) {
	for _, modes := range [][]mode{amrModes, amrWidebandModes} {
		seen := make(map[int]string)
		for _, m := range modes {
			for _, n := range m.bytes {
				if other, ok := seen[n]; ok && other != m.name {
					t.Errorf("%d bytes: %s and %s", n, other, m.name)
				}
				seen[n] = m.name
			}
		}
	}
}

func TestSnapshot(t *testing.T) {
	lossy := func(keep func(i int64) bool) *Stream {
		var s Stream
		for i := range int64(5000) {
			if keep(i) {
				s.Packet(i*20e6, i, i*160, 8000, 160)
			}
		}
		return &s
	}
	clean := lossy(func(int64) bool { return true })
	onePercent := lossy(func(i int64) bool { return i%100 != 50 })
	bursty := lossy(func(i int64) bool { return i%1000 < 500 || i%1000 >= 520 }) // 2 % in runs of 20
	shaken := func(ms float64) *Stream {
		var s Stream
		rng := rand.New(rand.NewPCG(1, 1))
		feed(&s, count(0, 5000), func(int) float64 { return rng.Float64() * ms })
		return &s
	}
	halfLate := new(Stream)
	feed(halfLate, count(0, 6000), func(i int) float64 { return map[bool]float64{true: DiscardMS + 50}[i%3 == 2] })
	near20, far80 := Trip{Count: 3, MeanMS: 20}, Trip{Count: 3, MeanMS: 80}
	tests := []struct {
		name         string
		s            *Stream
		in           Inputs
		mos, lq, r   float64
		loss         float64
		model, noMOS string
	}{
		{"clean", clean, Inputs{Codec: "PCMA"}, 4.37, 4.41, 91.0, 0, "Ta 90 ms (network 50 assumed, packet 20, buffer 20)", ""},
		{"round trip known", clean, Inputs{Codec: "PCMA", Near: near20, Far: far80}, 4.37, 4.41, 91.0, 0, "network 50 measured", ""},
		{"a half known", clean, Inputs{Codec: "PCMA", Far: far80}, 4.36, 4.41, 90.8, 0, "network 65 half measured, half assumed", ""},
		{"one in a hundred", onePercent, Inputs{Codec: "PCMU"}, 3.74, 3.83, 73.1, 1, "Bpl 4.3 (G.113 table I.4, G.711 without PLC), Ppl 1.00 %", ""},
		{"concealed", onePercent, Inputs{Codec: "PCMU", PLC: true}, 4.27, 4.33, 87.4, 1, "Bpl 25.1", ""},
		{"bursts", bursty, Inputs{Codec: "PCMU", PLC: true}, 4.15, 4.23, 83.6, 2, "BurstR 8.00", ""},
		{"bursts, not concealed", bursty, Inputs{Codec: "PCMU"}, 3.13, 3.27, 60.7, 2, "BurstR 1.00", ""},
		{"half too late", halfLate, Inputs{Codec: "PCMU", PLC: true}, 1.80, 2.02, 34.4, 0, "Ppl 33.33 % (lost, or over 100 ms late), BurstR 1.00, Ta 170 ms (network 50 assumed, packet 20, buffer 100)", ""},
		{"jitter", shaken(40), Inputs{Codec: "PCMU"}, 4.36, 4.41, 90.5, 0, "packet 20, buffer 27", ""},
		{"more jitter", shaken(99), Inputs{Codec: "PCMU"}, 4.33, 4.41, 89.9, 0, "packet 20, buffer 67", ""},
		{"wideband", clean, Inputs{Codec: "G722"}, 4.34, 4.34, 116, 0, "G.107.1 (06/2019): Ie 13, Bpl 4.3", ""},
		{"opus", clean, Inputs{Codec: "OPUS"}, 0, 0, 0, 0, "", "ITU-T publishes no impairment of OPUS"},
		{"nothing", &Stream{}, Inputs{Codec: "PCMU"}, 0, 0, 0, 0, "", "no packets"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := tt.s.Snapshot(tt.in)
			near(t, "MOS", a.MOS, tt.mos, 0.011)
			near(t, "MOS-LQ", a.MOSLQ, tt.lq, 0.011)
			near(t, "R", a.R, tt.r, 0.3)
			near(t, "loss", a.LossPct, tt.loss, 1e-9)
			if !strings.Contains(a.Model, tt.model) || a.NoMOS != tt.noMOS {
				t.Errorf("%q %q", a.Model, a.NoMOS)
			}
		})
	}
	a := bursty.Snapshot(Inputs{Codec: "PCMU", Near: near20, Far: far80, ConcealedMS: 400, SkewPPM: 12.34})
	if a.Bursts != 5 || a.BurstMS != 400 || a.BurstPct != 100 || a.GapPct != 0 || a.GapMS != 16333 || a.BurstRatio != 19.6 || a.RTTMS != 100 {
		t.Errorf("%+v", a)
	}
	b, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"loss_pct":2`, `"rtt_ms":100`, `"concealed_ms":400`, `"skew_ppm":12.3`, `"burst_ms":400`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %s in %s", want, b)
		}
	}
}

// Worse streams have a worse account, whatever the codec.
func TestSnapshotIsMonotonous(t *testing.T) {
	for _, codec := range []string{"PCMU", "G729", "GSM", "G722", "G726-32", "L16"} {
		last := 5.0
		for _, oneIn := range []int64{0, 1000, 200, 100, 50, 20, 10, 5, 3} {
			var s Stream
			for i := range int64(6000) {
				if oneIn == 0 || i%oneIn != 1 {
					s.Packet(i*20e6, i, i*160, 8000, 160)
				}
			}
			a := s.Snapshot(Inputs{Codec: codec, PLC: true})
			if a.MOS > last || a.MOS < 1 || a.MOSLQ < a.MOS {
				t.Errorf("%s, one in %d lost: %.2f (%.2f listening) after %.2f", codec, oneIn, a.MOS, a.MOSLQ, last)
			}
			last = a.MOS
		}
	}
}

package suppress

// Mode is what becomes of suppressed samples.
type Mode int

// Modes of suppression.
const (
	Cut     Mode = iota // they are taken out, audio time stands still
	Silence             // digital silence takes their place
)

// Gate applies sealed spans to samples and maps real time to audio time. The
// zero Gate cuts. One goroutine owns a Gate. Its memory grows with the number
// of suppressed stretches, which the Timeline bounds.
type Gate struct {
	mode   Mode
	passed int64 // spans were taken up to here
	cuts   cuts
}

// NewGate returns a gate of that mode.
func NewGate(m Mode) *Gate { return &Gate{mode: m, cuts: cuts{list: make([]cut, 0, 16)}} }

// Mode returns what the gate does to suppressed samples.
func (g *Gate) Mode() Mode { return g.mode }

// Pass takes the samples of both channels from fromMS on, at rate samples a
// second (a multiple of 1000 for exact positions), and the sealed spans that
// cover them. It works in place and returns what is kept: with Cut the front
// of each slice, the rest of it wiped; with Silence all of it. Samples that no
// span covers are suppressed. Spans must come in order; those that were passed
// before count once. It does not allocate but for its table.
func (g *Gate) Pass(spans []Span, rate int, fromMS int64, ch [2][]int16) (kept [2][]int16) {
	for _, s := range spans {
		g.note(s)
	}
	for i := range ch {
		if g.mode == Silence {
			kept[i] = silence(spans, int64(rate), fromMS, ch[i])
		} else {
			kept[i] = compact(spans, int64(rate), fromMS, ch[i])
		}
	}
	return kept
}

// note adds a span to the table. Time that no span told of is suppressed.
func (g *Gate) note(s Span) {
	if s.ToMS <= g.passed {
		return
	}
	if s.FromMS > g.passed {
		g.cuts.add(g.passed, s.FromMS)
		g.passed = s.FromMS
	}
	if s.Suppressed {
		g.cuts.add(g.passed, s.ToMS)
	}
	g.passed = s.ToMS
}

// bounds returns the samples that a kept span leaves, inward of its edges.
func bounds(s Span, rate, fromMS int64, n int) (lo, hi int) {
	first := fromMS * rate / 1000
	l := (s.FromMS*rate+999)/1000 - first
	h := s.ToMS*rate/1000 - first
	l = min(max(l, 0), int64(n))
	return int(l), int(max(l, min(h, int64(n))))
}

func compact(spans []Span, rate, fromMS int64, ch []int16) []int16 {
	out, done := 0, 0
	for _, s := range spans {
		if s.Suppressed {
			continue
		}
		lo, hi := bounds(s, rate, fromMS, len(ch))
		if lo = max(lo, done); lo < hi {
			out += copy(ch[out:], ch[lo:hi])
			done = hi
		}
	}
	clear(ch[out:])
	return ch[:out]
}

func silence(spans []Span, rate, fromMS int64, ch []int16) []int16 {
	done := 0
	for _, s := range spans {
		if s.Suppressed {
			continue
		}
		lo, hi := bounds(s, rate, fromMS, len(ch))
		if lo = max(lo, done); lo < hi {
			clear(ch[done:lo])
			done = hi
		}
	}
	clear(ch[done:])
	return ch
}

// AudioMS maps a position in real time to one in audio time: with Silence the
// same, with Cut without the suppressed time before it. It never falls; beyond
// what was passed it stands still.
func (g *Gate) AudioMS(realMS int64) int64 {
	if g.mode == Silence {
		return realMS
	}
	realMS = min(max(realMS, 0), g.passed)
	return realMS - g.cuts.before(realMS)
}

// Kept tells whether a millisecond was passed and is not suppressed, in either
// mode: for what is no sample, such as digits.
func (g *Gate) Kept(realMS int64) bool {
	return realMS >= 0 && realMS < g.passed && !g.cuts.contains(realMS)
}

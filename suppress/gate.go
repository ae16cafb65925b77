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
	quiet  cuts // what is kept without the microphone
}

// NewGate returns a gate of that mode.
func NewGate(m Mode) *Gate { return &Gate{mode: m, cuts: cuts{list: make([]cut, 0, 16)}} }

// Mode returns what the gate does to suppressed samples.
func (g *Gate) Mode() Mode { return g.mode }

// Pass takes the samples of both channels from fromMS on, at rate samples a
// second (a multiple of 1000 for exact positions), and the sealed spans that
// cover them. It works in place and returns what is kept: with Cut the front
// of each slice, the rest of it wiped; with Silence all of it. Channel 1 is
// silent in spans without microphone. Samples that no span covers are
// suppressed. Spans must come in order; those that were passed before count
// once. It does not allocate but for its tables.
func (g *Gate) Pass(spans []Span, rate int, fromMS int64, ch [2][]int16) (kept [2][]int16) {
	for _, s := range spans {
		g.note(s)
	}
	mute(spans, int64(rate), fromMS, ch[1])
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
	switch {
	case s.Suppressed:
		g.cuts.add(g.passed, s.ToMS)
	case s.Mic:
		g.quiet.add(g.passed, s.ToMS)
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

// nextKept returns the first stretch that is kept, whether with the microphone
// or not, and the spans behind it.
func nextKept(spans []Span) (run Span, rest []Span, ok bool) {
	for i, s := range spans {
		if s.Suppressed {
			continue
		}
		for i++; i < len(spans) && !spans[i].Suppressed && spans[i].FromMS == s.ToMS; i++ {
			s.ToMS = spans[i].ToMS
		}
		return s, spans[i:], true
	}
	return Span{}, nil, false
}

// mute silences the samples that any part of a span without microphone touches.
func mute(spans []Span, rate, fromMS int64, ch []int16) {
	first := fromMS * rate / 1000
	for _, s := range spans {
		if s.Mic {
			lo := min(max(s.FromMS*rate/1000-first, 0), int64(len(ch)))
			hi := min((s.ToMS*rate+999)/1000-first, int64(len(ch)))
			clear(ch[lo:max(lo, hi)])
		}
	}
}

func compact(spans []Span, rate, fromMS int64, ch []int16) []int16 {
	out, done := 0, 0
	for s, rest, ok := nextKept(spans); ok; s, rest, ok = nextKept(rest) {
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
	for s, rest, ok := nextKept(spans); ok; s, rest, ok = nextKept(rest) {
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
// mode. For what is no sample, such as digits, ask Heard.
func (g *Gate) Kept(realMS int64) bool {
	return realMS >= 0 && realMS < g.passed && !g.cuts.contains(realMS)
}

// Heard tells whether a millisecond of a channel was passed and is neither
// suppressed nor silent for want of the microphone.
func (g *Gate) Heard(channel int, realMS int64) bool {
	return g.Kept(realMS) && (channel != 1 || !g.quiet.contains(realMS))
}

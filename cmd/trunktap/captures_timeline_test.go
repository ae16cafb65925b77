package main

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	opus "gopkg.in/hraban/opus.v2"
)

// bothTalk begins a call in PCMU in which the PBX talks for that long and the
// carrier does as f says.
func bothTalk(d time.Duration, f func(s *generated, p *speaker)) func(*testing.T, *generated) {
	return func(_ *testing.T, s *generated) {
		s.agree(sceneAnswer, "sendrecv", "0 PCMU/8000", "8 PCMA/8000", "9 G722/8000", "13 CN/8000", "101 telephone-event/8000")
		s.speaker(1, 200*ms, muLaw()).talk(d)
		f(s, s.speaker(0, 200*ms, muLaw()))
	}
}

// reported talks for that long with a sender report each half second.
func (p *speaker) reported(d, ahead time.Duration) *speaker {
	for ; d > 0; d -= 500 * ms {
		p.talk(500 * ms).report(ahead)
	}
	return p
}

func timelineCaptures() []captureCase {
	exact, second := faithful{0.999, 30}, time.Second
	drift := faithful{0.93, 0} // a piece in which the place is corrected is unlike itself
	return []captureCase{
		{"timestamp jump", 0, 5 * ms, exact, false, bothTalk(3*second, func(_ *generated, p *speaker) {
			p.talk(second).Timestamp += 1_000_003
			p.talk(second).Timestamp -= 77_777
			p.talk(second)
		})},
		{"SSRC change", 0, 5 * ms, exact, false, bothTalk(3*second, func(_ *generated, p *speaker) {
			p.talk(1500 * ms)
			p.SSRC, p.Seq, p.Timestamp = 0xfeedbeef, 41, 123
			p.talk(1500 * ms)
		})},
		{"SSRC collision and restart", 0, 5 * ms, exact, false, bothTalk(4*second, func(s *generated, p *speaker) {
			first := p.SSRC
			p.SSRC++ // that of the other side
			p.talk(1200 * ms)
			p.SSRC, p.Seq, p.Timestamp = 77, 5, 1<<30
			p.talk(1200 * ms)
			p.SSRC, p.Seq, p.Timestamp = first, 60_000, 9
			p.talk(1600 * ms)
		})},
		{"sequence reset", 0, 5 * ms, exact, false, bothTalk(3*second, func(_ *generated, p *speaker) {
			p.talk(1500 * ms).Seq = 33_000
			p.talk(1500 * ms)
		})},
		{"ptime change", 0, 5 * ms, exact, false, bothTalk(4*second, func(_ *generated, p *speaker) {
			for _, ptime := range []time.Duration{20, 30, 10, 40, 60, 20} {
				p.ptime = ptime * ms
				p.talk(600 * ms)
			}
		})},
		{"codec change by re-INVITE", 0, 5 * ms, faithful{0.99, 15}, false, bothTalk(4*second, func(s *generated, p *speaker) {
			p.talk(1200 * ms)
			s.agree(p.at, "sendrecv", "0 PCMU/8000", "9 G722/8000")
			p.coder = g722()
			p.talk(1200 * ms)
			s.agree(p.at, "sendrecv", "8 PCMA/8000", "0 PCMU/8000")
			p.coder = aLaw()
			p.talk(1200 * ms)
		})},
		{"codec change by payload type", 0, 5 * ms, faithful{0.99, 15}, false, bothTalk(4*second, func(_ *generated, p *speaker) {
			for _, c := range []coder{muLaw(), aLaw(), g722(), muLaw()} {
				p.coder = c
				p.talk(800 * ms)
			}
		})},
		{"codec change by payload type with other clocks", 48000, 5 * ms, faithful{0.99, 15}, false, otherClocks("96 L16/16000", func(*testing.T) []coder {
			return []coder{muLaw(), linear(96, 16000, 1), linear(97, 48000, 1), muLaw()}
		})},
		{"codec change by payload type to Opus and back", 48000, 5 * ms, faithful{0.97, 0}, true, otherClocks("111 opus/48000/2", func(t *testing.T) []coder {
			speech := opusCoder(t, 1, opus.AppAudio, func(e *opus.Encoder) error { return e.SetBitrate(96000) })
			return []coder{muLaw(), speech, linear(97, 48000, 1), g722(), muLaw()}
		})},
		{"discontinuous sending", 0, 5 * ms, exact, false, bothTalk(4*second, func(_ *generated, p *speaker) {
			for range 4 {
				p.talk(600 * ms)
				p.PayloadType = 13
				p.packet(p.Next([]byte{70}, 0))
				p.pause(400 * ms)
			}
		})},
		{"hold with continuous time stamps", 0, 5 * ms, exact, false, func(_ *testing.T, s *generated) { heldScene(s, 0) }},
		{"hold with new time stamps", 0, 5 * ms, exact, false, func(_ *testing.T, s *generated) { heldScene(s, 999_999) }},
		{"another media source", 0, 5 * ms, exact, false, bothTalk(4*second, func(s *generated, p *speaker) {
			p.talk(1500 * ms)
			s.media[0] = netip.MustParseAddrPort("198.51.100.9:4100")
			s.agree(p.at, "sendrecv", "0 PCMU/8000")
			s.speaker(0, p.at, muLaw()).other(0x0a0b0c0d).talk(2 * second)
		})},
		{"one side silent", 0, 5 * ms, exact, false, bothTalk(5*second, func(_ *generated, p *speaker) {
			p.talk(second).pause(3 * second).talk(second)
		})},
		{"one side never speaks", 0, 5 * ms, exact, false, bothTalk(3*second, func(*generated, *speaker) {})},
		{"time stamps wrap", 0, 5 * ms, exact, false, bothTalk(3*second, func(_ *generated, p *speaker) {
			p.Timestamp = 1<<32 - 8000
			p.talk(3 * second)
		})},
		{"sequence numbers wrap", 0, 5 * ms, exact, false, bothTalk(3*second, func(_ *generated, p *speaker) {
			p.Seq = 65_500
			p.talk(3 * second)
		})},
		{"clock 200 ppm fast", 0, 2 * ms, drift, false, bothTalk(12*second, func(_ *generated, p *speaker) {
			p.ppm = 200
			p.reported(12*second, 0)
		})},
		{"clock 200 ppm slow", 0, 2 * ms, drift, false, bothTalk(12*second, func(_ *generated, p *speaker) {
			p.ppm = -200
			p.reported(12*second, 0)
		})},
		{"reports by wrong clocks", 0, 5 * ms, exact, false, bothTalk(4*second, func(s *generated, p *speaker) {
			p.reported(4*second, -7*time.Hour)
			s.speaker(1, 4200*ms, muLaw()).other(5).reported(2*second, 31*time.Hour)
		})},
		{"jitter of 200 ms", 0, 20 * ms, faithful{0.9, 0}, false, bothTalk(6*second, func(s *generated, p *speaker) {
			rnd := rand.New(rand.NewPCG(s.seed, 1))
			p.way = func(int) (time.Duration, bool) { return time.Duration(rnd.Int64N(int64(200 * ms))), false }
			p.talk(6 * second)
		})},
		{"loss of 10 percent", 0, 5 * ms, faithful{0.95, 8}, false, bothTalk(6*second, func(s *generated, p *speaker) {
			rnd := rand.New(rand.NewPCG(s.seed, 1))
			p.way = func(int) (time.Duration, bool) { return 0, rnd.IntN(10) == 0 }
			p.talk(6 * second)
		})},
		{"late packet that still fits", 0, 5 * ms, exact, false, bothTalk(3*second, func(_ *generated, p *speaker) {
			p.way = func(n int) (time.Duration, bool) {
				if n == 40 || n == 90 {
					return 300 * ms, false
				}
				return 0, false
			}
			p.talk(3 * second)
		})},
	}
}

// otherClocks is a call in which the carrier goes from codec to codec within one SSRC.
// The time stamps go on from the same number, in another unit (RFC 7160 section 4.1).
func otherClocks(format string, f func(*testing.T) []coder) func(*testing.T, *generated) {
	return func(t *testing.T, s *generated) {
		coders := f(t)
		s.agree(sceneAnswer, "sendrecv", "0 PCMU/8000", format, "97 L16/48000", "9 G722/8000")
		s.speaker(1, 200*ms, muLaw()).talk(time.Duration(len(coders)) * 800 * ms)
		p := s.speaker(0, 200*ms, muLaw())
		for _, c := range coders {
			p.coder = c
			p.talk(800 * ms)
		}
	}
}

// other makes the speaker another source.
func (p *speaker) other(ssrc uint32) *speaker {
	p.SSRC, p.Seq, p.Timestamp = ssrc, uint16(ssrc), ssrc*3
	return p
}

// heldScene is a call that the carrier holds for a second; its stream resumes
// with time stamps that far from where they would be.
func heldScene(s *generated, jump uint32) {
	const format = "0 PCMU/8000"
	s.agree(sceneAnswer, "sendrecv", format)
	p, q := s.speaker(0, 200*ms, muLaw()), s.speaker(1, 200*ms, muLaw())
	p.talk(1300 * ms)
	q.talk(1300 * ms)
	s.agree(1500*ms, "sendonly", format)
	s.agree(2500*ms, "sendrecv", format)
	p.pause(1020 * ms)
	p.Timestamp += jump
	p.talk(1500 * ms)
	q.pause(1020 * ms).talk(1500 * ms)
}

package recorder

import (
	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/media/mix"
	"github.com/trunktap/trunktap/media/source"
)

// concealMaxMS is how much of a loss is made up for; the rest is silence. What
// codecs and our own concealment make up has faded out by then.
const concealMaxMS = 100

// blocksMax bounds the blocks of a RED packet that are looked at.
const blocksMax = 8

// decoderFor returns the source's decoder of a format, a new one when the format
// has changed.
func (st *stream) decoderFor(c *core, f *format) codec.Decoder {
	if st.decoderOf == f {
		return st.decoder
	}
	d, err := codec.NewDecoder(f.Format, codec.DecoderOptions{Conceal: c.plan.Conceal, AAL2: c.plan.G726AAL2, Rate: c.plan.SampleRate})
	if err != nil {
		return nil
	}
	st.close()
	st.decoder, st.decoderOf = d, f
	return d
}

// close lets go of the decoder.
func (st *stream) close() {
	if st.decoder != nil {
		st.decoder.Close()
	}
	st.decoder, st.decoderOf = nil, nil
}

// ticks converts samples of the decoder to the media clock.
func ticks(samples, rate, clock int) int64 { return int64(samples) * int64(clock) / int64(rate) }

// audio decodes one packet onto the side's timeline.
func (st *stream) audio(c *core, s *side, f *format, p source.Packet) {
	d := st.decoderFor(c, f)
	if d == nil {
		return
	}
	pcm, err := d.Decode(st.pcm[:0], p.Payload)
	if err != nil || len(pcm) == 0 {
		if st.row != nil {
			st.row.undecodable++
		}
		s.undecodable = f.Name
		st.notUnderstood(f, p)
		return
	}
	st.pcm = pcm
	st.packetTicks = ticks(len(pcm), d.Rate(), clockOf(f))
	st.nextTS, st.haveTS = p.TS+st.packetTicks, true
	st.soundTS = st.nextTS
	s.track.AudioAt(st.key, p.TS, d.Rate(), pcm)
	if st.made {
		s.blended(st.key, p.TS, st.madeTS)
		st.made = false
	}
	s.watch(c, st.key, p, st.packetTicks)
	c.typists[s.is].audio(c, s, st.key, p, heard{pcm, d.Rate(), clockOf(f)})
}

// notUnderstood notes a packet whose samples are not to be had. How long it is
// its format may tell, else the next timestamp does.
func (st *stream) notUnderstood(f *format, p source.Packet) {
	st.unknown, st.unknownTS, st.unknownTicks = true, p.TS, int64(codec.Ticks(f.Format, p.Payload))
}

// hole names what is missing before a packet: lost on the way, or dropped by
// the tap.
func (st *stream) hole(c *core, s *side, f *format, p source.Packet, lost int64) {
	ts := p.TS
	if lost <= 0 || !st.haveTS || ts <= st.nextTS {
		return
	}
	from := st.nextTS
	if most := lost * max(st.packetTicks, 1); st.packetTicks > 0 && ts-from > most+st.packetTicks {
		from = ts - most // the rest was a pause of the sender (DTX), not a loss
	}
	if st.overrun > 0 {
		st.overrun -= lost
		s.track.Hole(st.key, from, ts, mix.Overrun)
		return
	}
	if f.decodable && st.decoderOf == f && st.packetTicks > 0 {
		from = st.patch(c, s, f, p, from)
	}
	if from < ts {
		s.track.Hole(st.key, from, ts, mix.Loss)
	}
}

// patch fills what is missing from a timestamp up to a packet: with the copy
// that the packet carries of the one before it (in-band FEC), before that and
// without it with what the codec makes up. It returns from where on nothing is
// filled.
func (st *stream) patch(c *core, s *side, f *format, p source.Packet, from int64) int64 {
	d, clock := st.decoder, clockOf(f)
	bound := from + int64(concealMaxMS*clock/1000)
	recoverer, fec := d.(codec.Recoverer)
	until := p.TS
	if fec {
		until = max(from, p.TS-st.packetTicks)
	}
	// Behind a pause it would sound like what was heard before that, which may
	// have been in a window.
	conceal := c.plan.Conceal && from == st.soundTS
	if conceal {
		from = st.conceal(s, d, clock, from, min(until, bound))
	}
	if !fec {
		return from
	}
	pcm, ok := recoverer.Recover(st.pcm[:0], p.Payload, int((p.TS-until)*int64(d.Rate())/int64(clock)))
	if !ok {
		if conceal && from == until {
			from = st.conceal(s, d, clock, from, min(p.TS, bound))
		}
		return from
	}
	st.pcm = pcm
	if from < until {
		s.track.Hole(st.key, from, until, mix.Loss)
	}
	if st.row != nil {
		st.row.recovered++
	}
	s.track.AudioAt(st.key, until, d.Rate(), pcm)
	if st.made {
		s.blended(st.key, until, st.madeTS)
	}
	q := p // as if it had come in its time
	q.TS, q.Arrival = until, p.Arrival-(p.TS-until)*1e9/int64(clock)
	s.watch(c, st.key, q, p.TS-until)
	c.typists[s.is].audio(c, s, st.key, q, heard{pcm, d.Rate(), clock}) // a key is one however it came
	return p.TS
}

// conceal lays what the codec makes up for the time between two timestamps.
func (st *stream) conceal(s *side, d codec.Decoder, clock int, from, to int64) int64 {
	n := int((to - from) * int64(d.Rate()) / int64(clock))
	if n <= 0 {
		return from
	}
	if pos, ok := s.track.PositionOf(st.key, from); ok && pos < s.track.Cursor() {
		return from // its place is read: what would be made up could only be heard in the joint with the next packet
	}
	st.pcm = d.Conceal(st.pcm[:0], n)
	s.track.ConcealAt(st.key, from, d.Rate(), st.pcm, mix.Loss)
	if !st.made {
		st.made, st.madeTS = true, from
	}
	st.concealed += int64(len(st.pcm)) * 1000 / int64(d.Rate())
	return from + ticks(len(st.pcm), d.Rate(), clock)
}

// redundant takes a packet of RFC 2198: what its redundant blocks have of lost
// packets is taken as if these had come, then the primary block.
func (st *stream) redundant(c *core, s *side, p source.Packet, lost int64) {
	blocks, err := codec.SplitRED(st.blocks[:0], p.Payload)
	if err != nil || len(blocks) == 0 {
		if st.row != nil {
			st.row.undecodable++
		}
		s.undecodable = "RED"
		st.unknown, st.unknownTS, st.unknownTicks = true, p.TS, 0
		return
	}
	st.blocks = blocks
	if extra := len(blocks) - blocksMax; extra > 0 {
		blocks = blocks[extra:]
	}
	for i, b := range blocks {
		q := p
		q.PT, q.Payload, q.TS = b.PayloadType, b.Payload, p.TS-int64(b.Offset)
		primary := i == len(blocks)-1
		f := st.lane.format(q.PT)
		if !f.event {
			q.Arrival -= int64(b.Offset) * 1e9 / int64(clockOf(f)) // as if it had come in its time
		}
		switch {
		case f.red, len(q.Payload) == 0 && !primary:
		case f.event:
			st.event(c, s, q) // repeats of an event are known by its timestamp
		case primary:
			st.hole(c, s, f, q, lost)
			st.medium(c, s, f, q)
		case lost > 0 && st.haveTS && q.TS >= st.nextTS && q.TS < p.TS:
			if missing := (q.TS - st.nextTS) / max(st.packetTicks, 1); missing > 0 {
				st.hole(c, s, f, q, min(lost, missing))
			}
			st.medium(c, s, f, q)
			lost--
			if st.row != nil {
				st.row.recovered++
			}
		}
	}
}

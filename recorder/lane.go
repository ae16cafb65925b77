package recorder

import (
	"fmt"
	"math"
	"slices"

	"github.com/pion/rtp"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/media/jitter"
	"github.com/trunktap/trunktap/media/mix"
	"github.com/trunktap/trunktap/media/quality"
	"github.com/trunktap/trunktap/media/source"
)

// jitterPacketsMax bounds the packets a source may have waiting: 2 s of 10 ms packets.
const jitterPacketsMax = 200

// lane is one negotiated stream: what its payload types mean now.
type lane struct {
	side    media.Side
	sending bool
	secure  bool
	formats [128]*format
}

// format is one entry of the payload type table with its decoder's name.
type format struct {
	media.Format
	event, noise, red, decodable bool

	rate int // Hz that its decoder gives at best; 0: not decodable
}

func (l *lane) negotiate(s media.Stream) {
	l.side, l.sending, l.secure = s.Side, s.Sending, s.Secure
	clear(l.formats[:])
	for _, f := range s.Formats {
		if f.PayloadType < 128 && l.formats[f.PayloadType] == nil {
			l.formats[f.PayloadType] = l.meaning(f)
		}
	}
}

func (l *lane) meaning(f media.Format) *format {
	if l.secure {
		return &format{Format: f} // neither audio nor digits can be read from it
	}
	e := &format{Format: f, event: f.Name == "TELEPHONE-EVENT", noise: f.Name == "CN", red: f.Name == "RED"}
	if !e.event && !e.noise && !e.red {
		d, err := codec.NewDecoder(f, codec.DecoderOptions{})
		if e.decodable = err == nil; e.decodable {
			e.rate = d.Rate()
			d.Close()
		}
	}
	return e
}

// events tells whether digits of RFC 4733 are agreed.
func (l *lane) events() bool {
	return slices.ContainsFunc(l.formats[:], func(f *format) bool { return f != nil && f.event })
}

// static are payload types that mean the same without any negotiation (RFC
// 3551 section 6).
var static = map[uint8]media.Format{
	0: {PayloadType: 0, Name: "PCMU", ClockRate: 8000}, 3: {PayloadType: 3, Name: "GSM", ClockRate: 8000},
	4: {PayloadType: 4, Name: "G723", ClockRate: 8000}, 8: {PayloadType: 8, Name: "PCMA", ClockRate: 8000},
	9: {PayloadType: 9, Name: "G722", ClockRate: 8000}, 10: {PayloadType: 10, Name: "L16", ClockRate: 44100, Channels: 2},
	11: {PayloadType: 11, Name: "L16", ClockRate: 44100}, 13: {PayloadType: 13, Name: "CN", ClockRate: 8000},
	18: {PayloadType: 18, Name: "G729", ClockRate: 8000},
}

// format tells what a payload type means. One that was not negotiated is
// relayed all the same, so it is accounted for: as what it always means, else
// as undecodable.
func (l *lane) format(pt uint8) *format {
	pt &= 0x7f
	if l.formats[pt] == nil {
		f, ok := static[pt]
		if !ok {
			f = media.Format{PayloadType: pt, Name: fmt.Sprintf("PT%d", pt), ClockRate: 8000}
		}
		l.formats[pt] = l.meaning(f)
	}
	return l.formats[pt]
}

// side is everything that comes from one side of the call.
type side struct {
	is          media.Side
	track       *mix.Track // nil until the core is settled
	sources     map[uint32]*stream
	last        *stream   // whose packet came last
	order       []*stream // in order of first packet: the order of draining and of the manifest
	rejected    int64     // packets that were neither RTP nor RTCP
	refused     refusedList
	retired     []Stream // rows of sources that made room for others
	undecodable string   // the codec last met that is not understood
	overrun     uint32   // dropped by the tap before the source was known
	reports     source.Reports
	malformed   int64 // RTCP
	blends      []blend
}

func newSide(is media.Side) *side { return &side{is: is, sources: make(map[uint32]*stream)} }

// stream is one synchronisation source (RFC 3550 section 3).
type stream struct {
	ssrc   uint32
	heard  int64 // ns: when its last packet came
	lane   *lane
	state  source.State
	jitter *jitter.Buffer
	digits codec.Digits
	rows   []*row
	row    *row // of the codec heard last
	pcm    []int16

	decoder      codec.Decoder
	decoderOf    *format
	key          mix.Key
	nextTS       int64 // timestamp behind the last audio taken
	haveTS       bool
	soundTS      int64 // timestamp behind what the decoder heard last: what it makes up continues that
	packetTicks  int64 // of the last audio packet
	overrun      int64 // packets the tap dropped, not yet met as a hole
	dropped      int64 // packets the tap dropped
	unknownTS    int64 // timestamp of an undecodable packet whose length is not known yet
	unknown      bool
	unknownTicks int64 // of it, 0 when its format does not tell
	made         bool  // what the decoder gave last was made up,
	madeTS       int64 // from this timestamp on
	concealed    int64 // ms
	blocks       []codec.Block
	quality      quality.Stream
	held         *heldPacket // outside the sequence, nil: there was none
}

// row is one line of the manifest's streams.
type row struct {
	codec                string
	packets, undecodable int64
	late, lost           int64
	recovered            int64 // lost, and taken out of later packets
}

// accept takes a packet as it arrives; false when it was no RTP that counts.
func (s *side) accept(c *core, l *lane, arrival int64, wire []byte, dropped uint32) bool {
	s.overrun += dropped
	if n, ok := media.RefusedIn(wire); ok {
		s.refused.add(c.realMSOf(arrival), n)
		return false
	}
	if source.IsRTCP(wire) {
		s.control(c, wire, arrival)
		return false
	}
	var h rtp.Header
	payload, err := source.Parse(wire, &h)
	if err != nil {
		s.rejected++
		return false
	}
	st := s.last
	if st == nil || st.ssrc != h.SSRC {
		st = s.sources[h.SSRC]
	}
	if st == nil {
		if len(s.order) >= sourcesMax {
			s.retire(c)
		}
		st = &stream{ssrc: h.SSRC, jitter: jitter.New(c.reorderWindow(), jitterPacketsMax)}
		s.sources[h.SSRC] = st
		s.order = append(s.order, st)
	}
	s.last = st
	st.lane, st.heard = l, arrival
	if s.overrun > 0 {
		st.quality.Unseen(int64(s.overrun))
	}
	st.overrun += int64(s.overrun)
	st.dropped += int64(s.overrun)
	s.overrun = 0
	return st.arrived(c, s, &h, payload, arrival)
}

// retire takes the source that has been silent longest off the side, so that a
// new one has room. Its rows stay, those of the first rowsRetiredMax at least.
func (s *side) retire(c *core) {
	oldest := 0
	for i, st := range s.order {
		if st.heard < s.order[oldest].heard {
			oldest = i
		}
	}
	st := s.order[oldest]
	st.drain(c, s, jitter.Flush)
	st.closeUnknown(s, st.unknownTS+st.packetTicks)
	if len(s.retired) < rowsRetiredMax {
		s.retired = append(s.retired, s.rowsOf(st)...)
	}
	st.close()
	delete(s.sources, st.ssrc)
	s.last = nil
	s.order = append(s.order[:oldest], s.order[oldest+1:]...)
}

// rowsRetiredMax bounds the streams listed beyond those of live sources.
const rowsRetiredMax = 1024

// arrived runs the packet through the source's state into the reorder window.
func (st *stream) arrived(c *core, s *side, h *rtp.Header, payload []byte, arrival int64) bool {
	f := st.lane.format(h.PayloadType)
	if !f.event && !f.noise || st.state.Clock == 0 {
		st.state.Clock = clockOf(f) // events and noise count by that of the audio
	}
	seq, ts, verdict := st.state.Update(h, arrival)
	switch verdict {
	case source.TooOld, source.Suspect:
		st.probe(c, h, f, payload, arrival, verdict == source.TooOld)
		return false
	case source.Duplicate:
		st.quality.Duplicate()
		return false
	case source.Restarted:
		st.quality.Restart()
		st.confirm(c, s)
	case source.InOrder:
		st.disprove(c)
	case source.Reordered:
	}
	st.accepted(c, s, f, source.Packet{
		Arrival: arrival, SSRC: st.ssrc, PT: h.PayloadType, Marker: h.Marker, Epoch: st.state.Epoch(), Seq: seq, TS: ts, Payload: payload,
	})
	return true
}

// accepted puts a packet of the source's sequence into the reorder window.
func (st *stream) accepted(c *core, s *side, f *format, p source.Packet) {
	st.quality.Packet(p.Arrival, p.Seq, p.TS, st.state.Clock, len(p.Payload))
	if c.started || c.plan.EarlyMedia {
		st.count(f)
	}
	s.track.Arrived(keyOf(p), p.TS, st.state.Clock, p.Arrival)
	if !st.jitter.Room() {
		s.drain(c, p.Arrival)
	}
	switch st.jitter.Push(p) {
	case jitter.Late:
		st.tooLate(c, s, f, p)
	case jitter.TooLong:
		s.rejected++
	case jitter.Accepted, jitter.Duplicate:
	}
}

func clockOf(f *format) int {
	if f.ClockRate > 0 {
		return f.ClockRate
	}
	return 8000
}

// late counts a packet that came too late to be used.
func (st *stream) late(c *core) {
	st.quality.Late()
	if st.row != nil && c.started {
		st.row.late++
	}
}

// tooLate handles a packet whose turn has passed: where its place is not sealed
// yet it is used, else that becomes a late gap instead of a lost one.
func (st *stream) tooLate(c *core, s *side, f *format, p source.Packet) {
	if st.fill(c, s, f, p) {
		if st.row != nil && c.started {
			st.row.lost = max(0, st.row.lost-1)
		}
		return
	}
	st.late(c)
	if !f.decodable {
		return
	}
	n := st.packetTicks
	if n == 0 {
		n = int64(clockOf(f)) / 50
	}
	s.track.Late(keyOf(p), p.TS, int(n))
}

// fill lays a packet that comes after those behind it; only where the codec has
// no memory that it would disturb, and not where keys are masked: what listens
// for tones has passed the place.
func (st *stream) fill(c *core, s *side, f *format, p source.Packet) bool {
	if c.plan.MaskDTMF || st.decoder == nil || st.decoderOf != f || f.Name != "PCMU" && f.Name != "PCMA" && f.Name != "L16" {
		return false
	}
	// A decoder of its own: what the stream's makes up must not continue this.
	d, err := codec.NewDecoder(f.Format, codec.DecoderOptions{})
	if err != nil {
		return false
	}
	defer d.Close()
	pcm, err := d.Decode(st.pcm[:0], p.Payload)
	if err != nil || len(pcm) == 0 {
		return false
	}
	st.pcm = pcm
	s.watch(c, keyOf(p), p, ticks(len(pcm), d.Rate(), clockOf(f)))
	return s.track.Fill(keyOf(p), p.TS, d.Rate(), pcm) > 0
}

func keyOf(p source.Packet) mix.Key { return mix.Key{SSRC: p.SSRC, Epoch: p.Epoch} }

// count adds the packet to the row of its codec. Events and comfort noise
// belong to the codec they interrupt.
func (st *stream) count(f *format) {
	if st.row == nil || !f.event && !f.noise && st.row.codec != f.Name {
		st.row = st.rowOf(f.Name)
	}
	st.row.packets++
}

func (st *stream) rowOf(name string) *row {
	for _, r := range st.rows {
		if r.codec == name {
			return r
		}
	}
	if len(st.rows) == 1 && (st.rows[0].codec == "TELEPHONE-EVENT" || st.rows[0].codec == "CN") {
		st.rows[0].codec = name
		return st.rows[0]
	}
	r := &row{codec: name}
	st.rows = append(st.rows, r)
	return r
}

// drain takes out of the reorder windows what is due at now.
func (s *side) drain(c *core, now int64) {
	for _, st := range s.order {
		st.drain(c, s, now)
	}
}

// drainAll empties the reorder windows of a lane's sources.
func (s *side) drainAll(c *core, l *lane) {
	for _, st := range s.order {
		if st.lane == l {
			st.drain(c, s, jitter.Flush)
		}
	}
}

func (st *stream) drain(c *core, s *side, now int64) {
	for {
		p, lost, ok := st.jitter.Pop(now)
		if !ok {
			return
		}
		st.take(c, s, p, lost)
	}
}

// flush ends all sources: nothing more will come.
func (s *side) flush(c *core) {
	s.drain(c, math.MaxInt64)
	for _, st := range s.order {
		st.closeUnknown(s, st.unknownTS+max(st.packetTicks, 160))
		st.close()
	}
	s.track.End(c.origin + c.endMS*1e6)
}

// take is one packet in its turn.
func (st *stream) take(c *core, s *side, p source.Packet, lost int64) {
	if st.row != nil && c.started {
		st.row.lost += lost
	}
	f := st.lane.format(p.PT)
	key := keyOf(p)
	if key != st.key {
		st.closeUnknown(s, st.unknownTS+st.packetTicks)
		st.key, st.haveTS, st.digits = key, false, codec.Digits{}
	}
	if f.event {
		st.event(c, s, p)
		return
	}
	st.closeUnknown(s, p.TS)
	if f.red {
		st.redundant(c, s, p, lost)
		return
	}
	st.hole(c, s, f, p, lost)
	st.medium(c, s, f, p)
}

// medium is what a packet that is no event carries.
func (st *stream) medium(c *core, s *side, f *format, p source.Packet) {
	switch {
	case f.noise:
	case f.decodable:
		st.audio(c, s, f, p)
	default:
		if st.row != nil {
			st.row.undecodable++
		}
		s.undecodable = f.Name
		if st.lane.secure {
			s.undecodable = f.Name + " (encrypted)"
		}
		st.notUnderstood(f, p)
	}
}

// closeUnknown says how long the last undecodable packet was, now that the
// next timestamp tells.
func (st *stream) closeUnknown(s *side, nextTS int64) {
	if !st.unknown {
		return
	}
	st.unknown = false
	d := nextTS - st.unknownTS
	if st.unknownTicks > 0 {
		d = min(d, st.unknownTicks)
	}
	if d <= 0 {
		return
	}
	st.packetTicks = min(d, 48000)
	st.nextTS, st.haveTS = st.unknownTS+st.packetTicks, true
	s.track.Hole(st.key, st.unknownTS, st.nextTS, mix.Undecodable)
}

// event takes an RFC 4733 packet. A digit waits until its place is sealed, so
// that a window that is signalled late still swallows it.
func (st *stream) event(c *core, s *side, p source.Packet) {
	e, err := codec.ParseEvent(p.Payload)
	if err == nil {
		s.track.Silent(st.key, p.TS, p.TS+int64(e.Duration))
		c.typists[s.is].covers(c, s, st.key, p, e)
	}
	d, ok := st.digits.Feed(p.Seq, p.TS, p.Payload)
	if ok {
		c.typists[s.is].event(c, s, st.key, d, p.Arrival)
	}
	if err == nil && e.End {
		c.typists[s.is].released(c, s, st.key, p.TS, int64(e.Duration), p.Arrival)
	}
}

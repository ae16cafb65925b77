package src

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/media/resample"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/dialog"
)

// Fork is one call on its way to a server. Its methods may be called by any
// goroutine, never wait, and do nothing once it has ended.
type Fork struct {
	// constant
	c       *Client
	id      uint64
	session media.Session
	servers []Server
	wide    bool // G.722 is offered first
	inbox   chan event
	done    chan struct{} // closed when the owner has left
	key     string        // in the journal

	resumed *journalled // what it goes on with; of the owner

	transactions atomic.Int32 // of the server, that are kept

	mu      sync.Mutex
	parties []string // guarded by mu: internal parties, as last told
	paused  bool     // guarded by mu
	ended   bool     // guarded by mu
	out     outlet   // guarded by mu
}

// event is news for the owner of a fork.
type event struct {
	msg  *sip.Message
	fail *dialog.Client // its request could not be sent
	news bool           // parties, pause or the end: see state
}

// block is audio of both channels that lies together.
type block struct {
	realMS int64
	rate   int
	pcm    [2][]int16
}

func (b *block) bytes() int64 { return int64(2 * (len(b.pcm[0]) + len(b.pcm[1]))) }

// outlet makes packets of audio. It reads no clock.
type outlet struct {
	blocks   []block
	heldMS   int64
	held     *atomic.Int64 // bytes, of all forks
	codec    *wire         // nil: no server takes audio at present
	to       [2]remote
	pausing  bool // the server was told of a pause, and has not agreed to its end: audio waits
	refusing refusing
	untaken  int // streams that the server does not take
	counters *Counters
	ssrc     [2]uint32
	seq      [2]uint16
	stamp    uint32 // of 0 ms, the same for both: they are one clock

	scale    [2]*resample.Resampler
	scaleIn  int
	pcm      [2][]int16 // at the codec's rate, less than a packet unless just filled
	pcmMS    int64      // position of pcm
	nextMS   int64      // behind the block that was taken last
	marker   bool
	base     time.Time // when 0 ms is due; zero: not yet known
	was      time.Time // base in the process before; zero: there was none, or it is made up for
	reported time.Time
	octets   [2]uint32
	packets  [2]uint32

	lastStamp uint32

	ledger ledger
	server string // by its name in the list
	endMS  int64  // behind the audio in pcm, the silence that fills its packet left out

	silentUntil time.Time // until then nothing begins with silence; zero: it may
	g722        [2]codec.G722Encoder
}

// remote is where a channel goes; zero: the server does not want it.
type remote struct{ rtp, rtcp netip.AddrPort }

// wire is a codec that servers take (RFC 3551).
type wire struct {
	payloadType uint8
	name        string
	rate, clock int // samples and RTP ticks a second
}

// wires in the order of our preference; the first for recordings of wide band.
var wires = []wire{{9, "G722", 16000, 8000}, {0, "PCMU", 8000, 8000}, {8, "PCMA", 8000, 8000}}

func newFork(c *Client, s media.Session, servers []Server, wide bool) *Fork {
	f := &Fork{
		wide: wide,
		c:    c, id: rand.Uint64() | 1, session: s, servers: slices.Clone(servers),
		inbox: make(chan event, inboxMax), done: make(chan struct{}),
	}
	f.out.stamp, f.out.held, f.out.counters = rand.Uint32(), &c.held, &c.counters
	for i := range f.out.ssrc {
		f.out.ssrc[i], f.out.seq[i] = rand.Uint32(), uint16(rand.Uint32())
		f.out.g722[i] = codec.NewG722Encoder()
	}
	return f
}

// Audio takes samples of both channels (external, internal) that begin at a
// position of the call. It keeps a copy.
func (f *Fork) Audio(realMS int64, rate int, ch [2][]int16) {
	if len(ch[0]) == 0 || rate <= 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended { // the client closed
		f.out.ledger.lost(realMS, realMS+int64(len(ch[0])*1000/rate), UnsentEnded)
		return
	}
	f.setPaused(false)
	o := &f.out
	from := realMS
	realMS, ch = o.trimmed(realMS, rate, ch)
	o.ledger.lost(from, realMS, UnsentRestart)
	if len(ch[0]) == 0 {
		return
	}
	o.blocks = append(o.blocks, block{realMS, rate, [2][]int16{slices.Clone(ch[0]), slices.Clone(ch[1])}})
	o.heldMS += int64(len(ch[0]) * 1000 / rate)
	f.c.held.Add(o.blocks[len(o.blocks)-1].bytes())
	most := int64(bufferMSMax)
	if f.c.held.Load() > heldBytesMax {
		most = scarceMSMax
	}
	if o.heldMS > most && o.codec != nil { // what comes is not to be due later and later
		most /= 2
		o.dropPCM(UnsentBehind)
		o.base, o.nextMS = time.Time{}, -1
	}
	why := UnsentBehind
	if o.codec == nil {
		why = UnsentNoServer
	}
	for o.heldMS > most && len(o.blocks) > 1 {
		f.c.counters.DroppedMS.Add(uint64(o.drop(why)))
	}
}

// shift takes the oldest block away and returns its length in ms.
func (o *outlet) shift() int64 {
	b := o.blocks[0]
	for i := range b.pcm {
		clear(b.pcm[i])
	}
	o.held.Add(-b.bytes())
	ms := int64(len(b.pcm[0]) * 1000 / b.rate)
	o.blocks, o.heldMS = slices.Delete(o.blocks, 0, 1), o.heldMS-ms
	return ms
}

// Suppressed says that nothing is kept up to a position.
func (f *Fork) Suppressed() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.setPaused(true)
}

func (f *Fork) setPaused(paused bool) {
	if f.paused != paused && !f.ended {
		f.paused = paused
		f.put(event{news: true})
	}
}

// Parties says who is heard on the internal side.
func (f *Fork) Parties(names []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.ended && !slices.Equal(f.parties, names) {
		f.parties = slices.Clone(names)
		f.put(event{news: true})
	}
}

// End ends the recording session.
func (f *Fork) End() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.ended {
		f.ended = true
		f.put(event{news: true})
	}
}

// put gives the owner an event. What has no room is no loss: messages are
// repeated, and changes and the end are looked at whenever the owner wakes up.
func (f *Fork) put(e event) {
	select {
	case f.inbox <- e:
	default:
	}
}

// state is what the owner tells servers.
func (f *Fork) state() (parties []string, paused, ended bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.parties), f.paused, f.ended
}

// connect lets audio flow to a server, or to none. pausing: not yet. It returns
// whether a server takes less than it did.
func (f *Fork) connect(server string, w *wire, to [2]remote, pausing bool) (less bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	o := &f.out
	if w == nil || o.codec == nil || *w != *o.codec {
		o.dropPCM(UnsentNoServer)
		o.scale, o.scaleIn = [2]*resample.Resampler{}, 0
		o.nextMS = -1
	}
	o.server = server
	if to != o.to {
		o.refusing = refusing{}
	}
	o.codec, o.to, o.pausing, o.marker = w, to, pausing, true
	untaken := 0
	for i := range to {
		if w != nil && !pausing && !to[i].rtp.IsValid() {
			untaken++
		}
	}
	less = untaken > o.untaken
	if less && untaken == 1 {
		o.counters.Partial.Add(1)
	}
	o.counters.UntakenStreams.Add(int64(untaken - o.untaken))
	o.untaken = untaken
	return less
}

// waiting tells whether audio waits that a server is there for.
func (f *Fork) waiting() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.out.codec != nil && (len(f.out.blocks) > 0 || len(f.out.pcm[0]) > 0 && !f.out.pausing)
}

// rests makes a packet of n samples of what is left, when nothing follows it for now.
func (f *Fork) rests(n int) bool {
	if !f.ended && !f.paused || !f.out.pad(n) {
		return false
	}
	f.out.nextMS = -1
	return true
}

// packet is one datagram to be sent, with the audio that is in it; a report has none.
type packet struct {
	to           netip.AddrPort
	data         []byte
	side         int
	fromMS, toMS int64
	server       string
}

// due appends what is to be sent by now.
func (f *Fork) due(dst []packet, now time.Time) []packet {
	f.mu.Lock()
	defer f.mu.Unlock()
	o := &f.out
	if o.codec == nil || o.pausing {
		return dst
	}
	for {
		n := packetMS * o.codec.rate / 1000
		if len(o.pcm[0]) < n {
			if !o.fill() && !f.rests(n) {
				break
			}
			continue
		}
		if o.base.IsZero() {
			o.begun(now.Add(cushion - time.Duration(o.pcmMS)*time.Millisecond))
			f.put(event{news: true}) // for the journal
		}
		if now.Before(o.base.Add(time.Duration(o.pcmMS) * time.Millisecond)) {
			break
		}
		dst = o.pack(dst, n)
	}
	if len(dst) > 0 && now.Sub(o.reported) >= reportsEvery && o.packets[0]+o.packets[1] > 0 {
		o.reported = now
		dst = o.report(dst, now)
	}
	o.ledger.flying += len(dst)
	return dst
}

// fill takes the next block into pcm; false when there is none.
func (o *outlet) fill() bool {
	if len(o.blocks) == 0 {
		return false
	}
	b := &o.blocks[0]
	apart := b.realMS != o.nextMS
	if apart && o.pad(packetMS*o.codec.rate/1000) { // a window lies between
		return true
	}
	if apart {
		o.marker, o.pcmMS = true, b.realMS
	}
	if apart || b.rate != o.scaleIn {
		o.scaleTo(b.rate)
	}
	o.nextMS = b.realMS + int64(len(b.pcm[0])*1000/b.rate)
	o.endMS = o.nextMS
	for i := range o.pcm {
		if o.scale[i] == nil {
			o.pcm[i] = append(o.pcm[i], b.pcm[i]...)
			continue
		}
		o.pcm[i] = o.scale[i].Process(o.pcm[i], b.pcm[i])
	}
	o.shift()
	return true
}

// pad makes the rest of a packet of n samples silence; false when nothing of it is there.
func (o *outlet) pad(n int) bool {
	if len(o.pcm[0]) == 0 {
		return false
	}
	for i := range o.pcm {
		o.pcm[i] = append(o.pcm[i], make([]int16, max(0, n-len(o.pcm[i])))...)
	}
	return true
}

// scaleTo makes the resamplers for a rate; none where it is the codec's.
func (o *outlet) scaleTo(rate int) {
	o.scaleIn, o.scale = rate, [2]*resample.Resampler{}
	if rate == o.codec.rate {
		return
	}
	for i := range o.scale {
		s, err := resample.New(rate, o.codec.rate)
		if err != nil {
			return // a rate that no recording has
		}
		o.scale[i] = s
	}
}

// pack makes a packet of n samples for each channel.
func (o *outlet) pack(dst []packet, n int) []packet {
	stamp := o.stamp + uint32(o.pcmMS*int64(o.codec.clock)/1000)
	endMS := min(o.pcmMS+packetMS, o.endMS)
	for i := range o.pcm {
		samples := o.pcm[i][:n]
		if o.to[i].rtp.IsValid() {
			h := rtp.Header{
				Version: 2, Marker: o.marker, PayloadType: o.codec.payloadType, SequenceNumber: o.seq[i], Timestamp: stamp, SSRC: o.ssrc[i],
			}
			o.seq[i]++
			if data, err := (&rtp.Packet{Header: h, Payload: o.codec.encode(&o.g722[i], samples)}).Marshal(); err == nil {
				dst = append(dst, packet{o.to[i].rtp, data, i, o.pcmMS, endMS, o.server})
				o.packets[i]++
				o.octets[i] += uint32(len(data) - 12)
			}
		} else {
			o.counters.UntakenMS.Add(packetMS)
			o.ledger.note(i, o.pcmMS, endMS, "", UnsentUntaken)
		}
		o.pcm[i] = o.pcm[i][:copy(o.pcm[i], o.pcm[i][n:])]
	}
	o.marker, o.pcmMS, o.lastStamp = false, o.pcmMS+packetMS, stamp
	return dst
}

func (w *wire) encode(g722 *codec.G722Encoder, samples []int16) []byte {
	if w.name == "G722" {
		out := make([]byte, len(samples)/2)
		g722.Encode(out, samples)
		return out
	}
	out := make([]byte, 0, len(samples))
	switch w.name {
	case "PCMA":
		for _, s := range samples {
			out = append(out, codec.ALaw(s))
		}
	default:
		for _, s := range samples {
			out = append(out, codec.MuLaw(s))
		}
	}
	return out
}

// report makes a sender report for each channel: both tell the same clock, so
// that the server can lay them side by side.
func (o *outlet) report(dst []packet, now time.Time) []packet {
	const ntpEpoch = 2208988800 // s from 1900 to 1970
	ntp := uint64(now.Unix()+ntpEpoch)<<32 | uint64(now.Nanosecond())<<32/1e9
	for i := range o.to {
		if !o.to[i].rtcp.IsValid() || o.packets[i] == 0 {
			continue
		}
		all := []rtcp.Packet{
			&rtcp.SenderReport{SSRC: o.ssrc[i], NTPTime: ntp, RTPTime: o.lastStamp, PacketCount: o.packets[i], OctetCount: o.octets[i]},
			&rtcp.SourceDescription{Chunks: []rtcp.SourceDescriptionChunk{{
				Source: o.ssrc[i], Items: []rtcp.SourceDescriptionItem{{Type: rtcp.SDESCNAME, Text: "recording"}},
			}}},
		}
		if data, err := rtcp.Marshal(all); err == nil {
			dst = append(dst, packet{to: o.to[i].rtcp, data: data})
		}
	}
	return dst
}

// pace sends what is due of all forks, until the client closes.
func (c *Client) pace() {
	t := time.NewTicker(packetMS * time.Millisecond / 2)
	defer t.Stop()
	var forks []*Fork
	var out []packet
	var failed []bool
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-t.C:
		}
		forks = forks[:0]
		c.mu.Lock()
		for _, f := range c.forks {
			forks = append(forks, f)
		}
		c.mu.Unlock()
		now := time.Now()
		for _, f := range forks {
			out, failed = f.due(out[:0], now), failed[:0]
			for _, p := range out {
				failed = append(failed, !c.write(p))
			}
			if len(out) > 0 {
				f.wrote(out, failed)
			}
		}
		clear(forks)
	}
}

func (c *Client) write(p packet) bool {
	err := c.send(p)
	for tries := 0; tries < sendTries && ofAnother(err); tries++ {
		err = c.send(p) // the socket is of all servers, and this one's packet has not been sent
	}
	if err != nil {
		c.counters.SendErrors.Add(1)
		return false
	}
	c.counters.Packets.Add(1)
	return true
}

func (c *Client) send(p packet) (err error) {
	if c.udp != nil {
		_, err = c.udp.WriteToUDPAddrPort(p.data, p.to)
		return err
	}
	_, err = c.media.WriteTo(p.data, net.UDPAddrFromAddrPort(p.to))
	return err
}

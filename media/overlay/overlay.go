// Package overlay mixes the tone that tells of recording, and announcements, into
// the RTP packets of one direction of a call.
//
// Only packets that a sound covers are coded anew; all others pass as they came.
// Where a sender sends nothing there is nothing to mix into: a sound that falls
// into a pause of discontinuous transmission (comfort noise of RFC 3389, DTX of
// Opus) is heard as far as packets come. Events (RFC 4733) are never touched.
package overlay

import (
	"sync/atomic"
	"time"

	"github.com/trunktap/trunktap/media"
)

const (
	// packetBytesMax bounds the packets that are looked into.
	packetBytesMax = 4096

	// lead is how long before a sound the decoder of a codec with memory begins to
	// follow the stream. Its state has forgotten how it began by then: the slowest
	// memory of G.722 halves every 22 ms, that of Opus with every frame or two.
	lead = time.Second

	// reorderPacketsMax is how far behind the newest a sequence number is still a
	// packet that was overtaken; farther is a sender that began anew.
	reorderPacketsMax = 100
)

// Config of an overlay for one direction of one stream.
type Config struct {
	// Formats are the stream's. PCMU, PCMA, G722 and OPUS are understood; packets
	// of other payload types are never touched.
	Formats []media.Format

	// Secure says that the payloads are encrypted: nothing is touched.
	Secure bool

	Beep         *Beep         // nil: none. It must be valid.
	Announcement *Announcement // nil: none; else it is heard once, from Epoch on

	// Epoch is the answer of the call: beeps begin at Epoch + k*Interval, so those
	// of both directions and of all that were negotiated agree.
	Epoch time.Time

	// Since is when this stream was negotiated. Of a sound that began before it,
	// only the rest is heard. Zero: at Epoch.
	Since time.Time

	// Capturing says whether anything is recorded now: a beep begins only then and
	// ends at once when it no longer is. It is asked on the packet path. Nil: always.
	// Announcements do not ask: they may be what consent is given to.
	Capturing func() bool

	Counts *Counts // nil: nothing is counted
}

// Counts of packets; one may serve many overlays.
type Counts struct {
	Mixed       atomic.Uint64 // sent with a sound in them
	Undecodable atomic.Uint64 // of a format that is understood, but could not be decoded or coded: sent as they came
	Late        atomic.Uint64 // of a codec with memory, overtaken by another within a sound: sent as they came
}

// New returns the overlay of one direction; nil when it would never change
// anything: without a sound, without a format that is understood, for encrypted
// streams and for calls that are not answered.
func New(cfg Config) media.Overlay {
	if cfg.Beep == nil && cfg.Announcement == nil || cfg.Secure || cfg.Epoch.IsZero() {
		return nil
	}
	if cfg.Counts == nil {
		cfg.Counts = &Counts{}
	}
	if cfg.Since.Before(cfg.Epoch) {
		cfg.Since = cfg.Epoch
	}
	o := &overlay{cfg: cfg, last: -1, announced: cfg.Announcement == nil}
	some := false
	for _, f := range cfg.Formats {
		if t := newTranscoder(f); t != nil && f.PayloadType < 128 {
			o.coders[f.PayloadType] = t
			some = true
		}
	}
	if !some {
		return nil
	}
	return o
}

// transcoder puts sound into the payloads of one format. It is owned by the
// packet path and allocates nothing there.
type transcoder interface {
	// rates of RTP timestamps and of samples, in Hz
	clock() int
	// duration returns how long a payload lasts in ticks of the clock.
	duration(payload []byte) (ticks int, ok bool)
	// transcode appends to dst what is to be sent in place of payload. It returns
	// nil when that is payload itself.
	transcode(dst, payload []byte, m *moment) ([]byte, error)
	// reset forgets the stream so far.
	reset()
}

func newTranscoder(f media.Format) transcoder {
	switch {
	case f.Name == "PCMU" && f.ClockRate == 8000 && f.Channels <= 1:
		return newMuLaw()
	case f.Name == "PCMA" && f.ClockRate == 8000 && f.Channels <= 1:
		return newALaw()
	case f.Name == "G722" && f.ClockRate == 8000 && f.Channels <= 1:
		return newG722Transcoder()
	case f.Name == "OPUS" && f.ClockRate == 48000:
		return newOpusTranscoder()
	}
	return nil
}

// overlay is used by one goroutine at a time.
type overlay struct {
	cfg    Config
	coders [128]transcoder

	// the stream
	coder  transcoder // of the packet before; nil: there was none
	ssrc   uint32
	newest uint16 // sequence number

	// the sounds
	last         int64 // number of the latest beep that began; -1: none
	beep         player
	announced    bool // the announcement has begun, or there is none
	announcement player

	moment moment
	out    [2 * packetBytesMax]byte
}

// Apply implements media.Overlay.
func (o *overlay) Apply(arrival time.Time, wire []byte) []byte {
	h, ok := parse(wire)
	if !ok {
		return wire
	}
	coder := o.coders[h.payloadType]
	if coder == nil {
		return wire
	}
	payload := wire[h.start:h.end]
	ticks, ok := coder.duration(payload)
	if !ok {
		o.cfg.Counts.Undecodable.Add(1)
		return wire
	}
	m := &o.moment
	m.fresh = o.follow(coder, &h, arrival)
	o.play(arrival, h.timestamp, ticks)
	out, err := coder.transcode(append(o.out[:0], wire[:h.start]...), payload, m)
	if err != nil {
		o.cfg.Counts.Undecodable.Add(1)
		return wire
	}
	switch {
	case out == nil && m.sound():
		o.cfg.Counts.Late.Add(1)
		return wire
	case out == nil:
		return wire
	case m.sound():
		o.cfg.Counts.Mixed.Add(1)
	}
	return append(out, wire[h.end:]...) // the padding
}

// follow keeps track of the sender. It says whether the packet is newer than all
// before it.
func (o *overlay) follow(coder transcoder, h *header, arrival time.Time) (fresh bool) {
	behind := o.newest - h.sequence
	switch {
	case o.coder == nil:
	case h.ssrc != o.ssrc || o.coder.clock() != coder.clock():
		o.beep.rebase(h.timestamp, arrival, coder.clock())
		o.announcement.rebase(h.timestamp, arrival, coder.clock())
		coder.reset()
	case behind < reorderPacketsMax:
		return false
	case coder != o.coder:
		coder.reset()
	}
	o.coder, o.ssrc, o.newest = coder, h.ssrc, h.sequence
	return true
}

// play finds out what is heard in a packet.
func (o *overlay) play(arrival time.Time, timestamp uint32, ticks int) {
	m, clock := &o.moment, o.coder.clock()
	m.soon, m.beep, m.announcement = false, nil, nil
	length := time.Duration(ticks) * time.Second / time.Duration(clock)
	if b := o.cfg.Beep; b != nil {
		if o.beep.on && !o.capturing() {
			o.beep.on = false
		}
		if at, starts := o.beginBeep(arrival, length); starts {
			o.beep.start(timestamp, arrival, at, b.Duration, clock)
		}
		if at, on := o.beep.at(timestamp, arrival, ticks); on {
			m.beep, m.beepAt, m.beepTicks = b, at, o.beep.length
		}
	}
	if !o.announced && m.fresh && !arrival.Before(o.cfg.Epoch) {
		o.announced = true
		at := time.Duration(0)
		if o.cfg.Since.After(o.cfg.Epoch) {
			at = o.cfg.Epoch.Sub(arrival)
		}
		o.announcement.start(timestamp, arrival, at, o.cfg.Announcement.Duration(), clock)
	}
	if at, on := o.announcement.at(timestamp, arrival, ticks); on {
		m.announcement, m.announcementAt = o.cfg.Announcement, at
	}
}

func (o *overlay) capturing() bool { return o.cfg.Capturing == nil || o.cfg.Capturing() }

// beginBeep says whether a beep begins in a packet of some length, and how long
// after the packet's beginning; before it when the duration is negative.
func (o *overlay) beginBeep(arrival time.Time, length time.Duration) (at time.Duration, starts bool) {
	b, m := o.cfg.Beep, &o.moment
	since := arrival.Sub(o.cfg.Epoch)
	m.soon = since+lead > 0
	if since+length <= 0 {
		return 0, false
	}
	k := int64((since + length - 1) / b.Interval)
	at = time.Duration(k)*b.Interval - since
	m.soon = at > -b.Duration || at+b.Interval <= lead
	if k <= o.last || at <= -b.Duration || o.beep.on || !m.fresh || !o.capturing() {
		return 0, false
	}
	o.last = k
	if start := o.cfg.Epoch.Add(time.Duration(k) * b.Interval); at < 0 && !start.Before(o.cfg.Since) {
		at = 0 // a packet that is late, or a recording that began just now, does not make it shorter
	}
	return at, true
}

// moment is what is heard in one packet.
type moment struct {
	fresh bool // newer than all before
	soon  bool // something may be heard within lead

	beep              *Beep // nil: none
	beepAt, beepTicks int   // where in it the packet begins, and how long it lasts

	announcement   *Announcement // nil: none
	announcementAt int
}

func (m *moment) sound() bool { return m.beep != nil || m.announcement != nil }

// add mixes into interleaved samples. clock is the rate of ticks, rate that of samples.
func (m *moment) add(pcm []int16, channels, clock, rate int) {
	perTick := rate / clock
	if m.beep != nil {
		m.beep.add(pcm, channels, rate, m.beepAt*perTick, m.beepTicks*perTick)
	}
	if m.announcement != nil {
		m.announcement.add(pcm, channels, rate, m.announcementAt*perTick)
	}
}

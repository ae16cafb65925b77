package replay

import (
	"encoding/binary"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip/callstate"
)

// Live is what is different when the packets are those of a live link. There
// the pipeline runs on its own time, calls of no trunk are left alone, and an
// error of the observer leaves its call unrecorded.
type Live struct {
	// IdleMax is how long a call may be without a packet, on hold or not answered
	// excepted, until it is taken for ended: its BYE was not seen. One that is not
	// answered has ten minutes if that is longer. 0: CallIdleMax.
	IdleMax time.Duration

	// Trunks returns the trunks and the call-state rules for a call that begins, in
	// place of those of the Config.
	Trunks func() ([]Trunk, *callstate.Rules)

	// Tell gets the counts about once a second and at the end; nil: nobody.
	Tell func(Stats)
}

// ringingMax is how long a call that is not answered may be without a packet: who
// rings says so every minute (RFC 3261 section 13.3.1.1), else its end was not seen.
const ringingMax = 10 * time.Minute

// sweepEvery is between two looks at all calls.
const sweepEvery = time.Second

// sweep ends the calls that are silent for too long.
func (t *tracker) sweep() {
	if t.now.Sub(t.swept) < sweepEvery {
		return
	}
	t.swept = t.now
	t.count()
	if t.cfg.Live.IdleMax <= 0 {
		return
	}
	for el := t.active.Front(); el != nil; {
		c := el.Value.(*call)
		if t.now.Sub(c.last) <= t.cfg.Live.IdleMax {
			return // those behind it spoke later
		}
		el = el.Next()
		switch {
		case !c.answered && t.now.Sub(c.last) <= ringingMax:
		case c.answered && (c.sdp.Holding(media.External) || c.sdp.Holding(media.Internal)):
		default:
			t.silent(c)
		}
	}
}

// count tells the counts.
func (t *tracker) count() {
	if t.cfg.Live != nil && t.cfg.Live.Tell != nil {
		t.cfg.Live.Tell(t.stats)
	}
}

// lost notes packets that were lost before the one that comes now.
func (t *tracker) lost(n uint64) { t.stats.Lost += int64(n) }

// holes tells a tap how many packets of its stream are missing because the link
// lost some: no more than the stream's own numbers say, and no more than were
// lost at all since its packet before. What is missing beyond that was lost
// elsewhere.
type holes struct {
	begun bool
	ssrc  uint32
	seq   uint16
	lost  uint64 // of the link, at the stream's last packet
}

// dropper is a tap that can account for packets which it should have got; see
// relay.Dropper.
type dropper interface{ Drop(n uint32) }

func (h *holes) take(rtp []byte, lost uint64, tap media.Tap) {
	if len(rtp) < 12 {
		return
	}
	seq, ssrc := binary.BigEndian.Uint16(rtp[2:]), binary.BigEndian.Uint32(rtp[8:])
	missing, same := seq-h.seq-1, h.begun && h.ssrc == ssrc
	if same && missing >= 1<<15 {
		return // late or twice
	}
	if n := min(uint64(missing), lost-h.lost); same && n > 0 {
		if d, ok := tap.(dropper); ok {
			d.Drop(uint32(n))
		}
	}
	h.begun, h.ssrc, h.seq, h.lost = true, ssrc, seq, lost
}

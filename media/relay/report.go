package relay

import (
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/report"
	"github.com/trunktap/trunktap/media/srtp"
)

// reportSilence is after how long without a report one is asked for: packets that
// come bring them sooner.
const reportSilence = 6200 * time.Millisecond

// reporting is what a stream that only receives keeps of its receiver reports.
type reporting struct {
	config atomic.Pointer[report.Config] // from control; nil: none are sent
	last   atomic.Int64                  // when one was due last, ns after the relay's base; 0: never
	sent   atomic.Uint64

	// owned by the packet path
	receiver *report.Receiver
	inForce  *report.Config
	sealed   []byte
}

var errNotReceiving = errors.New("only streams that are received are reported on")

// SetReports lets the stream send receiver reports to the external side, whose media
// it receives; nil: none. Of a stream that was opened with Options.ReceiveOnly alone.
func (s *Stream) SetReports(c *report.Config) error {
	if !s.receiveOnly {
		return errNotReceiving
	}
	if c != nil {
		if err := c.Validate(); err != nil {
			return err
		}
	}
	s.reports.config.Store(c)
	return nil
}

// Report sends a report when one is due. Packets of the stream do the same; who owns
// the stream calls this every few seconds for the time when none come.
func (s *Stream) Report(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.reports.config.Load() == nil {
		return
	}
	if last := s.reports.last.Load(); last != 0 && now.Sub(s.relay.at(last)) < reportSilence {
		return
	}
	s.relay.engine.run(s, func() { s.reportDue(time.Now()) })
}

// sayBye tells the sender that nobody listens any more. s.mu is held.
func (s *Stream) sayBye() {
	if s.reports.config.Load() == nil {
		return
	}
	s.relay.engine.run(s, func() {
		if r := s.reports.receiver; r != nil {
			s.rekey()
			s.sendReport(r.Bye(time.Now()))
		}
	})
}

// observe counts an accepted packet, and reports when it is time. On the packet path.
func (s *Stream) observe(rtcp bool, wire []byte, arrival time.Time) {
	r := s.reporter()
	if r == nil {
		return
	}
	if rtcp {
		r.RTCP(arrival, wire)
	} else {
		r.RTP(arrival, wire)
	}
	if r.Due(arrival) {
		s.reportDue(arrival)
	}
}

// reporter returns the receiver as it is configured now; nil: there are no reports.
func (s *Stream) reporter() *report.Receiver {
	p := &s.reports
	switch c := p.config.Load(); {
	case c == p.inForce:
	case c == nil:
		p.receiver, p.inForce = nil, nil
	case p.receiver != nil:
		p.receiver.Configure(c)
		p.inForce = c
	default:
		p.receiver, _ = report.New(c, rand.Uint64()|1) // SetReports has validated it
		p.inForce = c
	}
	return p.receiver
}

// reportDue makes and sends a report when it is time. On the packet path.
func (s *Stream) reportDue(now time.Time) {
	r := s.reporter()
	if r == nil || !r.Due(now) {
		return
	}
	s.rekey()
	if !s.canReport() {
		return
	}
	s.reports.last.Store(max(1, int64(now.Sub(s.relay.base))))
	s.sendReport(r.Report(now))
}

// canReport says whether the sender can be told anything: it has an address, and keys
// where it is protected.
func (s *Stream) canReport() bool {
	sec, r := &s.sec.sides[media.External], s.refresh()
	if sec.mode != srtp.Clear && sec.sealer(true, r.remote[media.External].Mux) == nil {
		return false
	}
	_, _, ok := s.destination(r, media.External, true)
	return ok
}

func (s *Stream) sendReport(packet []byte) {
	if packet == nil {
		return
	}
	k, to, ok := s.destination(s.refresh(), media.External, true)
	if !ok {
		return
	}
	if s.reports.sealed == nil && s.sec.on.Load() {
		s.reports.sealed = make([]byte, report.PacketBytesMax+srtp.OverheadBytesMax)
	}
	wire, ok := s.protect(media.External, true, s.reports.sealed, packet)
	if !ok {
		return
	}
	if s.ends[media.External].socks[k].send(wire, to) == nil {
		s.reports.sent.Add(1)
	}
}

// reportsTo counts the reports that a side was sent.
func (s *Stream) reportsTo(side media.Side) uint64 {
	if side != media.External {
		return 0
	}
	return s.reports.sent.Load()
}

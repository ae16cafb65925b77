package b2bua

import (
	"fmt"
	"net/netip"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/relay"
	"github.com/trunktap/trunktap/media/srtp"
)

// secureVersion is that of journalled with SRTP that is ended here. Who knows nothing
// of it must not go on with such a call: it would send in clear.
const secureVersion = 3

// savedProtection is the SRTP of one m= line. It holds keys, so it goes into sealed
// journals alone.
type savedProtection struct {
	Line       srtp.SavedLine
	Offerer    media.Side        `json:",omitempty"`
	Untouched  bool              `json:",omitempty"`
	Addr       [2]netip.AddrPort `json:",omitzero"`
	Shown      savedShown
	Handshakes relay.SavedHandshakes `json:",omitzero"`
}

// savedShown is what the offerer was answered.
type savedShown struct {
	Profile    string   `json:",omitempty"`
	Refused    bool     `json:",omitempty"`
	Attributes []string `json:",omitempty"`
}

// save returns what is agreed about a line, whose stream may be nil.
func (p *protection) save(s *relay.Stream) *savedProtection {
	out := &savedProtection{
		Line: p.line.Save(), Offerer: p.offerer, Untouched: p.untouched, Addr: p.addr,
		Shown: savedShown{p.shown.Profile, p.shown.Refused, p.shown.Attributes()},
	}
	if s != nil {
		out.Handshakes = s.SaveHandshakes()
	}
	return out
}

// secured tells whether SRTP of a call was ended by the process that saved this.
func (m *savedMedia) secured() bool {
	for _, l := range m.Lines {
		if l.Sec != nil {
			return true
		}
	}
	return false
}

// restoreProtection goes on with the SRTP of a line.
func (a *anchor) restoreProtection(l *line, saved *savedProtection) error {
	if !a.secures() {
		return fmt.Errorf("the trunk ended SRTP here and does not any more")
	}
	inner, err := srtp.RestoreLine(a.trunk.SRTP, saved.Line)
	if err != nil {
		return fmt.Errorf("%w: %w", errJournal, err)
	}
	shown, faults := srtp.ReadMedia(saved.Shown.Profile, nil, saved.Shown.Attributes)
	if len(faults) > 0 || saved.Offerer > media.Internal {
		return fmt.Errorf("%w: what was answered about SRTP", errJournal)
	}
	shown.Refused = saved.Shown.Refused
	l.sec = &protection{line: inner, offerer: saved.Offerer, untouched: saved.Untouched, addr: saved.Addr, shown: shown}
	if l.stream == nil || !l.rtp {
		return nil
	}
	former, err := saved.Handshakes.Load()
	if err != nil {
		return fmt.Errorf("%w: %w", errJournal, err)
	}
	return l.stream.Resume(inner.Ends(), former)
}

// keyed lets the journal know of the keys of a handshake.
func (a *anchor) keyed() { a.later(func() {}) }

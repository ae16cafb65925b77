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
	Handshakes [2][2]savedHandshake `json:",omitzero"` // by side; for RTP, and for RTCP alone
}

// savedShown is what the offerer was answered.
type savedShown struct {
	Profile    string   `json:",omitempty"`
	Refused    bool     `json:",omitempty"`
	Attributes []string `json:",omitempty"`
}

type savedHandshake struct {
	Association   uint32 `json:",omitempty"`
	Receive, Send string `json:",omitempty"` // values of a=crypto
}

// save returns what is agreed about a line, whose stream may be nil.
func (p *protection) save(s *relay.Stream) *savedProtection {
	out := &savedProtection{
		Line: p.line.Save(), Offerer: p.offerer, Untouched: p.untouched, Addr: p.addr,
		Shown: savedShown{p.shown.Profile, p.shown.Refused, p.shown.Attributes()},
	}
	if s == nil {
		return out
	}
	for side, list := range s.Handshakes() {
		for i, h := range list {
			if h.Association == 0 || h.Association != out.Line.Sides[side].Association {
				continue
			}
			out.Handshakes[side][i] = savedHandshake{h.Association, h.Receive.Attribute(), h.Send.Attribute()}
			h.Receive.Wipe()
			h.Send.Wipe()
		}
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
	var former [2][2]relay.Handshake
	for side, list := range saved.Handshakes {
		for i, h := range list {
			if h.Association == 0 {
				continue
			}
			receive, err := srtp.ParseCrypto(h.Receive)
			if err != nil {
				return fmt.Errorf("%w: keys of a handshake", errJournal)
			}
			send, err := srtp.ParseCrypto(h.Send)
			if err != nil {
				return fmt.Errorf("%w: keys of a handshake", errJournal)
			}
			former[side][i] = relay.Handshake{Association: h.Association, Receive: receive, Send: send}
		}
	}
	return l.stream.Resume(inner.Ends(), former)
}

// keyed lets the journal know of the keys of a handshake.
func (a *anchor) keyed() { a.later(func() {}) }

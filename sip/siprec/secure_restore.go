package siprec

import (
	"errors"
	"fmt"
	"slices"

	"github.com/trunktap/trunktap/media/relay"
	"github.com/trunktap/trunktap/media/srtp"
)

// secureVersion is that of journalled with SRTP. Who knows nothing of it must not go on
// with such a recording.
const secureVersion = 2

// savedProtection is the SRTP of one line. It holds keys, so it goes into sealed
// journals alone.
type savedProtection struct {
	Line       srtp.SavedLine
	Profile    string                  // as answered, or offered by us
	Attributes []string                `json:",omitempty"`
	Handshakes [2]relay.SavedHandshake `json:",omitzero"` // for RTP, and for RTCP alone
}

// saveProtection returns what is agreed about a line.
func (n *line) saveProtection() *savedProtection {
	if n.sec == nil {
		return nil
	}
	out := &savedProtection{Line: n.sec.Save(), Profile: n.protect.Profile, Attributes: n.protect.Attributes()}
	if s, ok := n.stream.(*relay.Stream); ok {
		out.Handshakes = s.SaveHandshakes()[relaySide]
	}
	return out
}

// secured tells whether there are keys in it.
func (j *journalled) secured() bool {
	return slices.ContainsFunc(j.Legs, func(l *savedLeg) bool {
		return slices.ContainsFunc(l.Lines, func(s savedLine) bool { return s.Sec != nil })
	})
}

// known tells whether the version is one that goes with what is there.
func (j *journalled) known() bool {
	return j.SIPREC == journalVersion && !j.secured() || j.SIPREC == secureVersion && j.secured()
}

var errProtection = errors.New("the source is without SRTP now, or has it now, and it was not so")

// restoreProtection goes on with the SRTP of a line whose ports are open.
func (l *leg) restoreProtection(n *line, stream *relay.Stream, saved *savedProtection) error {
	if (saved != nil) != l.secures() {
		return errProtection
	}
	if saved == nil {
		return nil
	}
	var err error
	if n.sec, err = srtp.RestoreLine(l.source.SRTP, saved.Line); err != nil {
		return fmt.Errorf("%w: %w", errJournal, err)
	}
	shown, faults := srtp.ReadMedia(saved.Profile, nil, saved.Attributes)
	if len(faults) > 0 {
		return fmt.Errorf("%w: what was answered about SRTP", errJournal)
	}
	n.protect = shown
	former, err := relay.SavedHandshakes{relaySide: saved.Handshakes}.Load()
	if err != nil {
		return fmt.Errorf("%w: %w", errJournal, err)
	}
	if err := stream.Resume(n.sec.Ends(), former); err != nil {
		return fmt.Errorf("go on with the keys of a stream: %w", err)
	}
	return nil
}

// keyed lets the journal know of the keys of a handshake. It does not wait.
func (l *leg) keyed() {
	select {
	case l.poke <- struct{}{}:
	default: // it is told already
	}
}

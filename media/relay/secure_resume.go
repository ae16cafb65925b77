package relay

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/srtp"
	"github.com/trunktap/trunktap/media/srtp/dtls"
)

// Handshake is what a DTLS handshake agreed on; zero: none did. Key.Wipe of its lines
// is the caller's business.
type Handshake struct {
	Association   uint32
	Receive, Send srtp.Crypto
}

// handshakes are those of a side, the latest last: of RTP, and without rtcp-mux of RTCP
// alone. There is more than one while a call forks.
type handshakes [2][]Handshake

// agreedKeys keeps what handshakes agreed on, for whoever wants to go on with the
// stream in another process. An endpoint's goroutine writes it while control, which
// holds Stream.mu, may wait for that goroutine: hence a lock of its own.
type agreedKeys struct {
	mu    sync.Mutex // guards all following
	sides [2]handshakes
}

func (a *agreedKeys) note(side media.Side, i kind, k dtls.Keys) {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := &a.sides[side][i]
	drop(list, func(h *Handshake) bool { return h.Association == k.Association })
	if len(*list) >= forksMax {
		first := (*list)[0].Association
		drop(list, func(h *Handshake) bool { return h.Association == first })
	}
	*list = append(*list, Handshake{k.Association, k.Receive.Line(), k.Send.Line()})
}

// keep forgets all associations of a side but one.
func (a *agreedKeys) keep(side media.Side, association uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.sides[side] {
		drop(&a.sides[side][i], func(h *Handshake) bool { return h.Association != association })
	}
}

// drop wipes and removes some of a list.
func drop(list *[]Handshake, which func(*Handshake) bool) {
	*list = slices.DeleteFunc(*list, func(h Handshake) bool {
		if !which(&h) {
			return false
		}
		h.wipe()
		return true
	})
}

func (a *agreedKeys) wipe() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for side := range a.sides {
		for i := range a.sides[side] {
			drop(&a.sides[side][i], func(*Handshake) bool { return true })
		}
	}
}

func (h *Handshake) wipe() {
	h.Receive.Wipe()
	h.Send.Wipe()
	*h = Handshake{}
}

// Handshakes returns what DTLS has agreed on in the associations that count, by
// media.Side: for RTP, and for RTCP where that has a handshake of its own. The lines
// have keys of their own.
func (s *Stream) Handshakes() (out [2][2]Handshake) {
	s.mu.Lock()
	ends := s.sec.ends
	s.mu.Unlock()
	a := &s.sec.agreed
	a.mu.Lock()
	defer a.mu.Unlock()
	for side := range a.sides {
		for i, list := range a.sides[side] {
			for _, h := range list {
				if h.Association > 0 && h.Association == ends[side].Association {
					out[side][i] = Handshake{h.Association, h.Receive.Clone(), h.Send.Clone()}
				}
			}
		}
	}
	return out
}

// Resume is the first Protect of a stream that another process had: with the keys that
// were agreed there, and those of its handshakes, as Handshakes returned them. None is
// begun where there are some.
func (s *Stream) Resume(ends [2]srtp.End, former [2][2]Handshake) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.sec.on.Store(ends[0].Mode != srtp.Clear || ends[1].Mode != srtp.Clear)
	var errs []error
	for i, e := range ends {
		side := media.Side(i)
		h := former[i][kindRTP]
		if e.Mode == srtp.KeyedDTLS && (h.Association != e.Association || h.Receive.Zero() || h.Send.Zero()) {
			errs = append(errs, s.protectSide(side, e)) // it was under way, and begins again
			continue
		}
		receive, send, err := e.Keys()
		s.sec.ends[i] = e
		s.push(&change{side: side, mode: e.Mode, association: e.Association, receive: receive, send: send, resumed: true})
		errs = append(errs, err)
		if e.Mode == srtp.KeyedDTLS {
			errs = append(errs, s.resumeHandshake(side, kindRTP, h), s.resumeHandshake(side, kindRTCP, former[i][kindRTCP]))
		}
	}
	return errors.Join(errs...)
}

// resumeHandshake takes over the keys of a handshake of another process.
func (s *Stream) resumeHandshake(side media.Side, i kind, h Handshake) error {
	if h.Association != s.sec.ends[side].Association || h.Receive.Zero() || h.Send.Zero() {
		return nil
	}
	receive, err := srtp.NewKeys(h.Receive)
	if err != nil {
		return err
	}
	send, err := srtp.NewKeys(h.Send)
	if err != nil {
		receive.Wipe()
		return err
	}
	s.sec.resumed[side] = h.Association
	s.sec.agreed.note(side, i, dtls.Keys{Association: h.Association, Receive: receive, Send: send})
	s.push(&change{side: side, established: true, rtcp: i == kindRTCP, association: h.Association, receive: receive, send: send, restart: true, resumed: true})
	return nil
}

// established hands over the keys of a handshake.
func (s *Stream) established(side media.Side, i kind, k dtls.Keys) {
	s.sec.agreed.note(side, i, k)
	s.push(&change{side: side, established: true, rtcp: i == kindRTCP, association: k.Association, receive: k.Receive, send: k.Send, restart: true, forked: s.sec.forking.Load()})
	if s.keyed != nil {
		s.keyed()
	}
}

// SavedHandshakes are Handshakes as text, for a journal that nobody else can read.
type SavedHandshakes [2][2]SavedHandshake

// SavedHandshake is a Handshake as text.
type SavedHandshake struct {
	Association   uint32 `json:",omitempty"`
	Receive, Send string `json:",omitempty"` // values of a=crypto
}

// SaveHandshakes returns what Handshakes does of the associations that count.
func (s *Stream) SaveHandshakes() (out SavedHandshakes) {
	for side, list := range s.Handshakes() {
		for i, h := range list {
			if h.Association > 0 {
				out[side][i] = SavedHandshake{h.Association, h.Receive.Attribute(), h.Send.Attribute()}
			}
			h.wipe()
		}
	}
	return out
}

// Load returns the handshakes, for Resume.
func (s SavedHandshakes) Load() (out [2][2]Handshake, err error) {
	for side, list := range s {
		for i, h := range list {
			if h.Association == 0 {
				continue
			}
			receive, rerr := srtp.ParseCrypto(h.Receive)
			send, serr := srtp.ParseCrypto(h.Send)
			if err := errors.Join(rerr, serr); err != nil {
				return out, fmt.Errorf("the keys of a handshake: %w", err)
			}
			out[side][i] = Handshake{Association: h.Association, Receive: receive, Send: send}
		}
	}
	return out, nil
}

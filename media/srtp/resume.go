package srtp

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// What a process before has used of a key is known to its peers alone, so whoever goes
// on with keys of another process uses no counter that this one may have used: what is
// sent goes on as other SSRCs, whose counters begin at zero, and what is received says
// by its authentication which rollover counter is meant.

// Limits of the search for rollover counters.
const (
	rolloversMax      = 512 // more than a day of packets of 5 ms
	seeksPerSecondMax = 64  // packets of whose sender all of them are tried
)

// ResumeProtector is NewProtector for keys that another process has used.
func ResumeProtector(k *Keys) (*Protector, error) {
	p, err := NewProtector(k)
	if err == nil {
		p.restarts.anew = true
	}
	return p, err
}

// ResumeUnprotector is NewUnprotector for keys that another process has used. Packets
// from before are taken for new ones until one from behind them came.
func ResumeUnprotector(k *Keys, overlap time.Duration) (*Unprotector, error) {
	u, err := NewUnprotector(k, overlap)
	if err == nil {
		u.current.seek = &seeking{}
	}
	return u, err
}

// seeking bounds the search for rollover counters.
type seeking struct {
	since time.Time
	n     int
}

func (s *seeking) may(arrival time.Time) bool {
	if d := arrival.Sub(s.since); d < 0 || d >= time.Second {
		s.since, s.n = arrival, 0
	}
	s.n++
	return s.n <= seeksPerSecondMax
}

// seekRTP decrypts a packet that none of the likely counters fits with those that are
// left: of an SSRC that is known those ahead of it, because what made it known may have
// been a packet from before, repeated.
func (u *Unprotector) seekRTP(e *epoch, dst, wire []byte, ssrc uint32, seq uint16, arrival time.Time) ([]byte, error) {
	s := e.rtp[ssrc]
	if s == nil && len(e.rtp) >= SourcesMax {
		return nil, ErrSources
	}
	first := uint64(1)
	if s != nil {
		first = s.highest/sequences + 1
	}
	if !e.seek.may(arrival) {
		return nil, ErrAuthentication
	}
	for roc := first; roc < rolloversMax && e.setROC(ssrc, uint32(roc)); roc++ {
		out, err := e.keys.ctx.DecryptRTP(dst, wire, &u.header)
		if err == nil {
			e.rtp[ssrc] = newSource(roc*sequences + uint64(seq))
			return out, nil
		}
		if err = verdict(err); !errors.Is(err, ErrAuthentication) {
			return nil, err
		}
	}
	return nil, ErrAuthentication
}

// SavedLine is what another process needs to go on with a Line. It holds keys.
type SavedLine struct{ Sides [2]SavedEnd }

// SavedEnd is what is agreed with one side.
type SavedEnd struct {
	Known   bool   `json:",omitempty"`
	Mode    Mode   `json:",omitempty"`
	Form    uint8  `json:",omitempty"`
	Send    string `json:",omitempty"` // values of a=crypto
	Receive string `json:",omitempty"`
	Passed  string `json:",omitempty"`
	Context uint32 `json:",omitempty"`

	Association uint32   `json:",omitempty"`
	Role        Role     `json:",omitempty"`
	Remote      []string `json:",omitempty"` // values of a=fingerprint
}

// Save returns what is agreed. An offer that is open is as if it had never been.
func (l *Line) Save() (out SavedLine) {
	for i := range l.agreed {
		a := &l.agreed[i]
		e := SavedEnd{
			Known: a.known, Mode: a.mode, Form: uint8(a.form), Context: a.sdes.context,
			Send: saveCrypto(a.sdes.send), Receive: saveCrypto(a.sdes.receive), Passed: saveCrypto(a.passed),
			Association: a.dtls.number, Role: a.dtls.role,
		}
		for _, f := range a.dtls.remote {
			e.Remote = append(e.Remote, f.String())
		}
		out.Sides[i] = e
	}
	return out
}

func saveCrypto(c Crypto) string {
	if c.Zero() {
		return ""
	}
	return c.Attribute()
}

// RestoreLine goes on with a line of another process. Its certificate was another one, so
// the next exchange with a side that does DTLS agrees on a new association (RFC 8842
// section 4); until then the keys of the former handshake count. The error says that
// what was saved contradicts itself, and no more.
func RestoreLine(c *Config, s SavedLine) (*Line, error) {
	l := NewLine(c)
	for i, e := range s.Sides {
		a := &l.agreed[i]
		if e.Mode > Passed || form(e.Form) > formSecure || e.Role > Active || len(e.Remote) > fingerprintsMax {
			return nil, errSaved
		}
		a.known, a.mode, a.form = e.Known, e.Mode, form(e.Form)
		a.sdes.context, a.dtls.number, a.dtls.role = e.Context, e.Association, e.Role
		var errs [3]error
		a.sdes.send, errs[0] = loadCrypto(e.Send)
		a.sdes.receive, errs[1] = loadCrypto(e.Receive)
		a.passed, errs[2] = loadCrypto(e.Passed)
		if err := errors.Join(errs[:]...); err != nil {
			return nil, err
		}
		for _, v := range e.Remote {
			f, err := ParseFingerprint(v)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", errSaved, err)
			}
			a.dtls.remote = append(a.dtls.remote, f)
		}
		a.dtls.stale = a.dtls.number > 0
		if a.mode == KeyedSDES && (a.sdes.send.Zero() || a.sdes.receive.Zero()) || a.mode == Passed && a.passed.Zero() || a.mode == KeyedDTLS && a.dtls.number == 0 {
			return nil, errSaved
		}
	}
	return l, nil
}

var errSaved = errors.New("what was kept about SRTP contradicts itself")

func loadCrypto(v string) (Crypto, error) {
	if v == "" {
		return Crypto{}, nil
	}
	c, err := ParseCrypto(v)
	if err != nil {
		return c, fmt.Errorf("%w: %w", errSaved, err)
	}
	return c, nil
}

// Line returns the line that keys are of, with keys of its own.
func (k *Keys) Line() Crypto {
	return k.line.Clone()
}

// Clone returns a line with keys that Wipe of c does not reach.
func (c Crypto) Clone() Crypto {
	c.Keys = slices.Clone(c.Keys)
	for i := range c.Keys {
		c.Keys[i].Key = c.Keys[i].Key.clone()
	}
	return c
}

// begin gives an SSRC another one in whose place nothing was sent yet; false: there are
// too many.
func (r *restarts) begin(ssrc uint32, used map[uint32]*source) (uint32, bool) {
	if len(r.alias) >= SourcesMax {
		return 0, false
	}
	return r.rename(ssrc, used), true
}

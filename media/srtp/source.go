package srtp

import (
	"errors"
	"fmt"

	"github.com/pion/srtp/v3"
)

// Errors of a packet. They are sentinels, so that a refused packet costs no
// text; the packet must be dropped.
var (
	ErrForm           = errors.New("neither RTP nor RTCP, or too short to be protected")
	ErrAuthentication = errors.New("authentication of a packet failed")
	ErrReplayed       = errors.New("packet came before, or is older than the replay window")
	ErrSources        = errors.New("more SSRCs than are kept")
	ErrShortBuffer    = errors.New("buffer is too short for the packet")
	ErrNoKeys         = errors.New("no keys")
	ErrExhausted      = errors.New("the key has protected as many packets as it may")
)

// Limits of a direction.
const (
	// SourcesMax is how many SSRCs of RTP, and as many of RTCP, a direction keeps
	// for its keys. Further ones are refused: to forget one would allow replays,
	// or use a key stream twice.
	SourcesMax = 256

	// OverheadBytesMax is the most that protection adds to a packet.
	OverheadBytesMax = 20 + mkiBytesMax

	// WindowPackets is the replay window (RFC 3711 section 3.3.2).
	WindowPackets = 1024

	probesMax = 4 * SourcesMax // guesses of a rollover counter for SSRCs that are not known
)

const (
	rtpHeaderBytes  = 12
	rtcpHeaderBytes = 8
	sequences       = 1 << 16
	indexMax        = 1<<48 - 1
	rtcpIndexMax    = 1<<31 - 1
	doubtful        = 1 << 14 // a distance of sequence numbers from which the nearest rollover may be wrong
)

// Keys are the keys of one direction, derived and ready. Deriving takes some
// microseconds and allocates, so it is done before the keys are handed to the
// goroutine of the packets. One Protector or Unprotector can use them, once.
type Keys struct {
	line   Crypto // with keys of our own
	ctx    *srtp.Context
	mkiLen int
	used   bool
}

// NewKeys derives the keys of a line. The line's keys are copied.
func NewKeys(c Crypto) (*Keys, error) {
	if !c.Suite.Valid() || len(c.Keys) == 0 {
		return nil, ErrNoKeys
	}
	info := suites[c.Suite]
	k := &Keys{line: c, mkiLen: len(c.Keys[0].MKI)}
	k.line.Keys = make([]MasterKey, len(c.Keys))
	for i, m := range c.Keys {
		if m.Key.Len() != c.Suite.KeyBytes() || len(m.MKI) != k.mkiLen || len(m.MKI) > mkiBytesMax {
			return nil, fmt.Errorf("keys for %s: key %d has %d bytes and an MKI of %d", c.Suite, i+1, m.Key.Len(), len(m.MKI))
		}
		k.line.Keys[i] = MasterKey{Key: m.Key.clone(), Lifetime: m.Lifetime, MKI: m.MKI}
	}
	opts := []srtp.ContextOption{srtp.MasterKeyIndicator(c.Keys[0].MKI)}
	if c.UnencryptedSRTCP {
		opts = append(opts, srtp.SRTCPNoEncryption())
	}
	for i, m := range k.line.Keys {
		key, salt := m.Key.bytes()[:info.key], m.Key.bytes()[info.key:]
		var err error
		if i == 0 {
			k.ctx, err = srtp.CreateContext(key, salt, info.profile, opts...)
		} else {
			err = k.ctx.AddCipherForMKI(m.MKI, key, salt)
		}
		if err != nil {
			k.Wipe()
			return nil, fmt.Errorf("keys for %s: %w", c.Suite, err)
		}
	}
	return k, nil
}

// Suite returns what the keys are for.
func (k *Keys) Suite() Suite { return k.line.Suite }

// Same tells whether both are of one crypto context, so that one could go on
// where the other is.
func (k *Keys) Same(o *Keys) bool { return k != nil && o != nil && k.line.SameKeys(o.line) }

// OverheadBytes is the most that these keys add to a packet.
func (k *Keys) OverheadBytes() int { return suites[k.line.Suite].overhead + k.mkiLen }

// Wipe zeroes the master keys and drops what was derived. The library that
// encrypts keeps the session keys as AES key schedules, the states of HMAC and
// the session salts, and offers no way to zero them: they stay in memory until
// the garbage collector gives it away.
func (k *Keys) Wipe() {
	if k == nil {
		return
	}
	k.line.Wipe()
	k.ctx = nil
}

// wipeUnless wipes keys that are not needed because those in use are the same.
func (k *Keys) wipeUnless(use *Keys) {
	if k != use {
		k.Wipe()
	}
}

func (k *Keys) aead() bool { return suites[k.line.Suite].aead }

// take marks the keys as used.
func (k *Keys) take() error {
	switch {
	case k == nil || k.ctx == nil:
		return ErrNoKeys
	case k.used:
		return errors.New("keys are in use already")
	}
	k.used = true
	return nil
}

// source is the packet index of one SSRC (RFC 3711 section 3.3.1) and what came
// in the window below it.
type source struct {
	highest uint64
	seen    [windowWords]uint64 // a ring of bits by index
}

// The ring has a word more than the window, so that clearing a word for the head
// leaves the window whole.
const windowWords = WindowPackets/64 + 1

// newSource begins at an index.
func newSource(index uint64) *source {
	s := &source{highest: index}
	s.seen[index/64%windowWords] = 1 << (index % 64)
	return s
}

// estimate returns the index that a sequence number most likely means, as RFC
// 3711 section 3.3.1 and its appendix A guess it: negative when that is before
// the first rollover. other is the next likely one where the distance leaves a
// doubt, else the same.
func (s *source) estimate(seq uint16) (index, other int64) {
	last := int64(s.highest % sequences)
	index = int64(s.highest) - last + int64(seq)
	switch d := int64(seq) - last; {
	case last < sequences/2 && d > sequences/2:
		index -= sequences
	case last >= sequences/2 && -d > sequences/2:
		index += sequences
	}
	other = index
	if d := index - int64(s.highest); d > doubtful {
		other -= sequences
	} else if d < -doubtful {
		other += sequences
	}
	return index, other
}

// fresh tells whether an index may still come.
func (s *source) fresh(index uint64) bool {
	if index > s.highest {
		return true
	}
	return s.highest-index < WindowPackets && s.seen[index/64%windowWords]&(1<<(index%64)) == 0
}

// note marks an index, which must be fresh.
func (s *source) note(index uint64) {
	if index > s.highest {
		from, to := s.highest/64, index/64
		for w := from + 1; w <= min(to, from+windowWords); w++ {
			s.seen[w%windowWords] = 0
		}
		s.highest = index
	}
	s.seen[index/64%windowWords] |= 1 << (index % 64)
}

package siptest

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/pion/srtp/v3"
)

// SRTP is how an Agent protects its media by SDES (RFC 4568). What it negotiates
// is its own; the ciphers are of a library.
type SRTP struct {
	// Suites are offered, and taken of an offer, by preference; nil:
	// AES_CM_128_HMAC_SHA1_80 alone.
	Suites []string

	Profile string // of offers; "": RTP/SAVP. With RTP/AVP the other side may do without (RFC 8643)
	Renew   bool   // new keys in this offer or answer; else those in force stay
	Must    bool   // a description without keys is refused
}

func (s *SRTP) suites() []string {
	if len(s.Suites) == 0 {
		return []string{"AES_CM_128_HMAC_SHA1_80"}
	}
	return s.Suites
}

// kept is what goes on to be wanted after an exchange.
func (s *SRTP) kept() *SRTP {
	if s == nil {
		return nil
	}
	next := *s
	next.Renew = false
	return &next
}

// sdesSuites are those that an Agent knows (RFC 4568 section 6.2, RFC 6188, RFC 7714).
var sdesSuites = map[string]srtp.ProtectionProfile{
	"AES_CM_128_HMAC_SHA1_80": srtp.ProtectionProfileAes128CmHmacSha1_80,
	"AES_CM_128_HMAC_SHA1_32": srtp.ProtectionProfileAes128CmHmacSha1_32,
	"AES_256_CM_HMAC_SHA1_80": srtp.ProtectionProfileAes256CmHmacSha1_80,
	"AES_256_CM_HMAC_SHA1_32": srtp.ProtectionProfileAes256CmHmacSha1_32,
	"AEAD_AES_128_GCM":        srtp.ProtectionProfileAeadAes128Gcm,
	"AEAD_AES_256_GCM":        srtp.ProtectionProfileAeadAes256Gcm,
}

var errNoKeys = errors.New("session description without keys that can be used")

// sdesLine is an a=crypto line.
type sdesLine struct {
	tag   int
	suite string
	key   []byte // master key and salt
}

func (l sdesLine) String() string {
	return fmt.Sprintf("a=crypto:%d %s inline:%s", l.tag, l.suite, base64.StdEncoding.EncodeToString(l.key))
}

// parseSDES reads the value of an a=crypto; what an Agent does not know is no line.
func parseSDES(value string) (l sdesLine, ok bool) {
	f := strings.Fields(value)
	if len(f) < 3 || sdesSuites[f[1]] == 0 {
		return l, false
	}
	inline, found := strings.CutPrefix(f[2], "inline:")
	inline, _, _ = strings.Cut(inline, "|")
	tag, err := strconv.Atoi(f[0])
	key, err2 := base64.StdEncoding.DecodeString(inline)
	return sdesLine{tag, f[1], key}, found && err == nil && err2 == nil
}

// sdes is the protection of one call's media. Its methods are safe for concurrent use.
type sdes struct {
	mu          sync.Mutex
	send        sdesLine // in force; no tag: nothing is
	receive     sdesLine
	open        []sdesLine // of our offer
	out         *srtp.Context
	in          [2]*srtp.Context // the latest, and the one before for what is under way
	sources     map[uint32]bool
	all         [][]byte // every key of either side, offered or agreed on
	undecrypted int
}

const sourcesMax = 64 // SSRCs whose counters go on under other keys

// offer returns the lines of an offer of ours.
func (s *sdes) offer(o *SRTP) []sdesLine {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = nil
	if s.send.tag != 0 && slices.Contains(o.suites(), s.send.suite) {
		line := s.send
		if o.Renew {
			line.key = s.fresh(line.suite)
		}
		s.open = []sdesLine{line}
		return s.open
	}
	for i, suite := range o.suites() {
		s.open = append(s.open, sdesLine{i + 1, suite, s.fresh(suite)})
	}
	return s.open
}

// fresh makes a key. s.mu is held.
func (s *sdes) fresh(suite string) []byte {
	key, salt := lens(suite)
	b := make([]byte, key+salt)
	_, _ = rand.Read(b) // never fails
	s.all = append(s.all, b)
	return b
}

func lens(suite string) (key, salt int) {
	key, _ = sdesSuites[suite].KeyLen() // of the table, and known to the library
	salt, _ = sdesSuites[suite].SaltLen()
	return key, salt
}

// answer takes the lines of an offer and returns ours.
func (s *sdes) answer(o *SRTP, offered []sdesLine) (sdesLine, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range offered {
		if !slices.Contains(o.suites(), l.suite) {
			continue
		}
		ours := sdesLine{l.tag, l.suite, s.send.key}
		if s.send.tag == 0 || s.send.suite != l.suite || o.Renew {
			ours.key = s.fresh(l.suite)
		}
		return ours, s.use(ours, l)
	}
	return sdesLine{}, errNoKeys
}

// answered takes the lines of an answer to our offer.
func (s *sdes) answered(lines []sdesLine) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range lines {
		for _, ours := range s.open {
			if ours.tag == l.tag && ours.suite == l.suite {
				return s.use(ours, l)
			}
		}
	}
	return errNoKeys
}

// use puts a pair of lines in force. Rollover counters go on (RFC 3711 section
// 3.3.1). s.mu is held.
func (s *sdes) use(send, receive sdesLine) error {
	if !bytes.Equal(s.send.key, send.key) || s.out == nil {
		out, err := s.context(send, s.out)
		if err != nil {
			return err
		}
		s.out = out
	}
	if !bytes.Equal(s.receive.key, receive.key) || s.in[0] == nil {
		in, err := s.context(receive, s.in[0])
		if err != nil {
			return err
		}
		s.in[0], s.in[1] = in, s.in[0]
	}
	s.send, s.receive, s.all = send, receive, append(s.all, receive.key)
	return nil
}

// context makes the ciphers of a line. s.mu is held.
func (s *sdes) context(l sdesLine, before *srtp.Context) (*srtp.Context, error) {
	key, salt := lens(l.suite)
	if len(l.key) != key+salt {
		return nil, fmt.Errorf("a key of %s with %d bytes: %w", l.suite, len(l.key), errNoKeys)
	}
	c, err := srtp.CreateContext(l.key[:key], l.key[key:], sdesSuites[l.suite])
	if err != nil {
		return nil, fmt.Errorf("keys of %s: %w", l.suite, err)
	}
	for ssrc := range s.sources {
		if before == nil {
			break
		}
		if roc, known := before.ROC(ssrc); known {
			c.SetROC(ssrc, roc)
		}
		if index, known := before.Index(ssrc); known {
			c.SetIndex(ssrc, index)
		}
	}
	return c, nil
}

// clear ends the protection: both sides agreed on plain RTP.
func (s *sdes) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.send, s.receive, s.open, s.out, s.in = sdesLine{}, sdesLine{}, nil, nil, [2]*srtp.Context{}
}

// protect returns what goes on the wire for a plain packet; nil: it goes as it is.
func (s *sdes) protect(plain []byte, rtcp bool) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.out == nil {
		return nil, nil
	}
	s.source(plain, rtcp)
	if rtcp {
		return s.out.EncryptRTCP(nil, plain, nil)
	}
	return s.out.EncryptRTP(nil, plain, nil)
}

// unprotect returns what a packet of the wire holds; nil, nil: it is not protected.
func (s *sdes) unprotect(wire []byte, rtcp bool) (plain []byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.in[0] == nil && len(s.open) == 0 {
		return nil, nil
	}
	s.source(wire, rtcp)
	err = errNoKeys
	for _, c := range s.in {
		switch {
		case c == nil:
			continue
		case rtcp:
			plain, err = c.DecryptRTCP(nil, wire, nil)
		default:
			plain, err = c.DecryptRTP(nil, wire, nil)
		}
		if err == nil {
			return plain, nil
		}
	}
	s.undecrypted++
	return nil, err
}

// source notes an SSRC whose counters go on under other keys. s.mu is held.
func (s *sdes) source(packet []byte, rtcp bool) {
	at := 8
	if rtcp {
		at = 4
	}
	if len(packet) >= at+4 && len(s.sources) < sourcesMax {
		if s.sources == nil {
			s.sources = map[uint32]bool{}
		}
		s.sources[binary.BigEndian.Uint32(packet[at:])] = true
	}
}

// Keys are the master keys with their salts that this side has used or offered,
// and those of the other side.
func (m *Media) Keys() [][]byte {
	m.sdes.mu.Lock()
	defer m.sdes.mu.Unlock()
	return slices.Clone(m.sdes.all)
}

// Undecrypted counts what came while protection was offered or agreed on and could
// not be decrypted. Received does not list it.
func (m *Media) Undecrypted() int {
	m.sdes.mu.Lock()
	defer m.sdes.mu.Unlock()
	return m.sdes.undecrypted
}

// Secured says whether what is sent is protected, and by which suite.
func (m *Media) Secured() (suite string, ok bool) {
	m.sdes.mu.Lock()
	defer m.sdes.mu.Unlock()
	return m.sdes.send.suite, m.sdes.out != nil
}

// transmit sends a packet, protected where that was agreed. m.mu is held.
func (m *Media) transmit(from Conn, p Packet) {
	secure, err := m.sdes.protect(p.Wire, p.RTCP)
	if err != nil {
		return
	}
	datagram := p.Wire
	if p.Secure = secure; secure != nil {
		datagram = secure
	}
	if _, err := from.WriteToUDPAddrPort(datagram, p.Peer); err == nil { // else lost, as packets are
		m.keep(&m.sent, p)
	}
}

// secureOffer completes an offer with the lines that protect its media.
func (o Offer) secureOffer(m *Media) Offer {
	if o.SRTP == nil || o.profile != "" {
		return o
	}
	o.profile = o.SRTP.Profile
	if o.profile == "" {
		o.profile = "RTP/SAVP"
	}
	for _, l := range m.sdes.offer(o.SRTP) {
		o.crypto = append(o.crypto, l.String())
	}
	return o
}

// secureAnswer does the same with the answer to an offer of the other side.
func (o Offer) secureAnswer(m *Media, offered SDP) (Offer, error) {
	if o.SRTP == nil || len(offered.crypto) == 0 {
		if o.SRTP != nil && o.SRTP.Must || strings.Contains(offered.Profile, "SAVP") {
			return o, errNoKeys
		}
		m.sdes.clear()
		o.profile = offered.Profile
		return o, nil
	}
	line, err := m.sdes.answer(o.SRTP, offered.crypto)
	o.profile, o.crypto = offered.Profile, []string{line.String()}
	return o, err
}

// secured takes the other side's answer to an offer of ours.
func (o Offer) secured(m *Media, answer SDP) error {
	switch {
	case o.SRTP == nil:
		return nil
	case len(answer.crypto) > 0:
		return m.sdes.answered(answer.crypto)
	case o.SRTP.Must || strings.Contains(answer.Profile, "SAVP"):
		return errNoKeys
	}
	m.sdes.clear()
	return nil
}

// Package ice answers connectivity checks as an ICE agent with one host candidate
// does (ice-lite, RFC 8445 section 2.5), over the STUN messages of RFC 8489.
//
// It is pure: datagrams go in, answers come out.
package ice

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // RFC 8489 section 14.5 has nothing else
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"net/netip"
)

const (
	headerBytes     = 20
	magic           = 0x2112A442
	bindingRequest  = 0x0001
	bindingResponse = 0x0101

	attrUsername     = 0x0006
	attrIntegrity    = 0x0008
	attrXORMapped    = 0x0020
	attrUseCandidate = 0x0025
	attrFingerprint  = 0x8028

	fingerprintXOR = 0x5354554e
	integrityBytes = sha1.Size
)

// Lite is our end of the checks of one stream on one side.
type Lite struct{ Ufrag, Pwd string }

// New makes credentials (RFC 8445 section 5.3).
func New() *Lite {
	return &Lite{Ufrag: token(6), Pwd: token(18)}
}

// token is n random bytes as ice-chars: n is a multiple of 3, so that there is no padding.
func token(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return base64.StdEncoding.EncodeToString(b)
}

// IsSTUN tells STUN from what else comes to a port of media (RFC 7983 section 7).
func IsSTUN(wire []byte) bool {
	return len(wire) >= headerBytes && wire[0] < 4 && binary.BigEndian.Uint32(wire[4:]) == magic
}

// Answer returns the response to a connectivity check. ok: it was one, with our
// user name and integrity; everything else is not answered. nominated: the peer has
// chosen the way that it came (USE-CANDIDATE).
func (l *Lite) Answer(wire []byte, from netip.AddrPort) (response []byte, nominated, ok bool) {
	if !IsSTUN(wire) || len(wire)%4 != 0 || binary.BigEndian.Uint16(wire) != bindingRequest ||
		int(binary.BigEndian.Uint16(wire[2:])) != len(wire)-headerBytes {
		return nil, false, false
	}
	named, proven := false, false
	for at := headerBytes; at < len(wire); {
		if at+4 > len(wire) {
			return nil, false, false
		}
		kind, n := binary.BigEndian.Uint16(wire[at:]), int(binary.BigEndian.Uint16(wire[at+2:]))
		if at+4+n > len(wire) {
			return nil, false, false
		}
		value := wire[at+4 : at+4+n]
		switch {
		case proven && kind != attrFingerprint: // what follows the integrity is not covered by it
		case kind == attrUsername:
			ours, _, found := bytes.Cut(value, []byte(":"))
			named = found && string(ours) == l.Ufrag
		case kind == attrUseCandidate:
			nominated = true
		case kind == attrIntegrity:
			if n != integrityBytes || !hmac.Equal(value, l.integrity(wire[:at])) {
				return nil, false, false
			}
			proven = true
		case kind == attrFingerprint:
			if n != 4 || binary.BigEndian.Uint32(value) != fingerprint(wire[:at]) {
				return nil, false, false
			}
		}
		at += 4 + (n+3)&^3
	}
	if !named || !proven {
		return nil, false, false
	}
	return l.success(wire, from), nominated, true
}

// success is the response to a request (RFC 8489 section 6.3.1.1).
func (l *Lite) success(request []byte, from netip.AddrPort) []byte {
	out := make([]byte, headerBytes, 96)
	binary.BigEndian.PutUint16(out, bindingResponse)
	copy(out[4:], request[4:headerBytes])
	addr := from.Addr().Unmap()
	family, raw := byte(1), addr.AsSlice()
	if addr.Is6() {
		family = 2
	}
	for i := range raw {
		raw[i] ^= request[4+i] // the cookie, then the transaction
	}
	value := append([]byte{0, family}, 0, 0)
	binary.BigEndian.PutUint16(value[2:], from.Port()^uint16(magic>>16))
	out = attribute(out, attrXORMapped, append(value, raw...))
	out = attribute(out, attrIntegrity, l.integrity(out))
	binary.BigEndian.PutUint16(out[2:], uint16(len(out)-headerBytes+8))
	out = attribute(out, attrFingerprint, binary.BigEndian.AppendUint32(nil, fingerprint(out)))
	return out
}

// attribute appends an attribute whose length is a multiple of 4.
func attribute(out []byte, kind uint16, value []byte) []byte {
	out = binary.BigEndian.AppendUint16(out, kind)
	out = binary.BigEndian.AppendUint16(out, uint16(len(value)))
	return append(out, value...)
}

// integrity is that of a message up to the attribute itself, which the length in the
// header is to count (RFC 8489 section 14.5).
func (l *Lite) integrity(upTo []byte) []byte {
	m := bytes.Clone(upTo)
	binary.BigEndian.PutUint16(m[2:], uint16(len(m)-headerBytes+4+integrityBytes))
	h := hmac.New(sha1.New, []byte(l.Pwd))
	_, _ = h.Write(m) // a hash never fails
	return h.Sum(nil)
}

// fingerprint is that of a message up to the attribute itself (RFC 8489 section 14.7).
func fingerprint(upTo []byte) uint32 {
	m := bytes.Clone(upTo)
	binary.BigEndian.PutUint16(m[2:], uint16(len(m)-headerBytes+8))
	return crc32.ChecksumIEEE(m) ^ fingerprintXOR
}

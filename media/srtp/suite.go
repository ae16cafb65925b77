// Package srtp protects the media of one side of a trunk (RFC 3711): it
// negotiates keys and policy for an m= line and encrypts and decrypts packets.
//
// It holds no goroutine, no clock and no log. Keys never leave it as text but by
// Crypto.Attribute, which writes the SDP line that carries them.
package srtp

import (
	"fmt"
	"strings"

	"github.com/pion/srtp/v3"
)

// Suite is an SRTP crypto suite (RFC 4568 section 6.2, RFC 6188, RFC 7714). The
// zero value is none.
type Suite uint8

// The suites that can be used, of SDES and DTLS-SRTP alike; the 256-bit AES-CM
// ones are of SDES alone.
const (
	_               Suite = iota
	AESCM128SHA1x80       // AES_CM_128_HMAC_SHA1_80
	AESCM128SHA1x32       // AES_CM_128_HMAC_SHA1_32
	AESCM256SHA1x80       // AES_256_CM_HMAC_SHA1_80
	AESCM256SHA1x32       // AES_256_CM_HMAC_SHA1_32
	AEADAES128GCM         // AEAD_AES_128_GCM
	AEADAES256GCM         // AEAD_AES_256_GCM
	suitesEnd
)

// suiteInfo is the profile of a suite.
type suiteInfo struct {
	name      string
	profile   srtp.ProtectionProfile
	key, salt int  // bytes of the master key and salt
	rtcpTag   int  // bytes after the SRTCP index
	overhead  int  // bytes that SRTCP adds, which is never less than SRTP adds; without MKI
	aead      bool // destroys its destination when authentication fails
}

var suites = [suitesEnd]suiteInfo{
	AESCM128SHA1x80: {"AES_CM_128_HMAC_SHA1_80", srtp.ProtectionProfileAes128CmHmacSha1_80, 16, 14, 10, 14, false},
	AESCM128SHA1x32: {"AES_CM_128_HMAC_SHA1_32", srtp.ProtectionProfileAes128CmHmacSha1_32, 16, 14, 10, 14, false},
	AESCM256SHA1x80: {"AES_256_CM_HMAC_SHA1_80", srtp.ProtectionProfileAes256CmHmacSha1_80, 32, 14, 10, 14, false},
	AESCM256SHA1x32: {"AES_256_CM_HMAC_SHA1_32", srtp.ProtectionProfileAes256CmHmacSha1_32, 32, 14, 10, 14, false},
	AEADAES128GCM:   {"AEAD_AES_128_GCM", srtp.ProtectionProfileAeadAes128Gcm, 16, 12, 0, 20, true},
	AEADAES256GCM:   {"AEAD_AES_256_GCM", srtp.ProtectionProfileAeadAes256Gcm, 32, 12, 0, 20, true},
}

// aliases are names of drafts that equipment still writes.
var aliases = map[string]Suite{
	"AES_CM_256_HMAC_SHA1_80": AESCM256SHA1x80,
	"AES_CM_256_HMAC_SHA1_32": AESCM256SHA1x32,
}

// DefaultSuites returns the preference where none is configured: the stronger
// first, the ones with a tag of 32 bits last.
func DefaultSuites() []Suite {
	return []Suite{AEADAES256GCM, AEADAES128GCM, AESCM256SHA1x80, AESCM128SHA1x80, AESCM128SHA1x32, AESCM256SHA1x32}
}

// SuiteNamed finds a suite by its name in SDP, in any case.
func SuiteNamed(name string) (Suite, bool) {
	name = strings.ToUpper(name)
	for s := Suite(1); s < suitesEnd; s++ {
		if suites[s].name == name {
			return s, true
		}
	}
	s, ok := aliases[name]
	return s, ok
}

// Valid tells whether s is one of the suites above.
func (s Suite) Valid() bool { return s > 0 && s < suitesEnd }

// String returns the suite's name in SDP.
func (s Suite) String() string {
	if !s.Valid() {
		return fmt.Sprintf("suite %d", uint8(s))
	}
	return suites[s].name
}

// UnmarshalText reads a name in SDP, for configuration.
func (s *Suite) UnmarshalText(text []byte) error {
	found, ok := SuiteNamed(string(text))
	if !ok {
		return fmt.Errorf("SRTP suite %q is not known; there are %s", text, suiteNames())
	}
	*s = found
	return nil
}

// MarshalText writes the name in SDP.
func (s Suite) MarshalText() ([]byte, error) {
	if !s.Valid() {
		return nil, fmt.Errorf("%s has no name", s)
	}
	return []byte(s.String()), nil
}

// KeyBytes is the length of master key and master salt together, as an inline
// key of SDES holds them; 0 when s is not valid.
func (s Suite) KeyBytes() int {
	if !s.Valid() {
		return 0
	}
	return suites[s].key + suites[s].salt
}

// KeyLens returns the bytes of the master key and of the master salt.
func (s Suite) KeyLens() (key, salt int) {
	if !s.Valid() {
		return 0, 0
	}
	return suites[s].key, suites[s].salt
}

func suiteNames() string {
	names := make([]string, 0, suitesEnd)
	for s := Suite(1); s < suitesEnd; s++ {
		names = append(names, s.String())
	}
	return strings.Join(names, ", ")
}

package srtp

import (
	"bytes"
	"crypto"
	_ "crypto/sha1" // fingerprints of old equipment, by option alone
	_ "crypto/sha256"
	_ "crypto/sha512"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

const fingerprintsMax = 16 // of an m= section that are looked at

// ErrFingerprint is wrapped when a certificate is not the one that SDP announced,
// or SDP announced none that can be checked.
var ErrFingerprint = errors.New("certificate does not match a=fingerprint")

// Fingerprint is an a=fingerprint attribute (RFC 8122 section 5): the hash of a
// certificate in DER.
type Fingerprint struct {
	Hash string // in lower case: sha-256, sha-384, sha-512, sha-1
	Sum  []byte
}

// hashes are those that can be checked, the strongest first.
var hashes = []struct {
	name string
	hash crypto.Hash
}{{"sha-512", crypto.SHA512}, {"sha-384", crypto.SHA384}, {"sha-256", crypto.SHA256}, {"sha-1", crypto.SHA1}}

func hashNamed(name string) (crypto.Hash, bool) {
	for _, h := range hashes {
		if h.name == name {
			return h.hash, true
		}
	}
	return 0, false
}

// FingerprintOf returns the SHA-256 fingerprint of a certificate in DER.
func FingerprintOf(der []byte) Fingerprint {
	h := crypto.SHA256.New()
	h.Write(der)
	return Fingerprint{Hash: "sha-256", Sum: h.Sum(nil)}
}

// ParseFingerprint reads the value of the attribute, "sha-256 4A:AD:B9:…", hex in
// either case. Errors: a hash that is not known, or a sum of another length.
func ParseFingerprint(value string) (Fingerprint, error) {
	fields := strings.Fields(value)
	if len(fields) != 2 {
		return Fingerprint{}, errors.New("fingerprint: a hash and a sum are needed")
	}
	name := strings.ToLower(fields[0])
	hash, ok := hashNamed(name)
	if !ok {
		return Fingerprint{}, fmt.Errorf("fingerprint: hash %q is not done here", short(fields[0]))
	}
	sum, err := hex.DecodeString(strings.ReplaceAll(fields[1], ":", ""))
	if err != nil || len(sum) != hash.Size() {
		return Fingerprint{}, fmt.Errorf("fingerprint: a sum of %s is %d bytes in hex", name, hash.Size())
	}
	return Fingerprint{Hash: name, Sum: sum}, nil
}

// String returns the value of the attribute.
func (f Fingerprint) String() string {
	pairs := make([]string, len(f.Sum))
	for i, b := range f.Sum {
		pairs[i] = fmt.Sprintf("%02X", b)
	}
	return f.Hash + " " + strings.Join(pairs, ":")
}

// Equal compares hash and sum.
func (f Fingerprint) Equal(o Fingerprint) bool { return f.Hash == o.Hash && bytes.Equal(f.Sum, o.Sum) }

// Checkable returns those of the fingerprints that count: of the strongest hash
// that is there (RFC 8122 section 5.1), SHA-1 only when allowed.
func Checkable(list []Fingerprint, sha1 bool) []Fingerprint {
	for _, h := range hashes {
		if h.hash == crypto.SHA1 && !sha1 {
			continue
		}
		if out := slices.DeleteFunc(slices.Clone(list), func(f Fingerprint) bool { return f.Hash != h.name }); len(out) > 0 {
			return out
		}
	}
	return nil
}

// CheckFingerprint checks a certificate in DER against what SDP announced. The
// error wraps ErrFingerprint; an empty list never matches.
func CheckFingerprint(list []Fingerprint, der []byte, sha1 bool) error {
	use := Checkable(list, sha1)
	if len(use) == 0 {
		return fmt.Errorf("%w: none that may be used was announced", ErrFingerprint)
	}
	hash, _ := hashNamed(use[0].Hash) // Checkable returns known ones
	h := hash.New()
	h.Write(der)
	sum := h.Sum(nil)
	if slices.ContainsFunc(use, func(f Fingerprint) bool { return bytes.Equal(f.Sum, sum) }) {
		return nil
	}
	return fmt.Errorf("%w (%s)", ErrFingerprint, use[0].Hash)
}

// Setup is an a=setup attribute (RFC 4145 section 4): who begins the handshake.
type Setup uint8

// Setup values. SetupNone is the attribute's absence.
const (
	SetupNone Setup = iota
	SetupActive
	SetupPassive
	SetupActpass
	SetupHoldconn
)

var setups = [...]string{"", "active", "passive", "actpass", "holdconn"}

// ParseSetup reads the value of the attribute.
func ParseSetup(value string) (Setup, error) {
	if at := slices.Index(setups[:], strings.ToLower(strings.TrimSpace(value))); at > 0 {
		return Setup(at), nil
	}
	return SetupNone, fmt.Errorf("setup %q: must be active, passive, actpass or holdconn", short(value))
}

// String returns the value of the attribute.
func (s Setup) String() string { return setups[min(int(s), len(setups)-1)] }

// Role is who begins a DTLS handshake.
type Role uint8

// Roles. The active end sends the ClientHello.
const (
	Passive Role = iota
	Active
)

// String returns "active" or "passive", as a=setup does.
func (r Role) String() string { return r.setup().String() }

func (r Role) setup() Setup {
	if r == Active {
		return SetupActive
	}
	return SetupPassive
}

// role returns our role against what the peer wrote; prefer is taken when it
// leaves the choice. Without the attribute it is active (RFC 4145 section 4).
func (s Setup) role(prefer Role) (Role, bool) {
	switch s {
	case SetupActpass:
		return prefer, true
	case SetupPassive:
		return Active, true
	case SetupActive, SetupNone:
		return Passive, true
	default:
		return 0, false // holdconn: no association (RFC 5763 section 5)
	}
}

// validTLSID tells whether the text may stand in a=tls-id (RFC 8842 section 4).
func validTLSID(id string) bool {
	const set = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_"
	return len(id) >= 20 && len(id) <= 255 && strings.Trim(id, set) == ""
}

// newTLSID makes an id of 160 random bits.
func newTLSID(random io.Reader) (string, error) {
	var b [20]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", fmt.Errorf("make a tls-id: %w", err)
	}
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]), nil
}

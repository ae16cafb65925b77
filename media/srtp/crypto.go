package srtp

import (
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"slices"
	"strconv"
	"strings"
)

// Limits of what a crypto line may hold.
const (
	cryptoBytesMax = 4096 // of a line
	cryptoKeysMax  = 8    // inline keys of a line
	cryptoLinesMax = 32   // lines of an m= section that are looked at
	mkiBytesMax    = 128  // RFC 4568 section 9.2
	lifetimeMax    = 48   // as an exponent of two, RFC 3711 section 9.2
)

// Crypto is one a=crypto line (RFC 4568 section 9.1). It is a value: nothing
// changes one that was parsed or made, but Key.Wipe.
type Crypto struct {
	Tag   uint32 // 1..999999999; 0 in the zero value: no line
	Suite Suite
	Keys  []MasterKey // at least one; the first is the one to send with
	Params

	name string // the suite as the line spelt it, for an answer
}

// MasterKey is one inline key of a line.
type MasterKey struct {
	Key Key

	// Lifetime is how many packets the key may protect; 0: as many as the suite
	// allows. It is carried, not enforced: it binds the key's sender.
	Lifetime uint64

	// MKI is the master key identifier that every packet carries, 1..128 bytes;
	// empty: packets carry none.
	MKI []byte
}

// Params are the session parameters of a line (RFC 4568 section 6.3) that a
// usable line may have.
type Params struct {
	UnencryptedSRTCP bool // its sender leaves RTCP in clear, authenticated
	WindowPackets    int  // WSH, a hint about reordering; 0: none. The window here is larger than any sensible one
}

// ErrCrypto is wrapped by every reason why a crypto line cannot be used.
var ErrCrypto = errors.New("crypto line cannot be used")

func unusable(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrCrypto, fmt.Sprintf(format, args...))
}

// ParseCrypto reads the value of an a=crypto attribute, with "a=" and "crypto:"
// before it or without. The error wraps ErrCrypto, gives the reason and never
// any part of a key.
func ParseCrypto(line string) (Crypto, error) {
	if len(line) > cryptoBytesMax {
		return Crypto{}, unusable("%d bytes, at most %d are read", len(line), cryptoBytesMax)
	}
	line = strings.TrimSpace(line)
	line = strings.TrimPrefix(line, "a=")
	if at := len("crypto:"); len(line) >= at && strings.EqualFold(line[:at], "crypto:") {
		line = line[at:]
	}
	fields := strings.Fields(line)
	if len(fields) < 3 {
		return Crypto{}, unusable("a tag, a suite and a key are needed")
	}
	tag, err := strconv.ParseUint(fields[0], 10, 32)
	if err != nil || tag == 0 || tag > 999999999 {
		return Crypto{}, unusable("the tag is no number of 1 to 9 digits")
	}
	suite, ok := SuiteNamed(fields[1])
	if !ok {
		return Crypto{}, unusable("suite %s is not done here", strconv.QuoteToASCII(short(fields[1])))
	}
	c := Crypto{Tag: uint32(tag), Suite: suite, name: fields[1]}
	params := fields[2:]
	for len(params) > 0 && (len(c.Keys) == 0 || isInline(params[0])) { // white space after a semicolon is common
		if err := c.readKeys(params[0]); err != nil {
			return Crypto{}, err
		}
		params = params[1:]
	}
	if err := c.checkMKIs(); err != nil {
		return Crypto{}, err
	}
	for _, p := range params {
		if err := c.readParam(p); err != nil {
			return Crypto{}, err
		}
	}
	return c, nil
}

// ParseCryptos reads the a=crypto lines of one m= section. What cannot be used
// is left out and its reason returned; so is a line whose tag came before.
func ParseCryptos(lines []string) (usable []Crypto, refused []error) {
	for i, line := range lines {
		if i == cryptoLinesMax {
			return usable, append(refused, unusable("more than %d lines", cryptoLinesMax))
		}
		c, err := ParseCrypto(line)
		if err == nil && slices.ContainsFunc(usable, func(o Crypto) bool { return o.Tag == c.Tag }) {
			err = unusable("tag %d is there twice", c.Tag)
		}
		if err != nil {
			refused = append(refused, err)
			continue
		}
		usable = append(usable, c)
	}
	return usable, refused
}

func isInline(field string) bool {
	const method = "inline:"
	return len(field) >= len(method) && strings.EqualFold(field[:len(method)], method)
}

// readKeys reads key-param *(";" key-param).
func (c *Crypto) readKeys(field string) error {
	for text := range strings.SplitSeq(field, ";") {
		if text == "" {
			continue
		}
		if !isInline(text) {
			return unusable("the key method is not inline")
		}
		if len(c.Keys) == cryptoKeysMax {
			return unusable("more than %d keys", cryptoKeysMax)
		}
		k, err := readKey(c.Suite, text[len("inline:"):])
		if err != nil {
			return err
		}
		c.Keys = append(c.Keys, k)
	}
	if len(c.Keys) == 0 {
		return unusable("there is no key")
	}
	return nil
}

// readKey reads key||salt ["|" lifetime] ["|" MKI ":" length].
func readKey(s Suite, text string) (MasterKey, error) {
	parts := strings.Split(text, "|")
	b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(parts[0], "="))
	switch {
	case err != nil:
		return MasterKey{}, unusable("the key is not base64")
	case len(b) != s.KeyBytes():
		clear(b)
		return MasterKey{}, unusable("key and salt of %s are %d bytes, here are %d", s, s.KeyBytes(), len(b))
	case len(parts) > 3:
		return MasterKey{}, unusable("more than a lifetime and an MKI behind a key")
	}
	k := MasterKey{Key: keyOf(b)}
	for _, p := range parts[1:] {
		if strings.Contains(p, ":") {
			k.MKI, err = readMKI(p)
		} else {
			k.Lifetime, err = readLifetime(p)
		}
		if err != nil {
			return MasterKey{}, err
		}
	}
	return k, nil
}

// readLifetime reads "2^31" or a decimal number of packets.
func readLifetime(text string) (uint64, error) {
	if exp, ok := strings.CutPrefix(text, "2^"); ok {
		n, err := strconv.ParseUint(exp, 10, 8)
		if err != nil || n > lifetimeMax {
			return 0, unusable("the lifetime is more than 2^%d packets or no number", lifetimeMax)
		}
		return 1 << n, nil
	}
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n == 0 || n > 1<<lifetimeMax {
		return 0, unusable("the lifetime is no number of packets up to 2^%d", lifetimeMax)
	}
	return n, nil
}

// readMKI reads "1:4": the number 1 in 4 bytes, big-endian.
func readMKI(text string) ([]byte, error) {
	value, length, _ := strings.Cut(text, ":")
	n, err := strconv.ParseUint(length, 10, 16)
	if err != nil || n == 0 || n > mkiBytesMax {
		return nil, unusable("the length of the MKI is not 1 to %d bytes", mkiBytesMax)
	}
	if len(value) == 0 || len(value) > 310 || strings.Trim(value, "0123456789") != "" {
		return nil, unusable("the MKI is no number")
	}
	v, _ := new(big.Int).SetString(value, 10) // digits only
	if v.BitLen() > int(n)*8 {
		return nil, unusable("the MKI does not fit its length")
	}
	return v.FillBytes(make([]byte, n)), nil
}

// checkMKIs holds that several keys are told apart by MKIs of one length.
func (c *Crypto) checkMKIs() error {
	for i, k := range c.Keys {
		if i > 0 && (len(k.MKI) == 0 || len(k.MKI) != len(c.Keys[0].MKI)) {
			return unusable("several keys need an MKI each, all of one length")
		}
		for _, o := range c.Keys[:i] {
			if slices.Equal(o.MKI, k.MKI) {
				return unusable("two keys have one MKI")
			}
		}
	}
	return nil
}

// readParam reads a session parameter. One that is not known makes the line
// unusable unless it begins with "-" (RFC 4568 section 6.3.7).
func (c *Crypto) readParam(text string) error {
	name, value, _ := strings.Cut(text, "=")
	switch name = strings.ToUpper(name); {
	case name == "UNENCRYPTED_SRTCP":
		c.UnencryptedSRTCP = true
	case name == "UNENCRYPTED_SRTP":
		return unusable("it would leave media unencrypted")
	case name == "UNAUTHENTICATED_SRTP":
		return unusable("it would leave media unauthenticated")
	case name == "KDR":
		return unusable("keys are not derived anew in mid-stream (KDR)")
	case name == "FEC_ORDER", name == "FEC_KEY":
		return unusable("forward error correction is not done (%s)", name)
	case name == "WSH":
		n, err := strconv.ParseUint(value, 10, 31)
		if err != nil || n < 64 {
			return unusable("WSH is no number from 64 on")
		}
		c.WindowPackets = int(n)
	case strings.HasPrefix(name, "-"):
	default:
		return unusable("session parameter %s is not known", strconv.QuoteToASCII(short(name)))
	}
	return nil
}

// short cuts what goes into an error.
func short(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}

// Zero tells that there is no line.
func (c Crypto) Zero() bool { return c.Tag == 0 }

// Attribute returns the value of the a=crypto attribute, keys included: for the
// SDP body alone.
func (c Crypto) Attribute() string {
	var b strings.Builder
	b.WriteString(strconv.FormatUint(uint64(c.Tag), 10) + " " + c.suiteName() + " ")
	for i, k := range c.Keys {
		if i > 0 {
			b.WriteByte(';')
		}
		b.WriteString("inline:" + base64.StdEncoding.EncodeToString(k.Key.bytes()))
		if k.Lifetime > 0 {
			b.WriteString("|" + lifetimeText(k.Lifetime))
		}
		if len(k.MKI) > 0 {
			b.WriteString("|" + new(big.Int).SetBytes(k.MKI).String() + ":" + strconv.Itoa(len(k.MKI)))
		}
	}
	if c.UnencryptedSRTCP {
		b.WriteString(" UNENCRYPTED_SRTCP")
	}
	if c.WindowPackets > 0 {
		b.WriteString(" WSH=" + strconv.Itoa(c.WindowPackets))
	}
	return b.String()
}

func (c Crypto) suiteName() string {
	if c.name != "" {
		return c.name
	}
	return c.Suite.String()
}

func lifetimeText(n uint64) string {
	if n&(n-1) == 0 {
		return "2^" + strconv.Itoa(big.NewInt(0).SetUint64(n).BitLen()-1)
	}
	return strconv.FormatUint(n, 10)
}

// String describes the line without its keys.
func (c Crypto) String() string {
	if c.Zero() {
		return "no crypto"
	}
	return fmt.Sprintf("%d %s %s", c.Tag, c.suiteName(), redacted)
}

// LogValue describes the line without its keys.
func (c Crypto) LogValue() slog.Value { return slog.StringValue(c.String()) }

// SameKeys tells whether two lines mean one crypto context: the suite, the keys
// and what is done with them. The tag does not matter.
func (c Crypto) SameKeys(o Crypto) bool {
	return !c.Zero() && !o.Zero() && c.Suite == o.Suite && c.UnencryptedSRTCP == o.UnencryptedSRTCP &&
		slices.EqualFunc(c.Keys, o.Keys, func(a, b MasterKey) bool {
			return a.Key.Equal(b.Key) && slices.Equal(a.MKI, b.MKI)
		})
}

// Wipe zeroes the keys of the line, for all copies of it.
func (c Crypto) Wipe() {
	for _, k := range c.Keys {
		k.Key.Wipe()
	}
}

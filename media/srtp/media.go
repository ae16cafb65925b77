package srtp

import (
	"fmt"
	"strings"
)

// Media is what one m= section says about its protection, without the rest of
// SDP.
type Media struct {
	Profile string // the transport protocol of the m= line, as written
	Refused bool   // port 0

	Crypto       []Crypto // usable lines, in order
	Fingerprints []Fingerprint
	Setup        Setup
	TLSID        string // empty: none

	// Moved says that the section's address or port is another than in the same
	// side's description before. SDP glue sets it.
	Moved bool
}

// ReadMedia reads the attributes of a section, given as "name:value" without
// "a=". Those of the session count where the section has none of that name (RFC
// 8122 section 5, RFC 5763 section 5). What cannot be used is left out, and its
// reason returned; reasons never hold keys.
func ReadMedia(profile string, session, section []string) (Media, []error) {
	m := Media{Profile: profile}
	var refused []error
	m.Crypto, refused = ParseCryptos(values("crypto", section))
	prints := inherited("fingerprint", session, section)
	if len(prints) > fingerprintsMax {
		refused = append(refused, fmt.Errorf("more than %d fingerprints", fingerprintsMax))
		prints = prints[:fingerprintsMax]
	}
	for _, v := range prints {
		f, err := ParseFingerprint(v)
		if err != nil {
			refused = append(refused, err)
			continue
		}
		m.Fingerprints = append(m.Fingerprints, f)
	}
	if v := inherited("setup", session, section); len(v) > 0 {
		s, err := ParseSetup(v[0])
		if err != nil {
			refused = append(refused, err)
			s = SetupHoldconn // as unusable as that
		}
		m.Setup = s
	}
	if v := inherited("tls-id", session, section); len(v) > 0 {
		if id := strings.TrimSpace(v[0]); validTLSID(id) {
			m.TLSID = id
		} else {
			refused = append(refused, fmt.Errorf("tls-id %q: must be 20 to 255 token characters", short(id)))
		}
	}
	return m, refused
}

func inherited(name string, session, section []string) []string {
	if v := values(name, section); len(v) > 0 {
		return v
	}
	return values(name, session)
}

// values returns those of one name.
func values(name string, attributes []string) []string {
	var list []string
	for _, a := range attributes {
		if n, v, ok := strings.Cut(a, ":"); ok && strings.EqualFold(strings.TrimSpace(n), name) {
			list = append(list, v)
		}
	}
	return list
}

// Attributes returns the lines that belong into the section, as "name:value"
// without "a=". They hold keys: for the SDP body alone.
func (m Media) Attributes() []string {
	var out []string
	for _, c := range m.Crypto {
		out = append(out, "crypto:"+c.Attribute())
	}
	for _, f := range m.Fingerprints {
		out = append(out, "fingerprint:"+f.String())
	}
	if m.Setup != SetupNone {
		out = append(out, "setup:"+m.Setup.String())
	}
	if m.TLSID != "" {
		out = append(out, "tls-id:"+m.TLSID)
	}
	return out
}

// Secured names the attributes that Attributes writes: glue takes them out of a
// body before it puts those in.
func Secured() []string { return []string{"crypto", "fingerprint", "setup", "tls-id"} }

// family is what a profile says about protection.
type family uint8

const (
	notRTP   family = iota // udptl, TCP, …: none of our business
	plain                  // RTP/AVP, RTP/AVPF
	secure                 // RTP/SAVP, RTP/SAVPF (RFC 3711, RFC 5124)
	overDTLS               // UDP/TLS/RTP/SAVP, UDP/TLS/RTP/SAVPF (RFC 5764)
)

// profileOf takes a profile apart.
func profileOf(profile string) (f family, feedback bool) {
	p := strings.ToUpper(profile)
	p, feedback = strings.CutSuffix(p, "F")
	switch p {
	case "RTP/AVP":
		return plain, feedback
	case "RTP/SAVP":
		return secure, feedback
	case "UDP/TLS/RTP/SAVP":
		return overDTLS, feedback
	}
	return notRTP, false
}

// Encrypts tells whether the packets of a profile are encrypted.
func Encrypts(profile string) bool {
	f, _ := profileOf(profile)
	return f == secure || f == overDTLS
}

// profile puts one together.
func (f family) profile(feedback bool) string {
	p := map[family]string{plain: "RTP/AVP", secure: "RTP/SAVP", overDTLS: "UDP/TLS/RTP/SAVP"}[f]
	if feedback {
		p += "F"
	}
	return p
}

package srtp

import (
	"crypto/sha1"
	"crypto/sha512"
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestFingerprints(t *testing.T) {
	der := []byte("certificate")
	f := FingerprintOf(der)
	weak, strong := sha1.Sum(der), sha512.Sum512(der)
	sha1Print, sha512Print := Fingerprint{"sha-1", weak[:]}, Fingerprint{"sha-512", strong[:]}
	for _, text := range []string{f.String(), "SHA-256 " + strings.ToLower(strings.TrimPrefix(f.String(), "sha-256 ")) + " ", sha1Print.String(), sha512Print.String()} {
		got, err := ParseFingerprint(text)
		if err != nil || CheckFingerprint([]Fingerprint{got}, der, true) != nil {
			t.Errorf("%q: %v, %v", text, got, err)
		}
		if CheckFingerprint([]Fingerprint{got}, []byte("other"), true) == nil {
			t.Errorf("%q: another certificate was taken", text)
		}
	}
	wrong := FingerprintOf([]byte("other"))
	for _, c := range []struct {
		name string
		list []Fingerprint
		sha1 bool
		ok   bool
	}{
		{"none", nil, true, false},
		{"one of two", []Fingerprint{wrong, f}, false, true},
		{"the strongest is wrong", []Fingerprint{{"sha-512", make([]byte, 64)}, f}, false, false},
		{"the weaker is wrong", []Fingerprint{wrong, sha512Print}, false, true},
		{"sha-1 alone", []Fingerprint{sha1Print}, false, false},
		{"sha-1 allowed", []Fingerprint{sha1Print}, true, true},
		{"sha-1 beside a wrong sha-256", []Fingerprint{sha1Print, wrong}, true, false},
	} {
		err := CheckFingerprint(c.list, der, c.sha1)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, ErrFingerprint) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	for _, bad := range []string{"", "sha-256", "md5 00:11", "sha-256 00:11", "sha-1 zz", f.String() + " x"} {
		if _, err := ParseFingerprint(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestSetup(t *testing.T) {
	for _, c := range []struct {
		text   string
		want   Setup
		role   Role
		usable bool
	}{{"active", SetupActive, Passive, true}, {" PASSIVE ", SetupPassive, Active, true}, {"actpass", SetupActpass, Active, true}, {"holdconn", SetupHoldconn, 0, false}} {
		s, err := ParseSetup(c.text)
		role, usable := s.role(Active)
		if err != nil || s != c.want || role != c.role || usable != c.usable {
			t.Errorf("%q: %v, %v, %v, %v", c.text, s, err, role, usable)
		}
	}
	if role, usable := SetupNone.role(Active); role != Passive || !usable {
		t.Error("a peer without a=setup is the active end")
	}
	if _, err := ParseSetup("both"); err == nil {
		t.Error("both was taken")
	}
}

func TestReadMedia(t *testing.T) {
	session := []string{"fingerprint:" + FingerprintOf([]byte("s")).String(), "setup:actpass", "tls-id:" + strings.Repeat("a", 20), "crypto:1 X inline:y"}
	section := []string{"sendrecv", "crypto:1 AES_CM_128_HMAC_SHA1_80 inline:" + inline30, "crypto:2 X inline:y", "Setup:passive", "ptime:20"}
	m, refused := ReadMedia("RTP/SAVP", session, section)
	if len(m.Crypto) != 1 || len(m.Fingerprints) != 1 || m.Setup != SetupPassive || m.TLSID == "" || m.Profile != "RTP/SAVP" || len(refused) != 1 {
		t.Errorf("%+v, %v", m, refused)
	}
	again, refused := ReadMedia(m.Profile, nil, m.Attributes())
	if len(refused) != 0 || !slices.Equal(again.Attributes(), m.Attributes()) {
		t.Errorf("came back as %+v, %v", again, refused)
	}
	m, refused = ReadMedia("RTP/SAVP", nil, []string{"setup:x", "tls-id:short", "fingerprint:x"})
	if len(refused) != 3 || m.Setup != SetupHoldconn || m.TLSID != "" || len(m.Fingerprints) != 0 {
		t.Errorf("%+v, %v", m, refused)
	}
	m, refused = ReadMedia("RTP/SAVP", slices.Repeat(session[:1], 50), nil)
	if len(m.Fingerprints) != fingerprintsMax || len(refused) != 1 {
		t.Errorf("%d fingerprints, %v", len(m.Fingerprints), refused)
	}
}

func FuzzReadMedia(f *testing.F) {
	f.Add("fingerprint:"+FingerprintOf([]byte("s")).String(), "setup:actpass")
	f.Add("tls-id:aaaaaaaaaaaaaaaaaaaaaaaa", "crypto:1 AEAD_AES_128_GCM inline:"+inline28)
	f.Fuzz(func(t *testing.T, a, b string) {
		m, _ := ReadMedia("RTP/SAVP", []string{a}, []string{b})
		again, refused := ReadMedia("RTP/SAVP", nil, m.Attributes())
		if len(refused) != 0 || !slices.Equal(again.Attributes(), m.Attributes()) {
			t.Errorf("%q and %q came back as %q, %v", a, b, again.Attributes(), refused)
		}
	})
}

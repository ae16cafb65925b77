package srtp

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// Inline keys of 30 (AES-CM 128), 46, 28 and 44 bytes.
var (
	inline30 = base64.StdEncoding.EncodeToString(testKey(AESCM128SHA1x80, 1).bytes())
	inline46 = base64.StdEncoding.EncodeToString(testKey(AESCM256SHA1x80, 1).bytes())
	inline28 = base64.StdEncoding.EncodeToString(testKey(AEADAES128GCM, 1).bytes())
	inline44 = base64.StdEncoding.EncodeToString(testKey(AEADAES256GCM, 1).bytes())
)

func TestParseCrypto(t *testing.T) {
	one := func(s Suite, change func(*Crypto)) Crypto {
		c := line(s, testKey(s, 1))
		if change != nil {
			change(&c)
		}
		return c
	}
	for _, c := range []struct {
		name, line string
		want       Crypto
		out        string // what Attribute writes; the line when empty
	}{
		{"plain", "1 AES_CM_128_HMAC_SHA1_80 inline:" + inline30, one(AESCM128SHA1x80, nil), ""},
		{
			"prefix, spaces, case", "a=crypto:\t1  aes_cm_128_hmac_sha1_32   INLINE:" + inline30 + " ", one(AESCM128SHA1x32, nil),
			"1 aes_cm_128_hmac_sha1_32 inline:" + inline30,
		},
		{"256", "1 AES_256_CM_HMAC_SHA1_80 inline:" + inline46, one(AESCM256SHA1x80, nil), "1 AES_256_CM_HMAC_SHA1_80 inline:" + inline46},
		{"256 by its draft's name", "1 AES_CM_256_HMAC_SHA1_32 inline:" + inline46, one(AESCM256SHA1x32, nil), "1 AES_CM_256_HMAC_SHA1_32 inline:" + inline46},
		{"no padding", "1 AES_256_CM_HMAC_SHA1_80 inline:" + strings.TrimRight(inline46, "="), one(AESCM256SHA1x80, nil), "1 AES_256_CM_HMAC_SHA1_80 inline:" + inline46},
		{"gcm", "1 AEAD_AES_128_GCM inline:" + inline28, one(AEADAES128GCM, nil), ""},
		{"gcm 256", "1 AEAD_AES_256_GCM inline:" + inline44, one(AEADAES256GCM, nil), ""},
		{"lifetime", "1 AES_CM_128_HMAC_SHA1_80 inline:" + inline30 + "|2^31", one(AESCM128SHA1x80, func(c *Crypto) { c.Keys[0].Lifetime = 1 << 31 }), ""},
		{
			"decimal lifetime and MKI", "1 AES_CM_128_HMAC_SHA1_80 inline:" + inline30 + "|1000|1:4",
			one(AESCM128SHA1x80, func(c *Crypto) { c.Keys[0].Lifetime, c.Keys[0].MKI = 1000, []byte{0, 0, 0, 1} }), "",
		},
		{"MKI alone", "1 AES_CM_128_HMAC_SHA1_80 inline:" + inline30 + "|258:2", one(AESCM128SHA1x80, func(c *Crypto) { c.Keys[0].MKI = []byte{1, 2} }), ""},
		{
			"two keys", "1 AES_CM_128_HMAC_SHA1_80 inline:" + inline30 + "|2^20|1:1;inline:" + inline30 + "|2^20|2:1",
			one(AESCM128SHA1x80, func(c *Crypto) {
				c.Keys = []MasterKey{{c.Keys[0].Key, 1 << 20, []byte{1}}, {c.Keys[0].Key, 1 << 20, []byte{2}}}
			}), "",
		},
		{
			"two keys, a space", "1 AES_CM_128_HMAC_SHA1_80 inline:" + inline30 + "|1:1; inline:" + inline30 + "|2:1",
			one(AESCM128SHA1x80, func(c *Crypto) {
				c.Keys = []MasterKey{{c.Keys[0].Key, 0, []byte{1}}, {c.Keys[0].Key, 0, []byte{2}}}
			}), "1 AES_CM_128_HMAC_SHA1_80 inline:" + inline30 + "|1:1;inline:" + inline30 + "|2:1",
		},
		{
			"parameters", "7 AES_CM_128_HMAC_SHA1_80 inline:" + inline30 + " UNENCRYPTED_SRTCP WSH=128 -new=1",
			one(AESCM128SHA1x80, func(c *Crypto) { c.Tag, c.UnencryptedSRTCP, c.WindowPackets = 7, true, 128 }),
			"7 AES_CM_128_HMAC_SHA1_80 inline:" + inline30 + " UNENCRYPTED_SRTCP WSH=128",
		},
	} {
		got, err := ParseCrypto(c.line)
		if err != nil || got.Tag != c.want.Tag || !got.SameKeys(c.want) || got.Params != c.want.Params || got.Keys[0].Lifetime != c.want.Keys[0].Lifetime {
			t.Errorf("%s: %v, %v", c.name, got, err)
			continue
		}
		want := c.out
		if want == "" {
			want = c.line
		}
		if text := got.Attribute(); text != want {
			t.Errorf("%s: written as %q, want %q", c.name, text, want)
		}
	}
}

func TestUnusableCrypto(t *testing.T) {
	good := "1 AES_CM_128_HMAC_SHA1_80 inline:" + inline30
	for line, reason := range map[string]string{
		"":                      "a tag",
		"1 AEAD_AES_128_GCM":    "a tag",
		"0" + good[1:]:          "tag",
		"x" + good[1:]:          "tag",
		"1234567890" + good[1:]: "tag",
		"1 F8_128_HMAC_SHA1_80 inline:" + inline30:           `suite "F8_128_HMAC_SHA1_80"`,
		"1 AES_CM_128_HMAC_SHA1_80 uri:" + inline30:          "not inline",
		"1 AES_CM_128_HMAC_SHA1_80 inline:" + inline28:       "30 bytes, here are 28",
		"1 AES_CM_128_HMAC_SHA1_80 inline:*" + inline30[1:]:  "base64",
		"1 AES_CM_128_HMAC_SHA1_80 ;":                        "no key",
		good + "|2^49":                                       "lifetime",
		good + "|0":                                          "lifetime",
		good + "|x":                                          "lifetime",
		good + "|1:0":                                        "MKI",
		good + "|1:129":                                      "MKI",
		good + "|256:1":                                      "does not fit",
		good + "|-1:1":                                       "no number",
		good + "|2^3|1:1|x":                                  "more than",
		good + ";inline:" + inline30:                         "MKI",
		good + "|1:1;inline:" + inline30 + "|1:1":            "one MKI",
		good + "|1:1;inline:" + inline30 + "|1:2":            "one length",
		good + " KDR=1":                                      "KDR",
		good + " UNENCRYPTED_SRTP":                           "unencrypted",
		good + " UNAUTHENTICATED_SRTP":                       "unauthenticated",
		good + " FEC_ORDER=FEC_SRTP":                         "FEC_ORDER",
		good + " FEC_KEY=inline:" + inline30:                 "FEC_KEY",
		good + " WSH=63":                                     "WSH",
		good + " UNKNOWN=1":                                  `"UNKNOWN"`,
		good + strings.Repeat(";inline:"+inline30+"|1:1", 9): "more than 8 keys",
		"1 AES_CM_128_HMAC_SHA1_80 inline:" + strings.Repeat("A", cryptoBytesMax): "bytes",
	} {
		_, err := ParseCrypto(line)
		if !errors.Is(err, ErrCrypto) || !strings.Contains(err.Error(), reason) {
			t.Errorf("%q: %v, want a reason with %q", line, err, reason)
		}
		if err != nil && strings.Contains(err.Error(), inline30[:8]) {
			t.Errorf("the error shows a key: %v", err)
		}
	}
}

func TestParseCryptos(t *testing.T) {
	good := " AES_CM_128_HMAC_SHA1_80 inline:" + inline30
	usable, refused := ParseCryptos([]string{"1" + good, "2 X inline:y", "1" + good, "3" + good})
	if len(usable) != 2 || usable[1].Tag != 3 || len(refused) != 2 {
		t.Errorf("%v, %v", usable, refused)
	}
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprint(i+1)+good)
	}
	if usable, refused = ParseCryptos(many); len(usable) != cryptoLinesMax || len(refused) != 1 {
		t.Errorf("%d usable, %v", len(usable), refused)
	}
}

// What is written is read back.
func TestCryptoRoundTrip(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		s := rapid.SampledFrom(allSuites()).Draw(r, "suite")
		c := Crypto{Tag: rapid.Uint32Range(1, 999999999).Draw(r, "tag"), Suite: s}
		c.UnencryptedSRTCP = rapid.Bool().Draw(r, "clear")
		size := rapid.IntRange(0, 128).Draw(r, "mki")
		for i := range rapid.IntRange(1, 4).Draw(r, "keys") {
			k := MasterKey{Key: testKey(s, byte(i)), Lifetime: rapid.Uint64Range(0, 1<<48).Draw(r, "lifetime")}
			if size > 0 {
				k.MKI = append(bytes.Repeat([]byte{0}, size-1), byte(i+1))
			} else if i > 0 {
				break
			}
			c.Keys = append(c.Keys, k)
		}
		got, err := ParseCrypto(c.Attribute())
		for i := range c.Keys {
			if err == nil && got.Keys[i].Lifetime != c.Keys[i].Lifetime {
				r.Fatalf("lifetime %d came back as %d", c.Keys[i].Lifetime, got.Keys[i].Lifetime)
			}
		}
		if err != nil || got.Tag != c.Tag || !got.SameKeys(c) || got.Params != c.Params {
			r.Fatalf("%v came back as %v, %v", c, got, err)
		}
	})
}

// However a key is printed, nothing of it shows.
func TestKeysDoNotShow(t *testing.T) {
	c := line(AESCM128SHA1x80, NewKey(bytes.Repeat([]byte("K"), 30)))
	type hidden struct{ c Crypto }
	k, err := NewKeys(c)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	log := slog.New(slog.NewTextHandler(&out, nil))
	media := Media{Crypto: []Crypto{c}}
	for _, v := range []any{c, &c, c.Keys, c.Keys[0], c.Keys[0].Key, hidden{c}, &hidden{c}, []Crypto{c}, media, &media, End{Send: c}, k, *k, NewLine(&Config{})} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%q", "%d"} {
			fmt.Fprintf(&out, verb, v)
		}
		log.Info("x", "v", v)
		b, err := json.Marshal(v)
		if err == nil {
			out.Write(b)
		}
	}
	for _, leak := range []string{"KKK", "4b4b", "4B4B", "75 75", "75, 75", "0x4b", "S0tL"} {
		if at := strings.Index(out.String(), leak); at >= 0 {
			t.Errorf("%q shows behind %s", leak, out.String()[max(0, at-200):at])
		}
	}
	if !strings.Contains(out.String(), redacted) {
		t.Error("nothing was printed")
	}
}

func TestWipe(t *testing.T) {
	c := line(AEADAES128GCM, testKey(AEADAES128GCM, 1))
	k := keys(t, c)
	own, copied := k.line.Keys[0].Key.bytes(), c.Keys[0].Key.bytes()
	c.Wipe()
	if !bytes.Equal(copied, make([]byte, len(copied))) || c.Keys[0].Key.Len() != 0 || c.Keys[0].Key.Equal(c.Keys[0].Key) {
		t.Error("the line's key is there yet")
	}
	if bytes.Equal(own, make([]byte, len(own))) {
		t.Error("the keys in use went with the line")
	}
	k.Wipe()
	if !bytes.Equal(own, make([]byte, len(own))) || k.ctx != nil {
		t.Error("the keys in use are there yet")
	}
}

func TestSuites(t *testing.T) {
	for _, s := range allSuites() {
		text, err := s.MarshalText()
		var got Suite
		if err != nil || got.UnmarshalText(text) != nil || got != s {
			t.Errorf("%s came back as %s", s, got)
		}
		key, salt := s.KeyLens()
		info := suites[s]
		wantKey, _ := info.profile.KeyLen()
		wantSalt, _ := info.profile.SaltLen()
		if tag, _ := info.profile.AuthTagRTCPLen(); key != wantKey || salt != wantSalt || s.KeyBytes() != key+salt || tag != info.rtcpTag {
			t.Errorf("%s: the table differs from the library", s)
		}
	}
	var s Suite
	if err := s.UnmarshalText([]byte("NULL")); err == nil || !strings.Contains(err.Error(), "AEAD_AES_256_GCM") {
		t.Errorf("an unknown suite: %v", err)
	}
	if _, err := Suite(99).MarshalText(); err == nil || Suite(99).KeyBytes() != 0 {
		t.Error("a suite that is none")
	}
}

func FuzzParseCrypto(f *testing.F) {
	f.Add("1 AES_CM_128_HMAC_SHA1_80 inline:" + inline30 + "|2^20|1:4;inline:" + inline30 + "|2^20|2:4 WSH=64 UNENCRYPTED_SRTCP")
	f.Add("a=crypto:2 AEAD_AES_256_GCM inline:" + inline44)
	f.Add("3 AES_CM_256_HMAC_SHA1_80 inline:" + inline46 + " KDR=0 FEC_ORDER=FEC_SRTP -x")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCrypto(text)
		if err != nil {
			if !errors.Is(err, ErrCrypto) {
				t.Errorf("%v", err)
			}
			return
		}
		again, err := ParseCrypto(c.Attribute())
		if err != nil || !again.SameKeys(c) || again.Attribute() != c.Attribute() {
			t.Errorf("%q was read, then written as something else: %v", text, err)
		}
		if _, err := NewKeys(c); err != nil {
			t.Errorf("a usable line: %v", err)
		}
	})
}

func FuzzPackets(f *testing.F) {
	c := line(AEADAES128GCM, testKey(AEADAES128GCM, 1))
	f.Add(refRTP(f, c.Suite, c.Keys[0].Key, 0, rtpPacket(5, 1), nil), uint8(5))
	f.Add(refRTCP(f, c.Suite, c.Keys[0].Key, 1, rtcpPacket(5, 1), nil), uint8(5))
	f.Fuzz(func(t *testing.T, wire []byte, n uint8) {
		s := allSuites()[int(n)%6]
		c := line(s, testKey(s, 2))
		if n > 127 {
			c.Keys[0].MKI = []byte{1, 2}
		}
		p, u := protector(t, c), unprotector(t, c)
		back := make([]byte, len(wire)+OverheadBytesMax)
		if out, err := p.RTP(back, wire); err == nil {
			got, err := u.RTP(make([]byte, len(out)), out, noon)
			if err != nil || !bytes.Equal(got, wire) {
				t.Errorf("RTP does not come back: %v", err)
			}
		}
		if out, err := p.RTCP(back, wire); err == nil {
			got, err := u.RTCP(make([]byte, len(out)), out, noon)
			if err != nil || !bytes.Equal(got, wire) {
				t.Errorf("RTCP does not come back: %v", err)
			}
		}
		if _, err := u.RTP(back, wire, noon); err == nil {
			t.Error("a forgery was taken")
		}
		if _, err := u.RTCP(back, wire, noon); err == nil {
			t.Error("a forgery was taken")
		}
	})
}

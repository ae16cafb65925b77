package ice

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
)

// rfc5769 is the sample request of RFC 5769 section 2.1.
const rfc5769 = "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74002400046e0001ff80290008932ff9b151263b36" +
	"000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a280280004e57a3bcf"

// rfcLite has the credentials of RFC 5769.
var rfcLite = &Lite{Ufrag: "evtj", Pwd: "VOkJxbRl1RmTxUk/WvJxBt"}

func sample(t testing.TB) []byte {
	t.Helper()
	b, err := hex.DecodeString(rfc5769)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAnswer(t *testing.T) {
	for _, from := range []string{"192.0.2.1:32853", "[2001:db8:1234:5678:11:2233:4455:6677]:32853"} {
		res, nominated, ok := rfcLite.Answer(sample(t), netip.MustParseAddrPort(from))
		if !ok || nominated {
			t.Fatalf("from %s: %v, nominated %v", from, ok, nominated)
		}
		if binary.BigEndian.Uint16(res) != bindingResponse || int(binary.BigEndian.Uint16(res[2:])) != len(res)-headerBytes || !bytes.Equal(res[4:20], sample(t)[4:20]) {
			t.Errorf("header %x", res[:20])
		}
		// The mapped address as RFC 5769 section 2.2 and 2.3 have it.
		want := "0001a147e112a643"
		if from[0] == '[' {
			want = "0002a1470113a9faa5d3f179bc25f4b5bed2b9d9"
		}
		if got := hex.EncodeToString(res[24 : 24+len(want)/2]); got != want {
			t.Errorf("mapped address %s, want %s", got, want)
		}
		at := len(res) - 8 - 24
		if !bytes.Equal(res[at+4:at+24], rfcLite.integrity(res[:at])) || binary.BigEndian.Uint32(res[len(res)-4:]) != fingerprint(res[:len(res)-8]) {
			t.Errorf("response %x", res)
		}
	}
}

// request makes a check with credentials of its own.
func request(user string, l *Lite, use bool) []byte {
	m := make([]byte, headerBytes)
	binary.BigEndian.PutUint16(m, bindingRequest)
	binary.BigEndian.PutUint32(m[4:], magic)
	m = attribute(m, attrUsername, []byte(user))
	if use {
		m = attribute(m, attrUseCandidate, nil)
	}
	m = attribute(m, attrIntegrity, l.integrity(m))
	binary.BigEndian.PutUint16(m[2:], uint16(len(m)-headerBytes+8))
	return attribute(m, attrFingerprint, binary.BigEndian.AppendUint32(nil, fingerprint(m)))
}

func TestAnswerRefuses(t *testing.T) {
	from := netip.MustParseAddrPort("192.0.2.1:1")
	l := New()
	if len(l.Ufrag) < 4 || len(l.Pwd) < 22 || strings.ContainsAny(l.Ufrag+l.Pwd, "=") || *New() == *l {
		t.Fatalf("credentials %+v", l)
	}
	user := l.Ufrag + ":123"
	if _, nominated, ok := l.Answer(request(user, l, true), from); !ok || !nominated {
		t.Fatal("a check is not answered")
	}
	for name, m := range map[string][]byte{
		"other user":     request("xxxxxxxx:123", l, true),
		"other password": request(user, &Lite{l.Ufrag, "no"}, true),
		"nothing":        nil,
		"RTP":            bytes.Repeat([]byte{0x80}, 60),
		"no integrity":   request(user, l, true)[:20],
		"changed":        append(request(user, l, true)[:24], request(user+"x123", l, true)[24:]...),
	} {
		if _, _, ok := l.Answer(m, from); ok {
			t.Errorf("%s is answered", name)
		}
	}
	for i := range request(user, l, true) { // no byte may differ
		m := request(user, l, true)
		m[i] ^= 1
		if _, _, ok := l.Answer(m, from); ok && (i < 64 || i > 65) { // there it would be an attribute that nobody knows
			t.Errorf("a check with another byte %d is answered", i)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(sample(f))
	f.Add(request("evtj:x123", rfcLite, true)) // 9 bytes, as is
	f.Add([]byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42})
	f.Fuzz(func(t *testing.T, wire []byte) {
		was := bytes.Clone(wire)
		res, _, ok := rfcLite.Answer(wire, netip.MustParseAddrPort("192.0.2.1:1"))
		if !bytes.Equal(was, wire) || ok != (res != nil) || ok && len(res) > 2*len(wire) {
			t.Errorf("%x became %x", wire, res)
		}
	})
}

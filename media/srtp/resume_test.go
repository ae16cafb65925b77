package srtp

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
)

func resumed(t testing.TB, c Crypto) (*Protector, *Unprotector) {
	t.Helper()
	p, err := ResumeProtector(keys(t, c))
	if err != nil {
		t.Fatal(err)
	}
	u, err := ResumeUnprotector(keys(t, c), 0)
	if err != nil {
		t.Fatal(err)
	}
	return p, u
}

// seal protects the packets of a source up to an index, some at a time, and returns the last.
func sealUpTo(t testing.TB, p *Protector, ssrc uint32, from, to uint64) (wire []byte) {
	t.Helper()
	for i := from; ; i = min(i+10_000, to) {
		var err error
		if wire, err = p.RTP(make([]byte, 400), rtpPacket(ssrc, i)); err != nil {
			t.Fatalf("index %d: %v", i, err)
		}
		if i == to {
			return wire
		}
	}
}

// TestResumeReceiving: whatever the rollover counter, the first packet is understood,
// and those behind it.
func TestResumeReceiving(t *testing.T) {
	for _, s := range allSuites() {
		for _, index := range []uint64{0, 7, sequences - 1, sequences, 3*sequences + 5, 130*sequences + 40_000} {
			c := line(s, testKey(s, 1))
			p := protector(t, c)
			_, u := resumed(t, c)
			for i := range uint64(3) {
				from := uint64(0)
				if i > 0 {
					from = index + i
				}
				wire := sealUpTo(t, p, 5, from, index+i)
				got, err := u.RTP(wire, wire, noon)
				if err != nil || !bytes.Equal(got, rtpPacket(5, index+i)) {
					t.Fatalf("%s, index %d: %v", s, index+i, err)
				}
			}
			if n := u.Counts(); n.RTP != 3 || n.AuthFailed != 0 {
				t.Errorf("%+v", n)
			}
		}
	}
}

// TestResumeReplayed: a packet of long before that somebody repeats first does not lock
// the sender out.
func TestResumeReplayed(t *testing.T) {
	c := line(AESCM128SHA1x80, testKey(AESCM128SHA1x80, 1))
	p := protector(t, c)
	_, u := resumed(t, c)
	old := bytes.Clone(sealUpTo(t, p, 5, 0, 100))
	now := sealUpTo(t, p, 5, 101, 4*sequences+9)
	if _, err := u.RTP(make([]byte, 400), old, noon); err != nil {
		t.Fatal(err)
	}
	if got, err := u.RTP(make([]byte, 400), now, noon); err != nil || !bytes.Equal(got, rtpPacket(5, 4*sequences+9)) {
		t.Fatal(err)
	}
	if _, err := u.RTP(make([]byte, 400), old, noon); err == nil {
		t.Error("the old packet is taken again")
	}
	if _, err := u.RTP(make([]byte, 400), now, noon); !errors.Is(err, ErrReplayed) {
		t.Errorf("repeated: %v", err)
	}
}

// TestResumeFlood: who forges packets makes us seek so often a second, and the sender is
// found all the same.
func TestResumeFlood(t *testing.T) {
	c := line(AESCM128SHA1x80, testKey(AESCM128SHA1x80, 1))
	p := protector(t, c)
	_, u := resumed(t, c)
	wire := sealUpTo(t, p, 5, 0, 2*sequences)
	forged := bytes.Clone(wire)
	forged[len(forged)-1] ^= 1
	for range 10 * seeksPerSecondMax {
		if _, err := u.RTP(make([]byte, 400), forged, noon); !errors.Is(err, ErrAuthentication) {
			t.Fatal(err)
		}
	}
	if u.current.seek.n != 10*seeksPerSecondMax || u.current.seek.may(noon) {
		t.Error("it goes on seeking")
	}
	if got, err := u.RTP(make([]byte, 400), wire, noon.Add(time.Second)); err != nil || !bytes.Equal(got, rtpPacket(5, 2*sequences)) {
		t.Errorf("a second later: %v", err)
	}
}

// TestResumeSending: no source of before is used on, whose key stream may be used up;
// each goes on as one other, with its reports.
func TestResumeSending(t *testing.T) {
	for _, s := range allSuites() {
		c := line(s, testKey(s, 1))
		p, _ := resumed(t, c)
		u := unprotector(t, c)
		names := map[uint32]uint32{}
		for i := range uint64(300) {
			came := uint32(5 + i%3)
			wire, err := p.RTP(make([]byte, 400), rtpPacket(came, 65_400+i))
			if err != nil {
				t.Fatal(err)
			}
			name := binary.BigEndian.Uint32(wire[8:])
			if was, ok := names[came]; ok && was != name || name == came {
				t.Fatalf("source %d goes out as %d, before as %d", came, name, was)
			}
			names[came] = name
			if got, err := u.RTP(wire, wire, noon); err != nil || !bytes.Equal(got[12:], rtpPacket(came, 65_400+i)[12:]) {
				t.Fatal(err)
			}
		}
		wire, err := p.RTCP(make([]byte, 400), rtcpPacket(6, 1))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := u.RTCP(wire, wire, noon); err != nil || binary.BigEndian.Uint32(got[4:]) != names[6] {
			t.Errorf("report: %v", err)
		}
		var last error
		for i := range uint32(SourcesMax) {
			_, last = p.RTP(make([]byte, 400), rtpPacket(1000+i, 1))
		}
		if _, known := p.restarts.alias[1000+SourcesMax-1]; !errors.Is(last, ErrSources) || known {
			t.Errorf("too many sources: %v", last)
		}
	}
}

func TestResumedAllocatesNothing(t *testing.T) {
	if raceDetector {
		t.Skip("with the race detector the library's pool of buffers drops some on purpose")
	}
	for _, s := range allSuites() {
		c := line(s, testKey(s, 1))
		p, u := resumed(t, c)
		index, plain := uint16(0), rtpPacket(5, 0)
		if n := testing.AllocsPerRun(500, func() {
			index++
			binary.BigEndian.PutUint16(plain[2:], index)
			wire, err := p.RTP(sendBuf[:0], plain)
			if err == nil {
				_, err = u.RTP(wire, wire, noon)
			}
			if err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", s, n)
		}
	}
}

var sendBuf [400]byte

// TestSavedLine: what is agreed is the same in another process, whose exchanges go on
// with it; of DTLS a new association is agreed.
func TestSavedLine(t *testing.T) {
	for _, method := range []Method{SDES, DTLS} {
		cfg := &Config{Sides: [2]SideConfig{{Policy: Required, Method: method}, {Policy: Required, Method: method}}, Fingerprint: FingerprintOf([]byte("ours"))}
		l := NewLine(cfg)
		offer := Media{Profile: "RTP/SAVP", Crypto: []Crypto{line(AESCM128SHA1x80, testKey(AESCM128SHA1x80, 1))}}
		if method == DTLS {
			offer = Media{Profile: "UDP/TLS/RTP/SAVP", Fingerprints: []Fingerprint{FingerprintOf([]byte("theirs"))}, Setup: SetupActpass}
		}
		exchange := func(l *Line) (answered Media) {
			t.Helper()
			out, err := l.Offer(media.External, offer)
			if err != nil {
				t.Fatal(err)
			}
			answer := Media{Profile: out.Profile, Fingerprints: []Fingerprint{FingerprintOf([]byte("others"))}, Setup: SetupPassive}
			if method == SDES {
				answer = Media{Profile: out.Profile, Crypto: []Crypto{{Tag: out.Crypto[0].Tag, Suite: out.Crypto[0].Suite, Keys: []MasterKey{{Key: testKey(out.Crypto[0].Suite, 2)}}}}}
			}
			if answered, err = l.Answer(answer); err != nil {
				t.Fatal(err)
			}
			return answered
		}
		first := exchange(l)
		js, err := json.Marshal(l.Save())
		if err != nil {
			t.Fatal(err)
		}
		var saved SavedLine
		if err := json.Unmarshal(js, &saved); err != nil {
			t.Fatal(err)
		}
		again, err := RestoreLine(cfg, saved)
		if err != nil {
			t.Fatal(err)
		}
		before := l.Ends()
		for side, e := range again.Ends() {
			b := before[side]
			same := e.Mode == b.Mode && !e.Restarts(b) && e.Association == b.Association && e.Role == b.Role && len(e.Fingerprints) == len(b.Fingerprints)
			if same && method == SDES {
				same = e.Receive.SameKeys(b.Receive) && e.Send.SameKeys(b.Send)
			}
			if !same {
				t.Errorf("%s: %+v, was %+v", method, e, b)
			}
		}
		second := exchange(again)
		if method == SDES && !second.Crypto[0].SameKeys(first.Crypto[0]) {
			t.Error("a refresh changes our key")
		}
		for side, e := range again.Ends() {
			if want := before[side].Association + 1; method == DTLS && e.Association != want {
				t.Errorf("association %d, want a new one, %d", e.Association, want)
			}
		}
		exchange(again)
		if e := again.Ends()[0]; method == DTLS && e.Association != before[0].Association+1 {
			t.Errorf("association %d: a further refresh makes another", e.Association)
		}
	}
}

func TestRestoreLineRefuses(t *testing.T) {
	good := line(AESCM128SHA1x80, testKey(AESCM128SHA1x80, 1)).Attribute()
	for name, e := range map[string]SavedEnd{
		"mode":             {Mode: Passed + 1},
		"form":             {Form: 9},
		"role":             {Role: 7},
		"no keys":          {Mode: KeyedSDES, Send: good},
		"nothing passed":   {Mode: Passed},
		"no association":   {Mode: KeyedDTLS},
		"a damaged key":    {Mode: KeyedSDES, Send: good, Receive: good[:len(good)-9]},
		"fingerprint":      {Remote: []string{"sha-256 00"}},
		"many of them":     {Remote: make([]string, fingerprintsMax+1)},
		"a damaged passed": {Passed: "1 AES inline:x"},
	} {
		_, err := RestoreLine(&Config{}, SavedLine{Sides: [2]SavedEnd{{}, e}})
		if !errors.Is(err, errSaved) || strings.Contains(err.Error(), good[30:50]) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

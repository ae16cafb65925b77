package srtp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func allSuites() []Suite {
	return []Suite{AESCM128SHA1x80, AESCM128SHA1x32, AESCM256SHA1x80, AESCM256SHA1x32, AEADAES128GCM, AEADAES256GCM}
}

// testKey returns a key that n tells apart from others.
func testKey(s Suite, n byte) Key {
	b := make([]byte, s.KeyBytes())
	for i := range b {
		b[i] = byte(i)*7 + n
	}
	return NewKey(b)
}

func line(s Suite, keys ...Key) Crypto {
	c := Crypto{Tag: 1, Suite: s}
	for _, k := range keys {
		c.Keys = append(c.Keys, MasterKey{Key: k})
	}
	return c
}

func keys(t testing.TB, c Crypto) *Keys {
	t.Helper()
	k, err := NewKeys(c)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func protector(t testing.TB, c Crypto) *Protector {
	t.Helper()
	p, err := NewProtector(keys(t, c))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func unprotector(t testing.TB, c Crypto) *Unprotector {
	t.Helper()
	u, err := NewUnprotector(keys(t, c), 0)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// rtpPacket carries index in its payload, so that a wrong packet shows.
func rtpPacket(ssrc uint32, index uint64) []byte {
	b := make([]byte, 12+160)
	b[0], b[1] = 0x80, 8
	binary.BigEndian.PutUint16(b[2:], uint16(index))
	binary.BigEndian.PutUint32(b[4:], uint32(index*160))
	binary.BigEndian.PutUint32(b[8:], ssrc)
	binary.BigEndian.PutUint64(b[12:], index)
	return b
}

// rtcpPacket is an empty receiver report with an SDES chunk's worth of noise.
func rtcpPacket(ssrc uint32, n byte) []byte {
	b := make([]byte, 8+24)
	b[0], b[1], b[3] = 0x80, 201, 7
	binary.BigEndian.PutUint32(b[4:], ssrc)
	b[8] = n
	return b
}

func mustProtect(t testing.TB, p *Protector, plain []byte) []byte {
	t.Helper()
	out, err := p.RTP(make([]byte, len(plain)+OverheadBytesMax), plain)
	if err != nil {
		t.Fatalf("protect: %v", err)
	}
	return out
}

// takes demands that a packet decrypts in place to plain.
func takes(t testing.TB, u *Unprotector, wire, plain []byte, at time.Time) {
	t.Helper()
	b := bytes.Clone(wire)
	got, err := u.RTP(b, b, at)
	if err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("unprotect packet %d: %v (%+v)", binary.BigEndian.Uint64(plain[12:]), err, u.Counts())
	}
}

func refuses(t testing.TB, u *Unprotector, wire []byte, at time.Time, want error) {
	t.Helper()
	b := bytes.Clone(wire)
	if _, err := u.RTP(b, b, at); !errors.Is(err, want) {
		t.Fatalf("unprotect: %v, want %v", err, want)
	}
}

func TestPacketsMeetReference(t *testing.T) {
	mki := []byte{0, 0, 0, 9}
	for _, s := range allSuites() {
		for _, withMKI := range []bool{false, true} {
			t.Run(fmt.Sprint(s, withMKI), func(t *testing.T) {
				c, id := line(s, testKey(s, 1)), []byte(nil)
				if withMKI {
					id, c.Keys[0].MKI = mki, mki
				}
				p, u := protector(t, c), unprotector(t, c)
				for index := uint64(65000); index < 67000; index += 7 {
					plain := rtpPacket(5, index)
					wire := mustProtect(t, p, plain)
					if want := refRTP(t, s, c.Keys[0].Key, uint32(index>>16), plain, id); !bytes.Equal(wire, want) {
						t.Fatalf("packet %d:\n%x, want\n%x", index, wire, want)
					}
					takes(t, u, wire, plain, noon)
				}
				for i := range uint32(5) {
					plain := rtcpPacket(5, byte(i))
					wire, err := p.RTCP(make([]byte, 200), plain)
					if want := refRTCP(t, s, c.Keys[0].Key, i+1, plain, id); err != nil || !bytes.Equal(wire, want) {
						t.Fatalf("RTCP %d: %v\n%x, want\n%x", i, err, wire, want)
					}
					if len(wire)-len(plain) != p.OverheadBytes() {
						t.Errorf("RTCP grew by %d bytes, OverheadBytes is %d", len(wire)-len(plain), p.OverheadBytes())
					}
					got, err := u.RTCP(wire, bytes.Clone(wire), noon)
					if err != nil || !bytes.Equal(got, plain) {
						t.Fatalf("RTCP %d: %v", i, err)
					}
				}
			})
		}
	}
}

// Headers with CSRCs, extensions of every kind, padding and empty payloads.
func TestHeaders(t *testing.T) {
	heads := map[string][]byte{
		"csrc":          append(unhex(t, "8208000100000000000000050000000100000002"), 1, 2, 3),
		"one-byte ext":  append(unhex(t, "900800010000000000000005bede000110aa0000"), 1, 2, 3),
		"other ext":     append(unhex(t, "900800010000000000000005123400010badf00d"), 1, 2, 3),
		"empty payload": unhex(t, "800800010000000000000005"),
		"padding":       append(unhex(t, "a00800010000000000000005"), 9, 9, 0, 2),
	}
	for _, s := range allSuites() {
		for name, plain := range heads {
			c := line(s, testKey(s, 1))
			takes := func(u *Unprotector, wire []byte) {
				if got, err := u.RTP(make([]byte, len(wire)), wire, noon); err != nil || !bytes.Equal(got, plain) {
					t.Errorf("%s, %s: %x, %v", s, name, got, err)
				}
			}
			takes(unprotector(t, c), mustProtect(t, protector(t, c), plain))
			if wire := append(bytes.Clone(plain), make([]byte, 40)...); true {
				got, err := protector(t, c).RTP(wire, wire[:len(plain)])
				if err != nil {
					t.Errorf("%s, %s in place: %v", s, name, err)
				}
				takes(unprotector(t, c), got)
			}
		}
	}
}

// Whatever is lost, reordered or repeated within the window, each packet decrypts
// once, over several wraps, and the wrong key decrypts none.
func TestAnyOrderWithinWindow(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		s := rapid.SampledFrom(allSuites()).Draw(r, "suite")
		first := rapid.SampledFrom([]uint64{0, 1, 30000, 40000, 65000, 65535}).Draw(r, "first")
		rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(r, "seed"), 1))
		c := line(s, testKey(s, 1))
		p, u, other := protector(t, c), unprotector(t, c), unprotector(t, line(s, testKey(s, 2)))
		type sent struct{ wire, plain []byte }
		var queue []sent
		seen := map[uint64]bool{}
		for index := first; index < first+3000; index += 1 + uint64(rnd.IntN(200))*uint64(rnd.IntN(2)) {
			plain := rtpPacket(5, index)
			queue = append(queue, sent{mustProtect(t, p, plain), plain})
			if index == first { // the first is not reordered: which rollover it has is a guess
				takes(t, u, queue[0].wire, plain, noon)
				seen[first], queue = true, nil
			}
		}
		top := first
		for len(queue) > 0 {
			i := rnd.IntN(min(len(queue), 5)) // spans less than 1024 indexes
			q := queue[i]
			if rnd.IntN(4) > 0 { // else it comes again
				queue = append(queue[:i:i], queue[i+1:]...)
			}
			if rnd.IntN(5) == 0 {
				continue // lost
			}
			index := binary.BigEndian.Uint64(q.plain[12:])
			b := bytes.Clone(q.wire)
			got, err := u.RTP(b, b, noon)
			switch {
			case seen[index]:
				if !errors.Is(err, ErrReplayed) {
					r.Fatalf("packet %d came twice: %v", index, err)
				}
			case top > index && top-index >= WindowPackets:
				if !errors.Is(err, ErrReplayed) {
					r.Fatalf("packet %d behind the window: %v", index, err)
				}
			case err != nil || !bytes.Equal(got, q.plain):
				r.Fatalf("packet %d: %v", index, err)
			}
			seen[index], top = true, max(top, index)
			if _, err := other.RTP(make([]byte, len(q.wire)), q.wire, noon); !errors.Is(err, ErrAuthentication) {
				r.Fatalf("the wrong key: %v", err)
			}
		}
	})
}

func TestRolloverWithLoss(t *testing.T) {
	for _, s := range []Suite{AESCM128SHA1x80, AEADAES256GCM} {
		c := line(s, testKey(s, 1))
		p, u := protector(t, c), unprotector(t, c)
		rnd := rand.New(rand.NewPCG(1, 2))
		dst, back := make([]byte, 400), make([]byte, 400)
		for index := uint64(1000); index < 3*65536+2000; index++ {
			if rnd.IntN(20) == 0 {
				index += uint64(rnd.IntN(20000)) // lost before the relay
			}
			plain := rtpPacket(5, index)
			wire, err := p.RTP(dst, plain)
			if err != nil {
				t.Fatal(err)
			}
			if rnd.IntN(3) == 0 {
				continue // lost behind it
			}
			if got, err := u.RTP(back, wire, noon); err != nil || !bytes.Equal(got, plain) {
				t.Fatalf("%s, packet %d: %v", s, index, err)
			}
		}
	}
}

// A gap of more than half the sequence space leaves the rollover in doubt; the
// second guess is right.
func TestLongGap(t *testing.T) {
	c := line(AEADAES128GCM, testKey(AEADAES128GCM, 1))
	for _, gap := range []uint64{20000, 32768, 40000, 49000} {
		u := unprotector(t, c)
		for index := uint64(70000); index < 70000+gap*3; index += gap {
			plain := rtpPacket(5, index)
			takes(t, u, refRTP(t, c.Suite, c.Keys[0].Key, uint32(index>>16), plain, nil), plain, noon)
		}
	}
}

// There is no rollover before the first: what looks like a packet from before it
// is one after a gap.
func TestLongGapAtTheStart(t *testing.T) {
	c := line(AESCM128SHA1x80, testKey(AESCM128SHA1x80, 1))
	u := unprotector(t, c)
	for _, index := range []uint64{100, 60000, 65536 + 5} {
		plain := rtpPacket(5, index)
		takes(t, u, refRTP(t, c.Suite, c.Keys[0].Key, uint32(index>>16), plain, nil), plain, noon)
	}
}

func TestProtectorSources(t *testing.T) {
	p := protector(t, line(AESCM128SHA1x80, testKey(AESCM128SHA1x80, 1)))
	dst := make([]byte, 400)
	for ssrc := range uint32(SourcesMax + 2) {
		_, err := p.RTP(dst, rtpPacket(ssrc, 1))
		_, err2 := p.RTCP(dst, rtcpPacket(ssrc, 1))
		if want := ssrc >= SourcesMax; errors.Is(err, ErrSources) != want || errors.Is(err2, ErrSources) != want {
			t.Errorf("SSRC %d: %v, %v", ssrc, err, err2)
		}
		if ssrc >= SourcesMax-1 {
			continue
		}
		if _, err := p.RTP(dst, append([]byte{0x9f}, rtpPacket(ssrc+9999, 1)[1:40]...)); !errors.Is(err, ErrForm) {
			t.Errorf("header cut short: %v", err)
		}
	}
	if got := p.Counts(); got.RTP != SourcesMax || got.RTCP != SourcesMax || got.Sources != 4 {
		t.Errorf("counts %+v", got)
	}
}

func TestFirstPacketBehindTheWrap(t *testing.T) {
	for _, s := range allSuites() {
		c := line(s, testKey(s, 1))
		u := unprotector(t, c)
		late, early := rtpPacket(5, 65540), rtpPacket(5, 65530)
		takes(t, u, refRTP(t, s, c.Keys[0].Key, 1, late, nil), late, noon)
		takes(t, u, refRTP(t, s, c.Keys[0].Key, 0, early, nil), early, noon)
		far := rtpPacket(6, 5<<16)
		refuses(t, u, refRTP(t, s, c.Keys[0].Key, 5, far, nil), noon, ErrAuthentication)
		zero := rtpPacket(6, 3)
		takes(t, u, refRTP(t, s, c.Keys[0].Key, 0, zero, nil), zero, noon)
	}
}

// What is not authentic leaves no state behind, however many SSRCs it claims.
func TestForgeriesLeaveNothing(t *testing.T) {
	s := AEADAES128GCM
	u := unprotector(t, line(s, testKey(s, 1)))
	forged := line(s, testKey(s, 2))
	for ssrc := range uint32(3000) {
		wire := refRTP(t, s, forged.Keys[0].Key, 0, rtpPacket(ssrc, 7), nil)
		refuses(t, u, wire, noon, ErrAuthentication)
	}
	if len(u.current.rtp) != 0 || u.current.probes > probesMax {
		t.Errorf("%d sources, %d probes", len(u.current.rtp), u.current.probes)
	}
	for ssrc := range uint32(SourcesMax) {
		plain := rtpPacket(ssrc, 7)
		takes(t, u, refRTP(t, s, testKey(s, 1), 0, plain, nil), plain, noon)
	}
	refuses(t, u, refRTP(t, s, testKey(s, 1), 0, rtpPacket(9999, 7), nil), noon, ErrSources)
	if got := u.Counts(); got.AuthFailed != 3000 || got.RTP != SourcesMax || got.Sources != 1 {
		t.Errorf("counts %+v", got)
	}
}

func TestKeysAreUsedOnce(t *testing.T) {
	k := keys(t, line(AEADAES128GCM, testKey(AEADAES128GCM, 1)))
	if _, err := NewProtector(k); err != nil {
		t.Fatal(err)
	}
	if _, err := NewProtector(k); err == nil {
		t.Error("two Protectors took the same keys")
	}
	if _, err := NewUnprotector(nil, 0); !errors.Is(err, ErrNoKeys) {
		t.Errorf("no keys: %v", err)
	}
}

// An early packet of before the first one has no index: it would be under the
// key stream of one to come.
func TestProtectorUsesNoIndexTwice(t *testing.T) {
	c := line(AESCM128SHA1x80, testKey(AESCM128SHA1x80, 1))
	p := protector(t, c)
	dst := make([]byte, 400)
	for _, step := range []struct {
		index uint64
		want  error
	}{{2, nil}, {65535, ErrReplayed}, {3, nil}, {3, ErrReplayed}, {2, ErrReplayed}, {5000, nil}, {4500, nil}, {4500, ErrReplayed}, {3900, ErrReplayed}} {
		if _, err := p.RTP(dst, rtpPacket(5, step.index)); !errors.Is(err, step.want) {
			t.Errorf("packet %d: %v, want %v", step.index, err, step.want)
		}
	}
	if got := p.Counts(); got.RTP != 4 || got.Repeated != 5 {
		t.Errorf("counts %+v", got)
	}
}

func TestRTCPIndexGoesOn(t *testing.T) {
	a, b := line(AESCM128SHA1x80, testKey(AESCM128SHA1x80, 1)), line(AESCM128SHA1x80, testKey(AESCM128SHA1x80, 2))
	p, u := protector(t, a), unprotector(t, a)
	var wires [][]byte
	for i := range byte(6) {
		if i == 3 {
			if err := errors.Join(p.Rekey(keys(t, b), false), u.Rekey(keys(t, b))); err != nil {
				t.Fatal(err)
			}
		}
		wire, err := p.RTCP(make([]byte, 200), rtcpPacket(5, i))
		if err != nil {
			t.Fatal(err)
		}
		if index := binary.BigEndian.Uint32(wire[32:]) &^ (1 << 31); index != uint32(i)+1 {
			t.Errorf("packet %d has index %d", i, index)
		}
		wires = append(wires, wire)
	}
	for _, i := range []int{1, 0, 2, 4, 3, 5} {
		got, err := u.RTCP(make([]byte, 200), wires[i], noon)
		if err != nil || !bytes.Equal(got, rtcpPacket(5, byte(i))) {
			t.Errorf("packet %d: %v", i, err)
		}
	}
	for i, wire := range wires {
		if _, err := u.RTCP(make([]byte, 200), wire, noon); !errors.Is(err, ErrReplayed) {
			t.Errorf("packet %d again: %v", i, err)
		}
	}
}

func TestUnencryptedRTCP(t *testing.T) {
	for _, s := range allSuites() {
		c := line(s, testKey(s, 1))
		c.UnencryptedSRTCP = true
		wire, err := protector(t, c).RTCP(make([]byte, 200), rtcpPacket(5, 1))
		if err != nil || !bytes.HasPrefix(wire, rtcpPacket(5, 1)) {
			t.Errorf("%s: %v, %x", s, err, wire)
		}
		got, err := unprotector(t, c).RTCP(make([]byte, 200), wire, noon)
		if err != nil || !bytes.Equal(got, rtcpPacket(5, 1)) {
			t.Errorf("%s: %v", s, err)
		}
		wire[9]++
		if _, err = unprotector(t, c).RTCP(make([]byte, 200), wire, noon); !errors.Is(err, ErrAuthentication) {
			t.Errorf("%s, forged: %v", s, err)
		}
	}
}

func TestSeveralMKIs(t *testing.T) {
	s := AEADAES128GCM
	c := line(s, testKey(s, 1), testKey(s, 2))
	c.Keys[0].MKI, c.Keys[1].MKI = []byte{1}, []byte{2}
	u := unprotector(t, c)
	for i, mki := range [][]byte{{1}, {2}} {
		plain := rtpPacket(5, uint64(i))
		takes(t, u, refRTP(t, s, c.Keys[i].Key, 0, plain, mki), plain, noon)
	}
	refuses(t, u, refRTP(t, s, c.Keys[0].Key, 0, rtpPacket(5, 9), []byte{3}), noon, ErrAuthentication)
}

func TestUnfitPackets(t *testing.T) {
	c := line(AEADAES128GCM, testKey(AEADAES128GCM, 1))
	p, u := protector(t, c), unprotector(t, c)
	good := mustProtect(t, p, rtpPacket(5, 1))
	for name, wire := range map[string][]byte{"empty": {}, "short": good[:11], "version": append([]byte{0x40}, good[1:]...), "no tag": good[:20], "csrc cut": append([]byte{0x8f}, good[1:20]...)} {
		if _, err := u.RTP(make([]byte, 400), wire, noon); !errors.Is(err, ErrForm) && !errors.Is(err, ErrAuthentication) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := u.RTP(make([]byte, 0, 100), good, noon); !errors.Is(err, ErrShortBuffer) {
		t.Errorf("short buffer: %v", err)
	}
	if _, err := p.RTP(make([]byte, 0, 180), rtpPacket(5, 2)); !errors.Is(err, ErrShortBuffer) {
		t.Errorf("short buffer to protect: %v", err)
	}
	p.Wipe()
	u.Wipe()
	if _, err := u.RTP(make([]byte, 400), good, noon); !errors.Is(err, ErrNoKeys) {
		t.Errorf("wiped: %v", err)
	}
	if _, err := p.RTCP(make([]byte, 400), rtcpPacket(5, 2)); !errors.Is(err, ErrNoKeys) {
		t.Errorf("wiped: %v", err)
	}
}

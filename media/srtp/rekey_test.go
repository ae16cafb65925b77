package srtp

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"
)

func TestRekey(t *testing.T) {
	for _, pair := range [][2]Suite{{AESCM128SHA1x80, AESCM128SHA1x80}, {AEADAES256GCM, AEADAES256GCM}, {AESCM128SHA1x80, AEADAES128GCM}, {AEADAES128GCM, AESCM128SHA1x32}} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprint(pair, restart), func(t *testing.T) {
				testRekey(t, line(pair[0], testKey(pair[0], 1)), line(pair[1], testKey(pair[1], 2)), restart)
			})
		}
	}
}

func testRekey(t *testing.T, before, after Crypto, restart bool) {
	p, u := protector(t, before), unprotector(t, before)
	index := uint64(1000)
	send := func() (wire, plain []byte) {
		plain = rtpPacket(5, index)
		index++
		return mustProtect(t, p, plain), plain
	}
	for ; index < 140000; index += 9000 {
		wire, plain := send()
		takes(t, u, wire, plain, noon)
	}
	stragglers := [2][2][]byte{}
	for i := range stragglers {
		stragglers[i][0], stragglers[i][1] = send()
	}
	if err := errors.Join(p.Rekey(keys(t, after), restart), u.Rekey(keys(t, after))); err != nil {
		t.Fatal(err)
	}
	wire, plain := send()
	roc := uint32(2)
	if restart {
		roc = 0
	}
	if want := refRTP(t, after.Suite, after.Keys[0].Key, roc, plain, nil); !bytes.Equal(wire, want) {
		t.Fatalf("the rollover counter after rekeying is not %d", roc)
	}
	takes(t, u, wire, plain, noon)
	takes(t, u, stragglers[0][0], stragglers[0][1], noon.Add(overlapDefault))
	refuses(t, u, stragglers[1][0], noon.Add(overlapDefault+time.Nanosecond), ErrAuthentication)
	wire, plain = send()
	takes(t, u, wire, plain, noon.Add(time.Hour))
	if c := u.Counts(); c.Former != 1 || u.former.keys != nil {
		t.Errorf("counts %+v; the former keys are there: %t", c, u.former.keys != nil)
	}
}

// The same keys change nothing, and a rekeying that is taken back uses no index
// twice.
func TestRekeyBack(t *testing.T) {
	a, b := line(AEADAES128GCM, testKey(AEADAES128GCM, 1)), line(AEADAES128GCM, testKey(AEADAES128GCM, 2))
	for _, restart := range []bool{false, true} {
		p, u := protector(t, a), unprotector(t, a)
		first := mustProtect(t, p, rtpPacket(5, 70000))
		takes(t, u, first, rtpPacket(5, 70000), noon)
		same := keys(t, a)
		for _, again := range []*Keys{keys(t, a), u.current.keys} {
			if err := u.Rekey(again); err != nil {
				t.Fatal(err)
			}
			refuses(t, u, first, noon, ErrReplayed)
		}
		if err := errors.Join(p.Rekey(same, restart), p.Rekey(p.current.keys, restart)); err != nil {
			t.Fatal(err)
		}
		if same.ctx != nil {
			t.Error("keys that are not needed were not wiped")
		}
		if err := errors.Join(p.Rekey(keys(t, b), restart), u.Rekey(keys(t, b))); err != nil {
			t.Fatal(err)
		}
		takes(t, u, mustProtect(t, p, rtpPacket(5, 70001)), rtpPacket(5, 70001), noon)
		if err := errors.Join(p.Rekey(keys(t, a), restart), u.Rekey(keys(t, a))); err != nil {
			t.Fatal(err)
		}
		if _, err := p.RTP(make([]byte, 400), rtpPacket(5, 70000)); !errors.Is(err, ErrReplayed) {
			t.Errorf("restart %t: an index of the keys of before went out again: %v", restart, err)
		}
		refuses(t, u, first, noon, ErrReplayed)
		takes(t, u, mustProtect(t, p, rtpPacket(5, 70002)), rtpPacket(5, 70002), noon)
	}
}

// With the keys of before, the indexes of RTCP go on as well.
func TestRekeyBackRTCP(t *testing.T) {
	a, b := line(AEADAES128GCM, testKey(AEADAES128GCM, 1)), line(AEADAES128GCM, testKey(AEADAES128GCM, 2))
	p := protector(t, a)
	for i, next := range []Crypto{a, b, a, a} {
		if err := p.Rekey(keys(t, next), false); err != nil {
			t.Fatal(err)
		}
		wire, err := p.RTCP(make([]byte, 200), rtcpPacket(5, 1))
		if err != nil {
			t.Fatal(err)
		}
		if index := wire[len(wire)-1]; index != byte(i+1) {
			t.Errorf("packet %d has index %d", i+1, index)
		}
	}
}

// A first packet under the former keys, behind the wrap: the second guess at its
// rollover finds what a cipher in place would have destroyed at the first.
func TestFormerKeysBehindTheWrap(t *testing.T) {
	a, b := line(AEADAES128GCM, testKey(AEADAES128GCM, 1)), line(AESCM128SHA1x80, testKey(AESCM128SHA1x80, 2))
	u := unprotector(t, a)
	if err := u.Rekey(keys(t, b)); err != nil {
		t.Fatal(err)
	}
	plain := rtpPacket(5, 65540)
	takes(t, u, refRTP(t, a.Suite, a.Keys[0].Key, 1, plain, nil), plain, noon)
}

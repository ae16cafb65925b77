package srtp

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"
)

// TestSenderRestarts: a sender sets its sequence numbers back. All but some packets
// come through, no key stream is used twice, and its reports go with it.
func TestSenderRestarts(t *testing.T) {
	for _, suite := range DefaultSuites() {
		k1, err := NewKeys(line(suite, testKey(suite, 1)))
		if err != nil {
			t.Fatal(err)
		}
		k2, err := NewKeys(line(suite, testKey(suite, 1)))
		if err != nil {
			t.Fatal(err)
		}
		out, err := NewProtector(k1)
		if err != nil {
			t.Fatal(err)
		}
		in, err := NewUnprotector(k2, 0)
		if err != nil {
			t.Fatal(err)
		}
		const ssrc = 0x01020304
		used := map[[3]uint32]bool{}
		lost, names := 0, map[uint32]bool{}
		send := func(seq uint16, inPlace bool) {
			t.Helper()
			buf, plain := make([]byte, 300), make([]byte, 52, 300)
			plain[0], plain[1] = 0x80, 0
			binary.BigEndian.PutUint16(plain[2:], seq)
			binary.BigEndian.PutUint32(plain[8:], ssrc)
			was := bytes.Clone(plain)
			if inPlace {
				buf = plain[:0]
			}
			wire, err := out.RTP(buf, plain)
			if err != nil {
				lost++
				return
			}
			if !inPlace && !bytes.Equal(plain, was) {
				t.Fatal("the plain packet was changed")
			}
			name := binary.BigEndian.Uint32(wire[8:])
			names[name] = true
			roc, _ := out.current.keys.ctx.ROC(name)
			if index := [3]uint32{name, roc, uint32(seq)}; used[index] {
				t.Fatalf("%s: the key stream of %v is used twice", suite, index)
			} else {
				used[index] = true
			}
			if got, err := in.RTP(make([]byte, 300), wire, time.Time{}); err != nil || !bytes.Equal(got[12:], was[12:]) {
				t.Fatalf("%s: %d: %v", suite, seq, err)
			}
		}
		run := func(from uint16, n int) {
			for i := range n {
				send(from+uint16(i), i%2 == 0)
				if i%3 == 0 {
					before := lost
					send(from+uint16(i), false) // repeated by the network
					lost = before
				}
			}
		}
		run(30_000, 100)
		if lost != 0 || len(names) != 1 {
			t.Fatalf("%s: %d lost, as %d sources", suite, lost, len(names))
		}
		restart := func(from uint16) {
			for i := range 40 {
				send(from+uint16(i), false)
			}
		}
		restart(100)    // far back
		restart(90)     // a little
		restart(30_050) // where they were: it is another source by now
		if lost != 2*(restartPackets-1) || len(names) != 3 {
			t.Errorf("%s: %d lost, as %d sources", suite, lost, len(names))
		}
		report := append(binary.BigEndian.AppendUint32([]byte{0x80, 201, 0, 1}, ssrc), binary.BigEndian.AppendUint32([]byte{0x81, 202, 0, 1}, ssrc)...)
		wire, err := out.RTCP(make([]byte, 300), report)
		if err != nil || binary.BigEndian.Uint32(report[4:]) != ssrc || binary.BigEndian.Uint32(report[12:]) != ssrc {
			t.Fatalf("%s: %v, or the report was changed", suite, err)
		}
		back, err := in.RTCP(make([]byte, 300), wire, time.Time{})
		if err != nil || !names[binary.BigEndian.Uint32(back[4:])] || binary.BigEndian.Uint32(back[4:]) == ssrc || !bytes.Equal(back[4:8], back[12:16]) {
			t.Errorf("%s: %v, report %x", suite, err, back)
		}
	}
}

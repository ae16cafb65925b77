package srtp

import (
	"bytes"
	"encoding/binary"
	"testing"
)

func TestNoAllocation(t *testing.T) {
	if raceDetector {
		t.Skip("with the race detector the library's pool of buffers drops some on purpose")
	}
	ext := append(unhex(t, "930800010000000000000005"), make([]byte, 12)...)
	ext = append(append(ext, unhex(t, "bede000110aa0000")...), make([]byte, 160)...)
	for _, s := range allSuites() {
		c := line(s, testKey(s, 1))
		p, u := protector(t, c), unprotector(t, c)
		buf, index := make([]byte, 400), uint16(0)
		plain, control := bytes.Clone(ext), rtcpPacket(5, 1)
		if n := testing.AllocsPerRun(500, func() {
			index++
			binary.BigEndian.PutUint16(plain[2:], index)
			b := buf[:copy(buf, plain)]
			wire, err := p.RTP(b, b)
			if err == nil {
				_, err = u.RTP(wire, wire, noon)
			}
			if err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", s, n)
		}
		if n := testing.AllocsPerRun(500, func() {
			b := buf[:copy(buf, control)]
			wire, err := p.RTCP(b, b)
			if err == nil {
				_, err = u.RTCP(wire, wire, noon)
			}
			if err != nil {
				t.Fatal(err)
			}
		}); n != 0 && !(suites[s].aead && n <= 2) { // the library's additional data, once each way
			t.Errorf("%s, RTCP: %v allocations", s, n)
		}
	}
}

func BenchmarkPacket(b *testing.B) {
	for _, s := range allSuites() {
		c := line(s, testKey(s, 1))
		b.Run("protect/"+s.String(), func(b *testing.B) {
			p, dst, plain := protector(b, c), make([]byte, 400), rtpPacket(5, 0)
			b.ReportAllocs()
			for i := range b.N {
				binary.BigEndian.PutUint16(plain[2:], uint16(i))
				if _, err := p.RTP(dst, plain); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("unprotect/"+s.String(), func(b *testing.B) {
			p, u := protector(b, c), unprotector(b, c)
			wires := make([][]byte, 4096)
			for i := range wires {
				wires[i] = mustProtect(b, p, rtpPacket(5, uint64(i)))
			}
			dst := make([]byte, 400)
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				if i%len(wires) == 0 {
					clear(u.current.rtp)
				}
				if _, err := u.RTP(dst, wires[i%len(wires)], noon); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

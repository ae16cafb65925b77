package siptest

import (
	"encoding/binary"
	"time"
)

// sendReport sends an RTCP sender report without blocks (RFC 3550 section 6.4.1).
func (m *Media) sendReport(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.sending || m.out.packets == 0 {
		return
	}
	const ntpEpoch = 2_208_988_800 // seconds from 1900 to 1970
	wire := make([]byte, 28, 28+len(cname)+12)
	wire[0], wire[1] = 0x80, 200
	binary.BigEndian.PutUint16(wire[2:], 6)
	binary.BigEndian.PutUint32(wire[4:], m.out.ssrc)
	binary.BigEndian.PutUint32(wire[8:], uint32(now.Unix()+ntpEpoch))
	binary.BigEndian.PutUint32(wire[12:], uint32(uint64(now.Nanosecond())<<32/1e9))
	binary.BigEndian.PutUint32(wire[16:], m.out.ts)
	binary.BigEndian.PutUint32(wire[20:], m.out.packets)
	binary.BigEndian.PutUint32(wire[24:], m.out.octets)
	wire = append(wire, 0x81, 202, 0, byte(len(cname)+12)/4-1) // SDES: a compound packet needs a CNAME (section 6.1)
	wire = binary.BigEndian.AppendUint32(wire, m.out.ssrc)
	wire = append(append(wire, 1, byte(len(cname))), cname...)
	wire = append(wire, 0, 0)
	from := m.rtcp
	if m.remoteC == m.remote {
		from = m.rtp // rtcp-mux
	}
	m.transmit(from, Packet{At: now, Peer: m.remoteC, RTCP: true, Wire: wire})
}

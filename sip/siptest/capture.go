package siptest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/trunktap/trunktap/media/pcap"
)

// WriteRTP writes a capture with pcm, 8 kHz, as one RTP stream of 20 ms packets
// in codec, for SIPp to play. It returns the RTP packets.
func WriteRTP(name string, codec Codec, ssrc uint32, pcm []int16) (wires [][]byte, err error) {
	file, err := os.Create(name)
	if err != nil {
		return nil, fmt.Errorf("capture: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	w, err := pcap.NewEthernetWriter(file)
	if err != nil {
		return nil, fmt.Errorf("capture %s: %w", name, err)
	}
	// SIPp puts its own addresses in their place.
	src, dst := netip.MustParseAddrPort("192.0.2.1:4000"), netip.MustParseAddrPort("192.0.2.2:4000")
	start := time.Unix(1_000_000_000, 0)
	for n := 0; len(pcm) >= ptimeSamples; n++ {
		wire := make([]byte, 12+ptimeSamples)
		wire[0], wire[1] = 0x80, codec.PayloadType
		if n == 0 {
			wire[1] |= 0x80
		}
		binary.BigEndian.PutUint16(wire[2:], uint16(n))
		binary.BigEndian.PutUint32(wire[4:], uint32(n*ptimeSamples))
		binary.BigEndian.PutUint32(wire[8:], ssrc)
		codec.Encode(wire[12:], pcm[:ptimeSamples])
		pcm = pcm[ptimeSamples:]
		if err := w.WriteUDP(start.Add(time.Duration(n)*ptime), src, dst, wire); err != nil {
			return nil, fmt.Errorf("capture %s: %w", name, err)
		}
		wires = append(wires, wire)
	}
	return wires, nil
}

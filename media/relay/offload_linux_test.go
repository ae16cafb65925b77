package relay

import (
	"fmt"
	"testing"

	"github.com/trunktap/trunktap/media"
)

func TestSettledFlowsAreTheKernels(t *testing.T) {
	e := kernelEnv(t)
	s, carrier, pbx := e.call()
	taps := [2]*collector{{}, {}}
	s.SetTap(media.External, taps[0])
	s.SetTap(media.Internal, taps[1])
	ext, in := s.Local(media.External), s.Local(media.Internal)
	for i := range 100 {
		e.send(carrier.rtp, ext, rtpPacket(1, uint16(i), 160))
		e.want(pbx.rtp, in, rtpPacket(1, uint16(i), 160))
		e.send(pbx.rtp, in, rtpPacket(2, uint16(i), 160))
		e.want(carrier.rtp, ext, rtpPacket(2, uint16(i), 160))
	}
	fmt.Printf("%+v\n", s.Stats())
	s.Close()
	fmt.Printf("%+v %d %d\n", s.Stats()[0], taps[0].len(), taps[1].len())
	for i := range 100 {
		if string(taps[0].wires[i]) != string(rtpPacket(1, uint16(i), 160)) {
			t.Fatal(i)
		}
	}
}

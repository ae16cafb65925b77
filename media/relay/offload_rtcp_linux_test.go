package relay

import (
	"bytes"
	"testing"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/relay/kernel/kerneltest"
)

// RTCP is the sockets', on its own port and on that of RTP.
func TestKernelLeavesRTCP(t *testing.T) {
	if !kerneltest.Enter(t) {
		return
	}
	s := twoCables(t)
	s.start(Config{})
	st, conns := s.call()
	for side, c := range conns {
		st.SetRemote(media.Side(side), Remote{RTP: addrOf(c), Mux: true, PayloadTypes: []uint8{0}})
	}
	tap := &collector{}
	st.SetTap(media.External, tap)
	before := s.byKernel(st, conns, 0)
	s.pass(st, media.External, conns[0], conns[1], rtcpPacket(1))
	// It is sent on before it is put: the kernel may be given no packet between the two.
	env{T: t}.eventually("put", func() bool { return tap.len() == before+1 })
	all := s.byKernel(st, conns, before) + 1
	_ = st.Close()
	n := st.Stats()[0]
	if n.Packets != uint64(all) || n.LastRTCP.IsZero() {
		t.Fatalf("%+v, want %d", n, all)
	}
	if tap.len() != all || !bytes.Equal(tap.wires[before], rtcpPacket(1)) {
		t.Fatalf("the tap got %d packets, want %d", tap.len(), all)
	}
}

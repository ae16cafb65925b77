package relay

import (
	"testing"

	"github.com/trunktap/trunktap/media"
)

// TestOwnAddressIsNoDestination: descriptions of both sides that name our own
// ports must not make a packet go round for ever.
func TestOwnAddressIsNoDestination(t *testing.T) {
	onBoth(t, func(e env) {
		s, other := e.open(Options{RTP: true}), e.open(Options{RTP: true})
		carrier := e.party(carrierHost)
		s.SetRemote(media.External, carrier.remote(false))
		s.SetRemote(media.Internal, Remote{RTP: other.Local(media.External), PayloadTypes: []uint8{0}})
		other.SetRemote(media.External, Remote{RTP: s.Local(media.Internal), PayloadTypes: []uint8{0}})
		other.SetRemote(media.Internal, Remote{RTP: other.Local(media.Internal), PayloadTypes: []uint8{0}})
		e.send(carrier.rtp, s.Local(media.External), rtpPacket(1, 1, 4))
		e.eventually("count", func() bool { return s.Stats()[media.External].Unroutable == 1 })
		if sum := e.relay.Totals(); sum.Packets != 1 || sum.Forwarded != 0 {
			e.Fatalf("%d packets taken, %d forwarded, want the one that was sent and none", sum.Packets, sum.Forwarded)
		}
	})
}

package relay

import (
	"math/rand/v2"
	"net/netip"
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

// crossed joins two streams by their external sides, as a PBX does that passes
// descriptions on, each with a party of its own on the other side.
func crossed(e env) (s, other *Stream, a, b party) {
	s, other = e.open(Options{RTP: true}), e.open(Options{RTP: true})
	a, b = e.party(pbxHost), e.party(pbxHost)
	s.SetRemote(media.Internal, a.remote(false))
	other.SetRemote(media.External, Remote{RTP: s.Local(media.External), PayloadTypes: []uint8{0}})
	other.SetRemote(media.Internal, b.remote(false))
	s.SetRemote(media.External, Remote{RTP: other.Local(media.External), PayloadTypes: []uint8{0}})
	return s, other, a, b
}

// TestStreamsThatCross relays between two phones behind one PBX, both ways, until
// one of the calls is over or leads elsewhere.
func TestStreamsThatCross(t *testing.T) {
	onBoth(t, func(e env) {
		s, other, a, b := crossed(e)
		at, bt := s.Local(media.Internal), other.Local(media.Internal)
		for n := range uint16(200) { // more than the kernel waits for before it takes a flow
			e.send(a.rtp, at, rtpPacket(1, n, 4))
			e.want(b.rtp, bt, rtpPacket(1, n, 4))
			e.send(b.rtp, bt, rtpPacket(2, n, 4))
			e.want(a.rtp, at, rtpPacket(2, n, 4))
		}
		e.send(a.rtcp, rtcpOf(at), rtcpPacket(1))
		e.want(b.rtcp, rtcpOf(bt), rtcpPacket(1))

		carrier := e.party(carrierHost)
		other.SetRemote(media.External, carrier.remote(false)) // a transfer: one of them goes elsewhere
		e.send(a.rtp, at, rtpPacket(1, 300, 4))
		e.eventually("count", func() bool { return s.Stats()[media.Internal].Unroutable == 1 })
		other.SetRemote(media.External, Remote{RTP: s.Local(media.External), PayloadTypes: []uint8{0}})
		e.send(a.rtp, at, rtpPacket(1, 301, 4))
		e.want(b.rtp, bt, rtpPacket(1, 301, 4))
		if err := other.Close(); err != nil {
			e.Fatal(err)
		}
		e.send(a.rtp, at, rtpPacket(1, 302, 4))
		e.eventually("count", func() bool { return s.Stats()[media.Internal].Unroutable == 2 })
	})
}

// TestNothingGoesRound names ports of ours at random, in up to six streams: what
// is sent to any of them is forwarded once by each stream at most.
func TestNothingGoesRound(t *testing.T) {
	onBoth(t, func(e env) {
		for seed := range uint64(40) {
			r := rand.New(rand.NewPCG(seed, 1))
			streams := make([]*Stream, 2+r.IntN(5))
			for i := range streams {
				streams[i] = e.open(Options{RTP: true})
			}
			for range 6 * len(streams) {
				to := streams[r.IntN(len(streams))].Local(media.Side(r.IntN(2)))
				streams[r.IntN(len(streams))].SetRemote(media.Side(r.IntN(2)), Remote{RTP: to, PayloadTypes: []uint8{0}})
			}
			for _, s := range streams {
				for _, side := range []media.Side{media.External, media.Internal} {
					at, seen := s, 0
					for in := side; ; {
						m := at.route.Load()
						if !m.crossed[in.Other()] {
							break
						}
						if seen++; seen > 1 {
							e.Fatalf("seed %d: what enters stream %p by its %s side passes more than two streams", seed, s, side)
						}
						at, in = owner(streams, m.remote[in.Other()].RTP)
					}
				}
			}
			for _, s := range streams {
				if err := s.Close(); err != nil {
					e.Fatal(err)
				}
			}
		}
		if e.relay.naming != 0 {
			e.Errorf("%d names left", e.relay.naming)
		}
	})
}

func owner(streams []*Stream, at netip.AddrPort) (*Stream, media.Side) {
	for _, s := range streams {
		for _, side := range []media.Side{media.External, media.Internal} {
			if s.Local(side) == at {
				return s, side
			}
		}
	}
	return nil, 0
}

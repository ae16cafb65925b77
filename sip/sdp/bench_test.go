package sdp

import (
	"net/netip"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
)

const benchOffer = "v=0\r\no=- 20518 1 IN IP4 192.0.2.66\r\ns=-\r\nc=IN IP4 192.0.2.66\r\nt=0 0\r\nm=audio 6000 RTP/AVP 8 0 9 101\r\n" +
	"a=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:9 G722/8000\r\na=rtpmap:101 telephone-event/8000\r\n" +
	"a=fmtp:101 0-16\r\na=ptime:20\r\na=sendrecv\r\n"

// BenchmarkExchange reads offer and answer, rewrites both and agrees on them: the
// descriptions of one call.
func BenchmarkExchange(b *testing.B) {
	offer, at := []byte(benchOffer), time.Unix(0, 0)
	target := []Target{{Addr: netip.MustParseAddr("10.0.0.1"), Port: 10000}}
	b.ReportAllocs()
	for b.Loop() {
		n := NewNegotiation()
		for _, side := range []media.Side{media.External, media.Internal} {
			d, err := Parse(offer)
			if err != nil {
				b.Fatal(err)
			}
			if len(d.Rewrite(target)) < 200 {
				b.Fatal("nothing written")
			}
			if side == media.External {
				n.OfferParsed(side, d)
				continue
			}
			if res, err := n.AnswerParsed(side, d, at, false); err != nil || len(res.Streams) != 2 {
				b.Fatal(res, err)
			}
		}
	}
}

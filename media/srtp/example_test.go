package srtp_test

import (
	"fmt"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/srtp"
)

// Carrier and PBX of the examples are ends of their own.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// What the B2BUA does with a call from a carrier that demands SRTP to a PBX that
// has none.
func ExampleLine() {
	cfg := &srtp.Config{Sides: [2]srtp.SideConfig{
		media.External: {Policy: srtp.Required, Suites: []srtp.Suite{srtp.AEADAES256GCM}},
		media.Internal: {Policy: srtp.Off},
	}}
	line := srtp.NewLine(cfg)

	// INVITE from the carrier: read its section, rewrite it for the PBX.
	var carrier srtp.Exchange
	lines := must(carrier.Offer(srtp.Terms{Suites: []srtp.Suite{srtp.AEADAES256GCM}}))
	offer, refused := srtp.ReadMedia("RTP/SAVP", nil, srtp.Media{Crypto: lines}.Attributes())
	toPBX := must(line.Offer(media.External, offer)) // a *Refusal: 488
	fmt.Println(toPBX.Profile, len(toPBX.Attributes()), len(refused))

	// 200 from the PBX: rewrite it for the carrier. The relay gets the ends.
	toCarrier := must(line.Answer(srtp.Media{Profile: "RTP/AVP"})) // a *Refusal: BYE to the PBX, 488 to the carrier
	fmt.Println(toCarrier.Profile, toCarrier.Crypto[0])
	ends := line.Ends()
	receive, send := must2(ends[media.External].Keys())
	fmt.Println(ends[media.External].Mode, receive.Suite(), send.Suite(), ends[media.Internal].Mode)

	line.Wipe() // with the call
	// Output:
	// RTP/AVP 0 0
	// RTP/SAVP 1 AEAD_AES_256_GCM [key]
	// sdes AEAD_AES_256_GCM AEAD_AES_256_GCM clear
}

func must2(a, b *srtp.Keys, err error) (*srtp.Keys, *srtp.Keys) {
	if err != nil {
		panic(err)
	}
	return a, b
}

// What the relay does with each packet of a side with SRTP, in the buffer that
// it came in.
func ExampleUnprotector() {
	key := func(first byte) srtp.Crypto {
		b := make([]byte, srtp.AEADAES128GCM.KeyBytes())
		b[0] = first
		return srtp.Crypto{Tag: 1, Suite: srtp.AEADAES128GCM, Keys: []srtp.MasterKey{{Key: srtp.NewKey(b)}}}
	}
	out := must(srtp.NewProtector(must(srtp.NewKeys(key(1)))))
	in := must(srtp.NewUnprotector(must(srtp.NewKeys(key(1))), 0))

	buffer := make([]byte, 1500+srtp.OverheadBytesMax)
	n := copy(buffer, []byte{0x80, 8, 0, 1, 0, 0, 0, 160, 0, 0, 0, 7, 0xd5, 0xd5})
	wire := must(out.RTP(buffer, buffer[:n]))
	fmt.Println(len(wire))
	plain := must(in.RTP(wire, wire, time.Now())) // with an error: drop, do not latch on it, do not tap
	fmt.Println(len(plain))

	// A re-INVITE: keys derived by control, taken over between two packets.
	if err := in.Rekey(must(srtp.NewKeys(key(2)))); err != nil {
		panic(err)
	}
	fmt.Println(in.Counts().RTP)
	// Output:
	// 30
	// 14
	// 1
}

package sip

import (
	"strings"
	"testing"
)

// trunkInvite is an INVITE as a carrier sends it.
var trunkInvite = strings.ReplaceAll(`INVITE sip:+493090182010@192.0.2.9;user=phone SIP/2.0
Via: SIP/2.0/UDP 192.0.2.66:5060;branch=z9hG4bK-524287-1---b5a54f1c;rport
Max-Forwards: 70
From: "Anna Berger" <sip:+493012345678@192.0.2.66;user=phone>;tag=8f3a2b1c
To: <sip:+493090182010@192.0.2.9;user=phone>
Call-ID: c0ffee24-5b1d-4a52-9a43-0123456789ab@carrier.example
CSeq: 1 INVITE
Contact: <sip:+493012345678@192.0.2.66:5060;transport=udp>
Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, UPDATE, PRACK, INFO, REFER, NOTIFY
Supported: timer, 100rel, replaces
Session-Expires: 1800;refresher=uac
P-Asserted-Identity: <sip:+493012345678@carrier.example;user=phone>
User-Agent: Carrier-SBC/7.2
Content-Type: application/sdp
Content-Length: 5

v=0
`, "\n", "\r\n")

// BenchmarkParse reads a message and asks it for what every call needs.
func BenchmarkParse(b *testing.B) {
	data := []byte(trunkInvite)
	b.ReportAllocs()
	for b.Loop() {
		m, _, err := Parse(data, false)
		if err != nil {
			b.Fatal(err)
		}
		via, err := m.TopVia()
		if seq, _ := m.CSeq(); err != nil || via.Branch() == "" || m.FromTag() == "" || m.ToTag() != "" || seq != 1 {
			b.Fatal("misread")
		}
	}
}

// BenchmarkPass makes of a request that of the other leg and writes it.
func BenchmarkPass(b *testing.B) {
	req, _, err := Parse([]byte(trunkInvite), false)
	if err != nil {
		b.Fatal(err)
	}
	via := Via{Transport: "UDP", Host: "10.0.0.1", Port: 5060, Params: ";rport;branch=z9hG4bKtt1.2"}
	out := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		m := req.Clone()
		m.SetVia(via)
		m.Set("Route")
		m.Set("Record-Route")
		m.Set("Max-Forwards", "69")
		m.Set("Contact", "<sip:+493012345678@10.0.0.1:5060>")
		out = m.Append(out[:0])
	}
	if len(out) < 600 {
		b.Fatalf("%d bytes:\n%s", len(out), out)
	}
}

package replay

import (
	"net/netip"
	"strings"
	"testing"
)

func TestCall(t *testing.T) {
	newScript(t).call(d1).
		rtp(320, aliceM, bobM, "hello").rtp(321, bobM, aliceM, "good day").rtp(340, aliceM, bobM, "hello").
		udp(350, netip.AddrPortFrom(aliceM.Addr(), 4001), netip.AddrPortFrom(bobM.Addr(), 6001), rtcpReport).
		sip(5000, bob, alice, d1.swap().req("BYE", 1, "")).
		sip(5010, alice, bob, d1.swap().res(200, "BYE", 1, "")).
		rtp(5020, aliceM, bobM, "late").
		expect(Config{}, "200 answered", "200 "+streamA, "200 "+streamB, "5000 ended bye", "rtp 2/1 rtcp 1/0")
}

func TestRetransmissionsChangeNothing(t *testing.T) {
	s := newScript(t)
	for range 2 {
		s.sip(0, alice, bob, d1.first(1, sdpOf(aliceM)))
	}
	for i := range 3 {
		s.sip(100+i, bob, alice, d1.res(183, "INVITE", 1, sdpOf(bobM)))
	}
	for i := range 3 {
		s.sip(200+i, bob, alice, d1.res(200, "INVITE", 1, sdpOf(bobM))).sip(300+i, alice, bob, d1.req("ACK", 1, ""))
	}
	for i := range 3 {
		s.sip(5000+i, alice, bob, d1.req("BYE", 2, "")).sip(5100+i, bob, alice, d1.res(200, "BYE", 2, ""))
	}
	s.expect(Config{}, "100 "+streamA+" early", "100 "+streamB+" early", "200 answered", "200 "+streamA, "200 "+streamB,
		"5000 ended bye", "rtp 0/0 rtcp 0/0")
}

func TestOffersAndAnswers(t *testing.T) {
	moved := netip.MustParseAddrPort("10.0.0.5:7000")
	begin := []string{"200 answered", "200 " + streamA, "200 " + streamB}
	onHold := []string{"1100 hold.start internal", "1100 " + streamA + " silent"}
	movedAB := []string{"1100 stream 0 external 198.51.100.1:4000>10.0.0.5:7000", "1100 stream 1 internal 10.0.0.5:7000>198.51.100.1:4000"}
	back := d1.swap()
	tests := []struct {
		name string
		add  func(s *script)
		want []string
	}{
		{"hold and resume by re-INVITE", func(s *script) {
			s.sip(1000, bob, alice, back.req("INVITE", 1, sdpOf(bobM, "a=sendonly"))).
				sip(1100, alice, bob, back.res(200, "INVITE", 1, sdpOf(aliceM, "a=recvonly"))).
				sip(1110, bob, alice, back.req("ACK", 1, "")).
				sip(2000, bob, alice, back.req("INVITE", 2, sdpOf(bobM, "a=sendrecv"))).
				sip(2100, alice, bob, back.res(200, "INVITE", 2, sdpOf(aliceM)))
		}, append(append([]string{}, onHold...), "2100 hold.end internal", "2100 "+streamA)},
		{"rejected re-INVITE", func(s *script) {
			s.sip(1000, bob, alice, back.req("INVITE", 1, sdpOf(moved))).
				sip(1100, alice, bob, back.res(491, "INVITE", 1, "")).sip(1110, bob, alice, back.req("ACK", 1, "")).
				rtp(1200, aliceM, bobM, "x").rtp(1201, bobM, aliceM, "y")
		}, nil},
		{"re-INVITE moves", func(s *script) {
			s.sip(1000, bob, alice, back.req("INVITE", 1, sdpOf(moved))).sip(1100, alice, bob, back.res(200, "INVITE", 1, sdpOf(aliceM)))
		}, movedAB},
		{"UPDATE moves", func(s *script) {
			s.sip(1000, bob, alice, back.req("UPDATE", 1, sdpOf(moved))).sip(1100, alice, bob, back.res(200, "UPDATE", 1, sdpOf(aliceM)))
		}, movedAB},
		{"UPDATE refused", func(s *script) {
			s.sip(1000, bob, alice, back.req("UPDATE", 1, sdpOf(moved))).sip(1100, alice, bob, back.res(488, "UPDATE", 1, ""))
		}, nil},
		{"re-INVITE without offer", func(s *script) {
			s.sip(1000, alice, bob, d1.req("INVITE", 2, "")).sip(1050, bob, alice, d1.res(200, "INVITE", 2, sdpOf(moved))).
				sip(1100, alice, bob, d1.req("ACK", 2, sdpOf(aliceM)))
		}, movedAB},
		{"nonsense instead of a description", func(s *script) {
			s.sip(1000, alice, bob, d1.req("UPDATE", 2, "rubbish")).sip(1050, bob, alice, d1.res(200, "UPDATE", 2, "rubbish"))
		}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newScript(t).call(d1)
			tt.add(s)
			s.sip(9000, alice, bob, d1.req("BYE", 9, ""))
			got := strings.Split(s.played(Config{}), "\n")
			want := strings.Join(append(append(append([]string{}, begin...), tt.want...), "9000 ended bye"), "\n")
			if g := strings.Join(got[:len(got)-1], "\n"); g != want {
				t.Errorf("got:\n%s\nwant:\n%s", g, want)
			}
		})
	}
}

func TestOfferInThe200(t *testing.T) {
	newScript(t).sip(0, alice, bob, d1.first(1, "")).
		sip(200, bob, alice, d1.res(200, "INVITE", 1, sdpOf(bobM))).
		sip(300, alice, bob, d1.req("ACK", 1, sdpOf(aliceM))).
		rtp(400, bobM, aliceM, "x").
		expect(Config{}, "200 answered", "300 "+streamA, "300 "+streamB, "400 ended capture-end", "rtp 0/1 rtcp 0/0")
}

func TestReliableProvisionalResponses(t *testing.T) {
	newScript(t).sip(0, alice, bob, d1.first(1, "")).
		sip(100, bob, alice, d1.res(183, "INVITE", 1, sdpOf(bobM))).
		sip(150, alice, bob, d1.req("PRACK", 2, sdpOf(aliceM))).
		sip(160, bob, alice, d1.res(200, "PRACK", 2, "")).
		sip(170, alice, bob, d1.req("UPDATE", 3, sdpOf(aliceM, "a=sendonly"))).
		sip(180, bob, alice, d1.res(200, "UPDATE", 3, sdpOf(bobM, "a=recvonly"))).
		sip(200, bob, alice, d1.res(200, "INVITE", 1, "")).
		expect(Config{}, "150 "+streamA+" early", "150 "+streamB+" early", "180 "+streamB+" silent early",
			"200 answered", "200 hold.start external", "200 "+streamA, "200 "+streamB+" silent", "200 ended capture-end", "rtp 0/0 rtcp 0/0")
}

func TestForkedEarlyDialogs(t *testing.T) {
	bob2, bob2M := dlg{"call-1", "a1", "b2"}, netip.MustParseAddrPort("10.0.0.6:8000")
	newScript(t).sip(0, alice, bob, d1.first(1, sdpOf(aliceM))).
		sip(100, bob, alice, d1.res(183, "INVITE", 1, sdpOf(bobM))).
		sip(120, bob, alice, bob2.res(183, "INVITE", 1, sdpOf(bob2M))).
		sip(200, bob, alice, d1.res(200, "INVITE", 1, "")). // it gave its answer reliably
		sip(210, bob, alice, bob2.res(200, "INVITE", 1, sdpOf(bob2M))).
		sip(220, alice, bob, bob2.req("ACK", 1, "")).sip(221, alice, bob, bob2.req("BYE", 2, "")).
		rtp(300, bobM, aliceM, "x").
		sip(400, alice, bob, d1.req("BYE", 2, "")).
		expect(Config{}, "100 "+streamA+" early", "100 "+streamB+" early",
			"120 stream 0 external 198.51.100.1:4000>10.0.0.6:8000 early", "120 stream 1 internal 10.0.0.6:8000>198.51.100.1:4000 early",
			"200 answered", "200 "+streamA, "200 "+streamB, "400 ended bye", "rtp 0/1 rtcp 0/0")
}

func TestCallsThatFail(t *testing.T) {
	ack := d1.req("ACK", 1, "")
	for _, tt := range []struct {
		name string
		s    *script
		want []string
	}{
		{"refused", newScript(t).sip(0, alice, bob, d1.first(1, sdpOf(aliceM))).sip(50, bob, alice, d1.res(486, "INVITE", 1, "")).sip(60, alice, bob, ack).
			sip(70, bob, alice, d1.res(486, "INVITE", 1, "")), []string{"50 ended failed", "rtp 0/0 rtcp 0/0"}},
		{"cancelled", newScript(t).sip(0, alice, bob, d1.first(1, sdpOf(aliceM))).sip(50, alice, bob, dlg{"call-1", "a1", ""}.req("CANCEL", 1, "")).
			sip(60, bob, alice, d1.res(200, "CANCEL", 1, "")).sip(70, bob, alice, d1.res(487, "INVITE", 1, "")), []string{"70 ended failed", "rtp 0/0 rtcp 0/0"}},
		{"CANCEL too late", newScript(t).sip(0, alice, bob, d1.first(1, sdpOf(aliceM))).sip(50, alice, bob, dlg{"call-1", "a1", ""}.req("CANCEL", 1, "")).
			sip(70, bob, alice, d1.res(200, "INVITE", 1, sdpOf(bobM))), []string{"70 answered", "70 " + streamA, "70 " + streamB, "70 ended capture-end", "rtp 0/0 rtcp 0/0"}},
		{"ringing at the end", newScript(t).sip(0, alice, bob, d1.first(1, sdpOf(aliceM))).sip(50, bob, alice, d1.res(180, "INVITE", 1, "")).
			udp(500, bob, alice, "\r\n\r\n"), []string{"50 ended failed", "rtp 0/0 rtcp 0/0"}},
		{
			"again with credentials", newScript(t).sip(0, alice, bob, d1.first(1, sdpOf(aliceM))).sip(50, bob, alice, d1.res(401, "INVITE", 1, "")).sip(60, alice, bob, ack).
				sip(100, alice, bob, d1.first(2, sdpOf(aliceM))).sip(170, bob, alice, d1.res(200, "INVITE", 2, sdpOf(bobM))).sip(900, alice, bob, d1.req("BYE", 3, "")),
			[]string{"50 ended failed", "rtp 0/0 rtcp 0/0", "170 answered", "170 " + streamA, "170 " + streamB, "900 ended bye", "rtp 0/0 rtcp 0/0"},
		},
		{"again, the refusal lost", newScript(t).sip(0, alice, bob, d1.first(1, sdpOf(aliceM))).sip(100, alice, bob, d1.first(2, sdpOf(aliceM))).
			sip(170, bob, alice, d1.res(404, "INVITE", 2, "")), []string{"0 ended failed", "rtp 0/0 rtcp 0/0", "170 ended failed", "rtp 0/0 rtcp 0/0"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.s.t = t
			tt.s.expect(Config{}, tt.want...)
		})
	}
}

// A relay that keeps Call-ID, tags and CSeq shows each message twice.
func TestBothLegsOfARelayedCall(t *testing.T) {
	relayM1, relayM2 := netip.MustParseAddrPort("203.0.113.9:20000"), netip.MustParseAddrPort("203.0.113.9:20002")
	// onward is the message on the other leg: another top Via.
	onward := func(m string) string { return strings.Replace(m, "branch=z9hG4bK", "branch=z9hG4bKrelayed", 1) }
	s := newScript(t).
		sip(0, alice, relay, d1.first(1, sdpOf(aliceM))).sip(1, relay, bob, onward(d1.first(1, sdpOf(relayM2)))).
		sip(100, bob, relay, onward(d1.res(180, "INVITE", 1, ""))).sip(101, relay, alice, d1.res(180, "INVITE", 1, "")).
		sip(200, bob, relay, onward(d1.res(200, "INVITE", 1, sdpOf(bobM)))).sip(201, relay, alice, d1.res(200, "INVITE", 1, sdpOf(relayM1))).
		sip(210, alice, relay, d1.req("ACK", 1, "")).sip(211, relay, bob, onward(d1.req("ACK", 1, ""))).
		rtp(300, aliceM, relayM1, "a").rtp(301, relayM2, bobM, "a").rtp(302, bobM, relayM2, "b").rtp(303, relayM1, aliceM, "b")
	hold, resumed := sdpOf(bobM, "a=sendonly"), sdpOf(relayM1, "a=sendonly")
	s.sip(1000, bob, relay, d1.swap().req("INVITE", 1, hold)).sip(1001, relay, alice, onward(d1.swap().req("INVITE", 1, resumed))).
		sip(1010, alice, relay, onward(d1.swap().res(200, "INVITE", 1, sdpOf(aliceM, "a=recvonly")))).
		sip(1011, relay, bob, d1.swap().res(200, "INVITE", 1, sdpOf(relayM2, "a=recvonly"))).
		sip(5000, bob, relay, d1.swap().req("BYE", 2, "")).sip(5001, relay, alice, onward(d1.swap().req("BYE", 2, "")))
	b, stats, err := s.run(Config{})
	if err != nil || len(b.calls) != 1 {
		t.Fatalf("%d calls, %v", len(b.calls), err)
	}
	s.expect(Config{}, "201 answered", "201 stream 0 external 198.51.100.1:4000>203.0.113.9:20000", "201 stream 1 internal 203.0.113.9:20000>198.51.100.1:4000",
		"1010 hold.start internal", "1010 stream 0 external 198.51.100.1:4000>203.0.113.9:20000 silent",
		"5000 ended bye", "rtp 1/1 rtcp 0/0")
	if stats.OrphanRTP != 2 {
		t.Errorf("%d orphans, want the 2 of the other leg", stats.OrphanRTP)
	}
}

func TestTwoCallsAreTwo(t *testing.T) {
	d2 := dlg{"call-2", "c1", "d1"}
	newScript(t).call(d1).
		sip(1000, alice, bob, d2.first(1, sdpOf(netip.AddrPortFrom(aliceM.Addr(), 4002)))).
		sip(1100, bob, alice, d2.res(200, "INVITE", 1, sdpOf(netip.AddrPortFrom(bobM.Addr(), 6002)))).
		rtp(1200, aliceM, bobM, "1").rtp(1201, netip.AddrPortFrom(aliceM.Addr(), 4002), netip.AddrPortFrom(bobM.Addr(), 6002), "2").
		sip(2000, alice, bob, d1.req("BYE", 2, "")).sip(3000, alice, bob, d2.req("BYE", 2, "")).
		expect(Config{}, "200 answered", "200 "+streamA, "200 "+streamB, "2000 ended bye", "rtp 1/0 rtcp 0/0",
			"1100 answered", "1100 stream 0 external 198.51.100.1:4002>10.0.0.5:6002", "1100 stream 1 internal 10.0.0.5:6002>198.51.100.1:4002",
			"3000 ended bye", "rtp 1/0 rtcp 0/0")
}

// The capture begins while the call goes on.
func TestCallsInProgress(t *testing.T) {
	onlyBob := []string{"0 stream 0 external invalid AddrPort>10.0.0.5:6000", "0 stream 1 internal 10.0.0.5:6000>invalid AddrPort"}
	onlyAlice := []string{"0 stream 0 external 198.51.100.1:4000>invalid AddrPort", "0 stream 1 internal invalid AddrPort>198.51.100.1:4000"}
	back := d1.swap()
	tests := []struct {
		name  string
		first func(s *script)
		want  []string
		rtp   string
	}{
		{
			"at the 200", func(s *script) { s.sip(0, bob, alice, d1.res(200, "INVITE", 1, sdpOf(bobM))) },
			append([]string{"0 answered"}, onlyBob...), "rtp 2/2",
		},
		{
			"at the ACK with the answer", func(s *script) { s.sip(0, alice, bob, d1.req("ACK", 1, sdpOf(aliceM))) },
			append([]string{"0 answered"}, onlyAlice...), "rtp 2/2",
		},
		{"at the offer in the 200", func(s *script) {
			s.sip(0, bob, alice, d1.res(200, "INVITE", 1, sdpOf(bobM))).sip(10, alice, bob, d1.req("ACK", 1, sdpOf(aliceM)))
		}, append(append([]string{"0 answered"}, onlyBob...), "10 "+streamA, "10 "+streamB), "rtp 2/2"},
		{"at a re-INVITE", func(s *script) {
			s.sip(0, bob, alice, back.req("INVITE", 7, sdpOf(bobM))).sip(10, alice, bob, back.res(200, "INVITE", 7, sdpOf(aliceM)))
		}, []string{"0 answered", "10 stream 0 external 10.0.0.5:6000>198.51.100.1:4000", "10 stream 1 internal 198.51.100.1:4000>10.0.0.5:6000"}, "rtp 2/2"},
		{"at an UPDATE", func(s *script) {
			s.sip(0, alice, bob, d1.req("UPDATE", 7, sdpOf(aliceM))).sip(10, bob, alice, d1.res(200, "UPDATE", 7, sdpOf(bobM)))
		}, []string{"0 answered", "10 " + streamA, "10 " + streamB}, "rtp 2/2"},
		{
			"at the 200 of an UPDATE", func(s *script) { s.sip(0, bob, alice, d1.res(200, "UPDATE", 7, sdpOf(bobM))) },
			append([]string{"0 answered"}, onlyBob...), "rtp 2/2",
		},
		{
			"on hold", func(s *script) { s.sip(0, bob, alice, d1.res(200, "INVITE", 1, sdpOf(bobM, "a=sendonly"))) },
			[]string{"0 answered", "0 hold.start internal", onlyBob[0] + " silent", onlyBob[1]},
			"rtp 2/2",
		},
		{"at the ACK", func(s *script) { s.sip(0, alice, bob, d1.req("ACK", 1, "")) }, []string{"0 answered"}, "rtp 0/0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newScript(t)
			tt.first(s)
			s.rtp(20, bobM, aliceM, "b").rtp(21, aliceM, bobM, "a").rtp(40, bobM, aliceM, "b").rtp(41, aliceM, bobM, "a").
				sip(900, alice, bob, d1.req("BYE", 9, ""))
			s.expect(Config{}, append(append([]string{}, tt.want...), "900 ended bye", tt.rtp+" rtcp 0/0")...)
		})
	}
	t.Run("at the 180", func(t *testing.T) {
		newScript(t).sip(0, bob, alice, d1.res(180, "INVITE", 1, "")).sip(100, bob, alice, d1.res(200, "INVITE", 1, sdpOf(bobM))).
			rtp(120, bobM, aliceM, "b").rtp(121, aliceM, bobM, "a").sip(900, bob, alice, back.req("BYE", 9, "")).
			expect(Config{}, "100 answered", strings.Replace(onlyBob[0], "0 ", "100 ", 1), strings.Replace(onlyBob[1], "0 ", "100 ", 1), "900 ended bye", "rtp 1/1 rtcp 0/0")
	})
	t.Run("at the BYE", func(t *testing.T) {
		newScript(t).rtp(0, aliceM, bobM, "a").sip(50, alice, bob, d1.req("BYE", 9, "")).sip(60, bob, alice, d1.res(200, "BYE", 9, "")).
			expect(Config{}, "50 answered", "50 ended bye", "rtp 0/0 rtcp 0/0")
	})
	t.Run("no call", func(t *testing.T) {
		_, stats, _ := newScript(t).sip(0, alice, bob, dlg{"r", "x", ""}.req("REGISTER", 9, "")).sip(60, bob, alice, d1.res(200, "BYE", 9, "")).run(Config{})
		if stats.Calls != 0 || stats.OtherDialogs != 2 {
			t.Errorf("%+v", stats)
		}
	})
}

// TestForksHaveTheirOwn: of two forks that have agreed, each on its own and also to
// offers of theirs, the media is that of the one that answers.
func TestForksHaveTheirOwn(t *testing.T) {
	bob2, bob2M := dlg{"call-1", "a1", "b2"}, netip.MustParseAddrPort("10.0.0.6:8000")
	moved := netip.MustParseAddrPort("10.0.0.5:6006")
	second := []string{"stream 0 external 198.51.100.1:4000>10.0.0.6:8000 early", "stream 1 internal 10.0.0.6:8000>198.51.100.1:4000 early"}
	for name, write := range map[string]func(s *script) []string{
		"the forks offer": func(s *script) []string {
			s.sip(0, alice, bob, d1.first(1, "")).
				sip(100, bob, alice, d1.res(183, "INVITE", 1, sdpOf(bobM))).
				sip(110, alice, bob, d1.req("PRACK", 2, sdpOf(aliceM))).
				sip(120, bob, alice, bob2.res(183, "INVITE", 1, sdpOf(bob2M))).
				sip(130, alice, bob, bob2.req("PRACK", 3, sdpOf(aliceM))).
				sip(200, bob, alice, d1.res(200, "INVITE", 1, ""))
			return []string{"110 " + streamA + " early", "110 " + streamB + " early", "130 " + second[0], "130 " + second[1], "200 answered", "200 " + streamA, "200 " + streamB}
		},
		"one moves by UPDATE": func(s *script) []string {
			back := d1.swap()
			s.sip(0, alice, bob, d1.first(1, sdpOf(aliceM))).
				sip(100, bob, alice, d1.res(183, "INVITE", 1, sdpOf(bobM))).
				sip(110, bob, alice, back.req("UPDATE", 7, sdpOf(moved))).
				sip(115, alice, bob, back.res(200, "UPDATE", 7, sdpOf(aliceM))).
				sip(120, bob, alice, bob2.res(183, "INVITE", 1, sdpOf(bob2M))).
				sip(200, bob, alice, d1.res(200, "INVITE", 1, ""))
			at := func(v string) string { return strings.Replace(v, "10.0.0.5:6000", moved.String(), 1) }
			return []string{
				"100 " + streamA + " early", "100 " + streamB + " early", "115 " + at(streamA) + " early", "115 " + at(streamB) + " early",
				"120 " + second[0], "120 " + second[1], "200 answered", "200 " + at(streamA), "200 " + at(streamB),
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t)
			want := write(s)
			s.sip(400, alice, bob, d1.req("BYE", 9, "")).expect(Config{}, append(want, "400 ended bye", "rtp 0/0 rtcp 0/0")...)
		})
	}
}

// TestUpdateWithinReinvite: an UPDATE that comes to nothing takes nothing from the
// re-INVITE around it.
func TestUpdateWithinReinvite(t *testing.T) {
	moved, other := netip.MustParseAddrPort("198.51.100.1:4004"), netip.MustParseAddrPort("198.51.100.1:4008")
	for _, status := range []int{200, 488} { // neither has an answer
		at := func(v string) string { return strings.Replace(v, "198.51.100.1:4000", moved.String(), 1) }
		newScript(t).call(d1).sip(300, alice, bob, d1.req("INVITE", 2, sdpOf(moved))).
			sip(310, bob, alice, d1.res(183, "INVITE", 2, sdpOf(bobM))).
			sip(320, alice, bob, d1.req("UPDATE", 4, sdpOf(other))).
			sip(330, bob, alice, d1.res(status, "UPDATE", 4, "")).
			sip(340, bob, alice, d1.res(200, "INVITE", 2, "")).
			sip(400, alice, bob, d1.req("BYE", 9, "")).
			expect(Config{}, "200 answered", "200 "+streamA, "200 "+streamB, "340 "+at(streamA), "340 "+at(streamB), "400 ended bye", "rtp 0/0 rtcp 0/0")
	}
}

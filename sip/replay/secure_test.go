package replay

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/srtp"
)

// secureScript writes one call twice: as it is, and with its media protected.
type secureScript struct {
	*script
	secure bool
	out    [2]*srtp.Protector
}

// keyed is a line of SDES whose key consists of one byte.
func keyed(tag uint32, suite srtp.Suite, b byte) srtp.Crypto {
	return srtp.Crypto{Tag: tag, Suite: suite, Keys: []srtp.MasterKey{{Key: srtp.NewKey(bytes.Repeat([]byte{b}, suite.KeyBytes()))}}}
}

// sdp describes a side's audio with the lines, when the call is protected.
func (s *secureScript) sdp(a netip.AddrPort, lines ...srtp.Crypto) string {
	body := sdpOf(a)
	if !s.secure {
		return body
	}
	for _, l := range (srtp.Media{Crypto: lines}).Attributes() {
		body += "a=" + l + "\r\n"
	}
	return strings.Replace(body, "RTP/AVP", "RTP/SAVP", 1)
}

// key lets a side protect with a line from now on.
func (s *secureScript) key(side media.Side, l srtp.Crypto) {
	s.t.Helper()
	k, err := srtp.NewKeys(l)
	if err == nil && s.out[side] == nil {
		s.out[side], err = srtp.NewProtector(k)
	} else if err == nil {
		err = s.out[side].Rekey(k, false)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// say writes a packet of RTP and, where its number is even, a report.
func (s *secureScript) say(ms int, side media.Side, text string) {
	s.t.Helper()
	src, dst := aliceM, bobM
	if side == media.Internal {
		src, dst = bobM, aliceM
	}
	packet, report := []byte(rtpPacket(uint16(65500+ms), text)), []byte(rtcpReport)
	if s.secure {
		var err error
		if packet, err = s.out[side].RTP(make([]byte, 200), packet); err == nil {
			report, err = s.out[side].RTCP(make([]byte, 200), report)
		}
		if err != nil {
			s.t.Fatal(err)
		}
	}
	s.udp(ms, src, dst, string(packet))
	if ms%2 == 0 {
		s.udp(ms, netip.AddrPortFrom(src.Addr(), src.Port()+1), netip.AddrPortFrom(dst.Addr(), dst.Port()+1), string(report))
	}
}

// TestSecure holds that a call whose keys are in its descriptions is reported as it
// would be without protection, over all that changes keys.
func TestSecure(t *testing.T) {
	const cm, gcm = srtp.AESCM128SHA1x80, srtp.AEADAES256GCM
	a1, a2, a3, b1, b2 := keyed(1, gcm, 1), keyed(2, cm, 2), keyed(2, cm, 3), keyed(2, cm, 4), keyed(2, cm, 5)
	ext, in := media.External, media.Internal
	for name, write := range map[string]func(s *secureScript){
		"offer and answer": func(s *secureScript) {
			s.sip(0, alice, bob, d1.first(1, s.sdp(aliceM, a1, a2)))
			s.sip(200, bob, alice, d1.res(200, "INVITE", 1, s.sdp(bobM, b1)))
			s.key(ext, a2)
			s.key(in, b1)
		},
		"late offer": func(s *secureScript) {
			s.sip(0, alice, bob, d1.first(1, ""))
			s.sip(200, bob, alice, d1.res(200, "INVITE", 1, s.sdp(bobM, a1, b1)))
			s.sip(210, alice, bob, d1.req("ACK", 1, s.sdp(aliceM, a2)))
			s.key(ext, a2)
			s.key(in, b1)
		},
		"forks": func(s *secureScript) {
			s.sip(0, alice, bob, d1.first(1, s.sdp(aliceM, a1, a2)))
			s.sip(100, bob, alice, dlg{d1.callID, d1.from, "other"}.res(183, "INVITE", 1, s.sdp(bobM, b2)))
			s.key(ext, a2)
			s.key(in, b2)
			s.say(120, in, "early")
			s.sip(200, bob, alice, d1.res(200, "INVITE", 1, s.sdp(bobM, b1)))
			s.key(in, b1)
		},
		"new keys": func(s *secureScript) {
			s.sip(0, alice, bob, d1.first(1, s.sdp(aliceM, a2)))
			s.sip(200, bob, alice, d1.res(200, "INVITE", 1, s.sdp(bobM, b1)))
			s.key(ext, a2)
			s.key(in, b1)
			s.say(301, ext, "before")
			s.sip(310, alice, bob, d1.req("INVITE", 2, s.sdp(aliceM, a3)))
			s.say(312, ext, "meanwhile")
			s.sip(320, bob, alice, d1.res(200, "INVITE", 2, s.sdp(bobM, b2)))
			s.say(322, ext, "under way")
			s.key(ext, a3)
			s.key(in, b2)
		},
		"new keys refused": func(s *secureScript) {
			s.sip(0, alice, bob, d1.first(1, s.sdp(aliceM, a2)))
			s.sip(200, bob, alice, d1.res(200, "INVITE", 1, s.sdp(bobM, b1)))
			s.key(ext, a2)
			s.key(in, b1)
			s.say(301, ext, "before")
			s.sip(310, alice, bob, d1.req("INVITE", 2, s.sdp(aliceM, a3)))
			s.sip(320, bob, alice, d1.res(488, "INVITE", 2, ""))
			s.sip(330, bob, alice, d1.swap().req("UPDATE", 7, s.sdp(bobM, b2)))
			s.sip(340, alice, bob, d1.swap().res(488, "UPDATE", 7, ""))
		},
	} {
		t.Run(name, func(t *testing.T) {
			var logs [2]string
			for i, secure := range []bool{false, true} {
				s := &secureScript{script: newScript(t), secure: secure}
				if !secure {
					s.key(ext, a2) // not used
				}
				write(s)
				for ms := 400; ms < 500; ms += 10 { // the sequence numbers wrap before
					s.say(ms, ext, fmt.Sprint("out ", ms))
					s.say(ms+1, in, fmt.Sprint("in ", ms))
				}
				s.sip(600, alice, bob, d1.req("BYE", 3, ""))
				b, stats, err := s.run(Config{})
				if err != nil || stats.Undecrypted != 0 || len(b.calls) != 1 || len(b.calls[0].log) == 0 {
					t.Fatal(err, stats.Undecrypted, len(b.calls))
				}
				c := b.calls[0]
				logs[i] = strings.Join(slices.Concat(c.log, c.streams[0].seen, c.streams[1].seen), "\n") + fmt.Sprint(c.rtp, c.rtcp)
			}
			if logs[0] != logs[1] || !strings.Contains(logs[0], "in 490") {
				t.Errorf("without protection:\n%s\nwith:\n%s", logs[0], logs[1])
			}
		})
	}
}

// TestSecureUndecodable holds what is said of media whose keys the capture does not
// hold, or not all: nothing that was not authenticated is taken.
func TestSecureUndecodable(t *testing.T) {
	line := keyed(1, srtp.AESCM128SHA1x80, 7)
	attr := "a=" + (srtp.Media{Crypto: []srtp.Crypto{line}}).Attributes()[0]
	foreign := "a=crypto:1 F8_128_HMAC_SHA1_80 inline:MTIzNDU2Nzg5QUJDREUwMTIzNDU2Nzg5QUJjZGVm"
	for name, tc := range map[string]struct {
		attrs [2]string
		want  string
		lost  int64
	}{
		"a suite that is not known": {[2]string{foreign, foreign}, " secure", 0},
		"keys of DTLS":              {[2]string{"a=fingerprint:sha-256 " + strings.Repeat("00:", 31) + "00", "a=fingerprint:sha-256 " + strings.Repeat("00:", 31) + "00"}, " secure", 0},
		"answered without":          {[2]string{attr, "a=x"}, "", 0},
		"in clear all the same":     {[2]string{attr, attr}, "", 2},
	} {
		s := newScript(t).sip(0, alice, bob, d1.first(1, sdpOf(aliceM, tc.attrs[0]))).
			sip(200, bob, alice, d1.res(200, "INVITE", 1, sdpOf(bobM, tc.attrs[1]))).
			rtp(300, aliceM, bobM, "a").rtp(301, bobM, aliceM, "b").
			sip(600, alice, bob, d1.req("BYE", 3, ""))
		b, stats, err := s.run(Config{})
		if err != nil {
			t.Fatal(err)
		}
		log := strings.Join(b.calls[0].log, "\n")
		if stats.Undecrypted != tc.lost || stats.RTP != 2-tc.lost || !strings.Contains(log, streamA+tc.want+"\n") {
			t.Errorf("%s: %d not decrypted, %d taken\n%s", name, stats.Undecrypted, stats.RTP, log)
		}
	}
}

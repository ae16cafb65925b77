package siptest

import (
	"bytes"
	"context"
	"slices"
	"testing"
	"time"
)

// TestSRTP holds that two agents understand each other under each suite, over new
// keys in mid-call and over the wrap of the sequence numbers.
func TestSRTP(t *testing.T) {
	for suite := range sdesSuites {
		t.Run(suite, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context, p pair) {
				want := &SRTP{Suites: []string{"AES_CM_128_HMAC_SHA1_32", suite}}
				only := &SRTP{Suites: []string{suite}, Must: true}
				p.b.Script(func(in *Incoming) { in.Run(Answer{Offer: Offer{SRTP: only}, Play: DTX()}) })
				ac, bc := p.connect(t, ctx, CallOptions{Offer: Offer{SRTP: want}})
				time.Sleep(time.Second)
				bc.Media().Play(Tone(440, 0.5))
				for _, renew := range []bool{false, true} {
					ac.Media().Jump(uint16(65530-int(ac.Media().seq())), 0)
					time.Sleep(time.Second)
					if err := ac.Reinvite(ctx, Offer{SRTP: &SRTP{Suites: []string{suite}, Renew: renew}}); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Second)
				}
				if err := ac.Bye(ctx); err != nil {
					t.Fatal(err)
				}
				time.Sleep(lingerTime)
				wantSame(t, "a to b", ac, bc)
				wantSame(t, "b to a", bc, ac)
				for _, c := range []*Call{ac, bc} {
					if got, ok := c.Media().Secured(); !ok || got != suite || c.Media().Undecrypted() != 0 {
						t.Errorf("%s %v, %d not decrypted", got, ok, c.Media().Undecrypted())
					}
					if slices.ContainsFunc(c.Media().Sent(), func(p Packet) bool { return len(p.Secure) <= len(p.Wire) || bytes.Contains(p.Secure, p.Wire[12:]) }) {
						t.Error("a packet left in clear")
					}
				}
				if n := len(ac.Media().Keys()); n < 3 {
					t.Errorf("%d keys", n)
				}
			})
		})
	}
}

// seq is the sequence number of the next packet.
func (m *Media) seq() uint16 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.out.seq
}

// TestSRTPRefusals holds what an agent does with a description without keys.
func TestSRTPRefusals(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context, p pair) {
		if _, err := p.a.Call(ctx, p.b.URI(), p.b.Addr(), CallOptions{Offer: Offer{SRTP: &SRTP{}}}); err == nil {
			t.Error("an agent without SRTP took RTP/SAVP")
		}
		p.b.Script(func(in *Incoming) { in.Run(Answer{Offer: Offer{SRTP: &SRTP{Must: true}}}) })
		if _, err := p.a.Call(ctx, p.b.URI(), p.b.Addr(), CallOptions{}); err == nil {
			t.Error("an agent that must have SRTP took RTP/AVP")
		}
		p.b.Script(func(in *Incoming) { in.Run(Answer{}) })
		ac, bc := p.connect(t, ctx, CallOptions{Offer: Offer{SRTP: &SRTP{Profile: "RTP/AVP"}}})
		time.Sleep(time.Second)
		if _, ok := ac.Media().Secured(); ok {
			t.Error("nobody answered with keys")
		}
		if err := bc.Bye(ctx); err != nil {
			t.Fatal(err)
		}
		wantSame(t, "a to b", ac, bc)
	})
}

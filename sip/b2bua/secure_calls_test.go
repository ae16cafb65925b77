package b2bua

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/srtp"
	"github.com/trunktap/trunktap/sip/siptest"
	"github.com/trunktap/trunktap/suppress"
)

// wiretap keeps what the recorder of one call gets.
type wiretap struct {
	mu      sync.Mutex
	streams []media.Stream
	packets [2][][]byte
	causes  []media.Cause
	refused [2]uint32
	signals []suppress.Signal
}

func (w *wiretap) SessionStarted(context.Context, media.Session) (media.SessionTap, error) {
	return w, nil
}

func (w *wiretap) StreamStarted(s media.Stream) media.Tap {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.streams = append(w.streams, s)
	return wiretapSide{w, s.Side}
}

func (w *wiretap) StreamEnded(media.StreamID, time.Time) {}
func (w *wiretap) Answered(time.Time)                    {}

func (w *wiretap) Signal(s suppress.Signal) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.signals = append(w.signals, s)
}

func (w *wiretap) Ended(_ time.Time, c media.Cause) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.causes = append(w.causes, c)
}

type wiretapSide struct {
	w    *wiretap
	side media.Side
}

func (s wiretapSide) Put(_ time.Time, wire []byte) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.w.packets[s.side] = append(s.w.packets[s.side], slices.Clone(wire))
}

// Refused implements relay.Refuser.
func (s wiretapSide) Refused(_ time.Time, n uint32) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.w.refused[s.side] += n
}

// secureCalls is a bench whose parties are agents that speak SDES.
type secureCalls struct {
	*bench
	carrier, pbx *siptest.Agent
	tap          *wiretap
}

func inSecureBubble(t *testing.T, cfg *srtp.Config, f func(ctx context.Context, w *secureCalls), edits ...func(*Config)) {
	t.Helper()
	tap := &wiretap{}
	inBubble(t, func(c *Config) {
		c.Trunks[0].SRTP, c.Observer = cfg, tap
		for _, edit := range edits {
			edit(c)
		}
	}, func(b *bench) {
		b.a.close() // their addresses are for the agents
		b.p.close()
		w := &secureCalls{bench: b, carrier: agentAt(b.t, b.net, carrier), pbx: agentAt(b.t, b.net, pbx), tap: tap}
		ctx, cancel := context.WithTimeout(b.t.Context(), 5*time.Minute)
		defer cancel()
		f(ctx, w)
		for _, a := range []*siptest.Agent{w.carrier, w.pbx} {
			if err := a.Close(); err != nil {
				b.t.Error(err)
			}
		}
		synctest.Wait()
		if n := w.b.Calls(); n != 0 {
			b.t.Errorf("%d calls left", n)
		}
	})
}

// call makes a call inwards in which both speak when it is answered: what a party sends
// beside its answer may come before it, and there are no keys for it then.
func (w *secureCalls) call(ctx context.Context, from, to siptest.Offer) (a, p *siptest.Call) {
	w.t.Helper()
	w.pbx.Script(func(in *siptest.Incoming) {
		in.Run(siptest.Answer{Offer: to, Ring: 100 * time.Millisecond, Play: siptest.DTX()})
	})
	a, err := w.carrier.Start(ctx, "sip:desk@192.0.2.1", outside, siptest.CallOptions{Offer: from})
	if err != nil {
		w.t.Fatal(err)
	}
	a.Media().Play(siptest.DTX())
	if err := a.Wait(ctx); err != nil {
		w.t.Fatal(err)
	}
	if p, err = w.pbx.Accept(ctx); err != nil {
		w.t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond)
	a.Media().Play(siptest.Tone(440, 0.5))
	p.Media().Play(siptest.Tone(1000, 0.5))
	time.Sleep(300 * time.Millisecond)
	return a, p
}

// wantWhole says whether all that each side sent came to the other and to the recorder,
// and that as it was before it was protected. It ends the call.
func (w *secureCalls) wantWhole(ctx context.Context, a, p *siptest.Call) {
	w.t.Helper()
	time.Sleep(300 * time.Millisecond)
	a.Media().Play(siptest.DTX()) // nothing is under way when the call ends
	p.Media().Play(siptest.DTX())
	time.Sleep(100 * time.Millisecond)
	if err := a.Bye(ctx); err != nil {
		w.t.Error(err)
	}
	time.Sleep(time.Second)
	for side, c := range [2][2]*siptest.Call{media.External: {a, p}, media.Internal: {p, a}} {
		sent, got := plainWires(c[0].Media().Sent()), plainWires(c[1].Media().Received())
		if len(sent) < 25 || !slices.EqualFunc(sent, got, bytes.Equal) {
			w.t.Errorf("%s side: sent %d packets, %d came to the other, or not the same", media.Side(side), len(sent), len(got))
		}
		if rec := w.tap.packets[side]; !slices.EqualFunc(sent, rec, bytes.Equal) {
			w.t.Errorf("%s side: sent %d packets, the recorder got %d, or not the same", media.Side(side), len(sent), len(rec))
		}
		if n := c[1].Media().Undecrypted(); n != 0 {
			w.t.Errorf("%s side: %d packets that the other cannot decrypt", media.Side(side), n)
		}
	}
	if s := w.relay.Totals(); s.Undecrypted != 0 || s.Unprotected != 0 {
		w.t.Errorf("%d packets were not decrypted, %d not protected", s.Undecrypted, s.Unprotected)
	}
}

func plainWires(packets []siptest.Packet) (out [][]byte) {
	for _, p := range packets {
		out = append(out, p.Wire)
	}
	return out
}

// sdesOf is an offer or an answer with keys.
func sdesOf(suites ...string) siptest.Offer {
	return siptest.Offer{SRTP: &siptest.SRTP{Suites: suites}}
}

func renewed(suites ...string) siptest.Offer {
	return siptest.Offer{SRTP: &siptest.SRTP{Suites: suites, Renew: true}}
}

const (
	gcm256 = "AEAD_AES_256_GCM"
	gcm128 = "AEAD_AES_128_GCM"
	cm80   = "AES_CM_128_HMAC_SHA1_80"
	cm32   = "AES_CM_128_HMAC_SHA1_32"
	cm256  = "AES_256_CM_HMAC_SHA1_80"
)

func policies(ext, in srtp.Policy, pass bool) *srtp.Config {
	return &srtp.Config{Sides: [2]srtp.SideConfig{media.External: {Policy: ext}, media.Internal: {Policy: in}}, Pass: pass}
}

// secureCases are the trunks of the tests with what their parties do.
var secureCases = map[string]struct {
	cfg      *srtp.Config
	from, to siptest.Offer
	suites   [2]string // agreed on with each side; "": plain
	passed   bool
}{
	"plain to plain":       {nil, siptest.Offer{}, siptest.Offer{}, [2]string{}, false},
	"SDES to plain":        {policies(srtp.Required, srtp.Off, false), sdesOf(cm80), siptest.Offer{}, [2]string{cm80, ""}, false},
	"plain to SDES":        {policies(srtp.Off, srtp.Required, false), siptest.Offer{}, sdesOf(gcm128), [2]string{"", gcm128}, false},
	"SDES, other suites":   {policies(srtp.Required, srtp.Required, false), sdesOf(cm32), sdesOf(gcm256), [2]string{cm32, gcm256}, false},
	"SDES, one suite":      {policies(srtp.Required, srtp.Required, false), sdesOf(cm80), sdesOf(cm80), [2]string{cm80, cm80}, false},
	"passed":               {policies(srtp.Required, srtp.Required, true), sdesOf(gcm256, cm80), sdesOf(cm80), [2]string{cm80, cm80}, true},
	"passed, optional":     {policies(srtp.Optional, srtp.Optional, true), sdesOf(cm256), sdesOf(cm256), [2]string{cm256, cm256}, true},
	"optional takes keys":  {policies(srtp.Off, srtp.Optional, false), siptest.Offer{}, sdesOf(gcm256), [2]string{"", gcm256}, false},
	"optional takes none":  {policies(srtp.Required, srtp.Optional, false), sdesOf(cm80), siptest.Offer{}, [2]string{cm80, ""}, false},
	"best effort of party": {policies(srtp.Optional, srtp.Off, false), siptest.Offer{SRTP: &siptest.SRTP{Profile: "RTP/AVP"}}, siptest.Offer{}, [2]string{cm80, ""}, false},
}

// TestSecureCalls lets all that changes in a call go over each kind of trunk: nothing
// may be lost, and the recorder gets what it would get of a plain call.
func TestSecureCalls(t *testing.T) {
	for name, tc := range secureCases {
		t.Run(name, func(t *testing.T) {
			inSecureBubble(t, tc.cfg, func(ctx context.Context, w *secureCalls) {
				a, p := w.call(ctx, tc.from, tc.to)
				steps := []struct {
					what string
					do   func() error
				}{
					{"hold", func() error { return a.Hold(ctx, siptest.HoldSendOnly) }},
					{"resume", func() error { return a.Resume(ctx) }},
					{"hold of the PBX", func() error { return p.Hold(ctx, siptest.HoldInactive) }},
					{"resume of the PBX", func() error { return p.Resume(ctx) }},
					{"session refresh", func() error { return p.Reinvite(ctx, siptest.Offer{}) }},
					{"new keys of the carrier", func() error { return a.Reinvite(ctx, w.renew(a)) }},
					{"new keys of the PBX by UPDATE", func() error { return p.Update(ctx, w.renew(p)) }},
					{"new source", func() error { a.Media().NewSSRC(); return nil }},
					{"wrap", func() error { w.wrap(p); return nil }},
					{"counter goes on over a re-INVITE", func() error { return a.Reinvite(ctx, siptest.Offer{}) }},
					{"counter goes on under new keys", func() error { return p.Reinvite(ctx, w.renew(p)) }},
					{"late offer", func() error { return a.Reinvite(ctx, siptest.Offer{NoSDP: true}) }},
				}
				for _, s := range steps {
					if err := s.do(); err != nil {
						w.t.Fatalf("%s: %v", s.what, err)
					}
					time.Sleep(time.Second)
				}
				for side, c := range [2]*siptest.Call{a, p} {
					if got, _ := c.Media().Secured(); got != tc.suites[side] {
						w.t.Errorf("%s side: %q", media.Side(side), got)
					}
				}
				if same := sharedKeys(a, p); same != tc.passed {
					w.t.Errorf("the parties share keys: %v", same)
				}
				for _, s := range w.tap.streams {
					if s.Secure {
						w.t.Errorf("the recorder is told that %s is protected", s.Side)
					}
				}
				w.wantWhole(ctx, a, p)
			})
		})
	}
}

// renew is an offer with new keys of a party that has some.
func (w *secureCalls) renew(c *siptest.Call) siptest.Offer {
	suite, ok := c.Media().Secured()
	if !ok {
		return siptest.Offer{}
	}
	return renewed(suite)
}

// wrap brings a party's sequence numbers to the last ones, by steps that no receiver
// takes for steps back.
func (w *secureCalls) wrap(c *siptest.Call) {
	for range 8 {
		sent := c.Media().Sent()
		last := sent[len(sent)-1].Wire
		c.Media().Jump(min(65530-(uint16(last[2])<<8|uint16(last[3])), 10_000), 0)
		time.Sleep(40 * time.Millisecond)
	}
}

// sharedKeys says whether the parties have a key in common.
func sharedKeys(a, b *siptest.Call) bool {
	return slices.ContainsFunc(a.Media().Keys(), func(k []byte) bool {
		return slices.ContainsFunc(b.Media().Keys(), func(o []byte) bool { return bytes.Equal(k, o) })
	})
}

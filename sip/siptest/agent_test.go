package siptest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/trunktap/trunktap/media/mediatest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair is two agents on one network.
type pair struct{ a, b *Agent }

func newPair(t *testing.T, a, b Config) pair {
	t.Helper()
	a.Name, b.Name = "alice", "bob"
	return pair{mustAgent(t, a), mustAgent(t, b)}
}

func mustAgent(t *testing.T, cfg Config) *Agent {
	t.Helper()
	agent, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := agent.Close(); err != nil {
			t.Error(err)
		}
	})
	return agent
}

// memory gives the configurations of two agents on a network in memory.
func memory() (*mediatest.Net, Config, Config) {
	n := mediatest.NewNet(1)
	listen := func(at netip.AddrPort) (Conn, error) { return n.Listen(at) }
	return n, Config{Addr: netip.MustParseAddrPort("192.0.2.1:5060"), Listen: listen},
		Config{Addr: netip.MustParseAddrPort("192.0.2.2:5060"), Listen: listen}
}

// bubble runs f with two agents in a bubble of synctest.
func bubble(t *testing.T, f func(t *testing.T, ctx context.Context, p pair)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		_, a, b := memory()
		f(t, t.Context(), newPair(t, a, b))
	})
}

// connect makes a call from a to b.
func (p pair) connect(t *testing.T, ctx context.Context, opts CallOptions) (ac, bc *Call) {
	t.Helper()
	ac, err := p.a.Call(ctx, p.b.URI(), p.b.Addr(), opts)
	if err != nil {
		t.Fatal(err)
	}
	if bc, err = p.b.Accept(ctx); err != nil {
		t.Fatal(err)
	}
	return ac, bc
}

func wires(packets []Packet) [][]byte {
	var out [][]byte
	for _, p := range packets {
		if !p.RTCP {
			out = append(out, p.Wire)
		}
	}
	return out
}

// wantSame says whether all that from sent came to to, byte for byte, in order.
func wantSame(t *testing.T, name string, from, to *Call) {
	t.Helper()
	sent, got := wires(from.Media().Sent()), wires(to.Media().Received())
	if len(sent) == 0 || !slices.EqualFunc(sent, got, bytes.Equal) {
		t.Errorf("%s: sent %d packets, received %d, or not the same", name, len(sent), len(got))
	}
}

func TestCallOnLoopback(t *testing.T) {
	for name, cfg := range map[string]Config{
		"udp":      {},
		"tcp":      {Transport: "tcp"},
		"udp ipv6": {Addr: netip.MustParseAddrPort("[::1]:0")},
		"tcp ipv6": {Transport: "tcp", Addr: netip.MustParseAddrPort("[::1]:0")},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, cfg, cfg)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			ac, bc := p.connect(t, ctx, CallOptions{})
			ac.Media().Play(Tone(440, 0.5))
			if err := ac.Media().SendDigits(ctx, "1"); err != nil {
				t.Fatal(err)
			}
			if err := ac.Hold(ctx, HoldSendOnly); err != nil {
				t.Fatal(err)
			}
			if bc.Media().Sending() {
				t.Error("the held side sends")
			}
			if err := ac.Resume(ctx); err != nil {
				t.Fatal(err)
			}
			if err := bc.Bye(ctx); err != nil {
				t.Fatal(err)
			}
			<-ac.Done()
			if err := p.a.Close(); err != nil {
				t.Fatal(err)
			}
			if err := p.b.Close(); err != nil {
				t.Fatal(err)
			}
			// Some packets may be under way in the sockets when they close.
			sent, got := wires(ac.Media().Sent()), wires(bc.Media().Received())
			if len(got) < 10 || len(sent)-len(got) > 2 || !slices.EqualFunc(sent[:len(got)], got, bytes.Equal) {
				t.Errorf("sent %d packets, received %d, or not the same", len(sent), len(got))
			}
		})
	}
}

func TestCallInMemory(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context, p pair) {
		p.b.Script(func(in *Incoming) { in.Run(Answer{Ring: 3 * time.Second, Play: Tone(880, 0.5)}) })
		start := time.Now()
		ac, bc := p.connect(t, ctx, CallOptions{Headers: []Header{{"X-Queue", "sales"}}})
		if d := time.Since(start); d != 3*time.Second {
			t.Errorf("answered after %s", d)
		}
		if got := p.b.Requests()[0].Get("X-Queue"); got != "sales" {
			t.Errorf("X-Queue %q", got)
		}
		ac.Media().Play(Tone(440, 0.5))
		time.Sleep(10 * time.Second)
		if err := ac.Bye(ctx); err != nil {
			t.Fatal(err)
		}
		<-bc.Done()
		if err := errors.Join(ac.Err(), bc.Err()); err != nil {
			t.Error(err)
		}
		wantSame(t, "a to b", ac, bc)
		wantSame(t, "b to a", bc, ac)
		// One packet each 20 ms from 0 to 10 s, the last one beside the BYE.
		if n := len(ac.Media().Sent()); n < 500 || n > 501 {
			t.Errorf("%d packets in 10 s", n)
		}
		for i, pkt := range ac.Media().Sent() {
			if want := ac.Media().Sent()[0].At.Add(time.Duration(i) * 20 * time.Millisecond); !pkt.At.Equal(want) {
				t.Fatalf("packet %d at %s, want %s", i, pkt.At, want)
			}
		}
	})
}

func TestHold(t *testing.T) {
	for _, tc := range []struct {
		kind   HoldKind
		aSends bool
		bSends bool
	}{{HoldSendOnly, true, false}, {HoldInactive, false, false}, {HoldRecvOnly, false, true}, {HoldZero, false, false}} {
		t.Run(string(tc.kind), func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context, p pair) {
				ac, bc := p.connect(t, ctx, CallOptions{})
				if err := ac.Hold(ctx, tc.kind); err != nil {
					t.Fatal(err)
				}
				if got := [2]bool{ac.Media().Sending(), bc.Media().Sending()}; got != [2]bool{tc.aSends, tc.bSends} {
					t.Errorf("sending %v", got)
				}
				time.Sleep(time.Second)
				before := len(bc.Media().Sent())
				time.Sleep(time.Second)
				if n := len(bc.Media().Sent()) - before; (n > 0) != tc.bSends {
					t.Errorf("the held side sent %d packets", n)
				}
				if err := ac.Resume(ctx); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second + ptime/2) // what is sent at the very instant of the BYE may be lost
				if !ac.Media().Sending() || !bc.Media().Sending() {
					t.Error("not sending after resume")
				}
				if err := bc.Bye(ctx); err != nil {
					t.Fatal(err)
				}
				wantSame(t, "a to b", ac, bc)
			})
		})
	}
}

func TestTimestampGoesOnThroughHold(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context, p pair) {
		ac, bc := p.connect(t, ctx, CallOptions{})
		time.Sleep(time.Second)
		if err := ac.Hold(ctx, HoldInactive); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if err := ac.Resume(ctx); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		sent := bc.Media().Sent()
		first := sent[0]
		for i, s := range sent {
			ticks := int(s.At.Sub(first.At) / ptime)
			ts := binary.BigEndian.Uint32(s.Wire[4:]) - binary.BigEndian.Uint32(first.Wire[4:])
			if int(ts) != ticks*ptimeSamples {
				t.Fatalf("packet %d after %d packet times has timestamp +%d", i, ticks, ts)
			}
			if seq := binary.BigEndian.Uint16(s.Wire[2:]) - binary.BigEndian.Uint16(first.Wire[2:]); int(seq) != i {
				t.Fatalf("packet %d has sequence number +%d", i, seq)
			}
		}
		if span := sent[len(sent)-1].At.Sub(first.At); span < 3*time.Second || len(sent) > 110 {
			t.Errorf("%d packets in %s", len(sent), span)
		}
	})
}

func TestReject(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context, p pair) {
		p.b.Script(func(in *Incoming) { in.Run(Answer{Reject: 486, Reason: "Busy Here"}) })
		_, err := p.a.Call(ctx, p.b.URI(), p.b.Addr(), CallOptions{})
		var rejected *RejectedError
		if !errors.As(err, &rejected) || rejected.Response.Code != 486 {
			t.Fatalf("error %v", err)
		}
		time.Sleep(40 * time.Second)
		n := 0
		for _, tr := range p.b.Traces() {
			if tr.Sent && bytes.HasPrefix(tr.Raw, []byte("SIP/2.0 486")) {
				n++
			}
		}
		if n != 1 {
			t.Errorf("486 was sent %d times though it was acknowledged", n)
		}
	})
}

func TestCancel(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context, p pair) {
		bCalls := make(chan *Call, 1)
		p.b.Script(func(in *Incoming) {
			bCalls <- in.Call()
			in.Run(Answer{Ring: time.Minute})
		})
		c, err := p.a.Start(ctx, p.b.URI(), p.b.Addr(), CallOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Cancel(ctx); err != nil {
			t.Fatal(err)
		}
		var rejected *RejectedError
		if err := c.Wait(ctx); !errors.As(err, &rejected) || rejected.Response.Code != 487 {
			t.Errorf("caller: %v", err)
		}
		bc := <-bCalls
		<-bc.Done()
		if !errors.Is(bc.Err(), ErrCancelled) {
			t.Errorf("callee: %v", bc.Err())
		}
	})
}

func TestNobodyAnswers(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context, p pair) {
		start := time.Now()
		_, err := p.a.Call(ctx, "sip:nobody@192.0.2.99", netip.MustParseAddrPort("192.0.2.99:5060"), CallOptions{})
		if !errors.Is(err, ErrTimeout) || time.Since(start) != 32*time.Second {
			t.Errorf("after %s: %v", time.Since(start), err)
		}
		// 0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5 s (RFC 3261 section 17.1.1.2)
		if n := len(p.a.Traces()); n != 7 {
			t.Errorf("INVITE was sent %d times", n)
		}
	})
}

// TestLossySignalling: with a third of all packets lost, calls still come about
// and end, because both sides repeat themselves.
func TestLossySignalling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, b := memory()
		n.Impair(netip.Addr{}, netip.Addr{}, mediatest.Impairment{Loss: 0.33, Delay: 30 * time.Millisecond})
		p := newPair(t, a, b)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		for range 5 {
			ac, bc := p.connect(t, ctx, CallOptions{})
			if err := ac.Hold(ctx, HoldSendOnly); err != nil {
				t.Fatal(err)
			}
			if err := bc.Bye(ctx); err != nil {
				t.Fatal(err)
			}
			select {
			case <-ac.Done():
			case <-ctx.Done():
				t.Fatal("the BYE never came")
			}
		}
	})
}

func TestDialogRequests(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context, p pair) {
		ac, bc := p.connect(t, ctx, CallOptions{})
		body := []byte("Signal=5\r\nDuration=160\r\n")
		if err := errors.Join(
			ac.Info(ctx, "application/dtmf-relay", body, Header{"X-A", "b"}),
			ac.Message(ctx, "text/plain", []byte("hello")),
			ac.Refer(ctx, "sip:carol@192.0.2.3"),
			ac.Options(ctx),
			ac.Update(ctx, Offer{Direction: SendOnly}),
			bc.Notify(ctx, "SIP/2.0 200 OK"),
		); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, m := range bc.Requests() {
			got = append(got, m.Method)
		}
		if d := cmp.Diff([]string{"ACK", "INFO", "MESSAGE", "REFER", "OPTIONS", "UPDATE"}, got); d != "" {
			t.Error(d)
		}
		if info := bc.Requests()[1]; string(info.Body) != string(body) || info.Get("X-A") != "b" {
			t.Errorf("INFO came as %q", info.Bytes())
		}
		if bc.Media().Sending() {
			t.Error("sending after UPDATE with sendonly")
		}
		bc.OnRequest(func(*Message) *Message { return &Message{Code: 415, Reason: "Unsupported Media Type"} })
		var rejected *RejectedError
		if err := ac.Info(ctx, "x/y", nil); !errors.As(err, &rejected) || rejected.Response.Code != 415 {
			t.Errorf("INFO: %v", err)
		}
		r, err := p.a.Options(ctx, p.b.URI(), p.b.Addr())
		if err != nil || r.Code != 200 {
			t.Errorf("OPTIONS: %v, %v", r, err)
		}
		if r, err = p.a.Message(ctx, p.b.URI(), p.b.Addr(), "text/plain", []byte("x")); err != nil || r.Code != 200 {
			t.Errorf("MESSAGE: %v, %v", r, err)
		}
	})
}

func TestDialog(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context, p pair) {
		ac, bc := p.connect(t, ctx, CallOptions{})
		tag := func(c *Call, header string) string { return Param(c.invite.Get(header), "tag") }
		// What bob may put into Replaces names alice's tag as hers (RFC 3891 section 6.1).
		if want := ac.ID() + ";to-tag=" + tag(ac, "From") + ";from-tag=" + bc.localTag; bc.Dialog() != want {
			t.Errorf("the callee says %q, want %q", bc.Dialog(), want)
		}
		if want := ac.ID() + ";to-tag=" + bc.localTag + ";from-tag=" + tag(ac, "From"); ac.Dialog() != want {
			t.Errorf("the caller says %q, want %q", ac.Dialog(), want)
		}
	})
}

func TestEarlyMediaAndReliableProvisional(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context, p pair) {
		p.b.Script(func(in *Incoming) {
			in.Run(Answer{Ring: 2 * time.Second, Early: true, Reliable: true, Play: Tone(425, 0.3)})
		})
		ac, bc := p.connect(t, ctx, CallOptions{Reliable: true})
		if n := len(ac.Media().Received()); n < 100 {
			t.Errorf("%d packets of early media in 2 s", n)
		}
		if got := bc.Requests()[0]; got.Method != "PRACK" || got.Get("RAck") != "1 1 INVITE" {
			t.Errorf("first request %s, RAck %q", got.Method, got.Get("RAck"))
		}
		var codes []int
		for _, r := range ac.Responses() {
			codes = append(codes, r.Code)
		}
		if d := cmp.Diff([]int{100, 183}, codes); d != "" {
			t.Error(d)
		}
	})
}

func TestLateOffer(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context, p pair) {
		ac, bc := p.connect(t, ctx, CallOptions{Offer: Offer{NoSDP: true}})
		time.Sleep(time.Second)
		if err := ac.Reinvite(ctx, Offer{NoSDP: true}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second + ptime/2) // nobody sends at the moment of the BYE
		if err := ac.Bye(ctx); err != nil {
			t.Fatal(err)
		}
		wantSame(t, "a to b", ac, bc)
		wantSame(t, "b to a", bc, ac)
	})
}

func TestGlare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, b := memory()
		n.Impair(netip.Addr{}, netip.Addr{}, mediatest.Impairment{Delay: 20 * time.Millisecond})
		p := newPair(t, a, b)
		ac, bc := p.connect(t, t.Context(), CallOptions{})
		errs := make(chan error, 2)
		go func() { errs <- ac.Hold(t.Context(), HoldSendOnly) }()
		go func() { errs <- bc.Hold(t.Context(), HoldSendOnly) }()
		for range 2 {
			var rejected *RejectedError
			if err := <-errs; !errors.As(err, &rejected) || rejected.Response.Code != 491 {
				t.Errorf("%v", err)
			}
		}
	})
}

func TestCodecSwitch(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context, p pair) {
		ac, bc := p.connect(t, ctx, CallOptions{})
		time.Sleep(time.Second)
		if err := ac.Reinvite(ctx, Offer{Codecs: []Codec{PCMA}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		for name, c := range map[string]*Call{"a": ac, "b": bc} {
			got := c.Media().Received()
			if first, last := got[0].Wire[1]&0x7f, got[len(got)-1].Wire[1]&0x7f; first != 0 || last != 8 {
				t.Errorf("%s received payload types from %d to %d", name, first, last)
			}
		}
	})
}

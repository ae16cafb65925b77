package b2bua

import (
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	cryptorand "crypto/rand"

	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/dialog"
)

// Requests of our own that belong to no call: pings and registrations. Each is
// asked by a goroutine that waits for the answer.

// asking is such a request: responses to it come by in.
type asking struct{ in chan *sip.Message }

// asksMax bounds requests of our own that wait for an answer, responses those of one
// that wait to be read.
const (
	asksMax   = 4096
	responses = 8
)

// randomHex returns n random bytes in hex.
func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = cryptorand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// lone begins a request of our own outside of a dialog. Via, From and Contact are
// completed when it is known where it goes.
func (b *B2BUA) lone(method, uri string) *sip.Message {
	m := &sip.Message{Method: method, URI: uri}
	m.Add("Via", "")
	m.Add("Max-Forwards", "70")
	m.Add("From", "")
	m.Add("To", "<"+uri+">")
	m.Add("Call-ID", randomHex(16))
	m.Add("CSeq", "1 "+method)
	m.Add("Contact", "")
	return m
}

// transact sends a request and returns its final response. The error is that of
// ctx when nobody answers in time. advertise is our address in Via, if valid.
func (b *B2BUA) transact(ctx context.Context, m *sip.Message, flow sip.Flow, advertise netip.Addr) (*sip.Message, error) {
	ours, flow, err := b.agent.Local(flow, advertise)
	if err != nil {
		return nil, err
	}
	id, a, err := b.ask()
	if err != nil {
		return nil, err
	}
	defer b.asked(id)
	b.address(m, ours, flow, id)
	failed := make(chan error, 1)
	send := func(m *sip.Message) error {
		return b.agent.Send(m, flow, func(err error) {
			select {
			case failed <- err:
			default:
			}
		})
	}
	cl := dialog.NewClient(m, flow, time.Now())
	if err := send(m); err != nil {
		return nil, err
	}
	timer := time.NewTimer(time.Until(cl.Deadline()))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("no answer: %w", ctx.Err())
		case err := <-failed:
			return nil, err
		case res := <-a.in:
			if cl.Matches(res) {
				if pass, _ := cl.Receive(res, time.Now()); pass && res.Status >= 200 {
					return res, nil
				}
			}
		case now := <-timer.C:
			again, timedOut := cl.Due(now)
			if timedOut {
				return nil, context.DeadlineExceeded
			}
			if again != nil {
				if err := send(again); err != nil {
					return nil, err
				}
			}
		}
		timer.Reset(time.Until(cl.Deadline()))
	}
}

// address completes a request of our own for its way.
func (b *B2BUA) address(m *sip.Message, ours netip.AddrPort, flow sip.Flow, id uint64) {
	host := ours.Addr().WithZone("").String()
	m.SetVia(sip.Via{
		Transport: strings.ToUpper(flow.Network), Host: host, Port: int(ours.Port()),
		Params: sip.Params(";rport;branch=" + branchOf(id, 1)),
	})
	uri := contactURI(sip.URI{Scheme: "sip"}, ours, flow.Network)
	if m.Get("From") == "" {
		m.Set("From", "<"+uri+">;tag="+randomHex(8))
	}
	if m.Get("Contact") == "" {
		m.Set("Contact", "<"+uri+">")
	}
}

// ask registers a request of our own.
func (b *B2BUA) ask() (uint64, *asking, error) {
	id, a := rand.Uint64()|1, &asking{in: make(chan *sip.Message, responses)}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.asks) >= asksMax {
		return 0, nil, fmt.Errorf("%d requests of our own wait for an answer already", asksMax)
	}
	b.asks[id] = a
	return id, a, nil
}

func (b *B2BUA) asked(id uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.asks, id)
}

// take takes a response; one that is not read in time is lost, as on a wire.
func (a *asking) take(res *sip.Message) {
	select {
	case a.in <- res:
	default:
	}
}

package b2bua

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip"
)

// Times of registrations.
const (
	registerWait    = 10 * time.Second // for an answer
	unregisterWait  = 2 * time.Second  // for that at the end
	registerAgain   = 5 * time.Second  // after the first failure, twice as long after the next
	registerAgainTo = 5 * time.Minute
	registerLeast   = 30 * time.Second // between refreshes, whatever the registrar says
)

// RegistrationStatus is what is known of one registration.
type RegistrationStatus struct {
	Trunk      string
	Side       media.Side
	Server     sip.NextHop
	Registered bool
	Expires    time.Time // zero: not registered
	Failed     uint64
	Reason     string // of the last failure; empty: the last attempt succeeded
}

// registration keeps up the binding of one side at its registrar (RFC 3261 section
// 10.2). One goroutine owns it.
type registration struct {
	b     *B2BUA
	side  sip.Side
	stop  context.CancelFunc
	done  chan struct{} // closed when it has ended
	after chan struct{} // closed when the one before it has; nil: there is none

	callID string // of the goroutine, as the rest
	tag    string
	seq    uint32
	gained []*sip.Challenge // answered

	mu     sync.Mutex
	status RegistrationStatus // guarded by mu
}

var errUnauthorized = errors.New("credentials refused")

// registrations begins those of the trunks and ends those that are no more. One that
// takes the place of another begins when that has taken its binding away. b.mu is held.
func (b *B2BUA) registrations(trunks []sip.Trunk) {
	old := b.registered
	b.registered = nil
	for i := range trunks {
		for side, s := range trunks[i].Sides {
			if s.Register == nil || s.Auth == nil {
				continue
			}
			r := &registration{b: b, side: s, callID: randomHex(16), tag: randomHex(8), done: make(chan struct{})}
			r.status = RegistrationStatus{Trunk: trunks[i].Name, Side: media.Side(side), Server: s.Register.Server}
			at := slices.IndexFunc(old, func(o *registration) bool { return o.status.Trunk == r.status.Trunk && o.status.Side == r.status.Side })
			switch {
			case at >= 0 && old[at].same(s):
				r = old[at]
				old = slices.Delete(slices.Clone(old), at, at+1)
				b.registered = append(b.registered, r)
				continue
			case at >= 0:
				r.after = old[at].done
			}
			ctx, stop := context.WithCancel(b.background)
			r.stop = stop
			b.registered = append(b.registered, r)
			b.helpers.Go(func() { defer close(r.done); r.run(ctx) })
		}
	}
	for _, r := range old {
		r.stop()
	}
}

// same says whether a side's binding is the one that r keeps up.
func (r *registration) same(s sip.Side) bool {
	return *r.side.Register == *s.Register && *r.side.Auth == *s.Auth && r.side.Address == s.Address && r.side.TLS == s.TLS
}

// Registrations returns what is known of the registrations of the trunks.
func (b *B2BUA) Registrations() []RegistrationStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []RegistrationStatus
	for _, r := range b.registered {
		r.mu.Lock()
		out = append(out, r.status)
		r.mu.Unlock()
	}
	return out
}

// run registers until ctx ends, and then takes the binding away.
func (r *registration) run(ctx context.Context) {
	if r.after != nil {
		<-r.after
	}
	again := registerAgain
	for ctx.Err() == nil {
		granted, err := r.register(ctx, r.side.Register.Expires)
		if ctx.Err() != nil {
			break
		}
		r.note(granted, err)
		wait := max(granted*8/10, registerLeast)
		if err != nil {
			wait = again/2 + time.Duration(rand.Int64N(int64(again)))
			again = min(2*again, registerAgainTo)
		} else {
			again = registerAgain
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
		case <-timer.C:
		}
	}
	if r.status.Registered { // nobody but us writes it
		last, cancel := context.WithTimeout(context.Background(), unregisterWait)
		defer cancel()
		_, _ = r.register(last, 0) // it expires by itself if nobody hears
	}
}

// note keeps how it went, and logs changes.
func (r *registration) note(granted time.Duration, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, was := &r.status, r.status
	s.Registered = err == nil || s.Registered && time.Now().Before(s.Expires)
	s.Reason = ""
	if err == nil {
		s.Expires = time.Now().Add(granted)
	} else {
		s.Failed++
		s.Reason = err.Error()
	}
	log := r.b.cfg.Log.With("trunk", s.Trunk, "side", s.Side, "server", s.Server.String())
	switch {
	case err != nil && was.Reason == "":
		log.Error("not registered", "error", err)
	case err == nil && (was.Reason != "" || !was.Registered):
		log.Info("registered", "expires", granted)
	}
}

// register asks for a binding of so long, with credentials where they are wanted, and
// returns for how long it was given.
func (r *registration) register(ctx context.Context, expires time.Duration) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, registerWait)
	defer cancel()
	flows, err := r.b.agent.Resolve(ctx, r.side.Register.Server)
	if err != nil {
		return 0, err
	}
	r.b.admitFlows(r.status.Trunk, r.status.Side, flows)
	for tries := 0; ; tries++ {
		flow := flows[0]
		flow.TLS = r.side.TLS
		m, err := r.request(flow, expires)
		if err != nil {
			return 0, err
		}
		res, err := r.b.transact(ctx, m, flow, r.side.Address)
		switch {
		case err != nil && len(flows) > 1 && ctx.Err() == nil:
			flows = flows[1:]
			continue
		case err != nil:
			return 0, err
		case res.Status < 300:
			return granted(m, res, expires), nil
		case tries >= answersMax:
		case res.Status == 423:
			if n, err := strconv.ParseUint(strings.TrimSpace(res.Get("Min-Expires")), 10, 31); err == nil {
				expires = time.Duration(n) * time.Second
				continue
			}
		case res.Status == 401, res.Status == 407:
			if ch := sip.ChallengeOf(res, r.side.Auth.Realm); ch != nil && r.take(ch, tries) {
				continue
			}
			return 0, errUnauthorized
		}
		return 0, fmt.Errorf("answered with %d", res.Status)
	}
}

// take notes a challenge; false when it was answered already.
func (r *registration) take(ch *sip.Challenge, tries int) bool {
	for i, old := range r.gained {
		if old.Proxy == ch.Proxy {
			r.gained[i] = ch
			return tries == 0 || ch.Stale()
		}
	}
	r.gained = append(r.gained, ch)
	return true
}

// request makes the next REGISTER.
func (r *registration) request(flow sip.Flow, expires time.Duration) (*sip.Message, error) {
	ours, flow, err := r.b.agent.Local(flow, r.side.Address)
	if err != nil {
		return nil, err
	}
	reg, auth := r.side.Register, r.side.Auth
	m := r.b.lone(sip.Register, reg.Server.URI(""))
	r.seq++
	aor := "<" + sip.NextHop{Host: reg.Server.Host}.URI(auth.Username) + ">"
	m.Set("From", aor+";tag="+r.tag)
	m.Set("To", aor)
	m.Set("Call-ID", r.callID)
	m.Set("CSeq", fmt.Sprintf("%d %s", r.seq, sip.Register))
	user := reg.Contact
	if user == "" {
		user = auth.Username
	}
	m.Set("Contact", "<"+contactURI(sip.URI{Scheme: "sip", User: user}, ours, flow.Network)+">")
	m.Add("Expires", strconv.Itoa(int(expires/time.Second)))
	for _, ch := range r.gained {
		if err := ch.Authorize(m, *auth); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// granted reads for how long a registrar keeps a binding: what it says of the
// Contact, else the least that it says of others, else Expires, else what was asked for.
func granted(req, res *sip.Message, asked time.Duration) time.Duration {
	best := time.Duration(-1)
	own, _ := addressOf(req.Get("Contact"))
	for _, v := range res.List("Contact") {
		a, err := sip.ParseAddress(v)
		if err != nil {
			continue
		}
		if a.URI == own {
			best = -1
		}
		if p, ok := a.Param("expires"); ok {
			if n, err := strconv.ParseUint(p, 10, 31); err == nil && (best < 0 || time.Duration(n)*time.Second < best) {
				best = time.Duration(n) * time.Second
			}
		}
		if a.URI == own {
			break // those of others are none of ours
		}
	}
	if best >= 0 {
		return best
	}
	if n, err := strconv.ParseUint(strings.TrimSpace(res.Get("Expires")), 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	return asked
}

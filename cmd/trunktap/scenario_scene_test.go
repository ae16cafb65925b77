package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip/siptest"
	"github.com/trunktap/trunktap/suppress"
)

// scene is a contact centre: a carrier, the daemon, a PBX and phones. The PBX
// is played by the script, which says what is heard on each of its legs.
type scene struct {
	t   *testing.T
	ctx context.Context
	d   *liveDaemon

	carrier *siptest.Agent // outside
	pbx     *siptest.Agent // the PBX to the trunk
	inner   *siptest.Agent // the PBX to the phones; nil without a trunk of theirs
	phones  *siptest.Agent

	session  string           // Session-ID (RFC 7989) of all legs; "": none
	start    time.Time        // the first call was answered by then
	now      time.Time        // of the present step
	latest   int              // the present step
	answer   step             // of the latest call
	played   time.Time        // when a voice was changed last
	steps    map[int]step     // when they were taken, by ms
	legs     []*leg           // that go on
	trunk    *leg             // the first call of the trunk
	headers  []siptest.Header // of the next INVITE
	faults   []string
	stalls   []string  // what was so late that the recordings may differ
	exchange *exchange // nil: no PBX tells anything
}

// leg is a call through the daemon that ends at the PBX.
type leg struct {
	s        *scene
	far, pbx *siptest.Call // far: the carrier's or the phone's end
	mouths   map[*siptest.Call]mouth
}

// Places of the parties on loopback; each scenario has as many addresses.
const (
	placeDaemon = iota
	placeCarrier
	placePBX
	placeSwitch
	placePhones
	placesPerScene

	placesFirst = 6
)

// step is when something was done: a request was sent and answered in between.
type step struct{ first, last time.Time }

// newScene writes the configuration of a scenario and opens its agents.
func newScene(t *testing.T, sc scenario, place int) *scene {
	t.Helper()
	s := &scene{t: t, ctx: t.Context(), steps: map[int]step{}, session: fmt.Sprintf("%032x", place+1)}
	addr := func(n int) netip.Addr {
		return liveAddr(byte(placesFirst + place*placesPerScene + n))
	}
	agent := func(name string, n int) *siptest.Agent {
		return liveAgent(t, siptest.Config{Name: name, Addr: netip.AddrPortFrom(addr(n), 0)})
	}
	s.carrier, s.pbx = agent("customer", placeCarrier), agent("pbx", placePBX)
	host := addr(placeDaemon)
	side := func(a *siptest.Agent) liveSide {
		return liveSide{Peer: a.Addr().Addr(), NextHop: "sip:" + a.Addr().String(), Media: host}
	}
	cfg := liveConfig{
		Listen: []string{"udp://" + freeUDP(t, host).String()}, More: sc.config,
		Lookback: "1500ms", // a busy machine makes packets and signals late
		Trunks:   []liveTrunkConfig{{Name: "trunk", Format: recorder.FormatWAVPCM16, Recording: sc.keys, Sides: [2]liveSide{side(s.carrier), side(s.pbx)}}},
	}
	if sc.phones != nil {
		s.inner, s.phones = agent("pbx", placeSwitch), agent("phone", placePhones)
		cfg.Trunks = append(cfg.Trunks, liveTrunkConfig{
			Name: "phones", Role: "phones", Format: recorder.FormatWAVPCM16, Recording: sc.phones, Sides: [2]liveSide{side(s.inner), side(s.phones)},
		})
	}
	if sc.feeds != nil {
		cfg.More += sc.feeds(s)
	}
	s.d = newLiveDaemon(t, cfg)
	return s
}

// run plays the script to its end; the calls are over then.
func (s *scene) run(script func(*scene)) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	s.ctx = ctx
	script(s)
	for _, l := range s.legs {
		s.ok(l.far.Bye(s.ctx))
		s.transit(l.far, l.pbx)
		s.transit(l.pbx, l.far)
	}
}

// faultf notes what is wrong with a recording; the harness itself fails by ok.
func (s *scene) faultf(format string, args ...any) {
	s.faults = append(s.faults, fmt.Sprintf(format, args...))
}

func (s *scene) ok(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// at waits for a moment of the scenario and makes it the present step.
func (s *scene) at(ms int) {
	planned := s.start.Add(time.Duration(ms) * time.Millisecond)
	time.Sleep(time.Until(planned))
	time.Sleep(time.Until(s.played.Add(2 * packetTime))) // nothing of the voice before is on the wire
	s.begin(ms, time.Now())
	s.stall("a step", s.now.Sub(planned)-2*packetTime)
}

// begin makes a moment the step of the scenario at ms.
func (s *scene) begin(ms int, at time.Time) {
	s.now, s.latest = at, ms
	s.steps[ms] = step{at, at}
}

// done notes that a request of the present step was answered just now.
func (s *scene) done() {
	s.steps[s.latest] = step{s.now, time.Now()}
	s.stall("an answer", time.Since(s.now)-stepTakes)
}

// did is done with a request that has to be answered.
func (s *scene) did(err error) {
	s.t.Helper()
	s.ok(err)
	s.done()
}

// answered makes the answer of the latest call the step of the scenario at ms.
func (s *scene) answered(ms int) {
	s.begin(ms, s.answer.first)
	s.steps[ms] = s.answer
}

// almost waits until a little before a moment: what changes its voice there has
// none of the old one on the wire when the moment comes.
func (s *scene) almost(ms int) {
	time.Sleep(time.Until(s.start.Add(time.Duration(ms)*time.Millisecond - 2*packetTime)))
	s.begin(between, time.Now())
}

const (
	packetTime = 20 * time.Millisecond
	between    = -1 // the step of what belongs to none

	eventPayloadType = 101                    // of the agents' digits
	digitLasts       = 100 * time.Millisecond // each of them
	digitEvery       = 180 * time.Millisecond
)

// when is the time of a step; of another moment so long after the answer.
func (s *scene) when(ms int) step {
	if st, ok := s.steps[ms]; ok {
		return st
	}
	after := time.Duration(ms) * time.Millisecond
	return step{s.steps[0].first.Add(after), s.steps[0].last.Add(after)}
}

// inbound is a call of the customer that the PBX answers with the voice of
// pbx. The signals are given while it rings.
func (s *scene) inbound(pbx hz, ringing ...suppress.Signal) *leg {
	s.t.Helper()
	return s.connect(s.carrier, s.pbx, "sip:1000@", customer, pbx, ringing)
}

// outbound is a call from the PBX to an external party.
func (s *scene) outbound(agent, party hz, ringing ...suppress.Signal) *leg {
	s.t.Helper()
	return s.connect(s.pbx, s.carrier, "sip:+4930123@", agent, party, ringing)
}

// pickup is a call from the PBX to a user's phone, which answers at a moment of
// the scenario. Nil where the phones are not seen.
func (s *scene) pickup(ms int, user string, speaks hz, hears ...hz) *leg {
	s.t.Helper()
	time.Sleep(time.Until(s.start.Add(time.Duration(ms)*time.Millisecond - ringTime)))
	var l *leg
	if s.inner != nil {
		l = s.connect(s.inner, s.phones, "sip:"+user+"@", 0, speaks, nil)
		s.answered(ms)
		l.hears(hears...)
	} else {
		s.at(ms)
	}
	return l
}

// dial is a call from a user's phone that the PBX answers. Nil where the phones
// are not seen.
func (s *scene) dial(user string, speaks, hears hz, ringing ...suppress.Signal) *leg {
	s.t.Helper()
	if s.inner == nil {
		return nil
	}
	phone := liveAgent(s.t, siptest.Config{Name: user, Addr: netip.AddrPortFrom(s.phones.Addr().Addr(), 0)})
	return s.connect(phone, s.inner, "sip:2000@", speaks, hears, ringing)
}

func (s *scene) connect(from, to *siptest.Agent, target string, calling, called hz, ringing []suppress.Signal) *leg {
	s.t.Helper()
	caller, callee := mouth{}, mouth{}
	arrived := make(chan struct{}) // the daemon knows the call then
	accepted := make(chan time.Time, 1)
	to.Script(func(in *siptest.Incoming) {
		close(arrived)
		in.Call().Media().Play(callee.says(called))
		_ = in.Progress(180, "Ringing", false, false) // only a reliable one can fail
		time.Sleep(ringTime)
		accepted <- time.Now()
		in.Accept()
	})
	opts := siptest.CallOptions{Headers: s.headers}
	s.headers = nil
	if s.session != "" {
		opts.Headers = append(opts.Headers, siptest.Header{Name: "Session-ID", Value: s.session + ";remote=" + strings.Repeat("0", 32)})
	}
	out, err := from.Start(s.ctx, target+s.d.via().String(), s.d.via(), opts)
	s.ok(err)
	out.Media().Play(caller.says(calling))
	if len(ringing) > 0 {
		select {
		case <-arrived:
		case <-s.ctx.Done():
			s.t.Fatal("the call does not arrive")
		}
		s.now = time.Now()
		for _, sig := range ringing {
			sig.SIPCall = out.ID()
			s.post(sig)
		}
	}
	s.ok(out.Wait(s.ctx))
	s.answer = step{<-accepted, time.Now()}
	s.stall("the answer of a call", s.answer.last.Sub(s.answer.first)-stepTakes)
	if s.start.IsZero() {
		s.answered(0)
		s.start = s.answer.last
	}
	in, err := to.Accept(s.ctx)
	s.ok(err)
	if in.ID() != out.ID() {
		s.t.Fatal("the calls were mixed up")
	}
	l := &leg{s: s, far: out, pbx: in, mouths: map[*siptest.Call]mouth{out: caller, in: callee}}
	if from == s.pbx || from == s.inner {
		l.far, l.pbx = in, out
	}
	s.legs = append(s.legs, l)
	if s.trunk == nil && (from == s.carrier || to == s.carrier) {
		s.trunk = l
	}
	return l
}

const ringTime = 150 * time.Millisecond

// arrived waits until the last packet of one end, which sends no more, has come
// to the other: what is on its way when the call ends may be in its recording or not.
func (l *leg) arrived(from, to *siptest.Call) {
	sent := from.Media().Sent()
	if len(sent) == 0 {
		return
	}
	number := func(p siptest.Packet) []byte { return p.Wire[2:4] } // of its sequence
	last := number(sent[len(sent)-1])
	ctx, cancel := context.WithTimeout(l.s.ctx, time.Second) // it may be lost on hold
	defer cancel()
	for seen := 0; ctx.Err() == nil; time.Sleep(time.Millisecond) {
		got := to.Media().Received()
		for ; seen < len(got); seen++ {
			if bytes.Equal(number(got[seen]), last) {
				return
			}
		}
	}
}

// hold puts the phone's side of a leg on hold, in both directions.
func (l *leg) hold() {
	if l != nil {
		l.s.did(l.far.Hold(l.s.ctx, siptest.HoldInactive))
	}
}

// wait puts the far end on hold, and resume takes it back.
func (l *leg) wait() {
	l.s.did(l.pbx.Hold(l.s.ctx, siptest.HoldSendOnly))
}

func (l *leg) resume() {
	l.s.did(l.pbx.Resume(l.s.ctx))
}

// types dials digits at one end in the present step and makes what follows the
// steps at which the first of them begins and the last one ends.
func (l *leg) types(end *siptest.Call, digits string, begin, over int) {
	l.s.t.Helper()
	from := time.Now()
	l.s.did(end.Media().SendDigits(l.s.ctx, digits))
	first := step{from, from}
	for _, p := range end.Media().Sent() {
		if p.Wire[1]&0x7f == eventPayloadType && p.At.After(from) {
			first.last = p.At
			break
		}
	}
	lasts := time.Duration(len(digits)-1)*digitEvery + digitLasts
	l.s.steps[begin], l.s.steps[over] = first, step{first.first.Add(lasts), first.last.Add(lasts)}
}

// hears is what the PBX plays to the far end from now on; nothing: silence.
func (l *leg) hears(tones ...hz) {
	if l != nil {
		l.play(l.pbx, tones)
	}
}

// speaks is what the far end says from now on.
func (l *leg) speaks(tones ...hz) {
	if l != nil {
		l.play(l.far, tones)
	}
}

// play changes a voice as part of the present step, and not before it: a packet
// under way may be of a time before its sending.
func (l *leg) play(c *siptest.Call, tones []hz) {
	if l.s.latest != between {
		time.Sleep(time.Until(l.s.now.Add(2 * packetTime)))
	}
	c.Media().Play(l.mouths[c].says(tones...))
	l.s.played = time.Now()
	l.s.done()
}

// signal reports a state of the leg's call as of the present step. It waits for
// its effect; what else belongs to the step is done before.
func (l *leg) signal(sig suppress.Signal) {
	if l == nil {
		return
	}
	l.s.t.Helper()
	sig.SIPCall = l.far.ID()
	l.s.post(sig)
}

// event is signal with an event that needs no more.
func (l *leg) event(e suppress.Event) { l.signal(suppress.Signal{Event: e}) }

// refuses holds that a signal is answered with a refusal.
func (l *leg) refuses(sig suppress.Signal) {
	l.s.t.Helper()
	sig.SIPCall = l.far.ID()
	if _, err := l.s.tryPost(sig); err == nil || !strings.Contains(err.Error(), `"code":"refused"`) {
		l.s.faultf("signal %s, which is to be refused: %v", sig.Event, err)
	}
}

func (s *scene) post(sig suppress.Signal) {
	s.t.Helper()
	if _, err := s.tryPost(sig); err != nil {
		s.faultf("signal %s: %v", sig.Event, err)
	}
}

// tryPost reports a signal by the API as of the present step; one with a time of its own keeps it.
func (s *scene) tryPost(sig suppress.Signal) (recorder.Applied, error) {
	if sig.At.IsZero() {
		sig.At = s.now
	}
	var got recorder.Applied
	id := sig.SIPCall
	sig.SIPCall = ""
	err := s.d.do(http.MethodPost, "/v1/calls/by-sip-call-id/"+id+"/signals", sig, &got)
	return got, err
}

// bye ends the leg's call at the present step, from outside or from the phone.
func (l *leg) bye() {
	if l == nil {
		return
	}
	l.s.t.Helper()
	l.hangUp(l.far)
}

// hangUp is bye by one of the two ends.
func (l *leg) hangUp(end *siptest.Call) {
	l.s.t.Helper()
	l.far.Media().Halt()
	l.pbx.Media().Halt()
	l.arrived(l.far, l.pbx)
	l.arrived(l.pbx, l.far)
	l.s.did(end.Bye(l.s.ctx))
	l.s.transit(l.far, l.pbx)
	l.s.transit(l.pbx, l.far)
	for i, other := range l.s.legs {
		if other == l {
			l.s.legs = append(l.s.legs[:i], l.s.legs[i+1:]...)
			return
		}
	}
}

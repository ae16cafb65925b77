package src

import (
	"cmp"
	"slices"

	"github.com/trunktap/trunktap/media"
)

// spansMax bounds what is listed of one side of a fork.
const spansMax = 128

// Why audio was not sent.
const (
	UnsentNoServer = "no_server" // none had taken the call, or the one that had was given up
	UnsentUntaken  = "untaken"   // the server does not take this side
	UnsentBehind   = "behind"    // more waited than may wait, for a server that was there
	UnsentEnded    = "ended"     // the call, and with it the session, ended before it was due
	UnsentError    = "error"     // the system did not send the packet
	UnsentRestart  = "restart"   // silence that stands for what nobody heard while the daemon was not there
)

// Span is what became of the audio of one side between two positions. Where nothing
// was to be sent, in windows, a span goes on.
type Span struct {
	Side         media.Side
	FromMS, ToMS int64
	Server       string // that it was sent to, by its name in the list
	Unsent       string // why it was not; empty: it was
}

// Account is what became of the audio of a fork. Sent means that it left: UDP does not
// say what arrives.
type Account struct {
	Sent, Unsent [2]int64 // ms of each side
	Spans        []Span   // in order of their beginnings
	More         int      // spans that are not listed
	WaitsMS      int64    // position of the oldest audio that waits; negative: none does
	Settled      bool     // the fork is over: nothing of it will change
}

// ledger keeps the account of one fork.
type ledger struct {
	sent, unsent [2]int64
	spans        [2][]Span
	beyond       [2]Span // what would be the latest span, were there room
	more         int
	settled      bool
	flying       int    // packets that are being sent
	changes      uint64 // spans that were begun
}

func (l *ledger) note(side int, fromMS, toMS int64, server, unsent string) {
	if toMS <= fromMS {
		return
	}
	total := &l.sent[side]
	if unsent != "" {
		total, server = &l.unsent[side], ""
	}
	*total += toMS - fromMS
	l.lay(Span{media.Side(side), fromMS, toMS, server, unsent})
}

// lay makes the latest span of a side longer, or adds one.
func (l *ledger) lay(s Span) {
	list := l.spans[s.Side]
	n := len(list)
	if l.beyond[s.Side].ToMS > 0 {
		list, n = l.beyond[s.Side:s.Side+1], 1
	}
	switch {
	case n > 0 && list[n-1].extends(s):
		list[n-1].ToMS = max(list[n-1].ToMS, s.ToMS)
	case n > 1 && list[n-2].extends(s) && s.ToMS <= list[n-1].FromMS: // it was on its way when what follows was given up
		list[n-2].ToMS = max(list[n-2].ToMS, s.ToMS)
	case len(l.spans[s.Side]) < spansMax:
		l.spans[s.Side] = append(list, s)
		l.changes++
	default:
		l.beyond[s.Side] = s
		l.more++
		l.changes++
	}
}

func (s Span) extends(by Span) bool { return s.Server == by.Server && s.Unsent == by.Unsent }

// lost notes audio of both sides that is given up.
func (l *ledger) lost(fromMS, toMS int64, why string) {
	for side := range l.spans {
		l.note(side, fromMS, toMS, "", why)
	}
}

// account returns what is known so far.
func (l *ledger) account() Account {
	a := Account{Sent: l.sent, Unsent: l.unsent, More: l.more, WaitsMS: -1, Settled: l.settled && l.flying == 0}
	a.Spans = slices.Concat(l.spans[0], l.spans[1])
	slices.SortStableFunc(a.Spans, func(x, y Span) int { return cmp.Or(cmp.Compare(x.FromMS, y.FromMS), cmp.Compare(x.Side, y.Side)) })
	return a
}

// Account returns what became of the audio so far.
func (f *Fork) Account() Account {
	f.mu.Lock()
	defer f.mu.Unlock()
	o := &f.out
	a := o.ledger.account()
	switch {
	case len(o.pcm[0]) > 0:
		a.WaitsMS = o.pcmMS
	case len(o.blocks) > 0:
		a.WaitsMS = o.blocks[0].realMS
	}
	return a
}

// Changes counts the spans of the account that were begun.
func (f *Fork) Changes() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.out.ledger.changes
}

// Settled says whether the account is final.
func (f *Fork) Settled() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.out.ledger.settled && f.out.ledger.flying == 0
}

// settle gives up what waits: the call is over, and so is its copy.
func (f *Fork) settle(why string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	o := &f.out
	o.dropPCM(why)
	for len(o.blocks) > 0 {
		o.drop(why)
	}
	o.ledger.settled = true
}

// drop gives the oldest block up and returns its length in ms.
func (o *outlet) drop(why string) int64 {
	from := o.blocks[0].realMS
	ms := o.shift()
	o.ledger.lost(from, from+ms, why)
	return ms
}

// dropPCM gives up what is no packet yet.
func (o *outlet) dropPCM(why string) {
	if len(o.pcm[0]) > 0 {
		o.ledger.lost(o.pcmMS, o.endMS, why)
	}
	o.pcm = [2][]int16{}
}

// wrote notes what became of packets of a fork.
func (f *Fork) wrote(packets []packet, failed []bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := &f.out.ledger
	l.flying -= len(packets)
	for i, p := range packets {
		why := ""
		if failed[i] {
			why = UnsentError
		}
		l.note(p.side, p.fromMS, p.toMS, p.server, why)
	}
}

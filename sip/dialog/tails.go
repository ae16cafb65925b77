package dialog

import (
	"container/heap"
	"hash/maphash"
	"strconv"
	"strings"
	"time"

	"github.com/trunktap/trunktap/sip"
)

// Tails are what has to be kept of transactions that have their final response
// and whose user is gone: of a server transaction the text of that response, for
// repetitions of the request (timers G, H, I and J of RFC 3261 section 17.2), of
// the client transaction of an INVITE the text of the ACK, for repetitions of the
// response (timer D, section 17.1.1.2). They are of a tenth of what a call takes,
// and of a limited size together: the oldest go first.
//
// Tails is a core: it has no clock and no lock.
type Tails struct {
	bytesMax int
	bytes    int
	evicted  uint64
	seed     maphash.Seed
	byKey    map[uint64]*tail
	due      tailHeap
	oldest   *tail
	newest   *tail
}

// tail is one of them.
type tail struct {
	key          uint64
	older, newer *tail
	place        int // in the heap
	text         string
	flow         sip.Flow
	interval     time.Duration // timer G
	resend       time.Time     // zero: not by itself
	end          time.Time
	invite       bool // of a server transaction that waits for its ACK
}

// tailBytes is what a tail takes beside its text, with its places in map and heap.
const tailBytes = 320

// NewTails makes Tails that keep bytesMax bytes at most.
func NewTails(bytesMax int) *Tails {
	return &Tails{bytesMax: bytesMax, seed: maphash.MakeSeed(), byKey: map[uint64]*tail{}}
}

// Len returns how many transactions are kept.
func (t *Tails) Len() int { return len(t.byKey) }

// Bytes returns what they take.
func (t *Tails) Bytes() int { return t.bytes }

// Evicted returns how many were dropped before their time.
func (t *Tails) Evicted() uint64 { return t.evicted }

// KeepServer keeps a server transaction. It must have a final response that is
// no 2xx to an INVITE, whose repetition is the affair of the call.
func (t *Tails) KeepServer(s *Server, now time.Time) {
	if s.last == nil || s.Done(now) {
		return
	}
	t.keep(&tail{
		key: t.serverKey(s.Req, s.Req.Method), text: s.last.Text(), flow: sip.ReplyFlow(s.Req),
		interval: s.interval, resend: s.resend, end: s.end, invite: s.invite && !s.acked,
	})
}

// KeepClient keeps the client transaction of an INVITE that was refused; of others
// nothing has to be kept.
func (t *Tails) KeepClient(c *Client, now time.Time) {
	if c.ack == nil || c.Done(now) {
		return
	}
	t.keep(&tail{key: t.clientKey(c.branch), text: c.ack.Text(), flow: c.Flow, end: c.end})
}

func (t *Tails) keep(one *tail) {
	if old := t.byKey[one.key]; old != nil {
		t.drop(old)
	}
	t.byKey[one.key] = one
	t.bytes += len(one.text) + tailBytes
	if one.older = t.newest; one.older != nil {
		one.older.newer = one
	} else {
		t.oldest = one
	}
	t.newest = one
	heap.Push(&t.due, one)
	for t.bytes > t.bytesMax {
		t.drop(t.oldest)
		t.evicted++
	}
}

func (t *Tails) drop(one *tail) {
	delete(t.byKey, one.key)
	t.bytes -= len(one.text) + tailBytes
	if one.older != nil {
		one.older.newer = one.newer
	} else {
		t.oldest = one.newer
	}
	if one.newer != nil {
		one.newer.older = one.older
	} else {
		t.newest = one.older
	}
	heap.Remove(&t.due, one.place)
	if len(t.byKey) == 0 { // a map never gives back the memory of a flood by itself
		t.byKey, t.due = map[uint64]*tail{}, nil
	}
}

// Request takes a request that no call knows. known: it is a repetition, or the ACK
// or CANCEL of what is kept; again, if not nil, is to be sent on flow.
func (t *Tails) Request(m *sip.Message, now time.Time) (again *sip.Message, flow sip.Flow, known bool) {
	if len(t.byKey) == 0 {
		return nil, flow, false
	}
	method := m.Method
	if method == sip.Ack {
		method = sip.Invite
	}
	one := t.byKey[t.serverKey(m, method)]
	switch {
	case one == nil:
		return nil, flow, false
	case m.Method != sip.Ack:
		return sip.FromText(one.text), one.flow, true
	case one.invite:
		one.invite, one.resend, one.end = false, time.Time{}, now // timer I
		if !one.flow.Reliable() {
			one.end = now.Add(sip.T4)
		}
		heap.Fix(&t.due, one.place)
	}
	return nil, flow, true
}

// Cancels says whether a CANCEL is for an INVITE that is kept: it is too late, and
// answered with 200 all the same (RFC 3261 section 9.2).
func (t *Tails) Cancels(m *sip.Message) bool {
	return len(t.byKey) > 0 && t.byKey[t.serverKey(m, sip.Invite)] != nil
}

// Response takes a response that no call knows; ack, if not nil, is to be sent on flow.
func (t *Tails) Response(m *sip.Message) (ack *sip.Message, flow sip.Flow) {
	if _, method := m.CSeq(); len(t.byKey) == 0 || m.Status < 300 || method != sip.Invite {
		return nil, flow
	}
	via, err := m.TopVia()
	if err != nil {
		return nil, flow
	}
	if one := t.byKey[t.clientKey(via.Branch())]; one != nil {
		return sip.FromText(one.text), one.flow
	}
	return nil, flow
}

// Due sends again what is due, and forgets what is over.
func (t *Tails) Due(now time.Time, send func(*sip.Message, sip.Flow)) {
	for len(t.due) > 0 {
		one := t.due[0]
		switch {
		case one.next().After(now):
			return
		case !one.end.After(now):
			t.drop(one)
		default:
			one.interval = min(2*one.interval, sip.T2)
			one.resend = now.Add(one.interval)
			heap.Fix(&t.due, 0)
			send(sip.FromText(one.text), one.flow)
		}
	}
}

// Deadline returns when Due has something to do; zero: never.
func (t *Tails) Deadline() time.Time {
	if len(t.due) == 0 {
		return time.Time{}
	}
	return t.due[0].next()
}

// serverKey is by what a request finds its server transaction (RFC 3261 section
// 17.2.3). A branch without the cookie proves nothing: then the rest has to be the same.
func (t *Tails) serverKey(m *sip.Message, method string) uint64 {
	via, _ := m.TopVia() // Parse has seen to it
	var h maphash.Hash
	h.SetSeed(t.seed)
	parts := []string{"server", method, via.Branch(), strings.ToLower(via.Host), strconv.Itoa(via.Port)}
	if !strings.HasPrefix(via.Branch(), "z9hG4bK") {
		seq, _ := m.CSeq()
		parts = append(parts, m.CallID(), m.FromTag(), strconv.FormatUint(uint64(seq), 10))
	}
	return t.hash(&h, parts)
}

func (t *Tails) clientKey(branch string) uint64 {
	var h maphash.Hash
	h.SetSeed(t.seed)
	return t.hash(&h, []string{"client", branch})
}

func (t *Tails) hash(h *maphash.Hash, parts []string) uint64 {
	for _, p := range parts {
		_, _ = h.WriteString(p) // never fails
		_ = h.WriteByte(0)
	}
	return h.Sum64()
}

// next is when something is to be done for it.
func (one *tail) next() time.Time { return Earliest(one.resend, one.end) }

// tailHeap is ordered by what is next.
type tailHeap []*tail

func (h tailHeap) Len() int           { return len(h) }
func (h tailHeap) Less(i, j int) bool { return h[i].next().Before(h[j].next()) }
func (h tailHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

// Push implements heap.Interface.
func (h *tailHeap) Push(x any) {
	one := x.(*tail)
	one.place = len(*h)
	*h = append(*h, one)
}

// Pop implements heap.Interface.
func (h *tailHeap) Pop() any {
	old := *h
	one := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return one
}

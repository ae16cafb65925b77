package b2bua

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
)

// wildFork is a fork of a random call, as it is known at both ends.
type wildFork struct {
	tag            string
	caller, callee *dialogue // nil: it has said nothing
	from, to       int       // ports that were agreed on; 0: none
	rseq           int
}

// wildCall is a call of which the forks say what they like, in an order that is allowed.
type wildCall struct {
	w     *bench
	rng   *rand.Rand
	a     *dialogue
	p     *dialogue
	late  bool
	port  int
	forks []*wildFork
}

func (c *wildCall) next() int { c.port += 2; return c.port }

// speak lets a fork send a description reliably, or describe its media anew.
func (c *wildCall) speak(f *wildFork) {
	w, t := c.w, c.w.t
	if f.caller == nil || c.rng.IntN(3) == 0 && f.from == 0 {
		f.rseq++
		to := 8000 + c.next()
		w.p.reply(c.p.invite, 183, f.tag, []string{w.p.contact(), "Require: 100rel", "RSeq: " + strconv.Itoa(f.rseq)}, sdpOf(pbx.Addr(), to))
		res := w.a.want("183")
		if f.caller == nil {
			f.caller = forkOf(t, c.a, res)
			f.callee = &dialogue{
				p: w.p, us: inside, callID: c.p.callID, local: c.p.invite.Get("To") + ";tag=" + f.tag, remote: c.p.invite.Get("From"),
				target: contactURIOf(t, c.p.invite), branches: 10_000 * len(f.tag),
			}
		}
		body := ""
		if f.from, f.to = 7000, to; c.late {
			f.from = 7000 + c.next()
			body = sdpOf(carrier.Addr(), f.from)
		}
		f.caller.send("PRACK", []string{fmt.Sprintf("RAck: %d 1 INVITE", f.rseq)}, body)
		w.p.reply(w.p.want("PRACK"), 200, "", nil, "")
		w.a.want("200 PRACK")
		return
	}
	from, to := 7000+c.next(), 8000+c.next()
	how := c.rng.IntN(4)
	status, answered := []int{200, 200, 488, 200}[how], how < 2
	answer := func(body string) string {
		if answered {
			return body
		}
		return ""
	}
	if c.rng.IntN(2) == 0 {
		f.caller.send("UPDATE", []string{w.a.contact()}, sdpOf(carrier.Addr(), from))
		w.p.reply(w.p.want("UPDATE"), status, "", []string{w.p.contact()}, answer(sdpOf(pbx.Addr(), to)))
		w.a.want(strconv.Itoa(status) + " UPDATE")
	} else {
		f.callee.send("UPDATE", []string{w.p.contact()}, sdpOf(pbx.Addr(), to))
		w.a.reply(w.a.want("UPDATE"), status, "", []string{w.a.contact()}, answer(sdpOf(carrier.Addr(), from)))
		w.p.want(strconv.Itoa(status) + " UPDATE")
	}
	if answered {
		f.from, f.to = from, to
	}
}

// answer lets a fork take the call.
func (c *wildCall) answer(f *wildFork) (winner *dialogue) {
	w, body := c.w, ""
	if f.from == 0 {
		f.from, f.to = 7000, 8000+c.next()
		body = sdpOf(pbx.Addr(), f.to)
	}
	w.p.reply(c.p.invite, 200, f.tag, []string{w.p.contact()}, body)
	ok := w.a.want("200 INVITE")
	if f.caller == nil {
		f.caller = forkOf(w.t, c.a, ok)
	}
	ack := ""
	if c.late && body != "" {
		f.from = 7000 + c.next()
		ack = sdpOf(carrier.Addr(), f.from)
	}
	f.caller.p.send(outside, f.caller.requestAt("ACK", 1, nil, ack))
	w.p.want("ACK")
	return f.caller
}

// TestForksAtRandom: whatever forks and the caller have said to each other, in whichever
// order, the media of the call is what was agreed in the dialog that answers.
func TestForksAtRandom(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			edit := map[bool]func(*Config){true: hiding}[seed%2 == 1]
			inBubble(t, edit, func(w *bench) {
				c := &wildCall{w: w, rng: rand.New(rand.NewPCG(seed, 7)), late: seed%4 > 1}
				offer := sdpOf(carrier.Addr(), 7000)
				if c.late {
					offer = ""
				}
				c.a = begin(w.a, outside, "wild", offer, "Supported: 100rel")
				w.a.want("100")
				c.p = w.p.take(inside)
				for _, tag := range []string{"a", "bb", "ccc"} {
					c.forks = append(c.forks, &wildFork{tag: tag})
				}
				for range c.rng.IntN(12) {
					c.speak(c.forks[c.rng.IntN(len(c.forks))])
				}
				f := c.forks[c.rng.IntN(len(c.forks))]
				winner := c.answer(f)
				w.agreed(fmt.Sprintf("fork %s of %+v", f.tag, c.forks), f.from, f.to)
				winner.cseq = 500
				w.hangUp(winner)
			})
		})
	}
}

package sdp

import (
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
)

// at is the description of the inside with another port.
func at(port string, lines ...string) []byte {
	return []byte(strings.Replace(string(desc(in, lines...)), "5000", port, 1))
}

func mustAnswer(t *testing.T, n *Negotiation, from media.Side, body []byte, at time.Time, early bool) Result {
	t.Helper()
	res, err := n.Answer(from, body, at, early)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func portsOf(list []media.Stream) (out []uint16) {
	for _, s := range list {
		if s.Side == in {
			out = append(out, s.Source.Port())
		}
	}
	return out
}

// TestForks: two dialogs of one INVITE agree to their own; the 200 of the first, which
// repeats nothing, puts that in force which the first had agreed to.
func TestForks(t *testing.T) {
	later := epoch.Add(time.Second)
	for name, late := range map[string]bool{"the caller offers": false, "the called offer": true} {
		t.Run(name, func(t *testing.T) {
			n := NewNegotiation()
			body := desc(ext)
			if late {
				body = nil
			}
			if err := n.Offer(ext, body); err != nil {
				t.Fatal(err)
			}
			root := n.Dialog
			var forks []*Dialog
			for i, port := range []string{"5100", "5200"} {
				n.Switch(root)
				forks = append(forks, n.Fork())
				n.Switch(forks[i])
				var res Result
				if late {
					if err := n.Offer(in, at(port)); err != nil {
						t.Fatal(err)
					}
					res = mustAnswer(t, n, ext, desc(ext), epoch, true)
				} else {
					res = mustAnswer(t, n, in, at(port), epoch, true)
				}
				if got := portsOf(res.Streams); len(got) != 1 || got[0] != uint16(5100+100*i) {
					t.Errorf("early media of the fork %d: %v", i, got)
				}
			}
			n.Switch(forks[0])
			res := n.Confirm(later)
			if got := portsOf(res.Streams); len(got) != 1 || got[0] != 5100 || res.Streams[0].Early {
				t.Errorf("the fork that answers: %+v", res.Streams)
			}
			if a := n.Agreed(); a == nil || a.Offerer != map[bool]media.Side{true: in, false: ext}[late] {
				t.Errorf("agreed: %+v", a)
			}
		})
	}
}

// TestRejectWithin: an UPDATE that is refused within an INVITE leaves what an early
// answer to that INVITE said, and its offer for the final one.
func TestRejectWithin(t *testing.T) {
	later := epoch.Add(time.Second)
	for _, side := range []media.Side{ext, in} {
		for _, final := range []string{"", "5100", "5101"} {
			for _, answered := range []bool{false, true} {
				n := NewNegotiation()
				if answered {
					mustExchange(t, n, ext, desc(ext), desc(in), epoch)
				}
				if err := n.Offer(ext, desc(ext, "a=ptime:20")); err != nil {
					t.Fatal(err)
				}
				mustAnswer(t, n, in, at("5100"), epoch, true)
				if err := n.Offer(side, desc(side, "a=inactive")); err != nil {
					t.Fatal(err)
				}
				n.RejectWithin(side)
				var body []byte
				want := uint16(5100)
				if final != "" {
					body = at(final)
				}
				if final == "5101" {
					want = 5101
				}
				res := mustAnswer(t, n, in, body, later, false)
				if got := portsOf(res.Streams); len(got) != 1 || got[0] != want || n.Holding(side) {
					t.Errorf("UPDATE of the %s side refused, answered before %t, final answer %q: %v", side, answered, final, got)
				}
			}
		}
	}
	n := NewNegotiation() // outside of an INVITE nothing is left of it
	mustExchange(t, n, ext, desc(ext), desc(in), epoch)
	if err := n.Offer(ext, desc(ext, "a=inactive")); err != nil {
		t.Fatal(err)
	}
	n.RejectWithin(ext)
	if res, err := n.Answer(in, desc(in, "a=inactive"), later, false); err == nil {
		t.Errorf("an answer to what was refused: %+v", res)
	}
}

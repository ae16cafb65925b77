package dialog

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/sip"
)

// refusedInvite is a server transaction that has answered an INVITE of the branch.
func refusedInvite(t testing.TB, network, branch string) *Server {
	t.Helper()
	req := request(t, sip.Invite, network)
	req.Set("Via", "SIP/2.0/UDP 192.0.2.1;branch="+branch)
	s := NewServer(req)
	s.Respond(response(req, 503).Frozen(), start)
	return s
}

// tailTimes are the seconds at which Due sends.
func tailTimes(t *Tails) string {
	var out []string
	for at := t.Deadline(); !at.IsZero(); at = t.Deadline() {
		t.Due(at, func(*sip.Message, sip.Flow) { out = append(out, fmt.Sprintf("%g", at.Sub(start).Seconds())) })
		if t.Len() == 0 {
			out = append(out, fmt.Sprintf("!%g", at.Sub(start).Seconds()))
		}
	}
	return strings.Join(out, " ")
}

// TestTailTimers holds timers G, H, I, D and J of what is kept to those of the
// transactions themselves.
func TestTailTimers(t *testing.T) {
	const repeats = "0.5 1.5 3.5 7.5 11.5 15.5 19.5 23.5 27.5 31.5 !32"
	for _, c := range []struct {
		name string
		keep func(*Tails)
		want string
	}{
		{"G and H", func(k *Tails) { k.KeepServer(refusedInvite(t, "udp", "z9hG4bKx"), start) }, repeats},
		{"kept after two repetitions", func(k *Tails) {
			s := refusedInvite(t, "udp", "z9hG4bKx")
			s.Due(start.Add(500 * time.Millisecond))
			s.Due(start.Add(1500 * time.Millisecond))
			k.KeepServer(s, start.Add(2*time.Second))
		}, strings.TrimPrefix(repeats, "0.5 1.5 ")},
		{"H over TCP", func(k *Tails) { k.KeepServer(refusedInvite(t, "tcp", "z9hG4bKx"), start) }, "!32"},
		{"I", func(k *Tails) {
			s := refusedInvite(t, "udp", "z9hG4bKx")
			k.KeepServer(s, start)
			k.Request(request(t, sip.Ack, "udp"), start.Add(time.Second))
		}, "!6"},
		{"I of before", func(k *Tails) {
			s := refusedInvite(t, "udp", "z9hG4bKx")
			s.Receive(request(t, sip.Ack, "udp"), start.Add(time.Second))
			k.KeepServer(s, start.Add(2*time.Second))
		}, "!6"},
		{"J", func(k *Tails) {
			req := request(t, "MESSAGE", "udp")
			s := NewServer(req)
			s.Respond(response(req, 200).Frozen(), start)
			k.KeepServer(s, start)
		}, "!32"},
		{"J over TCP", func(k *Tails) {
			req := request(t, "MESSAGE", "tcp")
			s := NewServer(req)
			s.Respond(response(req, 200).Frozen(), start)
			k.KeepServer(s, start)
		}, ""},
		{"D", func(k *Tails) {
			req := request(t, sip.Invite, "udp")
			cl := NewClient(req, sip.Flow{Network: "udp"}, start)
			cl.Receive(response(req, 486), start)
			k.KeepClient(cl, start)
		}, "!32"},
		{"a client transaction without ACK", func(k *Tails) {
			req := request(t, "MESSAGE", "udp")
			cl := NewClient(req, sip.Flow{Network: "udp"}, start)
			cl.Receive(response(req, 486), start)
			k.KeepClient(cl, start)
		}, ""},
	} {
		k := NewTails(1 << 20)
		c.keep(k)
		if got := tailTimes(k); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		if k.Len() != 0 || k.Bytes() != 0 || k.Evicted() != 0 {
			t.Errorf("%s: %d of %d bytes are left, %d evicted", c.name, k.Len(), k.Bytes(), k.Evicted())
		}
	}
}

// TestTailsAnswer: a repetition gets the same text again, an ACK silence, and what is
// of another transaction nothing.
func TestTailsAnswer(t *testing.T) {
	k := NewTails(1 << 20)
	s := refusedInvite(t, "udp", "z9hG4bKx")
	want := s.last.Text()
	k.KeepServer(s, start)
	for _, c := range []struct {
		name, method, via string
		again, known      bool
	}{
		{"repetition", sip.Invite, "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx", true, true},
		{"of another branch", sip.Invite, "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKy", false, false},
		{"of another sender", sip.Invite, "SIP/2.0/UDP 192.0.2.2;branch=z9hG4bKx", false, false},
		{"of another port", sip.Invite, "SIP/2.0/UDP 192.0.2.1:5070;branch=z9hG4bKx", false, false},
		{"of another method", "MESSAGE", "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx", false, false},
		{"CANCEL", sip.Cancel, "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx", false, false},
		{"ACK", sip.Ack, "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx", false, true},
		{"ACK again", sip.Ack, "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx", false, true},
	} {
		m := request(t, c.method, "udp")
		m.Set("Via", c.via)
		again, _, known := k.Request(m, start.Add(time.Second))
		if known != c.known || (again != nil) != c.again || again != nil && again.Text() != want {
			t.Errorf("%s: again %v, known %v", c.name, again, known)
		}
		if c.method == sip.Cancel && !k.Cancels(m) {
			t.Error("CANCEL is for nothing")
		}
	}
}

// TestTailsOldBranches: a branch without the cookie of RFC 3261 proves nothing.
func TestTailsOldBranches(t *testing.T) {
	k := NewTails(1 << 20)
	k.KeepServer(refusedInvite(t, "udp", "1"), start)
	m := request(t, sip.Invite, "udp")
	m.Set("Via", "SIP/2.0/UDP 192.0.2.1;branch=1")
	if again, _, _ := k.Request(m, start); again == nil {
		t.Error("a repetition is not known")
	}
	m.Set("Call-ID", "other")
	if _, _, known := k.Request(m, start); known {
		t.Error("another call is taken for a repetition")
	}
}

func TestTailsAcknowledge(t *testing.T) {
	k := NewTails(1 << 20)
	req := request(t, sip.Invite, "udp")
	res := response(req, 486)
	cl := NewClient(req, sip.Flow{Network: "udp"}, start)
	_, want := cl.Receive(res, start)
	text := want.Text()
	k.KeepClient(cl, start)
	if ack, _ := k.Response(res); ack == nil || ack.Text() != text {
		t.Errorf("ACK %v", ack)
	}
	for _, other := range []*sip.Message{response(req, 180), response(request(t, "MESSAGE", "udp"), 486)} {
		if ack, _ := k.Response(other); ack != nil {
			t.Errorf("%d is acknowledged", other.Status)
		}
	}
}

// TestTailsBounded: what is beyond the limit goes, the oldest first, and counted.
func TestTailsBounded(t *testing.T) {
	const limit, n = 20_000, 1000
	k := NewTails(limit)
	for i := range n {
		k.KeepServer(refusedInvite(t, "udp", fmt.Sprintf("z9hG4bK%d", i)), start)
		if k.Bytes() > limit {
			t.Fatalf("%d bytes", k.Bytes())
		}
	}
	if k.Len() == 0 || k.Len()+int(k.Evicted()) != n {
		t.Errorf("%d are kept, %d evicted of %d", k.Len(), k.Evicted(), n)
	}
	for i, kept := range map[int]bool{0: false, n - k.Len() - 1: false, n - k.Len(): true, n - 1: true} {
		m := request(t, sip.Invite, "udp")
		m.Set("Via", fmt.Sprintf("SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK%d", i))
		if _, _, known := k.Request(m, start); known != kept {
			t.Errorf("%d is kept: %v", i, known)
		}
	}
}

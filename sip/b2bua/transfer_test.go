package b2bua

import (
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/sip"
)

// both runs a test with the identity passed and with it hidden.
func both(t *testing.T, f func(*bench)) {
	t.Helper()
	t.Run("transparent", func(t *testing.T) { inBubble(t, nil, f) })
	t.Run("hidden", func(t *testing.T) { inBubble(t, hiding, f) })
}

// established2 sets up a call whose both ends know their own names of the dialog.
func (w *bench) established2(callID string) (a, p *dialogue) {
	a, p = w.established(callID)
	p.local, p.target = p.invite.Get("To")+";tag=pbx", contactURIOf(w.t, p.invite)
	return a, p
}

// replacesOf names a dialog as its other end is to read it.
func replacesOf(d *dialogue) string {
	return d.callID + ";to-tag=" + tagOf(d.remote) + ";from-tag=" + tagOf(d.local)
}

func (w *bench) answers(from, to *peer, m *sip.Message, status string, extra ...string) {
	w.t.Helper()
	code := map[string]int{"200": 200, "202": 202}[status]
	to.reply(m, code, "", extra, "")
	from.want(status + " " + m.Method)
}

func TestBlindTransfer(t *testing.T) {
	both(t, func(w *bench) {
		a, p := w.established2("blind")
		for _, test := range []struct{ to, want string }{
			{"<sip:1234@10.0.0.66:5060>", "<sip:1234@192.0.2.1:5060>"},                               // a phone of the PBX: over us
			{"<sip:+4940@10.0.0.1:5060;user=phone>", "<sip:+4940@192.0.2.66:5060;user=phone>"},       // what we are for the PBX, the carrier is
			{"<sip:+4940@example.com?Subject=x>;method=INVITE", "<sip:+4940@example.com?Subject=x>"}, // a name is one everywhere
			{"<tel:+4940>", "<tel:+4940>"},
		} {
			p.send("REFER", []string{w.p.contact(), "Refer-To: " + test.to, "Referred-By: <sip:p@example.com>"}, "")
			refer := w.a.want("REFER")
			if got := refer.Get("Refer-To"); !strings.HasPrefix(got, test.want) || refer.Get("Referred-By") != "<sip:p@example.com>" {
				t.Errorf("Refer-To %s became %s, want %s", test.to, got, test.want)
			}
			w.answers(w.p, w.a, refer, "202", w.a.contact())
		}
		// The transferor leaves, the NOTIFYs of the transfer still reach it.
		p.send("BYE", nil, "")
		w.answers(w.p, w.a, w.a.want("BYE"), "200")
		notify := func(state, line string) {
			a.send("NOTIFY", []string{w.a.contact(), "Event: refer", "Subscription-State: " + state, "Content-Type: message/sipfrag;version=2.0"}, line)
			m := w.p.want("NOTIFY")
			if string(m.Body) != line || m.CallID() != p.callID || m.ToTag() != "pbx" {
				t.Errorf("NOTIFY changed:\n%s", m.Append(nil))
			}
			w.answers(w.a, w.p, m, "200")
		}
		notify("active;expires=180", "SIP/2.0 100 Trying\r\n")
		time.Sleep(100 * time.Second)
		notify("active;expires=80", "SIP/2.0 180 Ringing\r\n")
		time.Sleep(70 * time.Second)
		notify("terminated;reason=noresource", "SIP/2.0 200 OK\r\n")
		time.Sleep(2 * time.Minute)
		a.send("NOTIFY", []string{"Event: refer", "Subscription-State: active"}, "")
		w.a.want("481 NOTIFY")
		synctest.Wait()
		w.b.mu.Lock()
		defer w.b.mu.Unlock()
		if len(w.b.byID) != 0 {
			t.Errorf("%d calls are kept", len(w.b.byID))
		}
	})
}

// TestAttendedTransferOut: the PBX has two calls with the outside and joins them.
func TestAttendedTransferOut(t *testing.T) {
	both(t, func(w *bench) {
		a1, p1 := w.established2("one")
		a2, p2 := w.established2("two")
		p1.send("REFER", []string{w.p.contact(), "Refer-To: <" + p2.target + "?Replaces=" + url.PathEscape(replacesOf(p2)) + ">"}, "")
		refer := w.a.want("REFER")
		want := "<sip:alice@192.0.2.66:5060?Replaces=" + strings.ReplaceAll(url.PathEscape(replacesOf(&dialogue{
			callID: "two", remote: a2.local, local: a2.remote,
		})), "=", "%3D") + ">"
		if got := refer.Get("Refer-To"); strings.ReplaceAll(strings.ReplaceAll(got, "=", "%3D"), "?Replaces%3D", "?Replaces=") != want {
			t.Errorf("Refer-To %s\nwant     %s", got, want)
		}
		w.answers(w.p, w.a, refer, "202", w.a.contact())
		// What is joined are two parties of the carrier: it hangs up both calls.
		for _, d := range []*dialogue{a1, a2} {
			d.send("BYE", nil, "")
			w.answers(w.a, w.p, w.p.want("BYE"), "200")
		}
	})
}

// TestReplacesArrives: a party outside takes over a call that the carrier has with
// the PBX, and the PBX one that it has with the carrier.
func TestReplacesArrives(t *testing.T) {
	both(t, func(w *bench) {
		a, p := w.established2("old")
		third := newPeer(t, w.net, other)
		defer third.close()
		d := begin(third, outside, "new", sdpOf(other.Addr(), 7100), "Replaces: "+replacesOf(a), "Require: replaces", "Supported: replaces")
		third.want("100")
		np := w.p.take(inside)
		if got, want := np.invite.Get("Replaces"), replacesOf(&dialogue{callID: p.callID, remote: p.local, local: p.remote}); got != want {
			t.Errorf("Replaces %s, want %s", got, want)
		}
		if np.invite.URI != "sip:10.0.0.66:5060;ob" {
			t.Errorf("asks %s to replace a call", np.invite.URI)
		}
		w.p.reply(np.invite, 200, "pbx2", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8100))
		ok := third.want("200")
		d.remote, d.target = ok.Get("To"), contactURIOf(t, ok)
		third.send(outside, d.requestAt("ACK", 1, nil, ""))
		w.p.want("ACK")
		p.send("BYE", nil, "") // RFC 3891 section 3
		w.answers(w.p, w.a, w.a.want("BYE"), "200")
		if len(w.obs.session) != 2 || !strings.Contains(strings.Join(w.obs.session[1].Links, " "), "dialog:old;"+tagOf(a.remote)) {
			t.Errorf("the new call is not linked to the old: %v", w.obs.session[1].Links)
		}
		d.send("BYE", nil, "")
		w.answers(third, w.p, w.p.want("BYE"), "200")
	})
}

func TestReplacesFromTheOtherSide(t *testing.T) {
	both(t, func(w *bench) {
		a, p := w.established2("old")
		d := begin(w.p, inside, "new", sdpOf(pbx.Addr(), 8100), "Replaces: "+replacesOf(p))
		w.p.want("100")
		na := w.a.take(outside)
		if got, want := na.invite.Get("Replaces"), replacesOf(&dialogue{callID: "old", remote: a.local, local: a.remote}); got != want {
			t.Errorf("Replaces %s, want %s", got, want)
		}
		if na.invite.URI != "sip:alice@192.0.2.66:5060" {
			t.Errorf("asks %s to replace a call", na.invite.URI)
		}
		if got := strings.Join(w.obs.session[1].Links, " "); !strings.Contains(got, "dialog:"+p.callID+";"+tagOf(p.remote)) {
			t.Errorf("links %s", got)
		}
		w.a.reply(na.invite, 481, "x", nil, "")
		w.a.want("ACK")
		w.p.want("481 INVITE")
		_ = d
		w.hangUp(a)
	})
}

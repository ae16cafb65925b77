package b2bua

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip"
)

func hiding(cfg *Config) { cfg.Trunks[0].Hide = true }

// foreign fails when a message names anything of the other leg.
func foreign(t *testing.T, m *sip.Message, what ...string) {
	t.Helper()
	text := string(m.Append(nil))
	for _, w := range what {
		if strings.Contains(text, w) {
			t.Errorf("%q is told to the other side:\n%s", w, text)
		}
	}
}

// asSentBy checks what a response must repeat of its request.
func asSentBy(t *testing.T, req string, res *sip.Message) {
	t.Helper()
	m := mustParse(t, req)
	for _, name := range []string{"From", "Call-ID", "CSeq"} {
		if m.Get(name) != res.Get(name) {
			t.Errorf("%s of the response is %q, of the request %q", name, res.Get(name), m.Get(name))
		}
	}
	if to := m.Get("To"); to != res.Get("To") && !strings.HasPrefix(res.Get("To"), to+";tag=") {
		t.Errorf("To of the response is %q, of the request %q", res.Get("To"), to)
	}
}

func TestHiddenIdentity(t *testing.T) {
	inBubble(t, hiding, func(w *bench) {
		d := &dialogue{
			p: w.a, us: outside, callID: "hid@192.0.2.66", local: `"A" <sip:+49171@192.0.2.66>;tag=caller-tag`,
			remote: "<sip:+4930123@192.0.2.1;user=phone>", target: "sip:+4930123@192.0.2.1;user=phone",
		}
		d.send("INVITE", []string{
			`Contact: "Phone 7" <sip:alice@192.0.2.66:5060;ob;x=192.0.2.66>;+sip.instance="<urn:uuid:1>";audio`,
			"P-Asserted-Identity: \"X\" <sip:+49171@192.0.2.66:5060;user=phone>, <tel:+49171>", "Record-Route: <sip:192.0.2.66;lr>",
			"History-Info: <sip:1@192.0.2.67?Reason=SIP%3Bcause%3D302>;index=1,<sip:2@example.com>;index=1.1", "Session-ID: 00112233445566778899aabbccddeeff",
		}, sdpOf(carrier.Addr(), 7000))
		invite := w.a.sent
		w.a.want("100")
		p := w.p.take(inside)
		foreign(t, p.invite, "hid@", "caller-tag", "192.0.2.", "urn:uuid", "Phone 7", "Record-Route")
		for name, want := range map[string]string{
			"P-Asserted-Identity": `"X" <sip:+49171@10.0.0.1;user=phone>, <tel:+49171>`,
			"History-Info":        "<sip:1@10.0.0.1?Reason=SIP%3Bcause%3D302>;index=1,<sip:2@example.com>;index=1.1",
			"Session-ID":          "00112233445566778899aabbccddeeff",
			"Contact":             "<sip:alice@10.0.0.1:5060>;audio", "To": "<sip:+4930123@10.0.0.1;user=phone>", "CSeq": "1 INVITE",
		} {
			if got := p.invite.Get(name); got != want {
				t.Errorf("%s: %s, want %s", name, got, want)
			}
		}
		if !strings.Contains(string(p.invite.Body), "o=- 1 1 IN IP4 10.0.0.1\r\n") {
			t.Errorf("origin:\n%s", p.invite.Body)
		}
		w.p.reply(p.invite, 180, "p1", []string{w.p.contact()}, "")
		ringing := w.a.want("180")
		w.p.reply(p.invite, 200, "p1", []string{w.p.contact(), "Record-Route: <sip:10.0.0.66;lr>"}, sdpOf(pbx.Addr(), 8000))
		ok := w.a.want("200")
		foreign(t, ok, p.invite.CallID(), p.invite.FromTag(), "p1", "10.0.0.")
		asSentBy(t, invite, ok)
		if ringing.ToTag() != ok.ToTag() || ok.ToTag() == "" {
			t.Errorf("tags %q and %q of one callee", ringing.ToTag(), ok.ToTag())
		}
		w.acked(d, p, ok)
		p.local, p.routes = p.invite.Get("To")+";tag=p1", nil
		w.hiddenInDialog(d, p)
		if s := w.obs.session[0]; s.SIPCallID != "hid@192.0.2.66" || s.OtherSIPCallID != p.invite.CallID() ||
			!strings.Contains(strings.Join(s.Links, " "), "dialog:"+p.invite.CallID()+";"+p.invite.FromTag()) {
			t.Errorf("session %+v", s)
		}
		w.hangUp(d)
		foreign(t, mustParse(t, w.p.sent), "hid@")
	})
}

// hiddenInDialog sends requests both ways within a hidden call.
func (w *bench) hiddenInDialog(a, p *dialogue) {
	t := w.t
	p.target = contactURIOf(t, p.invite)
	p.send("INFO", []string{"Content-Type: text/plain"}, "from the callee")
	asked := w.p.sent
	info := w.a.want("INFO")
	foreign(t, info, p.callID, p.invite.FromTag(), "p1", "10.0.0.")
	if info.CallID() != a.callID || info.ToTag() != "caller-tag" || info.FromTag() != tagOf(a.remote) || info.Get("To") != a.local {
		t.Errorf("INFO is of another dialog:\n%s", info.Append(nil))
	}
	w.a.reply(info, 200, "", []string{"X: 1"}, "")
	asSentBy(t, asked, w.p.want("200 INFO"))
	a.send("INFO", []string{"Content-Type: text/plain"}, "from the caller")
	asked = w.a.sent
	info = w.p.want("INFO")
	foreign(t, info, a.callID, "caller-tag", tagOf(a.remote), "192.0.2.")
	if info.CallID() != p.callID || info.ToTag() != "p1" || info.FromTag() != p.invite.FromTag() {
		t.Errorf("INFO is of another dialog:\n%s", info.Append(nil))
	}
	w.p.reply(info, 200, "", nil, "")
	asSentBy(t, asked, w.a.want("200 INFO"))
	reinvite(w, p, a, sdpOf(pbx.Addr(), 8000, "a=sendonly"), sdpOf(carrier.Addr(), 7000, "a=recvonly"))
	reinvite(w, a, p, sdpOf(carrier.Addr(), 7000), sdpOf(pbx.Addr(), 8000))
}

func TestHiddenCancelAndRefusal(t *testing.T) {
	inBubble(t, hiding, func(w *bench) {
		a := begin(w.a, outside, "c", sdpOf(carrier.Addr(), 7000))
		w.a.want("100")
		p := w.p.take(inside)
		w.p.reply(p.invite, 180, "pbx", []string{w.p.contact()}, "")
		w.a.want("180")
		a.branches--
		w.a.send(outside, a.request("CANCEL", nil, ""))
		w.a.want("200 CANCEL")
		cancel := w.p.want("CANCEL")
		if cancel.CallID() != p.invite.CallID() || cancel.Get("From") != p.invite.Get("From") {
			t.Errorf("CANCEL is of another dialog:\n%s", cancel.Append(nil))
		}
		w.p.reply(cancel, 200, "pbx", nil, "")
		w.p.reply(p.invite, 487, "pbx", nil, "")
		ack := w.p.want("ACK")
		if ack.CallID() != p.invite.CallID() || ack.ToTag() != "pbx" || ack.FromTag() != p.invite.FromTag() {
			t.Errorf("ACK is of another dialog:\n%s", ack.Append(nil))
		}
		if res := w.a.want("487 INVITE"); res.ToTag() == "pbx" || res.ToTag() == "" || res.CallID() != "c" {
			t.Errorf("487:\n%s", res.Append(nil))
		}
	})
}

func TestHiddenRedirection(t *testing.T) {
	inBubble(t, hiding, func(w *bench) {
		begin(w.a, outside, "r", sdpOf(carrier.Addr(), 7000))
		w.a.want("100")
		p := w.p.take(inside)
		w.p.reply(p.invite, 302, "pbx", []string{"Contact: <sip:2@10.0.0.67:5070>;q=1, <sip:3@example.com>"}, "")
		w.p.want("ACK")
		if got, want := w.a.want("302").Get("Contact"), "<sip:2@192.0.2.1:5060>;q=1, <sip:3@example.com>"; got != want {
			t.Errorf("Contact %s, want %s", got, want)
		}
	})
}

func TestHiddenForks(t *testing.T) {
	inBubble(t, hiding, func(w *bench) {
		a := begin(w.a, outside, "f", sdpOf(carrier.Addr(), 7000))
		w.a.want("100")
		p := w.p.take(inside)
		seen := map[string]string{}
		for _, tag := range []string{"one", "two", "three", "one"} {
			w.p.reply(p.invite, 183, tag, []string{w.p.contact()}, "")
			got := w.a.next(time.Second)
			if got == nil { // the same again
				continue
			}
			if seen[tag] != "" && seen[tag] != got.ToTag() || got.ToTag() == tag {
				t.Errorf("tag %s became %s", tag, got.ToTag())
			}
			seen[tag] = got.ToTag()
		}
		if len(seen) != 3 || seen["one"] == seen["two"] {
			t.Errorf("tags %v", seen)
		}
		w.p.reply(p.invite, 200, "two", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8000))
		w.acked(a, p, w.a.want("200"))
		w.p.reply(p.invite, 200, "three", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8010))
		for _, method := range []string{"ACK", "BYE"} {
			if m := w.p.want(method); m.ToTag() != "three" || m.CallID() != p.invite.CallID() || m.FromTag() != p.invite.FromTag() {
				t.Errorf("%s of another dialog:\n%s", method, m.Append(nil))
			}
		}
		a.send("BYE", nil, "")
		bye := w.p.want("BYE")
		if bye.ToTag() != "two" {
			t.Errorf("BYE of another dialog:\n%s", bye.Append(nil))
		}
		w.p.reply(bye, 200, "", nil, "")
		w.a.want("200 BYE")
	})
}

func TestHiddenSubscription(t *testing.T) {
	inBubble(t, hiding, func(w *bench) {
		a, p := w.established("seen")
		callee := tagOf(a.remote)
		d := &dialogue{p: w.a, us: outside, callID: "sub", local: "<sip:a@b>;tag=1", remote: "<sip:c@d>", target: "sip:c@192.0.2.1"}
		d.send("SUBSCRIBE", []string{w.a.contact(), `Event: dialog;call-id="seen";from-tag="from-seen";to-tag="` + callee + `"`, "Expires: 60"}, "")
		s := w.p.want("SUBSCRIBE")
		if got, want := s.Get("Event"), `dialog;call-id="`+p.callID+`";from-tag="`+p.invite.FromTag()+`";to-tag="pbx"`; got != want {
			t.Errorf("Event %s, want %s", got, want)
		}
		w.p.reply(s, 200, "n", []string{w.p.contact(), "Expires: 60"}, "")
		w.a.want("200 SUBSCRIBE")
		n := &dialogue{p: w.p, us: inside, callID: s.CallID(), local: s.Get("To") + ";tag=n", remote: s.Get("From"), target: contactURIOf(t, s)}
		state := func(id, local, remote string) string {
			return fmt.Sprintf("<?xml version=\"1.0\"?>\n<dialog-info xmlns=\"urn:ietf:params:xml:ns:dialog-info\" version='0'>\r\n"+
				"<dialog id=\"x\" call-id=\"%s\"\n local-tag='%s' remote-tag=\"%s\"><state>confirmed</state>\n<!-- call-id=\"%s\" --></dialog>"+
				"<dialog id='y' call-id='other&amp;1' local-tag='p'/></dialog-info>", id, local, remote, "z")
		}
		n.send("NOTIFY", []string{w.p.contact(), "Event: dialog", "Subscription-State: active", "Content-Type: application/dialog-info+xml"},
			state(p.callID, "pbx", p.invite.FromTag()))
		m := w.a.want("NOTIFY")
		if got, want := string(m.Body), state("seen", callee, "from-seen"); got != want {
			t.Errorf("body:\n%s\nwant:\n%s", got, want)
		}
		if m.FromTag() == "n" || m.CallID() != "sub" {
			t.Errorf("NOTIFY of another dialog:\n%s", m.Append(nil))
		}
		w.a.reply(m, 200, "", nil, "")
		w.p.want("200 NOTIFY")
		w.hangUp(a)
	})
}

func TestHiddenNames(t *testing.T) {
	inBubble(t, hiding, func(w *bench) {
		a, p := w.established("nam@e")
		callee, from := tagOf(a.remote), p.invite.FromTag()
		inner := p.callID
		for _, test := range []struct{ name, sent, want string }{
			{"Replaces", "nam@e;to-tag=" + callee + ";from-tag=from-nam@e;early-only", inner + ";to-tag=pbx;from-tag=" + from + ";early-only"},
			{"Join", "nam@e;from-tag=from-nam@e;to-tag=" + callee, inner + ";from-tag=" + from + ";to-tag=pbx"},
			{"Target-Dialog", "nam@e;local-tag=from-nam@e;remote-tag=" + callee, inner + ";local-tag=" + from + ";remote-tag=pbx"},
			{"Replaces", "nam@e;to-tag=wrong;from-tag=from-nam@e", "nam@e;to-tag=wrong;from-tag=from-nam@e"},
			{"Replaces", "unknown;to-tag=1;from-tag=2", "unknown;to-tag=1;from-tag=2"},
			{"Replaces", inner + ";to-tag=pbx;from-tag=" + from, inner + ";to-tag=pbx;from-tag=" + from}, // of the side that it goes to
			{"In-Reply-To", "x@y, nam@e,z", "x@y, " + inner + ",z"},
			{"References", "nam@e;rel=chain", inner + ";rel=chain"},
			{
				"Refer-To", "<sip:b@example.com?Replaces=nam%40e%3Bto-tag%3D" + callee + "%3Bfrom-tag%3Dfrom-nam%40e&Require=replaces>",
				"<sip:b@example.com?Replaces=" + inner + "%3Bto-tag%3Dpbx%3Bfrom-tag%3D" + from + "&Require=replaces>",
			},
			{"History-Info", "<sip:1@example.com?Call-ID=nam%40e>;index=1", "<sip:1@example.com?Call-ID=" + inner + ">;index=1"},
		} {
			a.send("MESSAGE", []string{test.name + ": " + test.sent}, "")
			m := w.p.want("MESSAGE")
			if got := m.Get(test.name); got != test.want {
				t.Errorf("%s: %s\nbecame %s\nwant   %s", test.name, test.sent, got, test.want)
			}
			w.p.reply(m, 200, "", nil, "")
			w.a.want("200")
		}
		w.hangUp(a)
	})
}

func TestHiddenFragment(t *testing.T) {
	inBubble(t, hiding, func(w *bench) {
		a, p := w.established("frag")
		p.target, p.local = contactURIOf(t, p.invite), p.invite.Get("To")+";tag=pbx"
		p.send("NOTIFY", []string{w.p.contact(), "Event: refer", "Subscription-State: active;expires=60", "Content-Type: message/sipfrag;version=2.0"},
			"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 10.0.0.66\r\nCall-ID: "+p.callID+"\r\nFrom: <sip:x@y>;tag="+p.invite.FromTag()+
				"\r\nTo: <sip:z@y>;tag=pbx\r\nContact: <sip:10.0.0.66>\r\nSubject: s\r\n")
		m := w.a.want("NOTIFY")
		if got, want := string(m.Body), "SIP/2.0 200 OK\r\nCall-ID: frag\r\nFrom: <sip:x@y>;tag=from-frag\r\nTo: <sip:z@y>;tag="+tagOf(a.remote)+"\r\nSubject: s\r\n"; got != want {
			t.Errorf("fragment:\n%s\nwant:\n%s", got, want)
		}
		w.a.reply(m, 200, "", nil, "")
		w.p.want("200 NOTIFY")
		w.hangUp(a)
	})
}

func TestHiddenCallIsForgotten(t *testing.T) {
	inBubble(t, hiding, func(w *bench) {
		a, _ := w.established("gone")
		w.hangUp(a)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		w.b.mu.Lock()
		defer w.b.mu.Unlock()
		if len(w.b.calls) != 0 || len(w.b.masked.byID) != 0 || w.b.masked.n.Load() != 0 {
			t.Errorf("%d calls, %d names are kept", len(w.b.calls), len(w.b.masked.byID))
		}
	})
}

func TestReplaceHosts(t *testing.T) {
	f := func(h netip.AddrPort) (string, bool) {
		return "OURS", h.Addr() == netip.MustParseAddr("10.0.0.5") || h.Addr().Is6()
	}
	for in, want := range map[string]string{
		"<sip:a@10.0.0.5>":                            "<sip:a@OURS>",
		"<sips:10.0.0.5:5061;lr>;x=sip":               "<sips:OURS;lr>;x=sip",
		"SIP:a@10.0.0.5;user=phone":                   "SIP:a@OURS;user=phone",
		"<sip:a@10.0.0.6>":                            "<sip:a@10.0.0.6>",
		"<sip:a@[2001:db8::1]:5060>":                  "<sip:a@OURS>",
		"<sip:a@10.0.0.5?Replaces=x@10.0.0.5>":        "<sip:a@OURS?Replaces=x@10.0.0.5>",
		"<tel:+4910.0.0.5>":                           "<tel:+4910.0.0.5>",
		"<sip:a@example.com>,<sip:b@10.0.0.5>":        "<sip:a@example.com>,<sip:b@OURS>",
		`"sip: 10.0.0.5" <sip:x@10.0.0.5:5060;a=b@c>`: `"sip: 10.0.0.5" <sip:x@10.0.0.5:5060;a=b@c>`,
		"gossip:10.0.0.5":                             "gossip:10.0.0.5",
		"sip:":                                        "sip:",
		"":                                            "",
	} {
		if got := replaceHosts(in, f); got != want {
			t.Errorf("%s became %s, want %s", in, got, want)
		}
	}
}

func FuzzRename(f *testing.F) {
	for _, seed := range []string{
		"known;to-tag=a;from-tag=b", "<sip:a@b?Replaces=known%3Bto-tag%3Da>", "known, x", "dialog;call-id=known;to-tag=a", "?&=%;",
		"<dialog call-id='known' local-tag=\"a\">", "SIP/2.0 200 OK\r\nCall-ID: known\r\nTo: <sip:x@y>;tag=a\r\n\r\nx", "<sip:a@10.0.0.66>",
	} {
		f.Add(seed)
	}
	b := &B2BUA{calls: map[callKey][]*call{}}
	c := &call{key: callKey{"known", "a"}, side: media.External, alias: &alias{callID: "other", tag: "t", forks: []forkTag{{"b", "c"}}}}
	b.mask(c)
	f.Fuzz(func(t *testing.T, v string) {
		for _, name := range []string{"Replaces", "Refer-To", "In-Reply-To", "Event", "History-Info"} {
			out, ok := b.renamedIn(sip.Header{Name: name, Value: v}, media.External)
			if ok && !strings.Contains(v, "known") && !strings.Contains(v, "%") {
				t.Errorf("%q became %q", v, out)
			}
			if ok && strings.ContainsAny(out, "\r\n") && !strings.ContainsAny(v, "\r\n") {
				t.Errorf("%q became %q", v, out)
			}
		}
		for _, kind := range []string{"application/dialog-info+xml", "message/sipfrag"} {
			if got := b.renamedBody(kind, []byte(v), media.External); !strings.Contains(v, "known") && kind[0] == 'm' && !strings.Contains(v, "%") && string(got) != v {
				t.Errorf("%q became %q", v, got)
			}
			withoutPlaces(kind, []byte(v))
		}
		replaceHosts(v, func(netip.AddrPort) (string, bool) { return "x", true })
	})
}

package b2bua

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip"
)

func phones(r sip.Registrations) func(*Config) {
	return func(cfg *Config) {
		cfg.Trunks[0].Registrations = r
		cfg.Trunks[0].Sides[media.Internal].NextHops = nil
	}
}

// registerAt sends a REGISTER of a phone and returns what the registrar gets.
func (w *bench) registerAt(contacts ...string) (*dialogue, *sip.Message) {
	w.t.Helper()
	d := &dialogue{
		p: w.p, us: inside, callID: "reg", local: "<sip:ann@pbx.example>;tag=r", remote: "<sip:ann@pbx.example>", target: "sip:pbx.example",
	}
	d.send("REGISTER", append(contacts, "Expires: 600"), "")
	return d, w.a.want("REGISTER")
}

func contactsOf(m *sip.Message) string { return strings.Join(m.List("Contact"), " | ") }

func TestPhonesAreReachedThroughTheirContact(t *testing.T) {
	inBubble(t, phones(sip.RegistrationsContact), func(w *bench) {
		own := fmt.Sprintf("<sip:ann@%s;transport=udp;x=1>;+sip.instance=\"<urn:uuid:1>\";q=0.5", pbx)
		_, reg := w.registerAt("Contact: " + own)
		uri := contactURIOf(t, reg)
		if u, err := sip.ParseURI(uri); err != nil || u.Host != outside.Addr().String() || u.Port != int(outside.Port()) {
			t.Fatalf("the registrar is told %s", uri)
		}
		if !strings.Contains(reg.Get("Contact"), `;+sip.instance="<urn:uuid:1>";q=0.5`) {
			t.Errorf("parameters are lost: %s", reg.Get("Contact"))
		}
		w.a.reply(reg, 200, "reg", []string{"Contact: " + reg.Get("Contact") + ";expires=600, <sip:ann@192.0.2.99>;expires=30"}, "")
		if got, want := contactsOf(w.p.want("200")), own+";expires=600 | <sip:ann@192.0.2.99>;expires=30"; got != want {
			t.Errorf("the phone is told %s, want %s", got, want)
		}

		a := begin(w.a, outside, "to-phone", sdpOf(carrier.Addr(), 7000))
		w.a.want("100")
		if m := w.a.want("404"); m == nil { // the bench's own target is no phone's
			t.Fatal()
		}
		_ = a
		a = &dialogue{p: w.a, us: outside, callID: "to-ann", local: "<sip:bob@pbx.example>;tag=b", remote: "<sip:ann@pbx.example>", target: uri}
		a.send("INVITE", []string{fmt.Sprintf("Contact: <sip:bob@%s>", carrier)}, sdpOf(carrier.Addr(), 7000))
		w.a.want("100")
		p := w.p.take(inside)
		if want := fmt.Sprintf("sip:ann@%s;transport=udp;x=1", pbx); p.invite.URI != want {
			t.Errorf("the phone is called at %s, want %s", p.invite.URI, want)
		}
		w.p.reply(p.invite, 200, "ann", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8000))
		w.acked(a, p, w.a.want("200"))
		w.hangUp(a)
	})
}

func TestRegistrarsAskPhonesThroughUs(t *testing.T) {
	inBubble(t, phones(sip.RegistrationsContact), func(w *bench) {
		_, reg := w.registerAt("Contact: <sip:ann@10.9.9.9:5099>") // behind a NAT: where it came from counts
		w.a.reply(reg, 200, "reg", nil, "")
		w.p.want("200")
		q := &dialogue{p: w.a, us: outside, callID: "qualify", local: "<sip:pbx@pbx.example>;tag=q", remote: "<sip:ann@pbx.example>", target: contactURIOf(t, reg)}
		q.send("OPTIONS", nil, "")
		m := w.p.want("OPTIONS")
		if m.URI != "sip:ann@10.9.9.9:5099" {
			t.Errorf("asked at %s", m.URI)
		}
		w.p.reply(m, 200, "x", nil, "")
		w.a.want("200 OPTIONS")
		q.target = "sip:ping@" + outside.String()
		q.callID = "ping"
		q.send("OPTIONS", nil, "")
		w.a.want("200 OPTIONS") // of ours
		w.p.quiet(time.Second)
	})
}

func TestPhonesAreReachedThroughAPath(t *testing.T) {
	inBubble(t, phones(sip.RegistrationsPath), func(w *bench) {
		own := fmt.Sprintf("<sip:ann@%s>", pbx)
		_, reg := w.registerAt("Contact: "+own, "Path: <sip:edge.example;lr>", "Supported: gruu")
		path := reg.List("Path")
		if reg.Get("Contact") != own || len(path) != 2 || path[1] != "<sip:edge.example;lr>" || reg.Get("Supported") != "gruu, path" {
			t.Fatalf("the registrar gets\n%s", reg.Append(nil))
		}
		w.a.reply(reg, 200, "reg", []string{"Contact: " + own, "Path: " + path[0]}, "")
		if m := w.p.want("200"); m.Get("Contact") != own {
			t.Errorf("the phone is told %s", m.Get("Contact"))
		}
		a := &dialogue{
			p: w.a, us: outside, callID: "to-ann", local: "<sip:bob@pbx.example>;tag=b", remote: "<sip:ann@pbx.example>", target: "sip:ann@" + pbx.String(),
			routes: []string{"Route: " + path[0]},
		}
		a.send("INVITE", []string{fmt.Sprintf("Contact: <sip:bob@%s>", carrier)}, sdpOf(carrier.Addr(), 7000))
		w.a.want("100")
		p := w.p.take(inside)
		if p.invite.URI != a.target || p.invite.Has("Route") {
			t.Errorf("the phone gets\n%s", p.invite.Append(nil))
		}
		a.routes = nil
		w.p.reply(p.invite, 200, "ann", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8000))
		w.acked(a, p, w.a.want("200"))
		w.hangUp(a)
	})
}

func TestUnregistering(t *testing.T) {
	inBubble(t, phones(sip.RegistrationsContact), func(w *bench) {
		_, reg := w.registerAt("Contact: *")
		if reg.Get("Contact") != "*" {
			t.Errorf("Contact %s", reg.Get("Contact"))
		}
		w.a.reply(reg, 200, "reg", nil, "")
		w.p.want("200")
	})
}

func TestOnlyPeersAreReached(t *testing.T) {
	inBubble(t, phones(sip.RegistrationsContact), func(w *bench) {
		for i, b := range []binding{
			{uri: "sip:x@203.0.113.9", flow: sip.Flow{Network: "udp", Remote: stranger}},                        // no peer
			{uri: "sip:x@192.0.2.66", flow: sip.Flow{Network: "udp", Remote: carrier}},                          // a peer of the other side
			{uri: "sip:x y@10.0.0.66", flow: sip.Flow{Network: "udp", Remote: pbx}},                             // no URI
			{uri: "sip:x@10.0.0.66", flow: sip.Flow{Network: "udp", Remote: netip.AddrPortFrom(pbx.Addr(), 0)}}, // no port: sent nowhere
		} {
			target := "sip:" + b.user() + "@" + outside.String()
			a := &dialogue{p: w.a, us: outside, callID: fmt.Sprint("to-", i), local: "<sip:bob@x>;tag=b", remote: "<sip:ann@x>", target: target}
			a.send("INVITE", []string{fmt.Sprintf("Contact: <sip:bob@%s>", carrier)}, sdpOf(carrier.Addr(), 7000))
			w.a.want("100")
			if m := w.a.next(time.Minute); m == nil || m.Status < 400 {
				t.Errorf("%d: got %v", i, m)
			}
			w.a.sendMessage(outside, mustParse(t, a.requestAt("ACK", 1, nil, "")))
		}
		w.p.quiet(time.Second)
	})
}

func TestABindingThatLeadsToOurselves(t *testing.T) {
	edit := func(cfg *Config) {
		phones(sip.RegistrationsContact)(cfg)
		side := &cfg.Trunks[0].Sides[media.Internal]
		side.Peers = append(side.Peers, netip.PrefixFrom(inside.Addr(), 32))
		side = &cfg.Trunks[0].Sides[media.External]
		side.Peers = append(side.Peers, netip.PrefixFrom(outside.Addr(), 32))
	}
	for name, to := range map[string]netip.AddrPort{"the side of phones": inside, "the side of the PBX": outside} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, edit, func(w *bench) {
				first := binding{uri: "sip:x@" + outside.String(), flow: sip.Flow{Network: "udp", Remote: to}}
				second := binding{uri: "sip:" + first.user() + "@" + outside.String(), flow: first.flow}
				for i, b := range []binding{first, second} {
					a := &dialogue{p: w.a, us: outside, callID: fmt.Sprint("to-", i), local: "<sip:bob@x>;tag=b", remote: "<sip:ann@x>", target: "sip:" + b.user() + "@" + outside.String()}
					a.send("INVITE", []string{fmt.Sprintf("Contact: <sip:bob@%s>", carrier)}, sdpOf(carrier.Addr(), 7000))
					w.a.want("100")
					m := w.a.next(time.Minute)
					if m == nil || m.Status < 400 {
						t.Fatalf("got %v", m)
					}
					w.a.sendMessage(outside, mustParse(t, a.requestAt("ACK", 1, nil, "")))
				}
			})
		})
	}
}

func TestPassingRegistrationsStayAsTheyAre(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		_, reg := w.registerAt("Contact: " + fmt.Sprintf("<sip:ann@%s>", pbx))
		if reg.Get("Contact") != fmt.Sprintf("<sip:ann@%s>", pbx) || reg.Has("Path") {
			t.Errorf("the registrar gets\n%s", reg.Append(nil))
		}
		w.a.reply(reg, 200, "reg", nil, "")
		w.p.want("200")
	})
}

func TestBindings(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ip := rapid.OneOf(rapid.SliceOfN(rapid.Byte(), 4, 4), rapid.SliceOfN(rapid.Byte(), 16, 16)).Draw(t, "address")
		addr, _ := netip.AddrFromSlice(ip)
		want := binding{
			uri:  "sip:" + rapid.StringMatching(`[a-zA-Z0-9.;=@%+*-]{0,400}`).Draw(t, "uri"),
			flow: sip.Flow{Network: rapid.SampledFrom(bindingTransports).Draw(t, "transport"), Remote: netip.AddrPortFrom(addr, rapid.Uint16().Draw(t, "port"))},
		}
		got, ok := bindingOf("sip:" + want.user() + "@192.0.2.1:5060;transport=tcp")
		if !ok || got != want {
			t.Fatalf("got %+v %v, want %+v", got, ok, want)
		}
	})
}

func FuzzBindingOf(f *testing.F) {
	f.Add("sip:" + binding{uri: "sip:a@b", flow: sip.Flow{Network: "tcp", Remote: pbx}}.user() + "@h")
	f.Add("sip:tt.AQ@h")
	f.Add("sip:tt.AQAAAAQ@h")
	f.Fuzz(func(t *testing.T, uri string) {
		b, ok := bindingOf(uri)
		if ok && strings.ContainsAny(b.uri, "\r\n <>") {
			t.Fatalf("%q", b.uri)
		}
	})
}

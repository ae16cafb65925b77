package main

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip/siptest"
)

// TestLivePhones registers a phone through the daemon and calls it: the call goes
// through the daemon and is recorded, also by a daemon that was started since.
func TestLivePhones(t *testing.T) {
	trunks, agents := twoTrunks(t, recorder.FormatOggOpus)
	trunks[0].Sides[1].NextHop = ""
	trunks[0].Keys = []string{"registrations: contact"}
	d := newLiveDaemon(t, liveConfig{Trunks: trunks, Listen: []string{"udp://" + freeUDP(t, liveHost).String()}})
	d.start()
	pbx, phone := agents[0][0], agents[0][1]
	res := must(phone.Register(t.Context(), "sip:pbx.example", d.via()))(t)
	if res.Code != 200 {
		t.Fatalf("REGISTER is answered %d", res.Code)
	}
	d.stop()
	d.start()
	contact := registeredAt(t, pbx, d.via())
	p := &livePair{hz: [2]float64{440, 1000}}
	phone.Speak(func() siptest.Source { return siptest.Tone(p.hz[1], 0.5) })
	p.external = must(pbx.Call(t.Context(), contact, d.via(), siptest.CallOptions{Play: siptest.Tone(p.hz[0], 0.5)}))(t)
	p.internal = must(phone.Accept(t.Context()))(t)
	time.Sleep(2 * time.Second)
	if err := p.bye(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.packets(t)
	for _, m := range d.recordings(1) {
		checkAccount(t, m)
		checkVoices(t, m, d.export(m.ID), p.hz)
	}
	d.stop()
}

// registeredAt returns where a registrar has been told that a phone is.
func registeredAt(t *testing.T, registrar *siptest.Agent, via netip.AddrPort) string {
	t.Helper()
	for _, m := range registrar.Requests() {
		if m.Method != "REGISTER" {
			continue
		}
		contact := m.Get("Contact")
		from, to := strings.IndexByte(contact, '<'), strings.IndexByte(contact, '>')
		if from < 0 || to < from || !strings.Contains(contact[from:to], "@"+via.String()) {
			t.Fatalf("registered at %s", contact)
		}
		return contact[from+1 : to]
	}
	t.Fatal("nobody has registered")
	return ""
}

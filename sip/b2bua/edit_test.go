package b2bua

import (
	"testing"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip"
)

func TestHeaderRules(t *testing.T) {
	inBubble(t, func(cfg *Config) {
		h := &cfg.Trunks[0].Headers
		h[media.Internal].Requests = sip.HeaderEdit{Remove: []string{"User-Agent", "X-*"}, Set: []sip.Header{{Name: "X-Trunk", Value: "t"}}}
		h[media.External].Requests = sip.HeaderEdit{Set: []sip.Header{{Name: "User-Agent", Value: "us"}}}
		h[media.External].Responses = sip.HeaderEdit{PassOnly: []string{"X-Pass"}, Set: []sip.Header{{Name: "Server", Value: "us"}}}
	}, func(w *bench) {
		a := begin(w.a, outside, "rules", sdpOf(carrier.Addr(), 7000), "User-Agent: sbc", "X-Secret: 1", "Subject: s", "Supported: replaces")
		w.a.want("100")
		p := w.p.take(inside)
		expect(t, p.invite, map[string]string{"User-Agent": "", "X-Secret": "", "X-Trunk": "t", "Subject": "s", "Supported": "replaces"})
		w.p.reply(p.invite, 183, "pbx", []string{w.p.contact(), "Server: pbx", "X-Pass: 1", "X-Other: 2", "Require: 100rel", "RSeq: 1"}, "")
		expect(t, w.a.want("183"), map[string]string{"Server": "us", "X-Pass": "1", "X-Other": "", "Require": "100rel", "RSeq": "1"})
		w.p.reply(p.invite, 200, "pbx", []string{w.p.contact(), "Server: pbx"}, sdpOf(pbx.Addr(), 8000))
		ok := w.a.want("200")
		expect(t, ok, map[string]string{"Server": "us"})
		w.acked(a, p, ok)
		p.target = contactURIOf(t, p.invite)
		p.send("INFO", []string{"User-Agent: pbx 1.2", "X-Secret: 2"}, "")
		m := w.a.want("INFO")
		expect(t, m, map[string]string{"User-Agent": "us", "X-Secret": "2"})
		w.a.reply(m, 200, "", []string{"Server: sbc", "X-Other: 3"}, "")
		expect(t, w.p.want("200 INFO"), map[string]string{"Server": "sbc", "X-Other": "3"})
		w.hangUp(a)
		// A CANCEL is made of that of the caller.
		c := begin(w.a, outside, "cancel", sdpOf(carrier.Addr(), 7000))
		w.a.want("100")
		p = w.p.take(inside)
		w.p.reply(p.invite, 180, "pbx", nil, "")
		w.a.want("180")
		c.branches--
		w.a.send(outside, c.request("CANCEL", []string{"User-Agent: sbc", "X-Secret: 3"}, ""))
		w.a.want("200 CANCEL")
		expect(t, w.p.want("CANCEL"), map[string]string{"User-Agent": "", "X-Secret": "", "X-Trunk": "t"})
		w.p.reply(p.invite, 487, "pbx", nil, "")
		w.a.want("487 INVITE")
	})
}

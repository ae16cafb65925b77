package b2bua

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/media/relay"
	"github.com/trunktap/trunktap/sip"
)

func TestRecorderRefuses(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		w.obs.err = errors.New("disk full")
		begin(w.a, outside, "rr", sdpOf(carrier.Addr(), 7000))
		w.a.want("100")
		if res := w.a.want("503"); !strings.Contains(res.Get("Reason"), "recording") {
			t.Errorf("no Reason:\n%s", res.Append(nil))
		}
		w.p.quiet(time.Second)
	})
}

func TestRecorderFaultsNeverHurtTheCall(t *testing.T) {
	for _, panics := range []string{"start", "stream", "answered", "ended", "signal"} {
		inBubble(t, nil, func(w *bench) {
			w.obs.panics = panics
			a, p := w.established("f" + panics)
			p.target = contactURIOf(t, p.invite)
			reinvite(w, p, a, sdpOf(pbx.Addr(), 8000, "a=inactive"), sdpOf(carrier.Addr(), 7000, "a=inactive"))
			w.hangUp(a)
			if got := w.b.counters.Unrecorded.Load(); got != 1 {
				t.Errorf("%s: %d calls counted as unrecorded", panics, got)
			}
		})
	}
}

func TestRecorderSlow(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		w.obs.delay = 10 * time.Second
		at := time.Now()
		a, _ := w.established("slow")
		if d := time.Since(at); d != observerWait {
			t.Errorf("the call waited %s", d)
		}
		time.Sleep(20 * time.Second)
		w.has(0, "ended failed") // told that nobody wants it any more
		w.hangUp(a)
	})
}

func TestCancelWhileRecorderThinks(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		w.obs.delay = time.Second
		a := begin(w.a, outside, "ct", sdpOf(carrier.Addr(), 7000))
		w.a.want("100")
		a.branches--
		w.a.send(outside, a.request("CANCEL", nil, ""))
		w.a.want("200 CANCEL")
		w.a.want("487 INVITE")
		w.p.quiet(5 * time.Second)
		w.has(0, "ended failed")
	})
}

func TestAccessList(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		s := newPeer(t, w.net, stranger)
		defer s.close()
		begin(s, outside, "s", sdpOf(stranger.Addr(), 7000))
		s.send(outside, "garbage")
		s.quiet(time.Second)
		if d, u := w.b.counters.Transport.Denied.Load(), w.b.counters.Transport.Unparseable.Load(); d != 2 || u != 0 {
			t.Errorf("denied %d, unparseable %d", d, u)
		}
		w.p.quiet(time.Second)
	})
}

func TestMalformedIsCounted(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		good := "OPTIONS sip:x SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.66;branch=z9hG4bK1\r\nFrom: <sip:a>;tag=1\r\nTo: <sip:b>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\n"
		bad := []string{
			"hello", "INVITE\r\n\r\n", strings.Replace(good, "From:", "Form:", 1) + "\r\n",
			good + "Content-Length: 3\r\n\r\nab", good + "Content-Length: 1\r\nl: 2\r\n\r\nabc",
			good + "X: a\nb\r\n\r\n", good + "X: a\rb\r\n\r\n", good + "To: <sip:c>\r\n\r\n",
			strings.Replace(good, "1 OPTIONS", "1 INVITE", 1) + "\r\n",
		}
		for i := range bad { // answers differ, so that none counts as a repetition
			bad[i] = strings.Replace(bad[i], "Call-ID: 1", "Call-ID: "+strconv.Itoa(i), 1)
		}
		for _, m := range bad {
			w.a.send(outside, m)
			if strings.HasPrefix(m, "OPTIONS") && !strings.Contains(m, "Form:") {
				w.a.want("400")
			}
		}
		w.a.quiet(time.Second)
		for _, m := range []string{"\r\n", "\r\n\r\n", "\x00", ""} {
			w.a.send(outside, m)
		}
		w.a.quiet(time.Second)
		c := w.b.counters.Transport
		if int(c.Unparseable.Load()) != len(bad) || c.KeepAlives.Load() != 4 {
			t.Errorf("unparseable %d of %d, keep-alives %d of 4", c.Unparseable.Load(), len(bad), c.KeepAlives.Load())
		}
		a, _ := w.established("after")
		w.hangUp(a)
	})
}

func TestTortureDoesNoHarm(t *testing.T) {
	files, _ := filepath.Glob("../../../shared/fixtures/public/torture/*.dat")
	if len(files) == 0 {
		t.Skip("no RFC 4475 messages in ../shared/fixtures/public/torture")
	}
	inBubble(t, nil, func(w *bench) {
		a, _ := w.established("torture")
		w.a.lenient, w.p.lenient = true, true
		for _, f := range files {
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			w.a.send(outside, string(data))
			w.p.send(inside, string(data))
			for cut := 0; cut < len(data); cut += 37 {
				w.a.send(outside, string(data[:cut]))
			}
			synctest.Wait()
		}
		time.Sleep(time.Minute)
		w.a.drain()
		w.p.drain()
		c := w.b.counters.Transport
		t.Logf("%d files: %d messages taken, %d unparseable", len(files), c.Received.Load(), c.Unparseable.Load())
		w.hangUp(a)
	})
}

func TestShutdown(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		w.established("up")
		begin(w.a, outside, "ringing", sdpOf(carrier.Addr(), 7010))
		w.a.want("100")
		p := w.p.take(inside)
		w.p.reply(p.invite, 180, "pbx", []string{w.p.contact()}, "")
		w.a.want("180")
		at := time.Now()
		closed := make(chan error)
		go func() { closed <- w.b.Close() }()
		byes, cancels := 0, 0
		for byes+cancels < 2 {
			m := w.p.next(time.Second)
			switch {
			case m == nil:
				t.Fatal("neither BYE nor CANCEL")
			case m.Method == "BYE":
				byes++
			case m.Method == "CANCEL":
				cancels++
			}
			w.p.reply(m, 200, "", nil, "")
		}
		for range 2 {
			if m := w.a.next(time.Second); m.Method == "BYE" {
				w.a.reply(m, 200, "", nil, "")
			} else if m.Status != 503 {
				t.Errorf("caller got\n%s", m.Append(nil))
			}
		}
		if err := <-closed; err != nil {
			t.Error(err)
		}
		if d := time.Since(at); d > closeWait {
			t.Errorf("closing took %s", d)
		}
		if got := w.obs.log(0); !strings.HasSuffix(got, "ended shutdown") {
			t.Errorf("told: %s", got)
		}
	})
}

func TestMediaSilence(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		a, p := w.established("quiet")
		p.target = contactURIOf(t, p.invite)
		reinvite(w, p, a, sdpOf(pbx.Addr(), 8000, "a=sendonly"), sdpOf(carrier.Addr(), 7000, "a=recvonly"))
		w.p.quiet(time.Hour) // on hold nobody need say anything
		reinvite(w, p, a, sdpOf(pbx.Addr(), 8000), sdpOf(carrier.Addr(), 7000))
		at := time.Now()
		timer := time.AfterFunc(2*time.Minute, func() {
			rtp, err := w.net.Listen(netip.MustParseAddrPort("10.0.0.66:8000"))
			if err != nil {
				return
			}
			packet := append([]byte{0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1}, make([]byte, 160)...)
			_, _ = rtp.WriteToUDPAddrPort(packet, netip.MustParseAddrPort("10.0.0.1:20000"))
			_ = rtp.Close()
		})
		defer timer.Stop()
		var bye *sip.Message
		for bye == nil {
			if bye = w.p.next(time.Hour); bye == nil {
				t.Fatal("the call goes on")
			}
		}
		if d := time.Since(at); d < 7*time.Minute || d > 7*time.Minute+2*silenceEvery {
			t.Errorf("ended after %s", d)
		}
		w.a.want("BYE")
		synctest.Wait()
		if got := w.obs.log(0); !strings.HasSuffix(got, "ended media-silence") {
			t.Errorf("told: %s", got)
		}
	})
}

func TestLimits(t *testing.T) {
	inBubble(t, func(cfg *Config) { cfg.CallsMax = 1 }, func(w *bench) {
		a, _ := w.established("one")
		begin(w.a, outside, "two", sdpOf(carrier.Addr(), 7010))
		if res := w.a.want("503"); res.Get("Retry-After") == "" {
			t.Error("503 without Retry-After")
		}
		w.hangUp(a)
		b, _ := w.established("three")
		w.hangUp(b)
	})
}

func TestPortsRunOut(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		for range 50 {
			s, err := w.relay.Open([2]netip.Addr{outside.Addr(), inside.Addr()}, relay.Options{RTP: true})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = s.Close() }()
		}
		begin(w.a, outside, "ports", sdpOf(carrier.Addr(), 7000))
		w.a.want("100")
		w.a.want("503")
	})
}

func TestReloadKeepsCalls(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		a, _ := w.established("keep")
		other := trunk()
		other.Name = "other"
		for i := range other.Sides {
			other.Sides[i].Peers = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
			other.Sides[i].NextHops = []sip.NextHop{{Host: "198.51.100.1", Transport: "udp"}}
		}
		if err := w.b.Reload([]sip.Trunk{other}); err != nil {
			t.Fatal(err)
		}
		begin(w.a, outside, "new", sdpOf(carrier.Addr(), 7010))
		w.a.want("503")
		w.hangUp(a)
		time.Sleep(2 * time.Minute)
		begin(w.a, outside, "newer", sdpOf(carrier.Addr(), 7010))
		w.a.quiet(time.Second)
	})
}

func TestMaxForwards(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		d := &dialogue{p: w.a, us: outside, callID: "mf", local: "<sip:a@b>;tag=1", remote: "<sip:c@d>", target: "sip:c@192.0.2.1"}
		w.a.send(outside, strings.Replace(d.request("INVITE", []string{w.a.contact()}, sdpOf(carrier.Addr(), 7000)), "Max-Forwards: 70", "Max-Forwards: 0", 1))
		w.a.want("483")
		w.p.quiet(time.Second)
	})
}

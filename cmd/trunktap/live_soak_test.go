package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip/siptest"
)

var (
	soakTime    = flag.Duration("soak", 3*time.Second, "how long TestLiveSoak sends rubbish")
	soakHeap    = flag.String("heap", "", "directory where TestLiveSoak leaves heap profiles of the daemon")
	soakSpoofed = flag.Int("spoofed", 20_000, "datagrams of TestLiveSoak from addresses of nobody, and INVITEs of a peer")
)

const (
	soakCalls   = 50
	soakKeep    = 2000            // packets of each call that are compared byte for byte, each way
	soakRate    = 2000            // messages a second of rubbish, half of them over TCP
	soakRSSMax  = 512             // MiB, more than the calls alone take, while it lasts
	soakWarm    = 4 * time.Second // until the calls hold what they need
	soakSettle  = 3 * time.Minute
	soakIdleMax = 48   // MiB, more than with the calls alone, once it is over
	soakLossMax = 1000 // one packet in so many may be lost: by sockets of the test on a machine that stands still
)

// TestLiveSoak sends rubbish, and more calls than anybody takes, at the sockets of
// a daemon that has 50 calls: these must not notice.
func TestLiveSoak(t *testing.T) {
	w := newSoak(t)
	seed := rand.Uint64()
	t.Logf("seed %d; %d MiB with %d calls", seed, w.rss(), soakCalls)
	for _, step := range []struct {
		name string
		run  func()
	}{
		{"rubbish", func() { w.rubbish(seed) }},
		{"from nobody", func() { w.fromNobody(*soakSpoofed) }},
		{"calls of a peer", func() { defer w.watch(5 * time.Second)(); w.invites(*soakSpoofed) }},
	} {
		before := w.counters()
		from, base := time.Now(), w.rss()
		step.run()
		after, rss := w.counters(), w.rss()
		w.profile(step.name)
		t.Logf("%s, %s: %d MiB before, %d MiB after", step.name, time.Since(from).Round(time.Second), base, rss)
		for name, n := range after {
			if n != before[name] && strings.HasPrefix(name, "trunktap_sip_") || strings.HasPrefix(name, "trunktap_calls_") && n != before[name] {
				t.Logf("%s: %s %+.0f", step.name, name, n-before[name])
			}
		}
		if grown := rss - w.idle; grown > soakRSSMax {
			t.Errorf("%s: %d MiB more than before", step.name, grown)
		}
		w.settle(step.name)
	}
	w.check()
}

// soak is a daemon with calls.
type soak struct {
	*liveDaemon
	t      *testing.T
	agents [2]*siptest.Agent
	calls  []*livePair
	idle   int            // MiB
	heap   netip.AddrPort // of profiles
}

func newSoak(t *testing.T) *soak {
	at := freeUDP(t, liveHost)
	tc := liveTrunkConfig{Name: "soak", Format: recorder.FormatWAVPCM16, Keys: []string{fmt.Sprintf("limits: {calls_max: %d}", soakCalls+2)}}
	w, more := &soak{t: t}, ""
	for side, addr := range liveTrunk[0] {
		w.agents[side] = liveAgent(t, siptest.Config{Addr: netip.AddrPortFrom(addr, 0), KeepMax: soakKeep})
		tc.Sides[side] = liveSide{Peer: addr, NextHop: "sip:" + w.agents[side].Addr().String(), Media: liveHost}
	}
	if *soakHeap != "" {
		w.heap = freeTCP(t, liveHost)
		more = fmt.Sprintf("pprof: {listen: %q}\n", w.heap)
	}
	w.liveDaemon = newLiveDaemon(t, liveConfig{Lookback: liveLookback, More: more, Trunks: []liveTrunkConfig{tc}, Listen: []string{"udp://" + at.String(), "tcp://" + at.String()}, Ports: 4 * (soakCalls + 20)})
	w.start()
	for i := range soakCalls {
		w.calls = append(w.calls, w.call(w.agents, [2]float64{400 + 10*float64(i%7), 1000 + 10*float64(i%5)}))
	}
	for _, a := range w.agents { // what is no call of ours
		a.Script(func(in *siptest.Incoming) { in.Reject(486, "Busy Here") })
	}
	time.Sleep(soakWarm)
	w.idle = w.rss()
	return w
}

// settle waits until what a step left behind is forgotten: memory must fall back to
// about what it was.
func (w *soak) settle(name string) {
	from, most := time.Now(), w.idle+max(w.idle/4, soakIdleMax)
	for w.rss() > most && time.Since(from) < soakSettle {
		time.Sleep(time.Second)
	}
	c := w.counters()
	w.t.Logf("%s: %d MiB %s later; memory was given back %.0f times; of Go: %.0f MiB, %.0f in objects", name, w.rss(), time.Since(from).Round(time.Second),
		c["trunktap_memory_reclaimed_total"], (c["go_memstats_sys_bytes"]-c["go_memstats_heap_released_bytes"])/(1<<20), c["go_memstats_heap_alloc_bytes"]/(1<<20))
	if rss := w.rss(); rss > most {
		w.t.Errorf("%s: %d MiB %s later, %d before the first", name, rss, soakSettle, w.idle)
	}
	w.profile(name + " after")
}

// watch shows how much memory is in use, until the function that it returns is called.
func (w *soak) watch(every time.Duration) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		var seen []int
		for tick := time.Tick(every); ; {
			select {
			case <-tick:
				seen = append(seen, w.rss())
			case <-done:
				w.t.Logf("every %s: %d MiB", every, seen)
				return
			}
		}
	}()
	return func() { close(done); <-ended }
}

// profile keeps a profile of the daemon's heap.
func (w *soak) profile(name string) {
	if *soakHeap == "" {
		return
	}
	res := must(http.Get("http://" + w.heap.String() + "/debug/pprof/heap"))(w.t)
	defer func() { _ = res.Body.Close() }() // it was read
	data := must(io.ReadAll(res.Body))(w.t)
	if err := os.WriteFile(filepath.Join(*soakHeap, strings.ReplaceAll(name, " ", "_")+".heap"), data, 0o600); err != nil {
		w.t.Error(err)
	}
}

// rss is what the daemon holds. Rings that the kernel shares with it do not count: they
// are of one size, and seem to grow as they are used for the first time.
func (w *soak) rss() int { return w.memory("RssAnon:") }

// memory of the daemon, MiB.
func (w *soak) memory(what string) int {
	w.t.Helper()
	for line := range strings.Lines(string(must(os.ReadFile(fmt.Sprintf("/proc/%d/status", w.cmd.Process.Pid)))(w.t))) {
		if f := strings.Fields(line); f[0] == what {
			return must(strconv.Atoi(f[1]))(w.t) / 1024
		}
	}
	w.t.Fatal("no " + what)
	return 0
}

func (w *soak) counters() map[string]float64 {
	out := map[string]float64{}
	for line := range strings.Lines(w.metrics()) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseFloat(value, 64); ok && err == nil {
			out[name] = n
		}
	}
	return out
}

// rubbish sends damaged messages from both peers, over UDP and TCP.
func (w *soak) rubbish(seed uint64) {
	ctx, cancel := context.WithTimeout(w.t.Context(), *soakTime)
	defer cancel()
	defer w.watch(*soakTime / 10)()
	seeds := soakSeeds(w.t, w.via())
	err := together(4, func(i int) error {
		from := liveTrunk[0][i%2]
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		if i < 2 {
			return soakUDP(ctx, r, from, w.via(), seeds)
		}
		return soakTCP(ctx, r, from, w.via(), seeds)
	})
	if err != nil {
		w.t.Error(err)
	}
}

func soakUDP(ctx context.Context, r *rand.Rand, from netip.Addr, to netip.AddrPort, seeds [][]byte) error {
	c, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), net.UDPAddrFromAddrPort(to))
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // what it sent is gone
	tick := time.NewTicker(time.Second / (soakRate / 4))
	defer tick.Stop()
	for ctx.Err() == nil {
		b := spoil(r, seeds)
		_, _ = c.Write(b[:min(len(b), 65_000)]) // the kernel may refuse one for want of room
		<-tick.C
	}
	return nil
}

func soakTCP(ctx context.Context, r *rand.Rand, from netip.Addr, to netip.AddrPort, seeds [][]byte) error {
	dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), Timeout: liveReadyLimit}
	tick := time.NewTicker(time.Second / (soakRate / 4))
	defer tick.Stop()
	for ctx.Err() == nil {
		c, err := dialer.DialContext(context.WithoutCancel(ctx), "tcp", to.String()) // the end of the soak is no fault
		if err != nil {
			if ctx.Err() == nil {
				return fmt.Errorf("a peer that sends rubbish cannot connect any more: %w", err)
			}
			return nil
		}
		for range 1 + r.IntN(30) { // the daemon closes it when it cannot tell where messages begin
			_ = c.SetWriteDeadline(time.Now().Add(time.Second)) // an open connection has deadlines
			if _, err := c.Write(spoil(r, seeds)); err != nil || ctx.Err() != nil {
				break
			}
			<-tick.C
		}
		_ = c.Close() // likewise
	}
	return nil
}

// spoil makes one message out of others, and damages it; now and then it is no message.
func spoil(r *rand.Rand, seeds [][]byte) []byte {
	if r.IntN(20) == 0 {
		b := make([]byte, r.IntN(3000))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	b := bytes.ReplaceAll(seeds[r.IntN(len(seeds))], []byte("{n}"), strconv.AppendUint(nil, r.Uint64(), 36))
	words := []string{"\r\n", "\r\n\r\n", ";", ",", "<", ">", "\"", "\x00", "%00", "4294967296", "-1", "tag=", "SIP/2.0", "Content-Length: 99999\r\n", "é", ";branch=z9hG4bK", " \r\n "}
	for range r.IntN(6) {
		if len(b) == 0 {
			break
		}
		from := r.IntN(len(b))
		to := min(len(b), from+1+r.IntN(40))
		switch r.IntN(7) {
		case 0: // a bit
			b[from] ^= 1 << r.IntN(8)
		case 1: // left out
			b = append(b[:from:from], b[to:]...)
		case 2: // twice, or very often
			n := 1
			if r.IntN(10) == 0 {
				n = 200
			}
			b = append(b[:to:to], append(bytes.Repeat(b[from:to], n), b[to:]...)...)
		case 3: // something between
			b = append(b[:from:from], append([]byte(words[r.IntN(len(words))]), b[from:]...)...)
		case 4: // cut off
			b = b[:from]
		case 5: // the end of another
			other := seeds[r.IntN(len(seeds))]
			b = append(b[:from:from], other[r.IntN(len(other)):]...)
		case 6: // two lines exchanged
			lines := bytes.SplitAfter(b, []byte("\r\n"))
			i, j := r.IntN(len(lines)), r.IntN(len(lines))
			lines[i], lines[j] = lines[j], lines[i]
			b = bytes.Join(lines, nil)
		}
	}
	return b
}

// soakSeeds are messages of every method, and those of RFC 4475 where they are at hand.
func soakSeeds(t *testing.T, via netip.AddrPort) (out [][]byte) {
	t.Helper()
	sdp := "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x\r\n"
	bodies := []string{"", "Content-Type: application/sdp\r\n\r\n" + sdp, "Content-Type: multipart/mixed;boundary=x\r\n\r\n--x\r\nContent-Type: application/sdp\r\n\r\n" + sdp + "\r\n--x--\r\n"}
	for i, method := range strings.Fields("INVITE INVITE OPTIONS REGISTER BYE CANCEL ACK PRACK UPDATE INFO REFER NOTIFY SUBSCRIBE MESSAGE PUBLISH WHATEVER") {
		head, body, ok := strings.Cut(bodies[i%len(bodies)], "\r\n\r\n")
		if ok {
			head += "\r\n"
		}
		out = append(out, fmt.Appendf(nil, "%s sip:desk@%s SIP/2.0\r\n%sRAck: 1 1 INVITE\r\nRefer-To: <sip:a@%s?Replaces=a%%3Bto-tag%%3Db>\r\n"+
			"Replaces: a;to-tag=b;from-tag=c\r\nSession-Expires: 90;refresher=uac\r\nEvent: dialog\r\nRoute: <sip:%s;lr>\r\n%sContent-Length: %d\r\n\r\n%s",
			method, via, soakHead(method), via, via, head, len(body), body))
	}
	for _, status := range []string{"100 Trying", "183 Progress", "200 OK", "302 Moved", "401 Unauthorized", "503 Unavailable"} {
		out = append(out, fmt.Appendf(nil, "SIP/2.0 %s\r\n%sContent-Length: 0\r\n\r\n", status, soakHead("INVITE")))
	}
	files, _ := filepath.Glob("../../../shared/fixtures/public/torture/*.dat") // the pattern is a good one
	for _, f := range files {
		out = append(out, must(os.ReadFile(f))(t))
	}
	return out
}

func soakHead(method string) string {
	return "Via: SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bK{n};rport\r\nMax-Forwards: 70\r\nFrom: \"A, b\" <sip:a@x>;tag={n}\r\nTo: <sip:desk@x>\r\n" +
		"Call-ID: {n}@soak\r\nCSeq: 1 " + method + "\r\nContact: <sip:a@127.0.0.1:5060;transport=udp>\r\n"
}

// fromNobody sends INVITEs from addresses that belong to no trunk.
func (w *soak) fromNobody(n int) {
	c := must(net.ListenUDP("udp4", nil))(w.t)
	defer func() { _ = c.Close() }() // what it sent is gone
	p := ipv4.NewPacketConn(c)
	text := bytes.ReplaceAll(soakSeeds(w.t, w.via())[1], []byte("{n}"), []byte("spoofed"))
	to := net.UDPAddrFromAddrPort(w.via())
	failed := 0
	for i := range n {
		src := net.IPv4(127, liveNet[0]^0x55, byte(i>>8), byte(i)) // Linux has them all
		if _, err := p.WriteTo(text, &ipv4.ControlMessage{Src: src}, to); err != nil {
			failed++
		}
	}
	if failed > n/10 {
		w.t.Errorf("%d of %d datagrams could not be sent", failed, n)
	}
}

// invites sends INVITEs from a peer, each of a call of its own, and acknowledges nothing.
func (w *soak) invites(n int) {
	c := must(net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(liveTrunk[0][0], 0)), net.UDPAddrFromAddrPort(w.via())))(w.t)
	answers := make(chan map[string]int, 1)
	go func() {
		got, buf := map[string]int{}, make([]byte, 65536)
		for {
			n, err := c.Read(buf)
			if errors.Is(err, net.ErrClosed) {
				answers <- got
				return
			}
			if f := bytes.Fields(buf[:n]); len(f) > 1 {
				got[string(f[1])]++
			}
		}
	}()
	seed := soakSeeds(w.t, w.via())[1]
	for i := range n {
		text := bytes.ReplaceAll(seed, []byte("{n}"), strconv.AppendInt([]byte("flood"), int64(i), 10))
		_, _ = c.Write(text) // the kernel may refuse one for want of room
		if i%20 == 0 {
			time.Sleep(time.Millisecond) // else most of them never leave the kernel
		}
	}
	time.Sleep(time.Second) // the last answers
	_ = c.Close()           // ends the reader
	w.t.Logf("answers %v", <-answers)
}

// check ends all calls and holds that nothing happened to them.
func (w *soak) check() {
	t := w.t
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	errs := together(len(w.calls), func(i int) error {
		select {
		case <-w.calls[i].external.Done():
			return fmt.Errorf("call %d had ended", i)
		default:
			return w.calls[i].bye(ctx)
		}
	})
	if errs != nil {
		t.Error(errs)
	}
	all, lost := 0, 0
	for _, c := range w.calls {
		for _, d := range [][2]*siptest.Call{{c.external, c.internal}, {c.internal, c.external}} {
			sent, got := len(d[0].Media().Sent()), len(d[1].Media().Received())
			all += sent
			lost += max(0, sent-got)
		}
		a, b := c.external.Media().Dropped(), c.internal.Media().Dropped() // beyond what is kept, sent and received: equal when none is lost
		all += (a + b) / 2
		lost += max(a-b, b-a)
	}
	t.Logf("%d packets sent, %d lost", all, lost)
	if lost > all/soakLossMax {
		t.Errorf("%d of %d packets were lost", lost, all)
	}
	if n := w.counters()["trunktap_sip_panics_total"]; n != 0 {
		t.Errorf("%.0f faults of signalling", n)
	}
	w.within(livePublishLimit, "all calls are recorded", func() error {
		var page listing
		if err := w.get("/v1/recordings?limit=1000", &page); err != nil {
			return err
		}
		if len(page.Recordings) != soakCalls {
			return fmt.Errorf("%d recordings", len(page.Recordings))
		}
		gaps, audio := int64(0), int64(0)
		for _, m := range page.Recordings {
			checkAccount(t, &m)
			audio += m.AudioMS
			for _, g := range m.Gaps {
				if g.AudioMS > 500 && g.AudioMS+g.DurationMS < m.AudioMS-500 { // before and after nobody speaks
					gaps += g.DurationMS
				}
			}
		}
		t.Logf("%d ms recorded, gaps of %d ms", audio, gaps)
		if gaps > 2*audio/100 {
			t.Errorf("gaps of %d ms in %d ms", gaps, audio)
		}
		return nil
	})
	t.Log(strings.TrimSpace(w.command("verify")))
	w.stop()
}

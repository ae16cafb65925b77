package main

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip/siptest"
)

// sippScene is a call flow between SIPp and SIPp. Flows are written as
// siptest.SIPpConfig.Flow; {0}, {1}, {2} are addresses of caller, callee and third,
// {via} is ours.
type sippScene struct {
	name           string
	outwards       bool // the PBX calls
	tcp, v6        bool
	tls            bool     // over TCP, with a forwarder before each party
	keys           []string // of the trunk
	caller, callee string
	third          string // calls from the caller's side, when the call is answered
	back           string // answers on the caller's side what third calls, which is on the callee's side then
	recordings     int
	holds          int           // windows of hold in all of them
	limit          time.Duration // zero: a minute
}

const (
	sippCalls   = "> INVITE sendrecv\n<? 180\n< 200\n> ACK\n"
	sippAnswers = "< INVITE\n> 180\n> 200 sendrecv\n< ACK\n"
	sippLeaves  = "pause 300\n> BYE\n< 200\n"
	sippIsLeft  = "< BYE\n> 200\n"
	sippTalk    = "pause 200\n"
)

// holds are all four ways to hold, each with its end; and how they are answered.
var (
	sippHolds = sippTalk + "> INVITE sendonly\n< 200\n> ACK\npause 200\n> INVITE sendrecv\n< 200\n> ACK\n" +
		sippTalk + "> INVITE inactive\n< 200\n> ACK\npause 200\n> INVITE sendrecv\n< 200\n> ACK\n" +
		sippTalk + "> INVITE zero\n< 200\n> ACK\npause 200\n> INVITE sendrecv\n< 200\n> ACK\n" +
		sippTalk + "> INVITE\n< 200\n> ACK sendonly\npause 200\n> INVITE\n< 200\n> ACK sendrecv\n"
	sippHeld = "< INVITE\n> 200 recvonly\n< ACK\n< INVITE\n> 200 sendrecv\n< ACK\n" +
		"< INVITE\n> 200 inactive\n< ACK\n< INVITE\n> 200 sendrecv\n< ACK\n" +
		"< INVITE\n> 200 sendrecv\n< ACK\n< INVITE\n> 200 sendrecv\n< ACK\n" +
		"< INVITE\n> 200 sendrecv\n< ACK\n< INVITE\n> 200 sendrecv\n< ACK\n"
	sippReferred = "< REFER | Refer-To ~ sip:1234@{via}\n> 202\n> NOTIFY frag:100 | Event: refer | Subscription-State: active;expires=60\n< 200\n" +
		"> NOTIFY frag:200 | Event: refer | Subscription-State: terminated;reason=noresource\n< 200\n"
	sippRefers = "> REFER | Refer-To: <sip:1234@{self}{replaces}>\n< 202\n< NOTIFY | Event ~ refer\n> 200\n< NOTIFY | Subscription-State ~ terminated\n> 200\n"
	// sippTarget refers the caller to another number of its own side, and answers there:
	// the new call comes through us, as Refer-To was rewritten to say.
	sippTarget = "< INVITE if=Referred-By:1\n> 180\n> 200 sendrecv\n< ACK\n" + sippRefers + "pause 3000\n> BYE\n< 200\nend\n" +
		"label 1\n> 180\n> 200 sendrecv\n< ACK\n" + sippIsLeft
	sippReplaced = "< INVITE if=Replaces:1\n> 180\n> 200 sendrecv\n< ACK\n" + sippRefers + "pause 3000\n> BYE\n< 200\nend\n" +
		"label 1\n> 180\n> 200 sendrecv\n< ACK\n" + sippIsLeft
	sippReplaces = strings.Replace(sippCalls, "sendrecv", "sendrecv | Replaces: {name}-0@live;to-tag={name}1;from-tag={name}0 | Require: replaces", 1) + sippLeaves
	sippDigest   = `WWW-Authenticate: Digest realm="pbx.example", nonce="c0ffee", algorithm=MD5`
)

// sippScenes is the table of call flows.
func sippScenes() []*sippScene {
	scenes := []*sippScene{
		{name: "basic", caller: sippCalls + sippLeaves, callee: sippAnswers + sippIsLeft, recordings: 1},
		{name: "callee-leaves", caller: sippCalls + sippIsLeft, callee: sippAnswers + sippLeaves, recordings: 1},
		{name: "hold-by-caller", caller: sippCalls + sippHolds + sippLeaves, callee: sippAnswers + sippHeld + sippIsLeft, recordings: 1, holds: 4},
		{name: "hold-by-callee", caller: sippCalls + sippHeld + sippIsLeft, callee: sippAnswers + sippHolds + sippLeaves, recordings: 1, holds: 4},
		{
			name: "blind-by-callee", caller: sippCalls + sippReferred + sippIsLeft, callee: sippTarget, recordings: 2,
			third: strings.Replace(sippCalls, "sendrecv", "sendrecv | Referred-By: <sip:desk@{1}>", 1) + sippLeaves,
		},
		{ // who was called calls the number on the caller's side that it was sent to
			name: "blind-by-caller", caller: sippCalls + sippRefers + "pause 3000\n> BYE\n< 200\n", callee: sippAnswers + sippReferred + sippIsLeft, recordings: 2,
			third: strings.Replace(sippCalls, "sendrecv", "sendrecv | Referred-By: <sip:sbc@{0}>", 1) + sippLeaves,
			back:  strings.Replace(sippAnswers, "INVITE", "INVITE | Referred-By ~ sip:sbc@{0}", 1) + sippIsLeft,
		},
		{
			name: "prack", caller: "> INVITE sendrecv | Supported: 100rel\n< 183 | Require ~ 100rel\n> PRACK\n< 200\n< 200\n> ACK\n" + sippLeaves,
			callee:     "< INVITE | Supported ~ 100rel\n> 183 sendrecv | Require: 100rel | RSeq: 7\n< PRACK | RAck ~ 7 1 INVITE\n> 200\n> 200/INVITE\n< ACK\n" + sippIsLeft,
			recordings: 1,
		},
		{
			name: "update", caller: sippCalls + "> UPDATE sendonly\n< 200\npause 200\n> UPDATE sendrecv\n< 200\n" + sippLeaves,
			callee: sippAnswers + "< UPDATE\n> 200 recvonly\n< UPDATE\n> 200 sendrecv\n" + sippIsLeft, recordings: 1, holds: 1,
		},
		{
			name: "session-timer", keys: []string{"session_timer: keep"},
			caller: "> INVITE sendrecv | Supported: timer | Session-Expires: 60\n< 422 | Min-SE ~ 90\n> ACK\n" +
				"> INVITE sendrecv | Supported: timer | Session-Expires: 90;refresher=uac\n<? 180\n< 200 | Session-Expires ~ 90\n> ACK\n" +
				"> UPDATE | Supported: timer | Session-Expires: 90;refresher=uac\n< 200 | Session-Expires ~ 90\n" + sippLeaves,
			callee: sippAnswers + "< UPDATE\n> 200\n" + sippIsLeft, recordings: 1,
		},
		{ // nobody refreshes: the call ends a third of its interval before that is over (RFC 4028 section 10)
			name: "session-expires", keys: []string{"session_timer: keep"}, limit: 2 * time.Minute,
			caller: "> INVITE sendrecv | Supported: timer | Session-Expires: 90;refresher=uac\n<? 180\n< 200 | Session-Expires ~ 90;refresher=uac\n> ACK\n" +
				"< BYE | Reason ~ session timer expired\n> 200\n",
			callee: sippAnswers + "< BYE | Reason ~ session timer expired\n> 200\n", recordings: 1,
		},
		{
			name: "late-offer", caller: "> INVITE\n<? 180\n< 200\n> ACK sendrecv\n" + sippLeaves,
			callee: "< INVITE\n> 180\n> 200 sendrecv\n< ACK | Content-Type ~ application/sdp\n" + sippIsLeft, recordings: 1,
		},
		{
			name: "forked", caller: "> INVITE sendrecv\n< 180 | To ~ tag=forka\n< 183 | To ~ tag=forkb\n< 200 | To ~ tag=forkb\n> ACK\n" + sippLeaves,
			callee: "< INVITE\n> 180 tag=forka\n> 183 sendrecv tag=forkb\npause 100\n> 200 sendrecv tag=forkb\n< ACK | To ~ tag=forkb\n" + sippIsLeft, recordings: 1,
		},
		{name: "tcp", tcp: true, caller: sippCalls + sippHolds + sippLeaves, callee: sippAnswers + sippHeld + sippIsLeft, recordings: 1, holds: 4},
		{name: "ipv6", v6: true, caller: sippCalls + sippLeaves, callee: sippAnswers + sippIsLeft, recordings: 1},
	}
	scenes = append(scenes, sippRefusals()...)
	scenes = append(scenes, sippSecured()...)
	for _, tcp := range []bool{false, true} {
		scenes = append(scenes, &sippScene{
			name: map[bool]string{false: "large-udp", true: "large-tcp"}[tcp], tcp: tcp, recordings: 1,
			caller: strings.Replace(sippCalls, "sendrecv", "big", 1) + sippLeaves, callee: strings.Replace(sippAnswers, "sendrecv", "big", 1) + sippIsLeft,
		})
	}
	for _, outwards := range []bool{false, true} {
		scenes = append(scenes, &sippScene{
			name: map[bool]string{false: "attended-in", true: "attended-out"}[outwards], outwards: outwards, recordings: 2,
			caller: sippCalls + sippReferred + sippIsLeft, callee: sippReplaced, third: sippReplaces,
		})
	}
	return scenes
}

// sippRefusals are flows whose first INVITE is not answered with 200.
func sippRefusals() []*sippScene {
	return []*sippScene{
		{
			name: "redirected", caller: "> INVITE sendrecv\n< 302 | Contact ~ sip:other@192.0.2.7\n> ACK\n",
			callee: "< INVITE\n> 302 | Contact: <sip:other@192.0.2.7:5060>;q=0.5\n< ACK\n",
		},
		{
			name: "challenged-401", caller: "> INVITE sendrecv\n< 401 auth\n> ACK\n> INVITE sendrecv | [authentication username=anna password=secret]\n<? 180\n< 200\n> ACK\n" + sippLeaves,
			callee:     "< INVITE\n> 401 | " + sippDigest + "\n< ACK\n< INVITE | Authorization ~ username=.anna.*response=\n> 180\n> 200 sendrecv\n< ACK\n" + sippIsLeft,
			recordings: 1,
		},
		{
			name: "challenged-407", caller: "> INVITE sendrecv\n< 407 auth\n> ACK\n> INVITE sendrecv | [authentication username=anna password=secret]\n<? 180\n< 200\n> ACK\n" + sippLeaves,
			callee: "< INVITE\n> 407 | " + strings.Replace(sippDigest, "WWW", "Proxy", 1) +
				"\n< ACK\n< INVITE | Proxy-Authorization ~ username=.anna.*response=\n> 180\n> 200 sendrecv\n< ACK\n" + sippIsLeft,
			recordings: 1,
		},
		{name: "cancelled", caller: "> INVITE sendrecv\n< 180\n> CANCEL\n< 200\n< 487\n> ACK\n", callee: "< INVITE\n> 180\n< CANCEL\n> 200\n> 487/INVITE\n< ACK\n"},
		{ // who called hears 487 and no more; the answered leg is hung up
			name: "cancel-crosses-200", caller: "> INVITE sendrecv\n< 180\n> CANCEL\n< 200\n< 487\n> ACK\n",
			callee: "< INVITE\n> 180\n< CANCEL\n> 200\n> 200/INVITE sendrecv\n< ACK\n" + sippIsLeft,
		},
	}
}

// TestLiveSIPpScenes plays all call flows of the table through one daemon at once.
func TestLiveSIPpScenes(t *testing.T) {
	at := freeUDP(t, liveHost)
	cfg := liveConfig{Listen: []string{"udp://" + at.String(), "tcp://" + at.String()}}
	secure := newSippSecure(t, &cfg)
	scenes, runs := []*sippScene{}, []*sippRun{}
	for i, s := range sippScenes() {
		r := &sippRun{sippScene: s, via: at}
		hosts := []netip.Addr{liveAddr(byte(20 + 2*i)), liveAddr(byte(21 + 2*i))}
		media := liveHost
		if s.v6 {
			var err error
			if hosts, err = v6Hosts(t, 2); err != nil {
				t.Logf("%s is left out, alone: %v", s.name, err)
				continue
			}
			media = netip.IPv6Loopback()
			r.via = freeUDP(t, media)
			cfg.Listen = append(cfg.Listen, "udp://"+r.via.String())
		}
		tc := liveTrunkConfig{Name: s.name, Format: recorder.FormatWAVPCM16, Keys: s.keys}
		side := 0
		if s.outwards {
			side = 1
		}
		places := []int{side, 1 - side, side, side} // caller, callee, third, who answers back
		hops := []int{0, 1}
		if s.back != "" {
			places[2], hops[0] = 1-side, 3
		}
		for n, who := range places {
			r.addr[n] = netip.AddrPortFrom(hosts[who], uint16(5160+n)) // below the ports that Linux gives to others
			if slices.Contains(hops, n) {
				hop := "sip:" + r.addr[n].String()
				if s.tcp {
					hop += ";transport=tcp"
				}
				tc.Sides[who] = liveSide{Peer: hosts[who], NextHop: hop, Media: media}
				if s.tls {
					r.via = secure.at
					r.forward[n] = secure.forward(who, r.addr[n])
					tc.Sides[who].NextHop, tc.Sides[who].SRTP = r.forward[n].hop(), secure.side(who)
				}
			}
		}
		cfg.Trunks = append(cfg.Trunks, tc)
		scenes, runs = append(scenes, s), append(runs, r)
	}
	d := newLiveDaemon(t, cfg)
	d.start()
	began := time.Now()
	for _, r := range runs {
		r.start(t, 1)
		r.start(t, 3)
	}
	for _, r := range runs {
		r.listens(t)
	}
	for _, r := range runs {
		r.start(t, 0)
	}
	want := 0
	for _, r := range runs {
		if want += r.recordings; r.third != "" {
			d.within(liveReadyLimit, "the call that another replaces is answered", func() error { return d.answeredOn(r.name) })
			r.start(t, 2)
		}
	}
	if err := together(len(runs), func(i int) error { return runs[i].wait() }); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d scenes in %s", len(runs), time.Since(began).Round(time.Millisecond))
	checkScenes(t, d.recordings(want), scenes)
	for _, r := range runs {
		r.checkSecured(t)
	}
	t.Log(strings.TrimSpace(d.command("verify")))
	d.stop()
}

// sippRun is a scene as it is played.
type sippRun struct {
	*sippScene
	via   netip.AddrPort
	addr  [4]netip.AddrPort
	sipps [4]*siptest.SIPp

	forward [4]*sippForward // of scenes over TLS
}

// start starts a party: 0 the caller, 1 the callee, 2 who calls besides, 3 who is called then.
func (r *sippRun) start(t *testing.T, n int) {
	t.Helper()
	flow := [...]string{r.caller, r.callee, r.third, r.back}[n]
	if flow == "" {
		return
	}
	replaces := ""
	if r.third != "" {
		replaces = "?Replaces=consult%40pbx%3Bto-tag%3Dx%3Bfrom-tag%3Dy"
	}
	if !strings.Contains(r.third, "Replaces") {
		replaces = ""
	}
	flow = strings.NewReplacer("{self}", r.addr[n].String(), "{0}", r.addr[0].String(), "{1}", r.addr[1].String(), "{via}", r.via.String(), "{name}", r.name, "{replaces}", replaces).Replace(flow)
	dir := filepath.Join(t.TempDir(), fmt.Sprint(n))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	calls := 1
	if n == 1 && r.third != "" && r.back == "" {
		calls = 2
	}
	remote := r.via
	var secure *siptest.SIPpSecure
	if f := r.forward[n]; f != nil {
		remote, secure = f.plain(), &siptest.SIPpSecure{Local: f.secure(), Remote: r.via}
	}
	var err error
	r.sipps[n], err = siptest.StartSIPp(t.Context(), siptest.SIPpConfig{
		Dir: dir, User: "desk", Addr: r.addr[n], Remote: remote, Secure: secure, TCP: r.tcp, Answer: n == 1 || n == 3, Calls: calls, Limit: cmp.Or(r.limit, time.Minute),
		MediaPort: freeUDP(t, r.addr[n].Addr()).Port() &^ 1, Flow: flow, Tag: fmt.Sprint(r.name, n), CallID: fmt.Sprintf("%s-%d@live", r.name, n),
	})
	skipWithout(t, err)
}

// listens waits until the callee takes calls.
func (r *sippRun) listens(t *testing.T) {
	t.Helper()
	for _, n := range []int{1, 3} {
		if r.sipps[n] != nil {
			awaitPort(t, map[bool]string{false: "udp", true: "tcp"}[r.tcp], r.addr[n])
		}
	}
}

// answeredOn says whether a call of a trunk is answered.
func (d *liveDaemon) answeredOn(trunk string) error {
	var live struct{ Calls []recorder.LiveCall }
	if err := d.get("/v1/calls", &live); err != nil {
		return err
	}
	for _, c := range live.Calls {
		if c.Trunk == trunk && !c.Answer.IsZero() {
			return nil
		}
	}
	return fmt.Errorf("calls %+v", live.Calls)
}

// wait waits for all parties. The errors name the scene.
func (r *sippRun) wait() error {
	return together(len(r.sipps), func(n int) error {
		if r.sipps[n] == nil {
			return nil
		}
		if err := r.sipps[n].Wait(); err != nil {
			return fmt.Errorf("%s, party %d: %w", r.name, n, err)
		}
		return nil
	})
}

// checkScenes holds that each scene left the recordings and the windows that it says.
func checkScenes(t *testing.T, recordings map[string]*recorder.Manifest, scenes []*sippScene) {
	t.Helper()
	for _, s := range scenes {
		count, holds := 0, 0
		for _, m := range recordings {
			if m.Trunk != s.name {
				continue
			}
			count++
			checkAccount(t, m)
			for _, w := range m.Windows {
				if w.Reason == "hold" {
					holds++
				}
			}
		}
		if count != s.recordings || holds != s.holds {
			t.Errorf("%s: %d recordings with %d windows of hold, want %d with %d", s.name, count, holds, s.recordings, s.holds)
		}
	}
}

package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/plain"
	"github.com/trunktap/trunktap/sip/siptest"
)

// secureTrunk is a trunk of the test with what its parties do.
type secureTrunk struct {
	name string
	srtp [2][]string // keys of the sides in the configuration
	pass bool
	want [2]*siptest.SRTP // nil: plain RTP alone
}

func suitesOf(names ...string) *siptest.SRTP { return &siptest.SRTP{Suites: names, Must: true} }

var secureTrunks = []secureTrunk{
	{name: "plain"},
	{name: "sdes-plain", srtp: [2][]string{{"srtp: required"}, nil}, want: [2]*siptest.SRTP{suitesOf("AEAD_AES_256_GCM"), nil}},
	{name: "plain-sdes", srtp: [2][]string{nil, {"srtp: required"}}, want: [2]*siptest.SRTP{nil, suitesOf("AES_256_CM_HMAC_SHA1_80")}},
	{
		name: "sdes-sdes", srtp: [2][]string{{"srtp: required"}, {"srtp: optional", "srtp_suites: [AEAD_AES_128_GCM]"}},
		want: [2]*siptest.SRTP{suitesOf("AES_CM_128_HMAC_SHA1_32"), suitesOf("AEAD_AES_128_GCM")},
	},
	{
		name: "passed", srtp: [2][]string{{"srtp: required"}, {"srtp: required"}}, pass: true,
		want: [2]*siptest.SRTP{suitesOf("AES_CM_128_HMAC_SHA1_80"), suitesOf("AES_CM_128_HMAC_SHA1_80")},
	},
}

// secureLive is a daemon with those trunks, and the agents at each.
type secureLive struct {
	*liveDaemon
	trunks []secureTrunk
	agents [][2]*siptest.Agent
	calls  [][2]*siptest.Call
}

func newSecureLive(t *testing.T, trunks []secureTrunk) *secureLive {
	t.Helper()
	s := &secureLive{trunks: trunks, calls: make([][2]*siptest.Call, len(trunks))}
	cfg := liveConfig{Lookback: liveLookback, Listen: []string{"udp://" + freeUDP(t, liveHost).String()}, More: "log:\n  level: debug\n"}
	for i, tr := range trunks {
		var pair [2]*siptest.Agent
		tc := liveTrunkConfig{Name: tr.name, Format: recorder.FormatWAVPCM16}
		for side := range pair {
			addr := liveAddr(byte(20 + 2*i + side))
			pair[side] = liveAgent(t, siptest.Config{Addr: netip.AddrPortFrom(addr, 0)})
			tc.Sides[side] = liveSide{Peer: addr, NextHop: "sip:" + pair[side].Addr().String(), Media: liveHost, SRTP: tr.srtp[side]}
		}
		if tr.pass {
			tc.Keys = []string{"srtp_pass: true"}
		}
		cfg.Trunks, s.agents = append(cfg.Trunks, tc), append(s.agents, pair)
	}
	s.liveDaemon = newLiveDaemon(t, cfg)
	s.start()
	return s
}

// secureCalls makes the calls of all trunks at once. Who sends in bursts is not recorded
// sample for sample, so calls in which the machine stood still are made again.
func secureCalls(t *testing.T, trunks []secureTrunk, before ...func()) *secureLive {
	t.Helper()
	for n := 1; ; n++ {
		s := newSecureLive(t, trunks)
		for _, f := range before {
			f()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		err := together(len(s.trunks), func(i int) error { return s.call(ctx, i) })
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		late := time.Duration(0)
		for _, c := range s.calls {
			late = max(late, c[0].Media().Latest(), c[1].Media().Latest())
		}
		if late <= stallMax || n == attemptsMax {
			return s
		}
		t.Logf("repeated, for the machine stood still: a packet was sent late by %s", late)
		s.stop()
	}
}

// begin makes the call of a trunk, in which nobody says anything yet.
func (s *secureLive) begin(ctx context.Context, i int) error {
	offer := func(side int) siptest.Offer { return siptest.Offer{SRTP: s.trunks[i].want[side]} }
	s.agents[i][1].Script(func(in *siptest.Incoming) { in.Run(siptest.Answer{Offer: offer(1), Play: siptest.DTX()}) })
	a, err := s.agents[i][0].Start(ctx, "sip:desk@"+s.via().String(), s.via(), siptest.CallOptions{Offer: offer(0)})
	if err != nil {
		return err
	}
	a.Media().Play(siptest.DTX())
	if err := a.Wait(ctx); err != nil {
		return err
	}
	p, err := s.agents[i][1].Accept(ctx)
	if err != nil {
		return err
	}
	s.calls[i] = [2]*siptest.Call{a, p}
	time.Sleep(100 * time.Millisecond)
	return nil
}

// call makes the call of a trunk: both speak, with a session refresh and new keys of
// either side meanwhile.
func (s *secureLive) call(ctx context.Context, i int) error {
	if err := s.begin(ctx, i); err != nil {
		return err
	}
	a, p := s.calls[i][0], s.calls[i][1]
	a.Media().Play(siptest.PCM(babble(1, 3)))
	p.Media().Play(siptest.PCM(babble(2, 3)))
	for _, c := range []*siptest.Call{a, a, p} {
		time.Sleep(700 * time.Millisecond)
		o := siptest.Offer{}
		if suite, ok := c.Media().Secured(); ok {
			o.SRTP = &siptest.SRTP{Suites: []string{suite}, Renew: true, Must: true}
		}
		if err := c.Reinvite(ctx, o); err != nil {
			return fmt.Errorf("new keys: %w", err)
		}
	}
	for len(a.Media().Sent()) < len(babbled(0))/160 || len(p.Media().Sent()) < len(babbled(1))/160 { // until all is said
		time.Sleep(livePollEvery)
	}
	return (&livePair{external: a, internal: p}).bye(ctx)
}

// babbled is what a side said in the codes of G.711, of which the recording is a
// decoding.
func babbled(side int) []byte {
	pcm := babble(uint64(side+1), 3)
	wire := make([]byte, len(pcm))
	siptest.PCMU.Encode(wire, pcm)
	return wire
}

// wantSaid says whether a channel is what was said, code for code, and nothing else.
// It returns the samples of it.
func wantSaid(t *testing.T, what string, channel []int16, side int) []int16 {
	t.Helper()
	said, codes := babbled(side), make([]byte, len(channel))
	siptest.PCMU.Encode(codes, channel)
	for _, c := range [][]byte{said, codes} {
		for i, v := range c { // there are two codes of silence
			if v == 0x7f {
				c[i] = 0xff
			}
		}
	}
	at := bytes.Index(codes, said[:800])
	if at < 0 || at+len(said) > len(codes) {
		t.Errorf("%s: what was said is not in the recording of %d samples", what, len(channel))
		return nil
	}
	for i, v := range said {
		if codes[at+i] != v {
			t.Errorf("%s: from sample %d of %d on another sound is recorded", what, i, len(said))
			return nil
		}
	}
	if slices.ContainsFunc(channel[:at], loud) || slices.ContainsFunc(channel[at+len(said):], loud) {
		t.Errorf("%s: something else is in the recording", what)
	}
	return channel[at : at+len(said)]
}

func loud(v int16) bool { return v > 8 || v < -8 }

// TestLiveSRTPAgents makes calls over trunks with SDES on one side, on both, and from
// party to party: the recording of each is that of the call without protection,
// sample for sample, and nothing that the daemon writes holds a key.
func TestLiveSRTPAgents(t *testing.T) {
	s := secureCalls(t, secureTrunks)
	var answers bytes.Buffer
	heard := map[string][2][]int16{}
	answers.WriteString(s.command("ls"))
	for id, m := range s.recordings(len(s.trunks)) {
		i := slices.IndexFunc(s.trunks, func(tr secureTrunk) bool { return tr.name == m.Trunk })
		if i < 0 || s.calls[i][0].ID() != id {
			t.Fatalf("recording of trunk %s", m.Trunk)
		}
		answers.Write(must(json.Marshal(m))(t))
		checkAccount(t, m)
		pcm := s.export(m.ID)
		var said [2][]int16
		for side := range 2 {
			what := fmt.Sprintf("%s, channel %d", m.Trunk, side)
			said[side] = wantSaid(t, what, pcm[side], side)
			if suite, ok := s.calls[i][side].Media().Secured(); ok != (s.trunks[i].want[side] != nil) {
				t.Errorf("%s: protected by %q", what, suite)
			}
			livePackets(t, what, s.calls[i][side], s.calls[i][1-side])
			if n := s.calls[i][side].Media().Undecrypted(); n != 0 {
				t.Errorf("%s: %d packets that the party cannot decrypt", what, n)
			}
		}
		heard[m.Trunk] = said
	}
	for name, said := range heard {
		for side := range said {
			if !slices.Equal(said[side], heard["plain"][side]) {
				t.Errorf("%s, channel %d: the recording is not that of the call without protection", name, side)
			}
		}
	}
	for _, c := range s.undecrypted() {
		t.Error(c)
	}
	s.stop()
	s.noKeysOf(answers.Bytes())
}

// undecrypted returns the counters of what could not be decrypted or protected that
// are not zero.
func (s *secureLive) undecrypted() (out []string) {
	s.t.Helper()
	req := must(http.NewRequest(http.MethodGet, s.base+"/metrics", nil))(s.t)
	req.Header.Set("Authorization", "Bearer "+s.token)
	resp := must(liveClient.Do(req))(s.t)
	defer func() { _ = resp.Body.Close() }() // only read
	found := 0
	for l := range strings.Lines(string(must(io.ReadAll(resp.Body))(s.t))) {
		if l = strings.TrimSpace(l); strings.HasPrefix(l, "trunktap_relay_undecrypted") || strings.HasPrefix(l, "trunktap_relay_unprotected") {
			if found++; !strings.HasSuffix(l, " 0") {
				out = append(out, l)
			}
		}
	}
	if found != 4 {
		s.t.Errorf("%d counters of protection", found)
	}
	return out
}

// TestLiveSRTPReplay captures the protected leg of a call: its replay is the same.
func TestLiveSRTPReplay(t *testing.T) {
	var capture *liveCapture
	s := secureCalls(t, secureTrunks[3:4], func() { capture = newLiveCapture(t, "lo", fmt.Sprintf("udp and host %s", liveAddr(20))) })
	capture.stop()
	s.recordings(1)
	s.stop()
	out := t.TempDir()
	s.command("replay", "--out", out, capture.file)
	files := must(filepath.Glob(filepath.Join(out, "*", plain.ManifestFile)))(t)
	if len(files) != 1 {
		t.Fatalf("%d recordings replayed", len(files))
	}
	var m recorder.Manifest
	if err := json.Unmarshal(must(os.ReadFile(files[0]))(t), &m); err != nil {
		t.Fatal(err)
	}
	checkAccount(t, &m)
	pcm := readPCM(t, filepath.Join(filepath.Dir(files[0]), m.Segments[0].File))
	for side := range 2 {
		wantSaid(t, fmt.Sprintf("replayed, channel %d", side), pcm[side], side)
	}
}

// noKeysOf looks for the keys of all calls, in any form, in all that the daemon has
// written and answered.
func (s *secureLive) noKeysOf(answers []byte) {
	s.t.Helper()
	var keys [][]byte
	for _, pair := range s.calls {
		for _, c := range pair {
			keys = append(keys, c.Media().Keys()...)
		}
	}
	if len(keys) < 10 {
		s.t.Fatalf("%d keys", len(keys))
	}
	var needles [][]byte
	for _, k := range keys {
		needles = append(needles, formsOf(k)...)
	}
	looked := 0
	look := func(name string, b []byte) {
		looked++
		for _, n := range needles {
			if bytes.Contains(b, n) {
				s.t.Errorf("%s holds a key", name)
				return
			}
		}
	}
	look("an answer of the API", answers)
	err := filepath.WalkDir(s.cfg.Dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		look(e.Name(), b)
		return err
	})
	if err != nil || looked < 5 {
		s.t.Fatal(looked, err)
	}
}

// formsOf are a key, and its master key alone, as bytes, in hex and in base64
// wherever in a text of that it stands.
func formsOf(key []byte) (out [][]byte) {
	for _, k := range [][]byte{key, key[:16]} {
		h := hex.EncodeToString(k)
		out = append(out, k, []byte(h), []byte(strings.ToUpper(h)))
		for shift := range 3 {
			text := base64.RawStdEncoding.EncodeToString(append(make([]byte, shift), k...))
			text = text[(shift*8+5)/6 : len(text)-1] // of the key's bits alone
			out = append(out, []byte(text), []byte(strings.NewReplacer("+", "-", "/", "_").Replace(text)))
		}
	}
	return out
}

// TestFormsOf holds that the canary would be seen.
func TestFormsOf(t *testing.T) {
	key := []byte("0123456789abcdefghijklmnopqrst")
	for _, text := range []string{
		"x" + string(key), "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:" + base64.StdEncoding.EncodeToString(key),
		base64.StdEncoding.EncodeToString([]byte("x" + string(key))), base64.URLEncoding.EncodeToString([]byte("xy" + string(key) + "z")),
		hex.EncodeToString(key[:16]), strings.ToUpper(hex.EncodeToString(key)),
	} {
		if !slices.ContainsFunc(formsOf(key), func(n []byte) bool { return bytes.Contains([]byte(text), n) }) {
			t.Errorf("%q is not seen", text)
		}
	}
}

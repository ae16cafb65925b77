package src

import (
	"encoding/json"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/media/mediatest"
	"github.com/trunktap/trunktap/sip/journal/journaltest"
)

// entry is one of a copy that was sent to the first server.
func entry(t testing.TB, id uint64, callID string) []byte {
	t.Helper()
	server, err := ParseServer("sip:record@" + first.String())
	if err != nil {
		t.Fatal(err)
	}
	at, codec := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), uint8(0)
	state, err := json.Marshal(&journalled{
		V: journalVersion, ID: id, Listed: server.URI, Server: server.URI, Hop: server.Hop, CallID: callID, Tag: "ours", To: "<sip:record@192.0.2.50>;tag=x", Theirs: "x",
		Target: "sip:srs@192.0.2.50", Routes: []string{"<sip:192.0.2.50;lr>"}, Network: "udp", Remote: netip.AddrPortFrom(first, 5060), Seq: 7, Version: 7, Since: at, Known: at,
		Parties: []string{"ann"}, Codec: &codec, SSRC: [2]uint32{1, 2}, Base: at, Ports: Ports{5070, 5070, 30000}, Numbers: [2]uint16{9, 9}, At: at,
		RTP: [2]netip.AddrPort{netip.AddrPortFrom(first, 7000), netip.AddrPortFrom(first, 7002)}, RTCP: [2]netip.AddrPort{netip.AddrPortFrom(first, 7001), netip.AddrPortFrom(first, 7003)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// FuzzResume damages the entry of a copy: with patch in place of cut bytes from at on. It
// is taken or refused with an error, another copy is found by its server all the same, and
// nothing of either is left when the client is closed.
func FuzzResume(f *testing.F) {
	for _, text := range []string{``, `{`, `null`, `{"V":1}`, `{"V":1,"ID":0,"Listed":"sip:record@192.0.2.50"}`} {
		f.Add(uint16(0), uint16(65535), []byte(text))
	}
	f.Add(uint16(0), uint16(65535), entry(f, 12, "good"))
	f.Add(uint16(0), uint16(65535), entry(f, 11, "bad"))
	f.Add(uint16(0), uint16(65535), entry(f, 0, ""))
	for at := uint16(0); at < 1000; at += 31 {
		for _, patch := range []string{`9999999999`, `null`, `"`, `-1`, "\x00", `\r\n`} {
			f.Add(at, uint16(3), []byte(patch))
		}
	}
	f.Fuzz(func(t *testing.T, at, cut uint16, patch []byte) {
		state := entry(t, 13, "bad")
		from := min(int(at), len(state))
		state = slices.Concat(state[:from], patch, state[min(from+int(cut), len(state)):])
		synctest.Test(t, func(t *testing.T) { resumeBoth(t, state) })
	})
}

func resumeBoth(t *testing.T, state []byte) {
	t.Helper()
	n := mediatest.NewNet(1)
	w := &restartWorld{world: &world{t: t}, n: n, j: &journaltest.Mem{}}
	c := w.client()
	good, err := c.Resume("fork/good", session(), w.servers(), entry(t, 11, "good"))
	if err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	PortsOf(state)
	bad, err := c.Resume("fork/bad", session(), w.servers(), state)
	if (bad == nil) != (err != nil) {
		t.Errorf("%v and %v", bad, err)
	}
	if bad != nil {
		bad.Audio(0, 8000, tone(0, 100, 8000))
		bad.Parties([]string{"bob"})
	} else if err := c.Dismiss("fork/bad", state); err == nil {
		synctest.Wait()
	}
	synctest.Wait()
	c.mu.Lock()
	if c.byCall["good"] != good {
		t.Error("the other copy hears of its server no more")
	}
	c.mu.Unlock()
	time.Sleep(10 * time.Second)
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if len(c.forks)+len(c.byCall)+len(c.peers) > 0 || c.counters.Live.Load() != 0 || len(w.j.States()) > 0 {
		t.Errorf("%d copies, %d names, %d peers, %d entries are left", len(c.forks), len(c.byCall), len(c.peers), len(w.j.States()))
	}
}

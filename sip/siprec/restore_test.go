package siprec

import (
	"encoding/json"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media/relay"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/journal/journaltest"
)

// killed ends the server without a word, and goes on with another one. edit may change
// what the journal has, or the configuration.
func (w *bench) killed(j *journaltest.Mem, edit func(*Config, map[string][]byte)) (*Server, *Restored) {
	w.t.Helper()
	w.settle()
	states := j.States()
	old := w.srv
	if err := old.agent.Close(); err != nil {
		w.t.Error(err)
	}
	old.mu.Lock()
	for _, l := range old.byID {
		l.killOnce.Do(func() { close(l.kill) })
	}
	old.mu.Unlock()
	old.wg.Wait()
	if err := old.cfg.Relay.Close(); err != nil {
		w.t.Error(err)
	}
	w.obs.taps = nil
	j.Set(states)
	r, err := relay.New(relay.Config{PortMin: 20000, PortMax: 20099, Quarantine: -1, Certificate: certificates()[1], Open: func(a netip.AddrPort) (relay.Conn, error) { return w.net.Listen(a) }})
	if err != nil {
		w.t.Fatal(err)
	}
	w.relay = r
	cfg := Config{
		Sources: []Source{testSource()}, Listen: []sip.Listen{{Network: "udp", Addr: serverAddr}},
		Net:   sip.Net{ListenPacket: func(_ string, a netip.AddrPort) (net.PacketConn, error) { return w.net.Listen(a) }},
		Relay: r, Observer: w.obs, Journal: j,
	}
	if edit != nil {
		edit(&cfg, states)
	}
	if w.srv, err = New(cfg); err != nil {
		w.t.Fatal(err)
	}
	restored := w.srv.Restore(states)
	restored.Observe()
	if err := w.srv.Start(); err != nil {
		w.t.Fatal(err)
	}
	return w.srv, restored
}

func journalling(j *journaltest.Mem) func(*Config) { return func(c *Config) { c.Journal = j } }

// A recording goes on in another process: the same streams, nothing told twice, partial
// metadata over what was known, and the end.
func TestRestore(t *testing.T) {
	j := &journaltest.Mem{}
	inBubble(t, journalling(j), func(w *bench) {
		d := plainDialog()
		c, _ := w.dial("call", d)
		if err := c.Play(d.Tones...); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		before := w.obs.sessions[0]
		for restarts := 1; restarts <= 2; restarts++ {
			srv, restored := w.killed(j, nil)
			if len(restored.Sessions) != 1 || restored.Lost != 0 || restored.Sessions[0] != before.ID || srv.counters.Restored.Load() != 1 {
				t.Fatalf("restored %+v", restored)
			}
			s := w.obs.sessions[len(w.obs.sessions)-1]
			if s.Resumed == nil || s.Resumed.Restarts != restarts || s.ID != before.ID || !slices.Equal(s.Parties, before.Parties) || !slices.Equal(s.Links, before.Links) {
				t.Errorf("session %+v, it was %+v", s, before)
			}
			time.Sleep(time.Second)
			w.want(`answered`, `stream 1 "10" external by domain sending true [sip:+4930901820@carrier.example]`,
				`stream 2 "20" internal by domain sending true [sip:4711@pbx.example]`)
			for side, n := range w.obs.taps[0].packets {
				if n < 45 {
					t.Errorf("%d packets of side %d", n, side)
				}
			}
		}
		if _, err := c.Do(w.ctx, "INFO", TypeMetadata, []byte(partial(`<participant participant_id="`+idTwo+`"><nameID aor="sip:4712@pbx.example"/></participant>`))); err != nil {
			t.Fatal(err)
		}
		w.want(`stream 2 "20" internal by domain sending true [sip:4712@pbx.example]`, `agent.join 4712`, `agent.leave 4711`)
		if _, err := c.Invite(w.ctx, d.ContentType, []byte(c.Expand(d.Paused())), nil); err != nil {
			t.Fatal(err)
		}
		w.log()
		w.killed(j, nil) // while it is held
		if log := w.log(); strings.Contains(log, "hold") || strings.Contains(log, "agent") || !strings.Contains(log, "sending false") {
			t.Errorf("after a restart in a hold:\n%s", log)
		}
		if err := c.Bye(w.ctx); err != nil {
			t.Error(err)
		}
		if log := w.log(); !strings.HasSuffix(log, "ended bye") {
			t.Errorf("ended:\n%s", log)
		}
		if n := len(j.States()); n != 1 {
			t.Errorf("%d entries while the BYE may be repeated", n)
		}
		time.Sleep(40 * time.Second)
		if n := len(j.States()); n != 0 {
			t.Errorf("%d entries are left", n)
		}
	})
}

// The answer to a BYE waits for the journal; the next process answers its repetition,
// and records nothing.
func TestByeOverRestart(t *testing.T) {
	j := &journaltest.Mem{}
	inBubble(t, journalling(j), func(w *bench) {
		r := w.raw("10.0.0.67:5060")
		body := "v=0\r\no=- 1 1 IN IP4 10.0.0.67\r\ns=-\r\nc=IN IP4 10.0.0.67\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\na=sendonly\r\n"
		r.send("INVITE", "one", 1, "", body)
		tag := r.want(100, 200)
		w.killed(j, nil) // the 200 and the ACK may be lost
		time.Sleep(sip.T1 + 10*time.Millisecond)
		if again := r.want(200); again != tag {
			t.Errorf("the 200 is repeated with the tag %q, want %q", again, tag)
		}
		r.send("ACK", "ack", 1, tag, "")
		time.Sleep(5 * time.Second)
		r.want(0)
		j.Slow(true)
		r.send("BYE", "bye", 2, tag, "")
		r.want(0)
		j.Slow(false)
		_, restored := w.killed(j, nil)
		if len(restored.Sessions) != 0 || restored.Lost != 0 {
			t.Errorf("restored %+v", restored)
		}
		r.send("BYE", "bye", 2, tag, "")
		r.want(200)
		if len(w.obs.taps) != 0 || w.srv.Dialogs() != 0 {
			t.Errorf("%d recordings, %d dialogs", len(w.obs.taps), w.srv.Dialogs())
		}
		time.Sleep(40 * time.Second)
		_, restored = w.killed(j, nil)
		if n := len(j.States()); n != 0 || len(restored.Sessions) != 0 {
			t.Errorf("%d entries are left, restored %+v", n, restored)
		}
	})
}

// A snapshot that is too long for the journal is asked for again.
func TestSnapshotAfterRestart(t *testing.T) {
	j := &journaltest.Mem{}
	j.Limit(12 << 10)
	inBubble(t, journalling(j), func(w *bench) {
		d := plainDialog()
		c, _ := w.dial("call", d)
		long := `<x:note xmlns:x="urn:x">` + strings.Repeat("long ", 4<<10) + `</x:note>`
		if _, err := c.Do(w.ctx, "UPDATE", TypeMetadata, []byte(partial(long))); err != nil {
			t.Fatal(err)
		}
		w.killed(j, nil)
		w.settle()
		asked := c.Requests()
		if len(asked) != 1 || asked[0].Get("Content-Type") != TypeMetadataRequest {
			t.Fatalf("%d requests", len(asked))
		}
		if log := w.log(); strings.Contains(log, "agent.leave") || !strings.Contains(log, "[sip:4711@pbx.example]") {
			t.Errorf("what is left of the snapshot:\n%s", log)
		}
		if _, err := c.Invite(w.ctx, d.ContentType, []byte(c.Expand(d.Body)), nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if n := len(c.Requests()); n != 1 {
			t.Errorf("%d requests after the snapshot came", n)
		}
		if w.srv.counters.Unjournalled.Load() != 0 {
			t.Error("counted as unjournalled")
		}
		if err := c.Bye(w.ctx); err != nil {
			t.Error(err)
		}
	})
}

// What cannot go on is counted, leaves the journal, and its client hears of it where it can.
func TestNotRestored(t *testing.T) {
	var others []*relay.Stream
	taken := func(c *Config, _ map[string][]byte) {
		for range 50 { // all ports
			s, err := c.Relay.Open([2]netip.Addr{relaySide: serverAddr.Addr()}, relay.Options{RTP: true, ReceiveOnly: true})
			if err != nil {
				return
			}
			others = append(others, s)
		}
	}
	for name, tc := range map[string]struct {
		edit func(*Config, map[string][]byte)
		bye  bool

		refused bool // by the observer
	}{
		"no source of that name": {edit: func(c *Config, _ map[string][]byte) { c.Sources[0].Name = "another" }},
		"another version": {edit: func(_ *Config, states map[string][]byte) {
			for k, s := range states {
				states[k] = []byte(strings.Replace(string(s), `"SIPREC":1`, `"SIPREC":2`, 1))
			}
		}},
		"nonsense": {edit: func(_ *Config, states map[string][]byte) {
			setAll(states, `{"SIPREC":1,"Source":"sbc","Legs":[{"Invite":"x"}]}`)
		}},
		"no JSON":                   {edit: func(_ *Config, states map[string][]byte) { setAll(states, `{`) }},
		"recording is not possible": {edit: func(c *Config, _ map[string][]byte) { c.Observer.(*observer).err = errObserver }, bye: true, refused: true},
		"ports are taken":           {edit: taken, bye: true},
	} {
		t.Run(name, func(t *testing.T) {
			j := &journaltest.Mem{}
			inBubble(t, journalling(j), func(w *bench) {
				c, _ := w.dial("call", plainDialog())
				srv, restored := w.killed(j, tc.edit)
				time.Sleep(time.Second)
				if !tc.refused && (restored.Lost != 1 || len(restored.Sessions) != 0) || srv.counters.Lost.Load() != 1 || len(w.obs.taps) != 0 {
					t.Errorf("restored %+v, %d recordings", restored, len(w.obs.taps))
				}
				asked := c.Requests()
				if (len(asked) == 1 && asked[0].Method == sip.Bye) != tc.bye || len(asked) > 1 {
					t.Errorf("%d requests", len(asked))
				}
				time.Sleep(time.Minute)
				if n := len(j.States()); n != 0 {
					t.Errorf("%d entries are left", n)
				}
				for _, s := range others {
					if err := s.Close(); err != nil {
						t.Error(err)
					}
				}
				others = nil
			})
		})
	}
}

func setAll(states map[string][]byte, text string) {
	for k := range states {
		states[k] = []byte(text)
	}
}

// Entries of calls are not taken for those of recording sessions.
func TestJournalled(t *testing.T) {
	state, err := json.Marshal(&journalled{SIPREC: journalVersion})
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{string(state): true, `{"V":1,"ID":7}`: false, `x`: false, ``: false} {
		if got := Journalled([]byte(text)); got != want {
			t.Errorf("Journalled(%s) = %v", text, got)
		}
	}
}

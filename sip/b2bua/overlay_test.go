package b2bua

import (
	"bytes"
	"context"
	"encoding/binary"
	"math"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/media/mediatest"
	"github.com/trunktap/trunktap/media/overlay"
)

// toneObserver records packets and can say that it does not.
type toneObserver struct {
	*observer
	pause atomic.Bool

	mu   sync.Mutex
	puts [2][][]byte
}

func (o *toneObserver) SessionStarted(ctx context.Context, s media.Session) (media.SessionTap, error) {
	t, err := o.observer.SessionStarted(ctx, s)
	if t == nil || err != nil {
		return nil, err
	}
	return toneTap{t, o}, nil
}

type toneTap struct {
	media.SessionTap
	o *toneObserver
}

func (t toneTap) Capturing() bool { return !t.o.pause.Load() }

func (t toneTap) StreamStarted(s media.Stream) media.Tap {
	t.SessionTap.StreamStarted(s)
	return sideTap{t.o, s.Side}
}

type sideTap struct {
	o    *toneObserver
	side media.Side
}

func (t sideTap) Put(_ time.Time, wire []byte) {
	t.o.mu.Lock()
	defer t.o.mu.Unlock()
	t.o.puts[t.side] = append(t.o.puts[t.side], bytes.Clone(wire))
}

// talker sends a tone of its own and keeps what it hears, by the time since the answer.
type talker struct {
	socket *mediatest.Conn
	at     netip.AddrPort
	rtp    mediatest.RTPStream
	tone   []int16 // of a second
	linear func(byte) int16

	packets int
	sent    [][]byte
	got     [][]byte
	heard   []int16
}

func newTalker(socket *mediatest.Conn, at string, frequency float64, payloadType uint8) *talker {
	t := &talker{
		socket: socket, at: netip.MustParseAddrPort(at), tone: mediatest.Tone(frequency, 8000, 8000, 3000),
		rtp: mediatest.RTPStream{SSRC: uint32(frequency), PayloadType: payloadType}, linear: codec.MuLawLinear,
	}
	if payloadType == 8 {
		t.rtp.Encode, t.linear = mediatest.ALaw, codec.ALawLinear
	}
	return t
}

func (t *talker) send(tb testing.TB) {
	tb.Helper()
	at := t.packets * 160 % len(t.tone)
	wire := t.rtp.Audio(t.tone[at : at+160])
	t.packets++
	t.sent = append(t.sent, wire)
	if _, err := t.socket.WriteToUDPAddrPort(wire, t.at); err != nil {
		tb.Fatal(err)
	}
}

func (t *talker) receive(tb testing.TB) {
	tb.Helper()
	buf := make([]byte, 2000)
	n, _, err := t.socket.ReadFromUDPAddrPort(buf)
	if err != nil {
		tb.Fatal(err)
	}
	t.got = append(t.got, buf[:n])
	for _, octet := range buf[12:n] {
		t.heard = append(t.heard, t.linear(octet))
	}
}

// beeps returns the level of a frequency in each 20 ms that is louder than a floor.
func (t *talker) beeps(frequency float64) (packets []int, level float64) {
	for i := 0; i < len(t.heard)/160; i++ {
		db := 10 * math.Log10(2*mediatest.Energy(t.heard[i*160:(i+1)*160], frequency, 8000)/(32767*32767)+1e-12)
		if db > -45 {
			packets = append(packets, i)
			level = max(level, db+100)
		}
	}
	return packets, level - 100
}

// Both parties hear the tone at its times and level, the recorder gets what they
// hear, and while nothing is captured there is none.
func TestBothPartiesHearTheBeep(t *testing.T) {
	for name, payloadType := range map[string]uint8{"PCMU": 0, "PCMA": 8} {
		t.Run(name, func(t *testing.T) {
			obs := &toneObserver{}
			beep := overlay.Beep{Frequency: 1400, Duration: 200 * time.Millisecond, Interval: 14 * time.Second, LevelDB: -24}
			asked := 0
			edit := func(cfg *Config) {
				obs.observer = cfg.Observer.(*observer)
				cfg.Observer = obs
				cfg.Overlay = func(trunk string, st media.Stream, answered time.Time, tap media.SessionTap) media.Overlay {
					asked++
					if trunk != "t" || answered.IsZero() {
						t.Errorf("asked for trunk %q answered at %v", trunk, answered)
					}
					return overlay.New(overlay.Config{
						Formats: st.Formats, Secure: st.Secure, Beep: &beep, Epoch: answered, Since: st.At,
						Capturing: tap.(media.Capturing).Capturing,
					})
				}
			}
			inBubble(t, edit, func(w *bench) { theBeepIsHeard(w, obs, payloadType) })
			if asked != 3 { // for both sides at the answer, and for the one whose stream a hold changed
				t.Errorf("asked %d times", asked)
			}
		})
	}
}

func theBeepIsHeard(w *bench, obs *toneObserver, payloadType uint8) {
	speaks := func(s string) string {
		return strings.Replace(s, "RTP/AVP 0 ", "RTP/AVP "+string(rune('0'+payloadType))+" ", 1)
	}
	a := begin(w.a, outside, "beep", speaks(sdpOf(carrier.Addr(), 7000)))
	w.a.want("100")
	p := w.p.take(inside)
	w.p.reply(p.invite, 200, "pbx", []string{w.p.contact()}, speaks(sdpOf(pbx.Addr(), 8000)))
	w.acked(a, p, w.a.want("200"))
	m := w.mediaPair()
	ext, in := newTalker(m.a, "192.0.2.1:20000", 440, payloadType), newTalker(m.p, "10.0.0.1:20000", 1000, payloadType)
	const seconds = 44
	for i := range seconds * 50 {
		switch i {
		case 10 * 50:
			obs.pause.Store(true) // for the beep at 14 s
		case 20 * 50:
			obs.pause.Store(false)
		case 22 * 50:
			reinvite(w, a, p, speaks(sdpOf(carrier.Addr(), 7000, "a=sendonly", "")), speaks(sdpOf(pbx.Addr(), 8000, "a=recvonly", "")))
		case 42*50 + 5:
			obs.pause.Store(true) // in the midst of the beep
		}
		for _, t := range []*talker{ext, in} {
			t.send(w.t)
		}
		synctest.Wait()
		ext.receive(w.t)
		in.receive(w.t)
		time.Sleep(20 * time.Millisecond)
	}
	w.hangUp(a)
	for name, who := range map[string]*talker{"external": ext, "internal": in} {
		packets, level := who.beeps(1400)
		var want []int
		for _, span := range [][2]int{{0, 10}, {28 * 50, 28*50 + 10}, {42 * 50, 42*50 + 5}} {
			for i := span[0]; i < span[1]; i++ {
				want = append(want, i)
			}
		}
		if len(packets) != len(want) {
			w.t.Fatalf("%s heard the tone in packets %v, want %v", name, packets, want)
		}
		for i := range want {
			if packets[i] != want[i] {
				w.t.Fatalf("%s heard the tone in packets %v, want %v", name, packets, want)
			}
		}
		if math.Abs(level+24) > 0.5 {
			w.t.Errorf("%s heard it at %.2f dB", name, level)
		}
	}
	sameBytes(w.t, obs, ext, in)
}

// sameBytes checks that the recorder got what the far side got, and that all but
// the beeps is as it was sent.
func sameBytes(t *testing.T, obs *toneObserver, ext, in *talker) {
	t.Helper()
	for side, pair := range [2][2]*talker{{ext, in}, {in, ext}} {
		changed := 0
		for i, wire := range pair[0].sent {
			if !bytes.Equal(obs.puts[side][i], pair[1].got[i]) {
				t.Fatalf("packet %d of side %d: the recorder got another", i, side)
			}
			if !bytes.Equal(wire, pair[1].got[i]) {
				changed++
			}
			if !bytes.Equal(wire[:12], pair[1].got[i][:12]) || binary.BigEndian.Uint16(wire[2:]) != uint16(i) {
				t.Fatalf("packet %d of side %d: the header changed", i, side)
			}
		}
		if changed != 25 {
			t.Errorf("side %d: %d packets changed", side, changed)
		}
	}
}

// Who is asked may fail, or there may be no recording: the call goes on.
func TestOverlayIsOptional(t *testing.T) {
	for name, ask := range map[string]askOverlay{
		"panics": func(string, media.Stream, time.Time, media.SessionTap) media.Overlay { panic("no tone today") },
		"none": func(_ string, _ media.Stream, _ time.Time, tap media.SessionTap) media.Overlay {
			if tap != nil {
				panic("a tap of a call that is not recorded")
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(cfg *Config) { cfg.Overlay = ask }, func(w *bench) {
				w.obs.none = true
				a, _ := w.established("optional")
				m := w.mediaPair()
				if err := w.carries(m.a, m.p, "192.0.2.1:20000", 0, 20); err != nil {
					t.Error(err)
				}
				w.hangUp(a)
			})
		})
	}
}

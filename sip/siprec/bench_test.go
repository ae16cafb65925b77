package siprec

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/mediatest"
	"github.com/trunktap/trunktap/media/relay"
	"github.com/trunktap/trunktap/media/srtp/dtls"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/siptest"
	"github.com/trunktap/trunktap/suppress"
)

var (
	serverAddr = netip.MustParseAddrPort("10.0.0.1:5060")
	clientAddr = netip.MustParseAddrPort("10.0.0.66:5060")
)

// bench is a server on an in-memory network with one client.
type bench struct {
	t     *testing.T
	net   *mediatest.Net
	relay *relay.Relay
	srv   *Server
	obs   *observer
	src   *siptest.SRC
	ctx   context.Context
}

// certificates are those of the server, and of the one after it.
var certificates = sync.OnceValue(func() (out [2]*dtls.Certificate) {
	for i := range out {
		var err error
		if out[i], err = dtls.NewCertificate(time.Now(), nil); err != nil {
			panic(err)
		}
	}
	return out
})

func testSource() Source {
	return Source{
		Name: "sbc", Peers: []netip.Prefix{netip.MustParsePrefix("10.0.0.64/28")}, MediaAddr: serverAddr.Addr(),
		InternalDomains: []string{"pbx.example"},
	}
}

// inBubble runs f in a bubble of synctest with a bench that is closed after it.
func inBubble(t *testing.T, edit func(*Config), f func(*bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := mediatest.NewNet(1)
		r, err := relay.New(relay.Config{PortMin: 20000, PortMax: 20099, Quarantine: -1, Certificate: certificates()[0], Open: func(a netip.AddrPort) (relay.Conn, error) { return n.Listen(a) }})
		if err != nil {
			t.Fatal(err)
		}
		w := &bench{t: t, net: n, relay: r, obs: &observer{}, ctx: t.Context()}
		cfg := Config{
			Sources: []Source{testSource()}, Listen: []sip.Listen{{Network: "udp", Addr: serverAddr}},
			Net:   sip.Net{ListenPacket: func(_ string, a netip.AddrPort) (net.PacketConn, error) { return n.Listen(a) }},
			Relay: r, Observer: w.obs,
		}
		if edit != nil {
			edit(&cfg)
		}
		if w.srv, err = New(cfg); err != nil {
			t.Fatal(err)
		}
		if err := w.srv.Start(); err != nil {
			t.Fatal(err)
		}
		w.src, err = siptest.NewSRC(siptest.SRCConfig{Addr: clientAddr, Remote: serverAddr, Listen: func(a netip.AddrPort) (siptest.Conn, error) { return n.Listen(a) }})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			time.Sleep(40 * time.Second) // transactions linger
			if err := w.srv.Close(); err != nil {
				t.Error(err)
			}
			if got := w.relay.Streams(); got != 0 {
				t.Errorf("%d streams of the relay are left", got)
			}
			if got := w.srv.counters.Panics.Load(); got != 0 {
				t.Errorf("%d faults were survived", got)
			}
			if len(w.srv.byID)+len(w.srv.legs)+len(w.srv.joins) > 0 || w.srv.Dialogs() != 0 {
				t.Errorf("%d legs, %d keys, %d dialogs are left", len(w.srv.byID), len(w.srv.joins), w.srv.Dialogs())
			}
			if err := w.src.Close(); err != nil {
				t.Error(err)
			}
			if err := w.relay.Close(); err != nil {
				t.Error(err)
			}
		}()
		f(w)
	})
}

// dial begins a dialog of a dialect.
func (w *bench) dial(callID string, d siptest.DialectDialog) (*siptest.SRCDialog, *siptest.Message) {
	w.t.Helper()
	c, err := w.src.NewDialog(callID, d.From, len(d.Tones))
	if err != nil {
		w.t.Fatal(err)
	}
	res, err := c.Invite(w.ctx, d.ContentType, []byte(c.Expand(d.Body)), nil, d.Headers...)
	if err != nil {
		w.t.Fatalf("INVITE: %v", err)
	}
	return c, res
}

func (w *bench) settle() {
	time.Sleep(time.Millisecond)
	synctest.Wait()
}

// log is what the only recorder was told.
func (w *bench) log() string {
	w.t.Helper()
	w.settle()
	w.obs.mu.Lock()
	defer w.obs.mu.Unlock()
	if len(w.obs.taps) != 1 {
		w.t.Fatalf("%d recordings", len(w.obs.taps))
	}
	return strings.Join(w.obs.taps[0].lines, "\n")
}

func (w *bench) want(lines ...string) {
	w.t.Helper()
	if got, want := w.log(), strings.Join(lines, "\n"); got != want {
		w.t.Errorf("the recorder was told\n%s\nwant\n%s", got, want)
	}
	w.obs.taps[0].lines = nil
}

// observer writes down what it is told.
type observer struct {
	mu       sync.Mutex
	err      error
	delay    time.Duration
	panics   bool
	sessions []media.Session
	taps     []*tapLog
}

func (o *observer) SessionStarted(_ context.Context, s media.Session) (media.SessionTap, error) {
	time.Sleep(o.delay)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.panics {
		panic("no recorder today")
	}
	o.sessions = append(o.sessions, s)
	if o.err != nil {
		return nil, o.err
	}
	t := &tapLog{obs: o, packets: map[media.Side]int{}}
	o.taps = append(o.taps, t)
	return t, nil
}

type tapLog struct {
	obs     *observer
	lines   []string
	docs    []media.Metadata
	packets map[media.Side]int
}

func (t *tapLog) note(format string, args ...any) {
	t.obs.mu.Lock()
	defer t.obs.mu.Unlock()
	t.lines = append(t.lines, fmt.Sprintf(format, args...))
}

func (t *tapLog) StreamStarted(s media.Stream) media.Tap {
	var parties []string
	for _, p := range s.Parties {
		parties = append(parties, p.URI)
	}
	mixed := ""
	if s.Mixed {
		mixed = " mixed"
	}
	t.note("stream %d %q %s by %s sending %v%s %v", s.ID, s.Label, s.Side, s.SideBy, s.Sending, mixed, parties)
	return sideTap{t, s.Side}
}

type sideTap struct {
	t    *tapLog
	side media.Side
}

func (s sideTap) Put(time.Time, []byte) {
	s.t.obs.mu.Lock()
	defer s.t.obs.mu.Unlock()
	s.t.packets[s.side]++
}

func (t *tapLog) StreamEnded(id media.StreamID, _ time.Time) { t.note("stream %d ended", id) }
func (t *tapLog) Answered(time.Time)                         { t.note("answered") }
func (t *tapLog) Ended(_ time.Time, c media.Cause)           { t.note("ended %s", c) }

func (t *tapLog) Signal(s suppress.Signal) {
	if err := s.Validate(); err != nil && s.Event != suppress.CallLinked {
		t.note("INVALID %v", err)
	}
	switch s.Event {
	case suppress.AttrsSet:
		keys := make([]string, 0, len(s.Attrs))
		for k := range s.Attrs {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		t.note("%s %v", s.Event, keys)
	case suppress.CallLinked:
		t.note("%s %v", s.Event, s.Links)
	default:
		t.note("%s %s%s", s.Event, s.User, s.Party)
	}
}

func (t *tapLog) Metadata(m media.Metadata) {
	t.obs.mu.Lock()
	defer t.obs.mu.Unlock()
	t.docs = append(t.docs, m)
}

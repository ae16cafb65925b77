package ami

import (
	"context"
	"crypto/md5" //nolint:gosec // the challenge of AMI is defined with it
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/suppress"
)

// server is a scripted Asterisk: it checks the login, answers what is asked
// and plays a dialogue. Connections share the state of its pbx.
type server struct {
	user, secret string
	md5          bool
	pbx          *pbx
	events       []string
	missed       int           // events that happen unseen after a break
	pace         time.Duration // between events
	mute         bool          // answers nothing after the login

	next int // event, of the connection being served

	mu       sync.Mutex // guards secret too
	accepted int
}

// errBroken is what the limited writer of a connection returns.
var errBroken = errors.New("broken by the script")

// wire writes to a connection and breaks it after so many bytes.
type wire struct {
	net.Conn
	left    int // -1: no limit
	onebyte time.Duration
}

func (w *wire) Write(b []byte) (int, error) {
	if w.onebyte > 0 {
		for i := range b {
			if _, err := w.Conn.Write(b[i : i+1]); err != nil {
				return i, err
			}
			time.Sleep(w.onebyte)
		}
		return len(b), nil
	}
	if w.left < 0 || len(b) <= w.left {
		w.left -= min(len(b), max(w.left, 0))
		return w.Conn.Write(b)
	}
	n, _ := w.Conn.Write(b[:w.left])
	_ = w.Close()
	return n, errBroken
}

// serve plays one connection until it breaks.
func (s *server) serve(w *wire) {
	defer w.Close()
	actions := make(chan Action, 1024)
	go readActions(w.Conn, actions)
	s.mu.Lock()
	s.accepted++
	s.mu.Unlock()
	if s.next > 0 {
		for range s.missed {
			s.happen()
		}
	}
	if _, err := io.WriteString(w, "Asterisk Call Manager/9.0.0\r\n"); err != nil {
		return
	}
	if !s.login(w, actions) {
		return
	}
	listed := false
	for {
		var a Action
		var ok bool
		if listed && s.pending() {
			select {
			case a, ok = <-actions:
			case <-time.After(s.pace):
				if _, err := io.WriteString(w, s.happen()); err != nil {
					return
				}
				continue
			}
		} else {
			a, ok = <-actions
		}
		if !ok {
			return
		}
		if s.mute {
			continue
		}
		if _, err := io.WriteString(w, s.pbx.answer(a)); err != nil {
			return
		}
		listed = listed || a.Name == "QueueStatus"
	}
}

func (s *server) pending() bool { return s.next < len(s.events) }

// happen lets the next event happen and returns its wire form.
func (s *server) happen() string {
	if !s.pending() {
		return ""
	}
	e := s.events[s.next]
	s.next++
	var p Parser
	p.Feed([]byte(e), s.pbx.happen)
	return e
}

func readActions(conn net.Conn, actions chan<- Action) {
	defer close(actions)
	var p Parser
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		p.Feed(buf[:n], func(m Message) {
			actions <- Action{Name: m.Get("Action"), Headers: m.Headers[1:]}
		})
		if err != nil {
			return
		}
	}
}

func (s *server) login(w io.Writer, actions <-chan Action) bool {
	challenge := ""
	for a := range actions {
		m := Message{Headers: a.Headers}
		id := "ActionID: " + m.Get("ActionID") + "\r\n"
		switch {
		case a.Name == "Challenge" && m.Get("AuthType") == "MD5":
			challenge = "840415273"
			if _, err := io.WriteString(w, "Response: Success\r\n"+id+"Challenge: "+challenge+"\r\n\r\n"); err != nil {
				return false
			}
		case a.Name == "Login" && s.proven(m, challenge):
			_, err := io.WriteString(w, "Response: Success\r\n"+id+"Message: Authentication accepted\r\n\r\nEvent: FullyBooted\r\nPrivilege: system,all\r\nUptime: 99\r\nLastReload: 99\r\nStatus: Fully Booted\r\n\r\n")
			return err == nil
		default:
			_, _ = io.WriteString(w, "Response: Error\r\n"+id+"Message: Authentication failed\r\n\r\n")
			return false
		}
	}
	return false
}

func (s *server) proven(m Message, challenge string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.Get("Username") != s.user {
		return false
	}
	if !s.md5 {
		return m.Get("Secret") == s.secret
	}
	sum := md5.Sum([]byte(challenge + s.secret)) //nolint:gosec // see the import
	return m.Get("Secret") == "" && m.Get("Key") == hex.EncodeToString(sum[:])
}

// play is a source on a scripted server; connection n is made by wireOf.
type play struct {
	source  *Source
	server  *server
	signals []suppress.Signal
	folded  map[string]state
	cancel  context.CancelFunc
	done    chan error
}

func (d dialogue) server() *server {
	return &server{user: "trunktap", secret: "s3cret", pbx: &pbx{ids: d.ids, spyData: "PJSIP/alice,qw"}, events: d.events, pace: 10 * time.Millisecond}
}

// mustPlay starts a source within a synctest bubble. change edits the
// configuration, wireOf what the server's end of connection n does.
func mustPlay(t *testing.T, d dialogue, srv *server, change func(*Config), wireOf func(n int, conn net.Conn) *wire) *play {
	t.Helper()
	cfg := d.config()
	n := 0
	cfg.Dial = func(context.Context, string, string) (net.Conn, error) {
		mine, theirs := net.Pipe()
		n++
		go srv.serve(wireOf(n, theirs))
		return mine, nil
	}
	if change != nil {
		change(&cfg)
	}
	source, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &play{source: source, server: srv, folded: map[string]state{}, cancel: cancel, done: make(chan error, 1)}
	go func() {
		p.done <- source.Run(ctx, func(s suppress.Signal) {
			p.signals = append(p.signals, s)
			fold(p.folded, s)
		})
	}()
	return p
}

func (p *play) stop(t *testing.T) {
	t.Helper()
	p.cancel()
	if err := <-p.done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if p.source.Status().Connected {
		t.Error("still connected after Run")
	}
	synctest.Wait()
}

func unlimited(_ int, conn net.Conn) *wire { return &wire{Conn: conn, left: -1} }

func (p *play) words() []string {
	var list []string
	for _, s := range p.signals {
		_, words, _ := strings.Cut(describe(s), " ")
		list = append(list, words)
	}
	return list
}

func TestSource(t *testing.T) {
	for name, change := range map[string]func(*Config, *server){
		"plain": func(*Config, *server) {},
		"md5":   func(c *Config, s *server) { c.MD5, s.md5 = true, true },
	} {
		for _, file := range dialogues {
			t.Run(name+" "+file, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					d := mustDialogue(t, file)
					srv := d.server()
					p := mustPlay(t, d, srv, func(c *Config) { change(c, srv) }, unlimited)
					time.Sleep(10 * time.Minute) // 40 pings
					st := p.source.Status()
					if !st.Connected || st.Reconnects != 0 || st.Signals != uint64(len(d.want)) || st.LastError != "" {
						t.Errorf("status %+v", st)
					}
					p.stop(t)
					var want []string
					for _, w := range d.want {
						_, words, _ := strings.Cut(w, " ")
						want = append(want, words)
					}
					if diff := cmp.Diff(want, p.words()); diff != "" {
						t.Errorf("signals (-want +got):\n%s", diff)
					}
					checkOrder(t, p.signals)
				})
			})
		}
	}
}

// TestBreakAnywhere breaks the first connection after every n-th byte; what the
// signals amount to in the end is what happened.
func TestBreakAnywhere(t *testing.T) {
	d := mustDialogue(t, "whole.txt")
	step := 41
	if testing.Short() {
		step = 499
	}
	for _, upTo := range []string{"QueueCallerJoin", "AgentConnect", "Hold", "BlindTransfer", "end"} {
		part := d
		for i, e := range d.events {
			if strings.HasPrefix(e, "Event: "+upTo+"\r\n") {
				part.events = d.events[:min(len(d.events), i+5)]
			}
		}
		total := 2000 + len(strings.Join(part.events, ""))
		all := unbroken(t, part)
		want := all[len(all)-1].calls
		for n := 0; n < total; n += step {
			synctest.Test(t, func(t *testing.T) {
				srv := part.server()
				srv.missed = n % 5
				p := mustPlay(t, part, srv, nil, func(i int, conn net.Conn) *wire {
					if i == 1 {
						return &wire{Conn: conn, left: n}
					}
					return unlimited(i, conn)
				})
				time.Sleep(time.Minute)
				p.stop(t)
				if diff := cmp.Diff(want, copyStates(p.folded), cmp.AllowUnexported(state{})); diff != "" {
					t.Fatalf("up to %s, broken after %d bytes (-want +got):\n%s", upTo, n, diff)
				}
				checkOrder(t, p.signals)
			})
			if t.Failed() {
				return
			}
		}
	}
}

func TestSlowServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := mustDialogue(t, "abandoned.txt")
		p := mustPlay(t, d, d.server(), nil, func(_ int, conn net.Conn) *wire {
			return &wire{Conn: conn, onebyte: 7 * time.Millisecond}
		})
		time.Sleep(5 * time.Minute)
		p.stop(t)
		if len(p.signals) != len(d.want) {
			t.Errorf("signals %v, want %v", p.words(), d.want)
		}
	})
}

func TestGarbage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := mustDialogue(t, "abandoned.txt")
		srv := d.server()
		rnd := rand.New(rand.NewPCG(1, 2))
		noise := make([]byte, 3*messageBytesMax)
		for i := range noise {
			noise[i] = byte('a' + rnd.IntN(26)) // one endless line
		}
		mixed := []string{string(noise) + "\r\n\r\n", "\x00\xff\xfe: \r\nno colon\r\n\r\n", "Event: Hold\r\n\r\n", ": \r\n:\r\n\r\n", "Response: Follows\r\n\r\n"}
		var events []string
		for i, e := range srv.events {
			events = append(events, mixed[i%len(mixed)], e)
		}
		srv.events = events
		p := mustPlay(t, d, srv, nil, unlimited)
		time.Sleep(time.Minute)
		st := p.source.Status()
		p.stop(t)
		if len(p.signals) != len(d.want) || st.Ignored == 0 || st.Reconnects != 0 {
			t.Errorf("signals %v, status %+v", p.words(), st)
		}
	})
}

// TestSilentServer: a server that says nothing any more is given up.
func TestSilentServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := mustDialogue(t, "abandoned.txt")
		srv := d.server()
		srv.mute = true
		p := mustPlay(t, d, srv, nil, unlimited)
		time.Sleep(46 * time.Second)
		st := p.source.Status()
		if len(p.signals) < 1 || p.signals[0].Event != suppress.SourceLost || p.signals[0].Source != "ami:test" || !strings.Contains(st.LastError, "ping") {
			t.Errorf("signals %v, status %+v", p.signals, st)
		}
		time.Sleep(time.Second)
		if st := p.source.Status(); !st.Connected || st.Reconnects != 1 {
			t.Errorf("status %+v, want one reconnect", st)
		}
		p.stop(t)
	})
}

func TestRefusedLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := mustDialogue(t, "abandoned.txt")
		srv := d.server()
		srv.secret = "another"
		p := mustPlay(t, d, srv, nil, unlimited)
		time.Sleep(10 * time.Minute)
		st := p.source.Status()
		if st.Connected || !strings.Contains(st.LastError, "Authentication failed") || strings.Contains(st.LastError, "s3cret") {
			t.Errorf("status %+v", st)
		}
		srv.mu.Lock()
		if srv.accepted < 15 || srv.accepted > 60 {
			t.Errorf("%d attempts in 10 min with a back-off of up to 30 s", srv.accepted)
		}
		srv.secret = "s3cret" // mended there
		srv.mu.Unlock()
		time.Sleep(time.Minute)
		if !p.source.Status().Connected {
			t.Errorf("status %+v after the password was mended", p.source.Status())
		}
		p.stop(t)
	})
}

func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := mustDialogue(t, "abandoned.txt")
		var tries []time.Time
		p := mustPlay(t, d, d.server(), func(c *Config) {
			c.BackoffMin, c.BackoffMax = time.Second, 8*time.Second
			c.Dial = func(context.Context, string, string) (net.Conn, error) {
				tries = append(tries, time.Now())
				return nil, errors.New("no route to host, secret s3cret")
			}
		}, unlimited)
		time.Sleep(time.Minute)
		if e := p.source.Status().LastError; strings.Contains(e, "s3cret") || !strings.Contains(e, "no route") {
			t.Errorf("error %q", e)
		}
		p.stop(t)
		limit := time.Second
		for i := 1; i < len(tries); i++ {
			if gap := tries[i].Sub(tries[i-1]); gap < limit/2 || gap > limit {
				t.Errorf("attempt %d after %v, want %v to %v", i, gap, limit/2, limit)
			}
			limit = min(2*limit, 8*time.Second)
		}
		if len(p.signals) != 0 {
			t.Errorf("signals %v of a source that never was there", p.signals)
		}
	})
}

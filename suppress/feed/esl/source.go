package esl

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/trunktap/trunktap/suppress"
	"github.com/trunktap/trunktap/suppress/feed"
)

// Times of a connection.
const (
	dialTimeout     = 10 * time.Second
	loginTimeout    = 15 * time.Second // from the connection to the subscription
	writeTimeout    = 10 * time.Second
	probeAfter      = 25 * time.Second // of silence; a heartbeat comes every 20 s by default
	silenceMax      = 60 * time.Second // without any byte
	messageTimeMax  = 60 * time.Second // from the first byte of a message to its last
	backoffMin      = 500 * time.Millisecond
	backoffMax      = 30 * time.Second
	backoffResetAge = 30 * time.Second // a connection that lived so long was none that fails
	readBytes       = 32 << 10
)

// Config of a Source.
type Config struct {
	Name     string // within the sources: "pbx1" makes "esl:pbx1"
	Address  string // host:port, usually port 8021
	User     string // user@domain of the directory for userauth; empty: auth with the password alone
	Password string
	Trunks   Trunks

	// Dial connects; nil means TCP.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	Log  *slog.Logger // of the connection's state; nil means none
}

// Validate lists all faults.
func (c Config) Validate() error {
	var errs []error
	if clean(c.Name) == "" {
		errs = append(errs, errors.New("name: is missing, wanted is a short text that tells the FreeSWITCH from others"))
	}
	if _, _, err := net.SplitHostPort(c.Address); err != nil {
		errs = append(errs, errors.New("address: is not host:port"))
	}
	if c.Password == "" {
		errs = append(errs, errors.New("password: is missing"))
	}
	if strings.ContainsAny(c.User+c.Password, "\r\n") {
		errs = append(errs, errors.New("user, password: a line break is not allowed"))
	}
	if user, domain, ok := strings.Cut(c.User, "@"); c.User != "" && (!ok || user == "" || domain == "" || strings.Contains(c.User, ":")) {
		errs = append(errs, errors.New("user: allowed is user@domain without a colon"))
	}
	return errors.Join(errs...)
}

// Source is a feed.Source of one FreeSWITCH.
type Source struct {
	cfg  Config
	name string

	// Of the goroutine in Run.
	t    *Translator
	emit func(suppress.Signal)

	mu     sync.Mutex // guards status
	status feed.Status
}

var _ feed.Source = (*Source)(nil)

// New returns a source that is not connected yet.
func New(cfg Config) (*Source, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{Timeout: dialTimeout}).DialContext
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	name := "esl:" + cfg.Name
	return &Source{cfg: cfg, name: name, t: NewTranslator(name, cfg.Trunks)}, nil
}

// Name returns "esl:" and the configured name.
func (s *Source) Name() string { return s.name }

// Status may be called from any goroutine.
func (s *Source) Status() feed.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

func (s *Source) update(f func(*feed.Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.status)
}

// Run connects, reads and connects again until ctx ends. It may be called once.
func (s *Source) Run(ctx context.Context, emit func(suppress.Signal)) error {
	s.emit = emit
	s.update(func(st *feed.Status) { st.Since = time.Now() })
	delay := backoffMin
	for ctx.Err() == nil {
		if s.connectOnce(ctx) >= backoffResetAge {
			delay = backoffMin
		}
		wait(ctx, delay/2+rand.N(delay/2))
		delay = min(2*delay, backoffMax)
	}
	return nil
}

// connectOnce returns how long a connection lived. That it ends with ctx is no
// failure.
func (s *Source) connectOnce(ctx context.Context) time.Duration {
	begun := time.Now()
	if err := s.connection(ctx); ctx.Err() == nil {
		s.down(err)
	}
	return time.Since(begun)
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// down notes that there is no connection.
func (s *Source) down(err error) {
	now := time.Now()
	was := false
	s.update(func(st *feed.Status) {
		was = st.Connected
		if was {
			st.Connected, st.Since = false, now
		}
		st.LastError = err.Error()
	})
	lost := s.t.Lost(now)
	if was || len(lost) > 0 {
		s.cfg.Log.Warn("lost a source of signals", "source", s.name, "error", err)
	}
	s.tell(lost)
}

func (s *Source) tell(signals []suppress.Signal) {
	for _, sig := range signals {
		s.emit(sig)
	}
	ignored := s.t.Ignored()
	s.update(func(st *feed.Status) {
		st.Signals += uint64(len(signals))
		st.Ignored = ignored
	})
}

// connection dials and reads until the connection breaks or ctx ends.
func (s *Source) connection(ctx context.Context) error {
	dialCtx, cancel := context.WithTimeout(ctx, dialTimeout)
	conn, err := s.cfg.Dial(dialCtx, "tcp", s.cfg.Address)
	cancel()
	if err != nil {
		return fmt.Errorf("connect to the FreeSWITCH: %w", err)
	}
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		_ = conn.Close() // it is being given up
	})
	defer func() {
		if stop() {
			_ = conn.Close() // what was read is told already
			return
		}
		<-closed
	}()
	return s.read(conn)
}

// read takes messages until something fails.
func (s *Source) read(conn net.Conn) error {
	auth := "auth " + s.cfg.Password
	if s.cfg.User != "" {
		auth = "userauth " + s.cfg.User + ":" + s.cfg.Password
	}
	d := newDialogue(s.t, auth)
	var p Parser
	buf := make([]byte, readBytes)
	begun := time.Now()
	heard, partialSince := begun, begun
	for {
		if err := conn.SetReadDeadline(s.deadline(d, begun, heard, partialSince, p.Partial())); err != nil {
			return fmt.Errorf("read from the FreeSWITCH: %w", err)
		}
		n, err := conn.Read(buf)
		now := time.Now()
		if n > 0 {
			heard = now
			if !p.Partial() {
				partialSince = now
			}
			p.Feed(buf[:n])
			took, err := s.drain(conn, d, &p, now)
			if err != nil {
				return err
			}
			if took {
				partialSince = now
			}
		}
		if err != nil && !errors.Is(err, context.DeadlineExceeded) && !isTimeout(err) {
			return fmt.Errorf("read from the FreeSWITCH: %w", err)
		}
		if err := s.overdue(conn, d, now, begun, heard, partialSince, p.Partial()); err != nil {
			return err
		}
	}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// deadline is when something has to happen if nothing arrives.
func (s *Source) deadline(d *dialogue, begun, heard, partialSince time.Time, partial bool) time.Time {
	if d.state != live {
		return begun.Add(loginTimeout)
	}
	at := heard.Add(silenceMax)
	if len(d.pending) == 0 {
		at = heard.Add(probeAfter)
	}
	if partial && partialSince.Add(messageTimeMax).Before(at) {
		at = partialSince.Add(messageTimeMax)
	}
	return at
}

// overdue says what was waited for in vain, and probes.
func (s *Source) overdue(conn net.Conn, d *dialogue, now, begun, heard, partialSince time.Time, partial bool) error {
	switch {
	case d.state != live && now.Sub(begun) >= loginTimeout:
		return fmt.Errorf("the FreeSWITCH did not let in within %v", loginTimeout)
	case now.Sub(heard) >= silenceMax:
		return fmt.Errorf("nothing was heard of the FreeSWITCH for %v", silenceMax)
	case partial && now.Sub(partialSince) >= messageTimeMax:
		return fmt.Errorf("a message of the FreeSWITCH is not complete after %v", messageTimeMax)
	case d.state == live && now.Sub(heard) >= probeAfter:
		if command, ok := d.probe(); ok {
			return write(conn, []string{command})
		}
	}
	return nil
}

// drain takes the complete messages; took tells whether there was any.
func (s *Source) drain(conn net.Conn, d *dialogue, p *Parser, now time.Time) (took bool, err error) {
	for {
		m, ok, err := p.Next()
		if err != nil || !ok {
			return took, err
		}
		took = true
		signals, send, err := d.message(m, now)
		s.tell(signals)
		if err != nil {
			return took, err
		}
		if err := write(conn, send); err != nil {
			return took, err
		}
		if d.state == live {
			s.up(now)
		}
	}
}

// up notes that the subscription stands.
func (s *Source) up(now time.Time) {
	became, again := false, false
	s.update(func(st *feed.Status) {
		if st.Connected {
			return
		}
		became = true
		again = st.LastError != ""
		st.Connected, st.Since = true, now
		if again {
			st.Reconnects++
		}
	})
	if became {
		s.cfg.Log.Info("connected to a source of signals", "source", s.name)
	}
}

func write(conn net.Conn, commands []string) error {
	if len(commands) == 0 {
		return nil
	}
	if err := conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return fmt.Errorf("write to the FreeSWITCH: %w", err)
	}
	if _, err := conn.Write([]byte(strings.Join(commands, "\n\n") + "\n\n")); err != nil {
		return fmt.Errorf("write to the FreeSWITCH: %w", err)
	}
	return nil
}

package ami

import (
	"context"
	"crypto/md5" //nolint:gosec // the challenge of AMI is defined with it
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/trunktap/trunktap/suppress"
	"github.com/trunktap/trunktap/suppress/feed"
)

// Limits of a connection.
const (
	loginTimeout     = 10 * time.Second // dial, TLS, greeting and login, each
	writeTimeout     = 10 * time.Second
	readBytes        = 16 << 10 // of one read
	messagesQueueMax = 256      // read and not handled yet; then the connection is read no further
	silentPings      = 3        // intervals without a byte that end a connection
)

// eventMask is what is subscribed to: channels and bridges, queues, UserEvent.
const eventMask = "call,agent,user"

var (
	errSilent  = errors.New("no answer to pings")
	errRefused = errors.New("login refused")
)

// Source is a feed.Source over one Asterisk.
type Source struct {
	cfg Config

	// Owned by Run.
	tr      *Translator
	attempt int  // failures since the latest login
	served  bool // was connected once

	mu     sync.Mutex
	status feed.Status
}

var _ feed.Source = (*Source)(nil)

// New returns a source that Run connects. The error lists what is wrong with
// the configuration.
func New(cfg Config) (*Source, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("asterisk manager interface: %w", err)
	}
	return &Source{cfg: cfg.withDefaults()}, nil
}

// Name returns Config.Name.
func (s *Source) Name() string { return s.cfg.Name }

// Status may be called from any goroutine.
func (s *Source) Status() feed.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// Run connects, and again after every break, until ctx ends; then it returns
// nil. It is called once.
func (s *Source) Run(ctx context.Context, emit func(suppress.Signal)) error {
	start := time.Now()
	s.tr = NewTranslator(s.cfg, uint64(start.UnixMicro()))
	s.set(func(st *feed.Status) { st.Since = start })
	for ctx.Err() == nil {
		text := s.public(s.connection(ctx, emit))
		if ctx.Err() != nil {
			break
		}
		s.set(func(st *feed.Status) { st.LastError = text })
		pause := s.pause()
		s.cfg.Log.Warn("asterisk manager interface not reached", "source", s.cfg.Name, "error", text, "retry_in", pause)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	s.down(time.Now())
	return nil //nolint:nilerr // the end of ctx is what it was asked for
}

// pause is the time before the next attempt: doubled with each that failed, of
// which the second half is random, so that many clients do not come at once.
func (s *Source) pause() time.Duration {
	d := s.cfg.BackoffMin
	for range s.attempt {
		if d *= 2; d >= s.cfg.BackoffMax {
			d = s.cfg.BackoffMax
			break
		}
	}
	s.attempt++
	return d/2 + time.Duration(rand.Int64N(int64(d/2)+1))
}

// public is an error's text for logs and status: never with the password.
func (s *Source) public(err error) string {
	if err == nil {
		return ""
	}
	text := clean(err.Error())
	if s.cfg.Secret != "" {
		text = strings.ReplaceAll(text, s.cfg.Secret, "[secret]")
	}
	return text
}

func (s *Source) set(change func(*feed.Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.status)
}

func (s *Source) down(now time.Time) {
	s.set(func(st *feed.Status) {
		if st.Connected {
			st.Connected, st.Since = false, now
		}
	})
}

// connection lives from dial to break. The error says why it broke.
func (s *Source) connection(ctx context.Context, emit func(suppress.Signal)) error {
	conn, err := s.dial(ctx)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // the reader ends by it
	c := &connection{conn: conn, source: s, emit: emit, arrivals: make(chan arrival, messagesQueueMax), quit: make(chan struct{})}
	var reader sync.WaitGroup
	reader.Go(c.read)
	err = c.serve(ctx)
	stop()
	_ = conn.Close() // nothing is lost: all that was written was asked in vain
	close(c.quit)
	reader.Wait()
	return err
}

func (s *Source) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	conn, err := s.cfg.Dial(ctx, "tcp", s.cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", s.cfg.Addr, err)
	}
	if s.cfg.TLS == nil {
		return conn, nil
	}
	conf := s.cfg.TLS.Clone()
	if conf.ServerName == "" {
		conf.ServerName, _, _ = net.SplitHostPort(s.cfg.Addr)
	}
	secure := tls.Client(conn, conf)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close() // of no use without TLS
		return nil, fmt.Errorf("tls with %s: %w", s.cfg.Addr, err)
	}
	return secure, nil
}

// connection is one connection to Asterisk, owned by Run's goroutine; its
// reader hands over what arrives.
type connection struct {
	source *Source
	conn   net.Conn
	emit   func(suppress.Signal)

	arrivals chan arrival
	quit     chan struct{} // closed when nobody takes arrivals any more

	buf []byte // of what is written
}

// arrival is a message, or the end of the connection.
type arrival struct {
	message Message
	bad     uint64 // skipped before it
	at      time.Time
	err     error
}

// read is the reader's goroutine.
func (c *connection) read() {
	var parser Parser
	buf := make([]byte, readBytes)
	bad := uint64(0)
	for {
		if err := c.conn.SetReadDeadline(time.Now().Add(silentPings * c.source.cfg.PingInterval)); err != nil {
			c.hand(arrival{err: fmt.Errorf("read: %w", err)})
			return
		}
		n, err := c.conn.Read(buf)
		now, open := time.Now(), true
		parser.Feed(buf[:n], func(m Message) {
			open = open && c.hand(arrival{message: m, bad: parser.Bad() - bad, at: now})
			bad = parser.Bad()
		})
		if err != nil {
			c.hand(arrival{err: readError(err), bad: parser.Bad() - bad, at: now})
			return
		}
		if !open {
			return
		}
	}
}

func readError(err error) error {
	var timeout net.Error
	switch {
	case errors.Is(err, io.EOF):
		return errors.New("closed by the server")
	case errors.As(err, &timeout) && timeout.Timeout():
		return errSilent
	}
	return fmt.Errorf("read: %w", err)
}

func (c *connection) hand(a arrival) bool {
	select {
	case c.arrivals <- a:
		return true
	case <-c.quit:
		return false
	}
}

// serve logs in and translates until the connection breaks or ctx ends.
func (c *connection) serve(ctx context.Context) error {
	s := c.source
	if err := c.login(ctx); err != nil {
		return err
	}
	now := time.Now()
	s.attempt = 0
	s.set(func(st *feed.Status) {
		st.Connected, st.Since = true, now
		if s.served {
			st.Reconnects++
		}
	})
	s.served = true
	s.cfg.Log.Info("asterisk manager interface connected", "source", s.cfg.Name)
	err := c.do(s.tr.Connected(now))
	if err == nil {
		err = c.loop(ctx)
	}
	now = time.Now()
	s.down(now)
	if ctx.Err() == nil {
		c.send(s.tr.Lost(now).Signals)
	}
	return err
}

func (c *connection) loop(ctx context.Context) error {
	tr := c.source.tr
	ping := time.NewTicker(c.source.cfg.PingInterval)
	defer ping.Stop()
	tick := time.NewTimer(time.Hour)
	defer tick.Stop()
	for {
		if due, ok := tr.Deadline(); ok {
			tick.Reset(max(0, time.Until(due)))
		} else {
			tick.Stop()
		}
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case a := <-c.arrivals:
			err = c.take(a)
		case <-tick.C:
			err = c.do(tr.Tick(time.Now()))
		case <-ping.C:
			err = c.write(action("Ping"))
		}
		if err != nil {
			return err
		}
	}
}

func (c *connection) take(a arrival) error {
	s := c.source
	before := s.tr.Ignored()
	var out Output
	if a.err == nil {
		out = s.tr.Handle(a.message, a.at)
	}
	if n := a.bad + s.tr.Ignored() - before; n > 0 {
		s.set(func(st *feed.Status) { st.Ignored += n })
	}
	if a.err != nil {
		return a.err
	}
	if r := s.tr.Refusal(); r != "" {
		text := s.public(errors.New("asterisk refused a question: " + r))
		s.set(func(st *feed.Status) { st.LastError = text })
	}
	return c.do(out)
}

// do sends what a translator wants sent.
func (c *connection) do(out Output) error {
	c.send(out.Signals)
	return c.write(out.Actions...)
}

func (c *connection) send(signals []suppress.Signal) {
	for _, s := range signals {
		c.emit(s)
	}
	if n := uint64(len(signals)); n > 0 {
		c.source.set(func(st *feed.Status) { st.Signals += n })
	}
}

func (c *connection) write(actions ...Action) error {
	if len(actions) == 0 {
		return nil
	}
	c.buf = c.buf[:0]
	for _, a := range actions {
		c.buf = a.Append(c.buf)
	}
	if err := c.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if _, err := c.conn.Write(c.buf); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// login waits for the greeting and logs in.
func (c *connection) login(ctx context.Context) error {
	s := c.source
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	if _, err := c.await(ctx, func(m Message) bool { return m.Banner != "" }); err != nil {
		return fmt.Errorf("wait for the greeting: %w", err)
	}
	proof := []string{"Secret", s.cfg.Secret}
	if s.cfg.MD5 {
		m, err := c.request(ctx, action("Challenge", "ActionID", "tt-challenge", "AuthType", "MD5"))
		if err != nil {
			return fmt.Errorf("ask for a challenge: %w", err)
		}
		sum := md5.Sum([]byte(m.Get("Challenge") + s.cfg.Secret)) //nolint:gosec // see the import
		proof = []string{"AuthType", "MD5", "Key", hex.EncodeToString(sum[:])}
	}
	login := append([]string{"ActionID", "tt-login", "Username", s.cfg.Username, "Events", eventMask}, proof...)
	if _, err := c.request(ctx, action("Login", login...)); err != nil {
		return fmt.Errorf("log in as %q: %w", s.cfg.Username, err)
	}
	return nil
}

// request sends an action and waits for its answer, which is the error when it
// is not Success.
func (c *connection) request(ctx context.Context, a Action) (Message, error) {
	if err := c.write(a); err != nil {
		return Message{}, err
	}
	id := a.Headers[0].Value
	m, err := c.await(ctx, func(m Message) bool { return m.Get("Response") != "" && m.Get("ActionID") == id })
	if err == nil && !strings.EqualFold(m.Get("Response"), "Success") {
		err = fmt.Errorf("%w: %s", errRefused, clean(m.Get("Message")))
	}
	return m, err
}

func (c *connection) await(ctx context.Context, wanted func(Message) bool) (Message, error) {
	for {
		select {
		case <-ctx.Done():
			return Message{}, ctx.Err()
		case a := <-c.arrivals:
			if a.err != nil {
				return Message{}, a.err
			}
			if wanted(a.message) {
				return a.message, nil
			}
		}
	}
}

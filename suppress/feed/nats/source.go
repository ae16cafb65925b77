package nats

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunktap/trunktap/suppress"
	"github.com/trunktap/trunktap/suppress/feed"
)

// Times and sizes of a connection.
const (
	dialTimeout    = 5 * time.Second
	requestTimeout = 5 * time.Second // of a question to JetStream
	pingInterval   = 15 * time.Second
	pingsOutMax    = 2
	ackWait        = 5 * time.Second // after which an unconfirmed message comes again
	setupRetry     = 2 * time.Second
	closeTimeout   = 5 * time.Second
	backoffMin     = 250 * time.Millisecond
	backoffMax     = 15 * time.Second
	messagesMax    = 4096 // that wait to be taken, without JetStream
	tellFaultEvery = time.Minute
)

// MaxAgeDefault is how old a message of a stream may be to be taken.
const MaxAgeDefault = time.Hour

// SubjectDefault is what is subscribed to when no subject is given.
const SubjectDefault = "trunktap.signals.>"

// Config of a Source. Of the ways to log in at most one may be given.
type Config struct {
	Name     string   // within the sources: "main" makes "nats:main"
	URLs     []string // nats://host:4222, tls://...
	Subjects []string // empty means SubjectDefault

	CredentialsFile string // a .creds file
	Token           string
	User, Password  string

	Stream  string        // of JetStream: what is missed is replayed. Empty: only what comes while connected
	Durable string        // name of the consumer in the stream; needed with Stream
	MaxAge  time.Duration // older messages of the stream are passed over; 0 means MaxAgeDefault, 24 h at most

	TLS *tls.Config  // nil: as the URL says
	Log *slog.Logger // of the connection's state and of faulty messages, never of content; nil means none
}

// Validate lists all faults.
func (c Config) Validate() error {
	var errs []error
	add := func(text string) { errs = append(errs, errors.New(text)) }
	if c.Name == "" || len(c.Name) > 128 {
		add("name: is missing or too long, wanted is a short text that tells this source from others")
	}
	if len(c.URLs) == 0 {
		add("urls: is missing, wanted is nats://host:port")
	}
	for i, u := range c.URLs {
		if p, err := url.Parse(u); err != nil || p.Host == "" {
			add(fmt.Sprintf("urls[%d]: is no URL, allowed is nats://host:port", i))
		}
	}
	for i, s := range c.Subjects {
		if s == "" || strings.ContainsAny(s, " \t\r\n") {
			add(fmt.Sprintf("subjects[%d]: is no subject", i))
		}
	}
	for i, a := range c.Subjects {
		for _, b := range c.Subjects[:i] {
			if overlap(strings.Split(a, "."), strings.Split(b, ".")) {
				add(fmt.Sprintf("subjects[%d]: overlaps another one, each message must come once", i))
			}
		}
	}
	ways := 0
	for _, given := range []bool{c.CredentialsFile != "", c.Token != "", c.User != "" || c.Password != ""} {
		if given {
			ways++
		}
	}
	if ways > 1 {
		add("credentials: more than one of credentials file, token and user is given")
	}
	if (c.Stream == "") != (c.Durable == "") {
		add("stream, durable: both or none must be given")
	}
	if strings.ContainsAny(c.Stream+c.Durable, ".*>/\\ \t\r\n") {
		add("stream, durable: a name has no space and none of .*>/\\")
	}
	if c.MaxAge < 0 || c.MaxAge > 24*time.Hour {
		add("max_age: allowed is up to 24h")
	}
	return errors.Join(errs...)
}

// overlap tells whether a subject could match both.
func overlap(a, b []string) bool {
	for i := 0; ; i++ {
		switch {
		case i == len(a) || i == len(b):
			return len(a) == len(b)
		case a[i] == ">" || b[i] == ">":
			return true
		case a[i] != b[i] && a[i] != "*" && b[i] != "*":
			return false
		}
	}
}

// change is what the connection's callbacks tell the owner.
type change struct {
	up  bool
	err error
}

// message is one message on its way to the owner.
type message struct {
	payload []byte
	meta    *jetstream.MsgMetadata // nil without JetStream
	ack     func() error           // nil without JetStream
}

// Source is a feed.Source of NATS subjects.
type Source struct {
	cfg  Config
	name string

	// Of the goroutine in Run.
	emit       func(suppress.Signal)
	nc         *natsgo.Conn
	up         bool // as the connection says
	ready      bool // subscribed
	lost       bool // source.lost was told
	catchingUp bool // what was missed is still coming
	consumer   jetstream.Consumer
	consuming  jetstream.ConsumeContext
	acked      uint64 // the latest sequence number of the stream that was taken
	faultTold  time.Time
	faults     uint64 // since faultTold

	changes  chan change
	messages chan message
	done     chan struct{} // closed when Run ends: no callback waits any more

	mu     sync.Mutex // guards status
	status feed.Status
}

var _ feed.Source = (*Source)(nil)

// New returns a source that is not connected yet.
func New(cfg Config) (*Source, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if len(cfg.Subjects) == 0 {
		cfg.Subjects = []string{SubjectDefault}
	}
	if cfg.MaxAge == 0 {
		cfg.MaxAge = MaxAgeDefault
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Source{
		cfg: cfg, name: "nats:" + cfg.Name,
		changes: make(chan change, 64), messages: make(chan message, messagesMax), done: make(chan struct{}),
	}, nil
}

// Name returns "nats:" and the configured name.
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

// Run connects, reads and connects again until ctx ends. It may be called
// once. The error tells of a file of credentials that cannot be read.
func (s *Source) Run(ctx context.Context, emit func(suppress.Signal)) error {
	s.emit = emit
	s.update(func(st *feed.Status) { st.Since = time.Now() })
	defer close(s.done)
	closed := make(chan struct{})
	nc, err := natsgo.Connect(strings.Join(s.cfg.URLs, ","), s.options(closed)...)
	if err != nil {
		return fmt.Errorf("connect to NATS: %w", err)
	}
	s.nc = nc
	defer func() {
		s.stopConsuming()
		nc.Close()
		select {
		case <-closed:
		case <-time.After(closeTimeout):
		}
	}()
	if s.cfg.Stream == "" {
		if err := s.subscribe(); err != nil {
			return err
		}
	}
	if !nc.IsConnected() {
		s.down(natsgo.ErrNoServers)
	}
	s.loop(ctx)
	return nil
}

// loop is the owner.
func (s *Source) loop(ctx context.Context) {
	retry := time.NewTicker(setupRetry)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case c := <-s.changes:
			if c.up {
				s.up = true
				s.setUp(ctx)
			} else {
				s.down(c.err)
			}
		case <-retry.C:
			s.setUp(ctx)
		case m := <-s.messages:
			s.take(m)
		}
	}
}

func (s *Source) options(closed chan struct{}) []natsgo.Option {
	opts := []natsgo.Option{
		natsgo.Name("trunktap"),
		natsgo.Timeout(dialTimeout),
		natsgo.RetryOnFailedConnect(true),
		natsgo.MaxReconnects(-1),
		natsgo.IgnoreAuthErrorAbort(),
		natsgo.ReconnectBufSize(-1),
		natsgo.PingInterval(pingInterval),
		natsgo.MaxPingsOutstanding(pingsOutMax),
		natsgo.CustomReconnectDelay(backoff),
		natsgo.ConnectHandler(func(*natsgo.Conn) { s.notify(change{up: true}) }),
		natsgo.ReconnectHandler(func(*natsgo.Conn) { s.notify(change{up: true}) }),
		natsgo.DisconnectErrHandler(func(_ *natsgo.Conn, err error) { s.notify(change{err: err}) }),
		natsgo.ErrorHandler(func(_ *natsgo.Conn, _ *natsgo.Subscription, err error) { s.failed(err) }),
		natsgo.ClosedHandler(func(*natsgo.Conn) { close(closed) }),
	}
	switch {
	case s.cfg.CredentialsFile != "":
		opts = append(opts, natsgo.UserCredentials(s.cfg.CredentialsFile))
	case s.cfg.Token != "":
		opts = append(opts, natsgo.Token(s.cfg.Token))
	case s.cfg.User != "":
		opts = append(opts, natsgo.UserInfo(s.cfg.User, s.cfg.Password))
	}
	if s.cfg.TLS != nil {
		opts = append(opts, natsgo.Secure(s.cfg.TLS))
	}
	return opts
}

// backoff is how long to wait before the n-th round of attempts.
func backoff(n int) time.Duration {
	d := min(backoffMin<<min(n, 10), backoffMax)
	return d/2 + rand.N(d/2)
}

// notify hands a change to the owner.
func (s *Source) notify(c change) {
	select {
	case s.changes <- c:
	case <-s.done:
	}
}

// failed notes an error that a callback tells of.
func (s *Source) failed(err error) {
	s.update(func(st *feed.Status) { st.LastError = err.Error() })
}

// down notes that there is no connection.
func (s *Source) down(err error) {
	now := time.Now()
	if err == nil {
		err = natsgo.ErrConnectionClosed
	}
	s.up = false
	s.update(func(st *feed.Status) {
		if st.Connected {
			st.Connected, st.Since = false, now
		}
		st.LastError = err.Error()
	})
	if s.lost {
		return
	}
	s.lost = true
	s.cfg.Log.Warn("lost a source of signals", "source", s.name, "error", err)
	s.send(suppress.Signal{V: 1, Event: suppress.SourceLost, At: now, Received: now, Source: s.name})
}

// setUp subscribes where that is missing, and notes that the source is back.
func (s *Source) setUp(ctx context.Context) {
	if !s.up || s.Status().Connected && !s.catchingUp {
		return
	}
	missed := uint64(0)
	if s.cfg.Stream != "" {
		n, err := s.consume(ctx)
		if err != nil {
			s.failed(err)
			if !s.Status().Connected {
				s.down(err)
				s.up = true
			}
			return
		}
		missed = n
	}
	now := time.Now()
	became := false
	s.update(func(st *feed.Status) {
		if became = !st.Connected; became {
			st.Connected, st.Since = true, now
			if s.ready {
				st.Reconnects++
			}
		}
	})
	s.ready = true
	if became {
		s.cfg.Log.Info("connected to a source of signals", "source", s.name)
	}
	if s.catchingUp = missed > 0; !s.catchingUp {
		s.restored(now)
	}
}

// restored tells that all that was missed is told, if source.lost was.
func (s *Source) restored(now time.Time) {
	s.catchingUp = false
	if s.lost {
		s.lost = false
		s.send(suppress.Signal{V: 1, Event: suppress.SourceRestored, At: now, Received: now, Source: s.name})
	}
}

func (s *Source) send(sig suppress.Signal) {
	s.emit(sig)
	s.update(func(st *feed.Status) { st.Signals++ })
}

// subscribe takes what is published while there is a connection.
func (s *Source) subscribe() error {
	for _, subject := range s.cfg.Subjects {
		_, err := s.nc.Subscribe(subject, func(m *natsgo.Msg) { s.hand(message{payload: m.Data}) })
		if err != nil {
			return fmt.Errorf("subscribe: %w", err)
		}
	}
	return nil
}

// hand gives a message to the owner.
func (s *Source) hand(m message) {
	select {
	case s.messages <- m:
	case <-s.done:
	}
}

// take tells the signals of a message and confirms it. What is not confirmed
// comes again; it has the sequence numbers that it had before.
func (s *Source) take(m message) {
	now := time.Now()
	a := arrival{source: s.name, at: now, received: now}
	passOver := false
	if m.meta != nil {
		a.at, a.seq = m.meta.Timestamp, m.meta.Sequence.Stream
		passOver = now.Sub(a.at) > s.cfg.MaxAge || m.meta.NumDelivered > 1 && a.seq <= s.acked
	}
	if !passOver {
		signals, faults := parsePayload(m.payload, a)
		for _, sig := range signals {
			s.send(sig)
		}
		s.tellFaults(faults, now)
	}
	if m.meta == nil {
		return
	}
	s.acked = a.seq
	if err := m.ack(); err != nil {
		s.failed(fmt.Errorf("confirm a message: %w", err))
	}
	if s.catchingUp && m.meta.NumPending == 0 {
		s.restored(now)
	}
}

// tellFaults counts what was wrong and tells it once in a while.
func (s *Source) tellFaults(faults []fault, now time.Time) {
	if len(faults) == 0 {
		return
	}
	last := faults[len(faults)-1]
	s.update(func(st *feed.Status) {
		st.Ignored += uint64(len(faults))
		st.LastError = "a message is no signal: " + last.Error()
	})
	s.faults += uint64(len(faults))
	if now.Sub(s.faultTold) < tellFaultEvery {
		return
	}
	s.cfg.Log.Warn("messages are no signals", "source", s.name, "count", s.faults, "latest", last.Error())
	s.faultTold, s.faults = now, 0
}

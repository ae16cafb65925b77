package nats

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/trunktap/trunktap/suppress"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// mustServe starts a server that keeps its streams in dir.
func mustServe(t *testing.T, dir string, port int, change func(*natsserver.Options)) *natsserver.Server {
	t.Helper()
	opts := &natsserver.Options{
		Host: "127.0.0.1", Port: port, JetStream: dir != "", StoreDir: dir, NoLog: true, NoSigs: true,
	}
	if change != nil {
		change(opts)
	}
	srv, err := natsserver.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	if !srv.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server does not start")
	}
	t.Cleanup(func() {
		srv.Shutdown()
		srv.WaitForShutdown()
	})
	return srv
}

func portOf(srv *natsserver.Server) int { return srv.Addr().(*net.TCPAddr).Port }

// sink collects what a source tells.
type sink struct {
	mu   sync.Mutex
	list []string
	more chan struct{}
}

func newSink() *sink { return &sink{more: make(chan struct{}, 1)} }

func (k *sink) emit(s suppress.Signal) {
	k.mu.Lock()
	k.list = append(k.list, strings.Trim(string(s.Event)+" "+s.Call, " "))
	k.mu.Unlock()
	select {
	case k.more <- struct{}{}:
	default:
	}
}

func (k *sink) all() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.list)
}

// await waits until the signals are these.
func (k *sink) await(t *testing.T, want ...string) {
	t.Helper()
	limit := time.After(20 * time.Second)
	for !slices.Equal(k.all(), want) {
		select {
		case <-k.more:
		case <-limit:
			t.Fatalf("signals %q, want %q", k.all(), want)
		}
	}
}

// mustRun starts a source and returns what stops it.
func mustRun(t *testing.T, cfg Config, k *sink) (*Source, func()) {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, k.emit) }()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return s, stop
}

// awaitStatus polls until the status is as wanted: it is there for others to read, so there is nothing to wait on.
func awaitStatus(t *testing.T, s *Source, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("status %+v, want %s", s.Status(), what)
		}
	}
}

func mustConnect(t *testing.T, srv *natsserver.Server, opts ...natsgo.Option) *natsgo.Conn {
	t.Helper()
	nc, err := natsgo.Connect(srv.ClientURL(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func mustStream(t *testing.T, nc *natsgo.Conn) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	_, err = js.CreateOrUpdateStream(t.Context(), jetstream.StreamConfig{Name: "SIGNALS", Subjects: []string{"trunktap.signals.>"}})
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func mustPublish(t *testing.T, js jetstream.JetStream, call string) {
	t.Helper()
	if _, err := js.Publish(t.Context(), "trunktap.signals.pause", pause(call)); err != nil {
		t.Fatal(err)
	}
}

func pause(call string) []byte {
	return fmt.Appendf(nil, `{"event":"pause.start","call":%q}`, call)
}

func TestCoreSubscription(t *testing.T) {
	srv := mustServe(t, "", -1, nil)
	k := newSink()
	s, stop := mustRun(t, Config{Name: "main", URLs: []string{srv.ClientURL()}}, k)
	awaitStatus(t, s, "connected", func() bool { return s.Status().Connected })
	nc := mustConnect(t, srv)
	for _, m := range [][]byte{pause("1"), []byte("no signal"), pause("2")} {
		if err := nc.Publish("trunktap.signals.x", m); err != nil {
			t.Fatal(err)
		}
	}
	k.await(t, "pause.start 1", "pause.start 2")
	port := portOf(srv)
	nc.Close()
	srv.Shutdown()
	srv.WaitForShutdown()
	k.await(t, "pause.start 1", "pause.start 2", "source.lost")
	if st := s.Status(); st.Connected || st.LastError == "" || st.Ignored != 1 {
		t.Errorf("status without a server: %+v", st)
	}
	srv = mustServe(t, "", port, nil)
	k.await(t, "pause.start 1", "pause.start 2", "source.lost", "source.restored")
	nc = mustConnect(t, srv)
	if err := nc.Publish("trunktap.signals.x", pause("3")); err != nil {
		t.Fatal(err)
	}
	k.await(t, "pause.start 1", "pause.start 2", "source.lost", "source.restored", "pause.start 3")
	if st := s.Status(); !st.Connected || st.Reconnects != 1 || st.Signals != 5 {
		t.Errorf("status after the restart: %+v", st)
	}
	stop()
}

func TestServerThatComesLater(t *testing.T) {
	srv := mustServe(t, "", -1, nil)
	port := portOf(srv)
	srv.Shutdown()
	srv.WaitForShutdown()
	k := newSink()
	s, stop := mustRun(t, Config{Name: "main", URLs: []string{fmt.Sprintf("nats://127.0.0.1:%d", port)}}, k)
	k.await(t, "source.lost")
	mustServe(t, "", port, nil)
	k.await(t, "source.lost", "source.restored")
	if !s.Status().Connected {
		t.Errorf("status %+v", s.Status())
	}
	stop()
}

// TestStreamReplays: what is published while the daemon is down, or the server
// away from it, comes once and in order.
func TestStreamReplays(t *testing.T) {
	dir := t.TempDir()
	srv := mustServe(t, dir, -1, nil)
	port := portOf(srv)
	nc := mustConnect(t, srv)
	js := mustStream(t, nc)
	cfg := Config{Name: "main", URLs: []string{srv.ClientURL()}, Stream: "SIGNALS", Durable: "trunktap"}
	mustPublish(t, js, "before")
	k := newSink()
	s, stop := mustRun(t, cfg, k)
	k.await(t, "pause.start before")
	mustPublish(t, js, "1")
	k.await(t, "pause.start before", "pause.start 1")
	awaitStatus(t, s, "all confirmed", func() bool { return confirmed(t, js) })
	stop()

	want := []string{}
	for i := range 50 {
		mustPublish(t, js, fmt.Sprint("down", i))
		want = append(want, fmt.Sprint("pause.start down", i))
	}
	k = newSink()
	_, stop = mustRun(t, cfg, k)
	k.await(t, want...)

	nc.Close()
	srv.Shutdown()
	srv.WaitForShutdown()
	want = append(want, "source.lost")
	k.await(t, want...)
	srv = mustServe(t, dir, port, nil)
	js = mustStream(t, mustConnect(t, srv))
	mustPublish(t, js, "again")
	limit := time.After(20 * time.Second)
	for got := k.all(); len(got) < len(want)+2; got = k.all() {
		select {
		case <-k.more:
		case <-limit:
			t.Fatalf("signals %q", got)
		}
	}
	got := k.all()[len(want):]
	slices.Sort(got) // the message may come before or after the stream was found empty
	if !slices.Equal(got, []string{"pause.start again", "source.restored"}) {
		t.Errorf("after the restart %q", got)
	}
	stop()
}

// confirmed tells whether the stream has nothing left for the consumer.
func confirmed(t *testing.T, js jetstream.JetStream) bool {
	c, err := js.Consumer(t.Context(), "SIGNALS", "trunktap")
	if err != nil {
		t.Fatal(err)
	}
	info, err := c.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return info.NumPending == 0 && info.NumAckPending == 0
}

func TestStreamThatComesLater(t *testing.T) {
	srv := mustServe(t, t.TempDir(), -1, nil)
	k := newSink()
	s, stop := mustRun(t, Config{Name: "main", URLs: []string{srv.ClientURL()}, Stream: "SIGNALS", Durable: "trunktap"}, k)
	k.await(t, "source.lost")
	if st := s.Status(); st.Connected || !strings.Contains(st.LastError, "stream") {
		t.Errorf("status without the stream: %+v", st)
	}
	js := mustStream(t, mustConnect(t, srv))
	k.await(t, "source.lost", "source.restored")
	mustPublish(t, js, "1")
	k.await(t, "source.lost", "source.restored", "pause.start 1")
	stop()
}

// TestTakenOnce: a message that comes again, though it was taken, is confirmed
// and not told; one that is too old is neither.
func TestTakenOnce(t *testing.T) {
	k := newSink()
	s, err := New(Config{Name: "main", URLs: []string{"nats://x:1"}, Stream: "S", Durable: "d", MaxAge: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	s.emit = k.emit
	acks := 0
	give := func(call string, seq, delivered uint64, age time.Duration) {
		s.take(message{payload: pause(call), ack: func() error { acks++; return nil }, meta: &jetstream.MsgMetadata{
			Sequence: jetstream.SequencePair{Stream: seq}, NumDelivered: delivered, Timestamp: time.Now().Add(-age),
		}})
	}
	give("old", 4, 1, 2*time.Minute)
	give("a", 5, 1, 0)
	give("a", 5, 2, 0)
	give("b", 6, 2, 0)
	give("c", 1, 1, 0) // a new stream of that name
	k.await(t, "pause.start a", "pause.start b", "pause.start c")
	if acks != 5 {
		t.Errorf("%d confirmed, want 5", acks)
	}
}

func TestLoginAndLog(t *testing.T) {
	srv := mustServe(t, "", -1, func(o *natsserver.Options) { o.Authorization = "s3cret" })
	var log bytes.Buffer
	k := newSink()
	cfg := Config{
		Name: "main", URLs: []string{srv.ClientURL()}, Token: "wr0ng",
		Log: slog.New(slog.NewTextHandler(&log, nil)),
	}
	s, stop := mustRun(t, cfg, k)
	k.await(t, "source.lost")
	stop()
	if text := log.String() + s.Status().LastError; strings.Contains(text, "wr0ng") || !strings.Contains(log.String(), "lost a source") {
		t.Errorf("log and status: %q", text)
	}

	log.Reset()
	cfg.Token = "s3cret"
	k = newSink()
	s, stop = mustRun(t, cfg, k)
	awaitStatus(t, s, "connected", func() bool { return s.Status().Connected })
	nc := mustConnect(t, srv, natsgo.Token("s3cret"))
	for range 3 {
		if err := nc.Publish("trunktap.signals.x", []byte(`{"event":"pause.start","call":"x","card 4111":1}`)); err != nil {
			t.Fatal(err)
		}
	}
	awaitStatus(t, s, "three ignored", func() bool { return s.Status().Ignored == 3 })
	stop()
	text := log.String() + s.Status().LastError
	if strings.Contains(text, "4111") || strings.Contains(text, "s3cret") {
		t.Errorf("the log repeats what was sent: %q", text)
	}
	if n := strings.Count(log.String(), "messages are no signals"); n != 1 {
		t.Errorf("%d lines about faulty messages, want 1", n)
	}
}

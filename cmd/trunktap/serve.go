package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/trunktap/trunktap/cmd/trunktap/config"
	"github.com/trunktap/trunktap/media/relay"
	"github.com/trunktap/trunktap/media/relay/kernel"
	"github.com/trunktap/trunktap/media/srtp/dtls"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/api"
	"github.com/trunktap/trunktap/recorder/archive"
	"github.com/trunktap/trunktap/recorder/audit"
	"github.com/trunktap/trunktap/recorder/seal"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/b2bua"
	"github.com/trunktap/trunktap/sip/dns"
	"github.com/trunktap/trunktap/sip/siprec"
	"github.com/trunktap/trunktap/suppress/feed"
)

type serveCmd struct{ configFlag }

const (
	catchUpEvery   = 5 * time.Second  // rows that the catalogue could not take
	catalogWait    = 5 * time.Second  // for the catalogue at the start; calls do not wait longer
	publishTimeout = 20 * time.Second // at the end, for audio that is not yet published
	apiTimeout     = 5 * time.Second  // at the end, for requests that are under way
	recoverAtOnce  = 8                // recordings: they wait for the disk rather than compute
	tellTimeout    = 10 * time.Second // to look for what is wrong at the start
	encodeTimeout  = 3 * time.Second  // at the end, for recordings to be coded; the rest waits for the next start
)

// Run runs the daemon until SIGINT or SIGTERM.
func (c *serveCmd) Run(e *env) error {
	cfg, err := c.load()
	if err != nil {
		return err
	}
	log := newLog(e, cfg.Log)
	if err := prepareProcess(); err != nil {
		return err
	}
	d, err := start(e.ctx, cfg, log)
	if err != nil {
		return err
	}
	listen := cfg.SIP.Listen
	if !cfg.Relays() {
		listen = nil
	}
	log.Info("running", "version", currentVersion().Version, "sip", listen, "siprec", cfg.SIPREC.Listen, "api", cfg.API.Listen, "trunks", len(cfg.Trunks))
	return d.run(e.ctx, c.Config)
}

func newLog(e *env, cfg config.Log) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(cfg.Level)) // one of the configuration's words
	opts := &slog.HandlerOptions{Level: level}
	if cfg.Format == "json" {
		return slog.New(slog.NewJSONHandler(e.stderr, opts))
	}
	return slog.New(slog.NewTextHandler(e.stderr, opts))
}

// daemon is everything that runs. Parts are started in the order of the fields
// and closed in the reverse one: no call without a relay, no relay without a
// recorder, no recorder without an archive.
type daemon struct {
	cfg      *config.Config // replaced by reload, in the goroutine of wait
	log      *slog.Logger
	policy   *policy
	archive  *archive.Archive
	audit    *audit.Log
	rec      *recorder.Recorder
	recorder atomic.Pointer[recorder.Recorder] // rec, for who may ask before there is one
	relay    *relay.Relay
	b2bua    *b2bua.B2BUA
	siprec   *siprec.Server // nil: no recording sessions are taken
	restart  restart
	rotation rotation
	keyless  keyless // owned by the goroutine of startRecovery
	refusals *refusals
	keys     *keyWork
	auditing atomic.Pointer[audit.Log] // audit, for who may note something before there is one
	taking   atomic.Bool               // new calls are taken: not before the ports of SIP are open, nor while draining
	draining atomic.Bool               // calls and recording sessions are waited for, see drain

	certificate *dtls.Certificate // shown to peers that do SRTP by DTLS

	secure sipTLS        // SIP over TLS
	names  *dns.Resolver // nil: the system's own

	sounds  *sounds
	quality *qualityMetrics
	feeds   []feed.Source

	reclaimed atomic.Uint64 // times that memory was given back

	listener *listener      // nil: nothing is captured
	forks    forks          // copies to other recorders
	closers  []func() error // of what was started, in order
	failed   chan error     // a part that ended by itself

	notify   *notifier     // nil: there is no service manager
	pulse    chan struct{} // taken by the main loop as it comes by
	stopping chan struct{} // closed when that has ended
	unwatch  func()        // ends the watchdog
}

// start starts all parts, or none.
func start(ctx context.Context, cfg *config.Config, log *slog.Logger) (_ *daemon, err error) {
	d := &daemon{cfg: cfg, log: log, policy: newPolicy(cfg), quality: newQualityMetrics(), failed: make(chan error, 4), pulse: make(chan struct{}), stopping: make(chan struct{}), unwatch: func() {}}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	d.refusals = newRefusals(func(e recorder.Event) { d.rec.Tell(e) })
	for _, part := range []func(context.Context) error{
		d.startArchive, d.startJournal, d.startForks, d.startRecorder, d.startSignalling, d.makeSIPREC, d.resumeCalls,
		d.startSIPREC, d.startFeeds, d.startCapture, d.startRotation, d.startAPI, d.startProfiles, d.reclaim,
	} {
		if err := part(ctx); err != nil {
			return nil, err
		}
	}
	if cfg.Relays() { // else the ports of SIP belong to others
		if err := d.b2bua.Start(); err != nil {
			return nil, fmt.Errorf("take calls: %w", err)
		}
	}
	d.taking.Store(true)
	d.startRecovery()
	return d, nil
}

// startArchive opens the archive.
func (d *daemon) startArchive(ctx context.Context) (err error) {
	unlock, err := lock(d.cfg)
	if err != nil {
		return err
	}
	d.closers = append(d.closers, unlock)
	r := &d.cfg.Recording
	d.archive, err = openArchive(ctx, d.cfg, func(c *archive.Config) {
		c.SyncPeriod, c.Notify, c.RecoverAtOnce = r.SyncPeriod, d.storageEvent, recoverAtOnce
		c.CatalogWait = catalogWait
		c.Deferred = archive.DeferredConfig{
			Options: d.policy.deferred, RecordingsMax: r.Deferred.RecordingsMax, BytesMax: r.Deferred.BytesMax, Workers: r.Deferred.Workers,
		}
	})
	if err != nil {
		return err
	}
	d.closers = append(d.closers, d.archive.Close)
	if err := d.startAudit(); err != nil {
		return err
	}
	d.keys = d.onlineWork()
	d.closers = append(d.closers, d.stopUploads, d.stopDeferred, d.keys.stopRewrap)
	return nil
}

// startRecovery publishes what a crash left behind while calls come in already: a
// full spool takes its time, and a BYE does not wait for it.
func (d *daemon) startRecovery() {
	ctx, cancel := context.WithCancel(context.Background())
	ended, cfg := make(chan struct{}), d.cfg // a reload replaces it
	d.archive.StartSpace()
	d.startSweep()
	d.startRetention()
	d.watchStores()
	go func() {
		defer close(ended)
		d.tellState(cfg)
		d.recoverArchive(ctx, cfg)
		d.catchUp(ctx)
	}()
	d.closers = append(d.closers, func() error { cancel(); <-ended; return nil })
}

func (d *daemon) recoverArchive(ctx context.Context, cfg *config.Config) {
	recovered, err := d.archive.Recover(ctx)
	if err != nil && ctx.Err() == nil {
		d.log.Error("what a crash left in the spool could not be looked for", "error", err)
	}
	d.tellRecovered(recovered)
	if ctx.Err() != nil {
		return
	}
	d.observeEnded(ctx)
	d.archive.StartDeferred()
	d.archive.StartUploads()
	d.startKeyWork()
	if wantsPreroll(cfg) {
		if err := canLock(prerollMinuteBytes); err != nil {
			d.log.Error("not a minute of audio can wait for consent: set LimitMEMLOCK=infinity or CAP_IPC_LOCK", "error", err)
		}
	}
}

// tellState logs at start what an operator must mend though calls go on.
func (d *daemon) tellState(cfg *config.Config) {
	ctx, cancel := context.WithTimeout(context.Background(), tellTimeout) // also when the daemon stops at once
	defer cancel()
	if d.sealer().Mode() == seal.ModeNone {
		d.log.Warn("recordings are not sealed: whoever can read the store can hear them, and whoever can write it can make some up", "keys.mode", seal.ModeNone)
	}
	for part, err := range readiness(d.archive)(ctx) {
		if err != nil {
			d.log.Error("not ready", "part", part, "error", err)
		}
	}
	if forgotten, err := d.archive.Forgotten(ctx); err == nil && forgotten {
		d.log.Error("the catalogue lists none of the store's recordings; stop the daemon and run trunktap rebuild", "catalogue", shownURL(cfg.Catalog.URL))
	}
}

// catchUp brings the catalogue up to date now and then.
func (d *daemon) catchUp(ctx context.Context) {
	t := time.NewTicker(catchUpEvery)
	defer t.Stop()
	behind, unshredded, undeleted := false, false, false
	for {
		n, err := d.archive.CatchUp(context.Background())
		switch {
		case err != nil && !behind:
			d.log.Error("the catalogue is behind the store", "error", err)
		case err == nil && n > 0:
			d.log.Info("the catalogue has caught up", "recordings", n)
		}
		behind = err != nil // told once, not at each try
		d.linkUp()
		d.recoverKeyless(ctx)
		unshredded = d.shredDue(unshredded)
		undeleted = d.deleteDue(undeleted)
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (d *daemon) startRecorder(context.Context) (err error) {
	d.rec, err = recorder.New(recorder.Config{
		Policy: d.policy, OpenSink: d.archive.OpenSink, Ready: d.archive.CanRecord, Admit: d.archive.Admit, Room: d.archive.Room, Paused: d.archive.Paused, TotalBudgetBytes: d.cfg.Recording.WriteBudgetTotal,
		CallBudgetBytes: d.cfg.Recording.WriteBudget, Workers: runtime.NumCPU(), Log: d.log, Published: d.quality.published, Monitor: d.forks.monitor,
		Restart: d.recorderRestart(),
	})
	if err != nil {
		return err
	}
	d.recorder.Store(d.rec)
	d.closers = append(d.closers, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), publishTimeout)
		defer cancel()
		return d.rec.Close(ctx)
	})
	return nil
}

// startSignalling makes the relay and the B2BUA; calls come with Start.
func (d *daemon) startSignalling(context.Context) (err error) {
	m := d.cfg.Media
	if d.certificate, err = dtls.NewCertificate(time.Now(), nil); err != nil {
		return err
	}
	engine := relay.Engine(m.Engine)
	if !d.cfg.Relays() {
		engine = relay.EngineUser
	}
	d.relay, err = relay.New(relay.Config{
		PortMin: m.Ports.First, PortMax: m.Ports.Last, Quarantine: orNever(m.Quarantine), Log: d.log,
		Loops: cmp.Or(len(m.CPUs), runtime.NumCPU()), CPUs: m.CPUs, CoalesceMax: orNever(m.CoalesceMax),
		Engine: engine, Certificate: d.certificate, Restore: d.restart.journal != nil,
		Kernel: kernel.Config{Interfaces: m.Kernel.Interfaces, RingBytes: int(m.Kernel.RingSize), PinDir: m.Kernel.Pin},
	})
	if err != nil {
		return err
	}
	d.closers = append(d.closers, d.relay.Close)
	_, _ = rand.Read(d.secure.secret[:]) // never fails
	if err := d.secure.load(d.cfg.SIP.TLS); err != nil {
		return err
	}
	trunks, err := sipTrunks(d.cfg, d.certificate.Fingerprint(), &d.secure)
	if err != nil {
		return err
	}
	state, err := newCallState(d.cfg)
	if err != nil {
		return err
	}
	if d.sounds, err = newSounds(d.cfg); err != nil {
		return err
	}
	d.names = resolver(d.cfg.SIP.DNS)
	d.b2bua, err = b2bua.New(b2bua.Config{
		CallState: state, Overlay: d.sounds.overlay,
		Trunks: trunks, Listen: sipListeners(d.cfg, &d.secure), TLS: d.secure.dialer(), DNS: d.names, Relay: d.relay, Observer: d.rec,
		KeepAlive: d.cfg.SIP.KeepAlive, PhonesAway: phonesAway, UDPBytesMax: d.cfg.SIP.UDPBytesMax,
		DelayMax: d.cfg.Limits.DelayMax, MemoryBytesMax: uint64(d.cfg.Limits.MemoryMax), TailBytesMax: int(d.cfg.Limits.AnswersMax), HopChanged: d.hopChanged,
		CallRefused: d.refusals.take,
		Journal:     d.callJournal(), JournalSealed: d.sealer().Mode() != seal.ModeNone, CallsMax: d.cfg.Limits.CallsMax, MediaTimeout: orNever(m.Timeout), Log: d.log,
	})
	if err != nil {
		return err
	}
	d.closers = append(d.closers, d.b2bua.Close)
	return nil
}

// orNever is how the parts spell a duration of 0 that was meant: negative.
func orNever(t time.Duration) time.Duration {
	if t == 0 {
		return -1
	}
	return t
}

func (d *daemon) startAPI(context.Context) error {
	if !d.cfg.API.Listen.IsValid() {
		return nil
	}
	token, err := api.EnsureToken(d.cfg.API.TokenFile)
	if err != nil {
		return err
	}
	srv := api.New(api.Config{
		Runtime: d.rec, Library: library{d.archive}, Ready: d.ready, Warnings: d.keyWarnings, Metrics: newMetrics(d), Token: token,
		Audit:     auditor{d.audit, d.archive},
		Keys:      d.keys,
		Holds:     d.keys,
		Trunks:    trunkStates(d.b2bua),
		Usage:     d.archive.Usage,
		NoSignals: !d.cfg.Signals.HTTP, SubscribersMax: d.cfg.API.SubscribersMax, Version: currentVersion().Version, Log: d.log,
	})
	ln, err := net.Listen("tcp", d.cfg.API.Listen.String())
	if err != nil {
		return fmt.Errorf("serve the API: %w", err)
	}
	d.serve("API", func() error { return srv.Serve(ln) }, srv.Close)
	return nil
}

func (d *daemon) startProfiles(context.Context) error {
	if !d.cfg.PProf.Listen.IsValid() {
		return nil
	}
	srv := &http.Server{Handler: api.Profiles(), ReadHeaderTimeout: apiTimeout}
	ln, err := net.Listen("tcp", d.cfg.PProf.Listen.String())
	if err != nil {
		return fmt.Errorf("serve profiles: %w", err)
	}
	d.serve("profiles", func() error {
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	}, func(ctx context.Context) error { return errors.Join(srv.Shutdown(ctx), srv.Close()) })
	return nil
}

// serve runs a server in a goroutine that its closer waits for.
func (d *daemon) serve(name string, run func() error, stop func(context.Context) error) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := run(); err != nil {
			d.failed <- fmt.Errorf("%s: %w", name, err)
		}
	}()
	d.closers = append(d.closers, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), apiTimeout)
		defer cancel()
		err := stop(ctx)
		<-ended
		return err
	})
}

// wait returns when the daemon is to stop, and for how long it may wait for its
// calls; it reloads on SIGHUP. A server that fails is told and not a reason to end calls.
func (d *daemon) wait(ctx context.Context, path string) (drain time.Duration) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(hup)
	watch := time.NewTicker(watchCaptureEvery)
	defer watch.Stop()
	for down := false; ; {
		select {
		case <-watch.C:
			down = d.watchCapture(down)
			d.notify.update(d.live())
		case <-d.pulse:
		case <-ctx.Done():
			return d.cfg.Shutdown.Drain
		case err := <-d.failed:
			d.log.Error("a server has ended", "error", err)
		case s := <-hup:
			switch s {
			case syscall.SIGUSR1:
				return cmp.Or(d.cfg.Shutdown.Drain, drainMost)
			case syscall.SIGUSR2:
				d.leave()
			default:
				d.notify.reloading()
				d.reload(path)
				d.notify.ready(d.live())
			}
		}
	}
}

// reload reads the configuration again. Live calls keep what they began with;
// a file with faults changes nothing.
func (d *daemon) reload(path string) {
	cfg, faults := config.Load(path, keyChecks)
	if faults != nil {
		for _, f := range faults {
			d.log.Error("the configuration was not reloaded", "fault", f.String())
		}
		return
	}
	state, err := newCallState(cfg)
	var trunks []sip.Trunk
	if err == nil {
		trunks, err = sipTrunks(cfg, d.certificate.Fingerprint(), &d.secure)
	}
	if err == nil {
		err = d.secure.load(d.cfg.SIP.TLS) // its files; other names of them wait for a restart
	}
	if err == nil {
		err = d.b2bua.Reload(trunks)
	}
	if err != nil {
		d.log.Error("the configuration was not reloaded", "error", err)
		return
	}
	d.b2bua.SetCallState(state)
	if err := d.reloadSIPREC(cfg); err != nil {
		d.log.Error("sources of SIPREC were not reloaded", "error", err)
	}
	if d.listener != nil {
		if err := d.listener.reload(cfg); err != nil {
			d.log.Error("passive trunks were not reloaded", "error", err)
		}
	}
	d.policy.reload(cfg)
	changes := config.Diff(d.cfg, cfg)
	d.cfg = cfg
	d.noteConfig()
	if err := d.reloadForks(); err != nil {
		d.log.Error("not all of the configuration was reloaded", "error", err)
	}
	d.log.Info("the configuration was reloaded", "for_new_calls", changes.NewCalls, "waits_for_restart", changes.Restart)
}

// close stops all parts in the reverse order of their start.
func (d *daemon) close() (err error) {
	for i := len(d.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, d.closers[i]())
	}
	d.closers = nil
	return err
}

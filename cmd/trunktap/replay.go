package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/trunktap/trunktap/cmd/trunktap/config"
	"github.com/trunktap/trunktap/media/pcap"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/plain"
	"github.com/trunktap/trunktap/sip/replay"
	"github.com/trunktap/trunktap/suppress"
)

type replayCmd struct {
	Config     string   `help:"Configuration file; without it, the defaults, and wav-pcm16." placeholder:"FILE" short:"c"`
	External   []cidr   `help:"Network of external parties; may be given again." placeholder:"CIDR" sep:"none"`
	Signals    string   `help:"File of call-state signals, one JSON object a line." placeholder:"FILE"`
	Format     string   `help:"Format of the audio (wav-pcm16, wav-pcmu, wav-pcma, ogg-opus, flac)." enum:",wav-pcm16,wav-pcmu,wav-pcma,ogg-opus,flac" default:""`
	Suppressed string   `help:"What becomes of suppressed spans (cut, silence)." enum:",cut,silence" default:""`
	Out        string   `help:"Directory to write recordings to." placeholder:"DIR" required:""`
	Progress   bool     `help:"Show progress even when standard error is no terminal."`
	Captures   []string `arg:"" name:"capture" help:"Capture files (pcap, pcapng; may be gzipped)."`
}

// cidr is a network, or one address, on the command line.
type cidr struct{ netip.Prefix }

// UnmarshalText reads 198.51.100.0/24 or 198.51.100.7.
func (c *cidr) UnmarshalText(text []byte) error {
	if a, err := netip.ParseAddr(string(text)); err == nil {
		c.Prefix = netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen())
		return nil
	}
	p, err := netip.ParsePrefix(string(text))
	if err != nil || p != p.Masked() {
		return fmt.Errorf("%q is no network; allowed: such as 198.51.100.0/24 or 198.51.100.7", text)
	}
	c.Prefix = p
	return nil
}

const (
	signalsMax         = 1_000_000 // lines of --signals
	signalLineBytesMax = 256 << 10
)

// Run replays captures through the pipeline of the live daemon.
func (c *replayCmd) Run(e *env) (err error) {
	cfg, err := c.settings()
	if err != nil {
		return err
	}
	src, err := openCaptures(c.Captures)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.close()) }()
	base, err := src.begin()
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	signals, err := c.readSignals(base)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.Out, 0o755); err != nil {
		return fmt.Errorf("make the output directory: %w", err)
	}
	return c.replay(e, cfg, src, signals)
}

// settings is the configuration with what the command line overrides.
func (c *replayCmd) settings() (*config.Config, error) {
	cfg := config.Default()
	cfg.Trunks[0].Recording.Format = recorder.FormatWAVPCM16
	if c.Config != "" {
		var err error
		if cfg, err = loadConfig(c.Config); err != nil {
			return nil, err
		}
	}
	narrow := config.Companded(c.Format) // no trunk and no station has another format then
	for i := range cfg.Trunks {
		r := &cfg.Trunks[i].Recording
		if narrow {
			r.SampleRate = 8000
		}
		r.Encode = liveEncode // there is all the time that it takes
		r.Format, r.Suppressed = cmp.Or(c.Format, r.Format), cmp.Or(c.Suppressed, r.Suppressed)
	}
	for i := range cfg.SIPREC.Sources {
		r := &cfg.SIPREC.Sources[i].Recording
		if narrow {
			r.SampleRate = 8000
		}
		r.Encode = liveEncode
		r.Format, r.Suppressed = cmp.Or(c.Format, r.Format), cmp.Or(c.Suppressed, r.Suppressed)
	}
	for i := range cfg.Stations {
		r := &cfg.Stations[i].Recording
		r.Format, r.Suppressed = cmp.Or(c.Format, r.Format), cmp.Or(c.Suppressed, r.Suppressed)
	}
	return cfg, nil
}

// replay runs the capture through a recorder and prints what it publishes.
func (c *replayCmd) replay(e *env, cfg *config.Config, src replay.Source, signals []suppress.Signal) error {
	rec, err := recorder.New(recorder.Config{Policy: newPolicy(cfg), NewSink: plain.New(c.Out).NewSink, Synchronous: true})
	if err != nil {
		return err
	}
	state, err := newCallState(cfg)
	if err != nil {
		return err
	}
	refused := 0
	run := replay.Config{Trunks: replayTrunks(cfg), Recording: &replay.Recording{Sources: followedSources(cfg), Decodable: decodable}, CallState: state, Signals: signals, OnSignal: func(s suppress.Signal) {
		if !rec.Post(s) {
			refused++
		}
	}}
	for _, x := range c.External {
		run.External = append(run.External, x.Prefix)
	}
	out := &results{rec: rec, enc: json.NewEncoder(e.stdout)}
	p := newProgress(e.stderr, c.Progress)
	stats, err := replay.Run(e.ctx, src, run, rec, func(at replay.Progress) {
		out.print()
		p.tell("replaying: %d packets, %d calls, at %s", at.Packets, at.Calls, at.At.UTC().Format(time.TimeOnly))
	})
	p.done()
	err = errors.Join(err, rec.Close(context.WithoutCancel(e.ctx)))
	out.print()
	c.tell(e, stats, refused+rec.Unheard(), out.printed)
	return errors.Join(err, out.err)
}

// tell says on standard error what no recording shows.
func (c *replayCmd) tell(e *env, s replay.Stats, unheard, published int) {
	if s.Calls == 0 {
		e.note("no calls in %d packets", s.Packets)
	} else if published == 0 {
		e.note("%d calls, none of them recorded (%d answered)", s.Calls, s.Answered)
	}
	if n := int64(unheard) + s.SignalsLate; n > 0 {
		e.note("%d signals met no call that was going on", n)
	}
	for _, x := range []struct {
		n    int64
		what string
	}{
		{s.Backward, "packets whose time runs backwards"},
		{s.Unparsable, "SIP messages that cannot be read"},
		{s.BadSDP, "session descriptions that were ignored"},
		{s.CallsDropped, "calls cut short because there were too many"},
		{s.CutRTP, "media packets that the snap length has cut"},
		{s.InProgress, "calls whose beginning is not in the capture"},
		{s.SignalsRefused, "call-state signals in SIP messages that could not be taken"},
		{s.Rejected, "media packets of a source that was not agreed"},
		{s.Undecrypted, "media packets that the keys in the session descriptions do not decrypt"},
	} {
		if x.n > 0 {
			e.note("%d %s", x.n, x.what)
		}
	}
}

// results prints recordings as they are published.
type results struct {
	rec     *recorder.Recorder
	enc     *json.Encoder
	printed int
	err     error
}

func (r *results) print() {
	done, err := r.rec.Results()
	r.err = errors.Join(r.err, err)
	for _, m := range done {
		r.printed++
		r.err = errors.Join(r.err, r.enc.Encode(m))
	}
}

// readSignals reads all of --signals before anything is written. base is the
// time of the capture's first packet. Signals come in order of arrival.
func (c *replayCmd) readSignals(base time.Time) ([]suppress.Signal, error) {
	if c.Signals == "" {
		return nil, nil
	}
	f, err := os.Open(c.Signals)
	if err != nil {
		return nil, usagef("trunktap: open signals: %w", err)
	}
	defer func() { _ = f.Close() }() // only read from
	signals, err := parseSignals(c.Signals, f, base)
	if err != nil {
		return nil, usageError{err}
	}
	return signals, nil
}

// signalSource is the source of a line that names none.
const signalSource = "signals"

func parseSignals(name string, r io.Reader, base time.Time) ([]suppress.Signal, error) {
	var out []suppress.Signal
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, signalLineBytesMax)
	n := 0
	for lines.Scan() {
		n++
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		s, err := suppress.ParseSignalLine(line, base)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, n, err)
		}
		s.Source = cmp.Or(s.Source, signalSource)
		if out = append(out, s); len(out) > signalsMax {
			return nil, fmt.Errorf("%s:%d: more than %d signals", name, n, signalsMax)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s:%d: %w", name, n+1, err)
	}
	slices.SortStableFunc(out, func(a, b suppress.Signal) int { return arrival(a).Compare(arrival(b)) })
	return out, nil
}

func arrival(s suppress.Signal) time.Time {
	if s.Received.IsZero() {
		return s.At
	}
	return s.Received
}

// captures are all captures of the command line, merged by time, with the
// first packet read ahead.
type captures struct {
	replay.Source
	files []*pcap.Reader
	first *pcap.Packet
	err   error // of the first packet
	begun bool
}

func openCaptures(paths []string) (*captures, error) {
	c := &captures{}
	sources := make([]pcap.Source, len(paths))
	for i, path := range paths {
		r, err := pcap.Open(path)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("capture %s: %w", path, err), c.close())
		}
		c.files = append(c.files, r)
		sources[i] = r
	}
	c.Source = pcap.Merge(sources...)
	return c, nil
}

// begin reads the first packet and returns its time. A capture without any
// gives io.EOF.
func (c *captures) begin() (time.Time, error) {
	p, err := c.Source.Next()
	if c.begun = true; err != nil {
		c.err = err
		var cut *pcap.TruncatedError
		if errors.As(err, &cut) {
			return time.Time{}, nil // said once everything before it is written
		}
		return time.Time{}, err
	}
	p.Payload = slices.Clone(p.Payload)
	c.first = &p
	return p.At, nil
}

// Next implements replay.Source.
func (c *captures) Next() (pcap.Packet, error) {
	switch {
	case c.first != nil:
		p := *c.first
		c.first = nil
		return p, nil
	case c.err != nil:
		return pcap.Packet{}, c.err
	}
	return c.Source.Next()
}

func (c *captures) close() (err error) {
	for _, f := range c.files {
		err = errors.Join(err, f.Close())
	}
	return err
}

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trunktap/trunktap/cmd/trunktap/config"
	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/media/srtp"
	"github.com/trunktap/trunktap/recorder/seal"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/siprec"
)

// makeSIPREC makes the server of recording sessions where the configuration says so;
// they come with startSIPREC.
func (d *daemon) makeSIPREC(context.Context) error {
	c := &d.cfg.SIPREC
	if len(c.Listen) == 0 {
		return nil
	}
	sources, err := siprecSources(d.cfg, d.certificate.Fingerprint())
	if err != nil {
		return err
	}
	listen := make([]sip.Listen, len(c.Listen))
	for i, l := range c.Listen {
		listen[i] = sip.Listen{Network: l.Transport, Addr: l.Addr, TLS: d.secure.listener()}
	}
	srv, err := siprec.New(siprec.Config{
		Sources: sources, Listen: listen, Relay: d.relay, Observer: d.rec, Decodable: decodable,
		CallsMax: d.cfg.Limits.CallsMax, MediaTimeout: orNever(d.cfg.Media.Timeout), CallRefused: d.refusals.take, Log: d.log,
		Journal: d.callJournal(), JournalSealed: d.sealer().Mode() != seal.ModeNone,
	})
	if err != nil {
		return err
	}
	d.siprec = srv
	d.closers = append(d.closers, srv.Close)
	return nil
}

// startSIPREC takes recording sessions.
func (d *daemon) startSIPREC(context.Context) error {
	if d.siprec == nil {
		return nil
	}
	if err := d.siprec.Start(); err != nil {
		return fmt.Errorf("take recording sessions: %w", err)
	}
	return nil
}

// reloadSIPREC replaces the sources for new sessions.
func (d *daemon) reloadSIPREC(cfg *config.Config) error {
	if d.siprec == nil {
		return nil
	}
	sources, err := siprecSources(cfg, d.certificate.Fingerprint())
	if err != nil {
		return err
	}
	return d.siprec.Reload(sources)
}

// decodable says which formats can be recorded.
func decodable(f media.Format) bool {
	switch f.Name {
	case "TELEPHONE-EVENT", "CN", "RED":
		return true
	}
	dec, err := codec.NewDecoder(f, codec.DecoderOptions{})
	if err == nil {
		dec.Close()
	}
	return err == nil
}

// siprecSources tells the server about its clients. Where the file names no media
// address the routing table gives it.
func siprecSources(cfg *config.Config, fingerprint srtp.Fingerprint) ([]siprec.Source, error) {
	var out []siprec.Source
	for i := range cfg.SIPREC.Sources {
		s := &cfg.SIPREC.Sources[i]
		to := siprecSource(s)
		to.Address = cfg.SIP.Address
		var err error
		if to.SRTP, err = siprecSRTP(s, fingerprint); err != nil {
			return nil, fmt.Errorf("source %s: %w", s.Name, err)
		}
		if to.MediaAddr, err = siprecMedia(cfg, s); err != nil {
			return nil, fmt.Errorf("source %s: no media address: %w (give media.address)", s.Name, err)
		}
		out = append(out, to)
	}
	return out, nil
}

// siprecSource tells how the calls of a source are taken, wherever they come from.
func siprecSource(s *config.SIPRECSource) siprec.Source {
	to := siprec.Source{
		Name: s.Name, Peers: s.Peers, MediaAddr: s.MediaAddress,
		InternalDomains: s.InternalDomains, Mixed: sideNamed(s.Mixed), JoinHeaders: s.JoinHeaders, JoinWindow: s.JoinWindow,
	}
	if side := sideNamed(s.Caller); s.Caller != "unknown" {
		to.Caller = &side
	}
	for _, r := range s.Sides {
		to.Sides = append(to.Sides, siprec.SideRule{AOR: r.AOR, Name: r.Name, Label: r.Label, Value: r.Value, Side: sideNamed(r.Side)})
	}
	return to
}

// followedSources are the sources for captures: without any, all clients are one of the
// first trunk, and nothing tells sides but the metadata.
func followedSources(cfg *config.Config) []siprec.Source {
	out := make([]siprec.Source, len(cfg.SIPREC.Sources))
	for i := range out {
		out[i] = siprecSource(&cfg.SIPREC.Sources[i])
	}
	if len(out) == 0 && len(cfg.Trunks) > 0 {
		nobody := netip.PrefixFrom(netip.IPv6Unspecified(), 128) // it is found by what it says
		out = append(out, siprec.Source{Name: cfg.Trunks[0].Name, Peers: []netip.Prefix{nobody}})
	}
	return out
}

func sideNamed(word string) media.Side {
	if word == media.Internal.String() {
		return media.Internal
	}
	return media.External
}

func siprecSRTP(s *config.SIPRECSource, fingerprint srtp.Fingerprint) (*srtp.Config, error) {
	c := &srtp.Config{Fingerprint: fingerprint}
	to := &c.Sides[media.External]
	errs := []error{to.Policy.UnmarshalText([]byte(s.SRTP)), to.Method.UnmarshalText([]byte(s.SRTPMethod))}
	for _, name := range s.SRTPSuites {
		var suite srtp.Suite
		errs = append(errs, suite.UnmarshalText([]byte(name)))
		to.Suites = append(to.Suites, suite)
	}
	return c, errors.Join(errs...)
}

// siprecMedia is the address advertised to a source: its own, that of all, or the
// one that the routing table gives for its first peer.
func siprecMedia(cfg *config.Config, s *config.SIPRECSource) (netip.Addr, error) {
	for _, a := range []netip.Addr{s.MediaAddress, cfg.Media.Address} {
		if a.IsValid() {
			return a, nil
		}
	}
	c, err := net.Dial("udp", netip.AddrPortFrom(s.Peers[0].Addr(), 5060).String())
	if err != nil {
		return netip.Addr{}, err
	}
	defer func() { _ = c.Close() }() // nothing was sent
	a, err := netip.ParseAddrPort(c.LocalAddr().String())
	return a.Addr().Unmap(), err
}

// recordedTrunks are the trunks, and the sources of SIPREC as trunks: a session that
// cannot be recorded is refused, for it serves nothing else.
func recordedTrunks(cfg *config.Config) []config.Trunk {
	out := slices.Clone(cfg.Trunks)
	for i := range cfg.SIPREC.Sources {
		s := &cfg.SIPREC.Sources[i]
		t := config.Trunk{Name: s.Name, Role: "trunk", Recording: s.Recording}
		t.Recording.OnFailure = "refuse"
		out = append(out, t)
	}
	return out
}

// siprecMetrics registers what the server of recording sessions counted.
func siprecMetrics(reg *prometheus.Registry, s *siprec.Server) {
	if s == nil {
		return
	}
	c := s.Counters()
	for name, m := range map[string]struct {
		help string
		v    *atomic.Uint64
	}{
		"dialogs_started_total":  {"Recording dialogs.", &c.DialogsStarted},
		"dialogs_answered_total": {"Recording dialogs that were answered.", &c.DialogsAnswered},
		"dialogs_refused_total":  {"Recording dialogs that were refused.", &c.DialogsRefused},
		"drained_total":          {"Recording dialogs that were refused because the daemon waits for its last call.", &c.Drained},
		"dialogs_joined_total":   {"Recording dialogs that joined the recording of another.", &c.DialogsJoined},
		"metadata_total":         {"Documents of metadata that were read.", &c.Metadata},
		"metadata_refused_total": {"Documents of metadata that could not be read; they are kept as they came.", &c.MetadataRefused},
		"snapshots_total":        {"Snapshots of metadata that were requested.", &c.Snapshots},
		"sides_unknown_total":    {"Dialogs with streams whose side could not be told.", &c.SidesUnknown},
		"one_sided_total":        {"Dialogs whose parties rules put all on one side.", &c.OneSided},
		"media_silent_total":     {"Dialogs ended because nothing was sent.", &c.MediaSilent},
		"expired_total":          {"Dialogs ended because their session was not refreshed.", &c.Expired},
		"unknown_total":          {"SIP messages of no known dialog.", &c.Unknown},
		"overflowed_total":       {"SIP messages that a full mailbox did not take.", &c.Overflowed},
		"unrecorded_total":       {"Sessions that went on without the recorder.", &c.Unrecorded},
		"panics_total":           {"Faults that were survived.", &c.Panics},
		"restored_total":         {"Recordings of a process before that went on.", &c.Restored},
		"lost_total":             {"Recordings of a process before that could not go on.", &c.Lost},
		"unjournalled_total":     {"Recordings that would not survive a restart, or not as they are.", &c.Unjournalled},
		"denied_total":           {"Datagrams and connections of nobody's.", &c.Transport.Denied},
		"unparseable_total":      {"SIP messages that could not be read.", &c.Transport.Unparseable},
	} {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "trunktap", Subsystem: "siprec", Name: name, Help: m.help},
			func() float64 { return float64(m.v.Load()) }))
	}
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "trunktap", Subsystem: "siprec", Name: "dialogs", Help: "Recording dialogs that are going on."},
		func() float64 { return float64(s.Dialogs()) }))
}

package main

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/trunktap/trunktap/cmd/trunktap/config"
	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/media/srtp"
	"github.com/trunktap/trunktap/recorder"
	rules "github.com/trunktap/trunktap/recorder/policy"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/replay"
	"github.com/trunktap/trunktap/suppress"
)

// policy records each call as the configuration of its trunk says. A reload
// replaces the configuration for calls that begin after it.
type policy struct {
	plans atomic.Pointer[map[string]trunkPlan] // of trunks that are recorded
}

// trunkPlan is how the calls of one trunk are recorded, and which of them.
type trunkPlan struct {
	recorder.Plan
	rules *rules.Rules

	// When its recordings are coded after the call:
	encode config.Encode
	format string            // of the recordings in the end
	wanted recorder.Stations // with the formats that theirs have in the end
}

func newPolicy(cfg *config.Config) *policy {
	p := &policy{}
	p.reload(cfg)
	return p
}

func (p *policy) reload(cfg *config.Config) {
	plans, byState := map[string]trunkPlan{}, cfg.StationsByState()
	wanted, stations := directory(cfg, liveEncode), map[config.Encode]*rules.Directory{}
	trunks := recordedTrunks(cfg)
	for i := range trunks {
		t := &trunks[i]
		if !t.Recording.Enabled {
			continue
		}
		plan := plan(cfg, t)
		tp := trunkPlan{encode: t.Recording.Encode, format: t.Recording.Format}
		if wanted.Len() > 0 && byState != (t.Role == rolePhones) {
			if stations[tp.encode] == nil {
				stations[tp.encode] = directory(cfg, tp.encode)
			}
			plan.Stations, tp.wanted = stations[tp.encode].On(plan, byState), wanted.On(plan, byState)
		}
		if plan.NoTrunk && plan.Stations == nil && !plan.Consult && !plan.Adhoc && !plan.Snippets {
			continue
		}
		tp.Plan, tp.rules = plan, compileRules(t.Recording.Rules)
		plans[t.Name] = tp
	}
	p.plans.Store(&plans)
}

// Plan implements recorder.Policy.
func (p *policy) Plan(s media.Session) (recorder.Plan, bool) {
	t, ok := (*p.plans.Load())[s.Trunk]
	if !ok {
		return recorder.Plan{}, false
	}
	ok, _ = t.rules.Decide(s)
	return t.Plan, ok
}

// deferred tells which recordings are coded after their call, and how; see
// archive.DeferredConfig.
func (p *policy) deferred(m *recorder.Manifest) (codec.Options, bool) {
	t, ok := (*p.plans.Load())[m.Trunk]
	if !ok || t.encode.Mode != encodeDeferred || m.Format != t.encode.As {
		return codec.Options{}, false
	}
	format := t.format
	if m.Kind == recorder.KindStation && t.wanted != nil {
		if s, ok := t.wanted.Plan(m.User); ok {
			format = s.Format
		}
	}
	return codec.Options{Bitrate: t.OpusBitrate, Complexity: t.OpusComplexity, Application: t.OpusApplication}, format == recorder.FormatOggOpus
}

const encodeDeferred = "deferred"

// liveEncode codes all during the call.
var liveEncode = config.Encode{Mode: "live"}

// during is the format of a recording while its call goes on.
func during(format string, e config.Encode) string {
	if e.Mode == encodeDeferred && format == recorder.FormatOggOpus {
		return e.As
	}
	return format
}

// rolePhones is the role of a trunk between the PBX and its phones.
const rolePhones = "phones"

// plan is how calls of a trunk are recorded, stations aside.
func plan(cfg *config.Config, t *config.Trunk) recorder.Plan {
	r, p := &t.Recording, recorder.DefaultPlan()
	p.Format, p.Suppressed, p.EarlyMedia, p.Mono = during(r.Format, r.Encode), r.Suppressed, r.EarlyMedia, !r.DualChannel
	p.OpusBitrate, p.OpusComplexity, p.OpusApplication = r.Opus.Bitrate, r.Opus.Complexity, r.Opus.Application
	p.Conceal, p.SampleRate, p.Level = r.Conceal, r.SampleRate, r.LevelControl
	p.G726AAL2 = r.G726Packing == packingAAL2
	p.InbandDTMF, p.MaskDTMF = r.InbandDTMF, r.MaskDTMF
	p.Lookback, p.SegmentMax = cfg.Recording.Lookback, cfg.Recording.SegmentMax
	p.RefuseUnready = r.OnFailure == "refuse"
	p.Storage, p.Priority = region(r.Storage), priorities[r.Priority]
	p.Rules = suppress.Rules{
		IVR: r.Suppress.IVR, Queue: r.Suppress.Queue, Hold: r.Suppress.Hold,
		Flows: r.Suppress.Flows, Queues: r.Suppress.Queues,
		ConsentRequired: r.Consent == consentRequired, ExternalTransferStop: r.ExternalTransfer == "stop",
		PauseAutoResume: r.PauseAutoResume,
	}
	p.ConsentPreroll, p.ConsentTimeout, p.DiscardBelow = r.ConsentPreroll, r.ConsentTimeout, r.DiscardBelow
	p.Codes = codes(cfg, r)
	p.NoTrunk = t.Role == rolePhones
	p.Consult, p.Adhoc, p.Snippets = r.Consult, r.Adhoc, r.Snippets
	return p
}

const consentRequired = "required"

// packingAAL2 is the order of bits that some devices give G.726 against RFC 3551.
const packingAAL2 = "aal2"

// codes are the digits that are signals, by the side that may type them.
func codes(cfg *config.Config, r *config.TrunkRecording) (sides [2][]suppress.Code) {
	add := func(digits string, event suppress.Event, from string) {
		for side := range sides {
			if digits != "" && (from == "any" || from == media.Side(side).String()) {
				sides[side] = append(sides[side], suppress.Code{Digits: digits, Event: event})
			}
		}
	}
	d := &cfg.Signals.DTMF
	add(d.Pause, suppress.PauseStart, d.From)
	add(d.Resume, suppress.PauseEnd, d.From)
	if r.Consent == consentRequired {
		add(r.ConsentDTMF.Grant, suppress.ConsentGranted, r.ConsentDTMF.From)
		add(r.ConsentDTMF.Deny, suppress.ConsentDenied, r.ConsentDTMF.From)
	}
	return sides
}

// directory holds the stations that are recorded, as trunks see them whose
// recordings are coded so.
func directory(cfg *config.Config, e config.Encode) *rules.Directory {
	var list []rules.Station
	for i := range cfg.Stations {
		s := &cfg.Stations[i]
		if r := &s.Recording; r.Enabled {
			var storage *string
			if r.Storage != "" {
				name := region(r.Storage)
				storage = &name
			}
			list = append(list, rules.Station{User: s.User, Addresses: s.Addresses, Settings: rules.Settings{
				Format: during(r.Format, e), Mono: !r.DualChannel, Suppressed: r.Suppressed, DiscardBelow: r.DiscardBelow, Storage: storage,
			}})
		}
	}
	return rules.NewDirectory(list)
}

// compileRules makes the rules of a trunk ready. The configuration was checked:
// a rule that cannot be is a bug.
func compileRules(list []config.Rule) *rules.Rules {
	out := make([]rules.Rule, len(list))
	for i, r := range list {
		out[i] = rules.Rule{
			Record: r.Record, Percent: r.Percent, From: r.From, To: r.To,
			Begin: time.Duration(r.Hours.Begin) * time.Minute, End: time.Duration(r.Hours.End) * time.Minute, InZone: r.TimeZone,
		}
		if r.Direction != "any" {
			out[i].Direction = media.Direction(r.Direction)
		}
		for _, d := range r.Days {
			out[i].Days |= rules.DaysOf(weekdays[d])
		}
	}
	c, err := rules.Compile(out)
	if err != nil {
		panic("compile the rules of a checked configuration: " + err.Error())
	}
	return c
}

var weekdays = map[string]time.Weekday{
	"sun": time.Sunday, "mon": time.Monday, "tue": time.Tuesday, "wed": time.Wednesday,
	"thu": time.Thursday, "fri": time.Friday, "sat": time.Saturday,
}

// replayTrunks tells replay whose addresses are on which side.
func replayTrunks(cfg *config.Config) []replay.Trunk {
	out := make([]replay.Trunk, len(cfg.Trunks))
	for i := range cfg.Trunks {
		t := &cfg.Trunks[i]
		out[i] = replay.Trunk{Name: t.Name, External: t.External.Peers, Internal: t.Internal.Peers}
	}
	return out
}

// sipTrunks tells signalling about the trunks. Where the file names no media
// address the routing table gives it.
func sipTrunks(cfg *config.Config, fingerprint srtp.Fingerprint, secure *sipTLS) ([]sip.Trunk, error) {
	var out []sip.Trunk
	for i := range cfg.Trunks {
		t := &cfg.Trunks[i]
		if t.Passive {
			continue
		}
		to := sip.Trunk{Name: t.Name, Registrations: sip.Registrations(strings.TrimPrefix(t.Registrations, "pass"))}
		passing(t, &to)
		to.Limits, to.Follow = sip.Limits(t.Limits), t.Redirect == "follow"
		var err error
		if to.SRTP, err = srtpConfig(t, fingerprint); err != nil {
			return nil, fmt.Errorf("trunk %s: %w", t.Name, err)
		}
		for side, s := range t.Sides() {
			addr := cfg.MediaAddress(t, side)
			if !addr.IsValid() {
				if addr, err = localAddress(nearest(s)); err != nil {
					return nil, fmt.Errorf("trunk %s, %s side: no media address: %w (give media.address)", t.Name, media.Side(side), err)
				}
			}
			at := &to.Sides[side]
			*at = sip.Side{Peers: s.Peers, Address: sipAddress(cfg, s, addr), MediaAddr: addr, NextHops: nextHops(s.NextHops), PeerName: s.TLS.PeerName, ICELite: s.ICE == "lite"}
			if err := authenticate(s, at, secure.secret); err != nil {
				return nil, fmt.Errorf("trunk %s, %s side: %w", t.Name, media.Side(side), err)
			}
			at.Ping, at.RedirectHosts = sip.Ping(s.Ping), s.RedirectHosts
			if at.TLS, err = secure.side(s.TLS); err != nil {
				return nil, fmt.Errorf("trunk %s, %s side: %w", t.Name, media.Side(side), err)
			}
		}
		out = append(out, to)
	}
	return out, nil
}

// nearest is whom a side leads to: its first next hop, or the first of its peers.
func nearest(s *config.Side) config.NextHop {
	if len(s.NextHops) > 0 {
		return s.NextHops[0]
	}
	a := s.Peers[0].Addr()
	if !s.Peers[0].IsSingleIP() {
		a = a.Next() // the first of a network is nobody's
	}
	return config.NextHop{Host: a.String(), Port: 5060, Transport: "udp"}
}

// srtpConfig is a trunk's policy of SRTP; fingerprint is of the certificate that
// the process shows by DTLS.
func srtpConfig(t *config.Trunk, fingerprint srtp.Fingerprint) (*srtp.Config, error) {
	c := &srtp.Config{Pass: t.SRTPPass, Fingerprint: fingerprint}
	for side, s := range t.Sides() {
		to := &c.Sides[side]
		errs := []error{to.Policy.UnmarshalText([]byte(s.SRTP)), to.Method.UnmarshalText([]byte(s.SRTPMethod))}
		for _, name := range s.SRTPSuites {
			var suite srtp.Suite
			errs = append(errs, suite.UnmarshalText([]byte(name)))
			to.Suites = append(to.Suites, suite)
		}
		if err := errors.Join(errs...); err != nil {
			return nil, fmt.Errorf("%s side: %w", media.Side(side), err)
		}
	}
	return c, nil
}

func nextHops(hops []config.NextHop) []sip.NextHop {
	out := make([]sip.NextHop, len(hops))
	for i, h := range hops {
		out[i] = sip.NextHop{Host: h.Host, Port: int(h.Port), Transport: h.Transport, Priority: h.Priority, Weight: h.Weight}
	}
	return out
}

func sipListeners(cfg *config.Config, secure *sipTLS) []sip.Listen {
	out := make([]sip.Listen, len(cfg.SIP.Listen))
	for i, l := range cfg.SIP.Listen {
		out[i] = sip.Listen{Network: l.Transport, Addr: l.Addr, TLS: secure.listener()}
	}
	return out
}

// localAddress is the address that the routing table gives for packets to a
// next hop. A connected UDP socket sends nothing.
func localAddress(h config.NextHop) (netip.Addr, error) {
	c, err := net.Dial("udp", net.JoinHostPort(h.Host, fmt.Sprint(cmp.Or(h.Port, 5060))))
	if err != nil {
		return netip.Addr{}, err
	}
	defer func() { _ = c.Close() }() // nothing was sent
	a, err := netip.ParseAddrPort(c.LocalAddr().String())
	return a.Addr().Unmap(), err
}

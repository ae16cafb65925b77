package main

import (
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"

	"github.com/trunktap/trunktap/cmd/trunktap/config"
	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/replay"
	"github.com/trunktap/trunktap/suppress"
)

// policy records each call as the configuration of its trunk says. A reload
// replaces the configuration for calls that begin after it.
type policy struct {
	plans atomic.Pointer[map[string]recorder.Plan] // of trunks that are recorded
}

func newPolicy(cfg *config.Config) *policy {
	p := &policy{}
	p.reload(cfg)
	return p
}

func (p *policy) reload(cfg *config.Config) {
	plans := map[string]recorder.Plan{}
	for i := range cfg.Trunks {
		if t := &cfg.Trunks[i]; t.Recording.Enabled {
			plans[t.Name] = plan(cfg, t)
		}
	}
	p.plans.Store(&plans)
}

// Plan implements recorder.Policy.
func (p *policy) Plan(s media.Session) (recorder.Plan, bool) {
	plan, ok := (*p.plans.Load())[s.Trunk]
	return plan, ok
}

func plan(cfg *config.Config, t *config.Trunk) recorder.Plan {
	r, p := &t.Recording, recorder.DefaultPlan()
	p.Format, p.Suppressed, p.EarlyMedia, p.Mono = r.Format, r.Suppressed, r.EarlyMedia, !r.DualChannel
	p.Lookback, p.SegmentMax = cfg.Recording.Lookback, cfg.Recording.SegmentMax
	p.RefuseUnready = r.OnFailure == "refuse"
	p.Rules = suppress.Rules{
		IVR: r.Suppress.IVR, Queue: r.Suppress.Queue, Hold: r.Suppress.Hold,
		ConsentRequired: r.Consent == "required", ExternalTransferStop: r.ExternalTransfer == "stop",
	}
	return p
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
func sipTrunks(cfg *config.Config) ([]sip.Trunk, error) {
	out := make([]sip.Trunk, len(cfg.Trunks))
	for i := range cfg.Trunks {
		t := &cfg.Trunks[i]
		out[i].Name = t.Name
		for side, s := range t.Sides() {
			addr := cfg.MediaAddress(t, side)
			if !addr.IsValid() {
				var err error
				if addr, err = localAddress(s.NextHops[0]); err != nil {
					return nil, fmt.Errorf("trunk %s, %s side: no media address: %w (give media.address)", t.Name, media.Side(side), err)
				}
			}
			out[i].Sides[side] = sip.Side{Peers: s.Peers, Address: cfg.SIP.Address, MediaAddr: addr, NextHops: nextHops(s.NextHops)}
		}
	}
	return out, nil
}

func nextHops(hops []config.NextHop) []sip.NextHop {
	out := make([]sip.NextHop, len(hops))
	for i, h := range hops {
		out[i] = sip.NextHop{Host: h.Host, Port: int(h.Port), Transport: h.Transport}
	}
	return out
}

func sipListeners(cfg *config.Config) []sip.Listen {
	out := make([]sip.Listen, len(cfg.SIP.Listen))
	for i, l := range cfg.SIP.Listen {
		out[i] = sip.Listen{Network: l.Transport, Addr: l.Addr}
	}
	return out
}

// localAddress is the address that the routing table gives for packets to a
// next hop. A connected UDP socket sends nothing.
func localAddress(h config.NextHop) (netip.Addr, error) {
	c, err := net.Dial("udp", net.JoinHostPort(h.Host, fmt.Sprint(h.Port)))
	if err != nil {
		return netip.Addr{}, err
	}
	defer func() { _ = c.Close() }() // nothing was sent
	a, err := netip.ParseAddrPort(c.LocalAddr().String())
	return a.Addr().Unmap(), err
}

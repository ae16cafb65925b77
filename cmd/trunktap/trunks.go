package main

import (
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/api"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/b2bua"
)

// trunkStates tells the API how the trunks do.
func trunkStates(b *b2bua.B2BUA) func() api.Trunks {
	return func() api.Trunks {
		out := api.Trunks{NextHops: []api.NextHop{}, Registrations: []api.Registration{}}
		now := time.Now()
		for _, h := range b.NextHops() {
			n := api.NextHop{
				Trunk: h.Trunk, Side: h.Side.String(), URI: h.NextHop.String(), Up: h.Up, Since: unlessZero(h.Since),
				Requests: h.Requests, Failed: h.Failed, Pings: h.Pings, PingsFailed: h.PingsFailed,
			}
			if h.Until.After(now) {
				n.Until = &h.Until
			}
			out.NextHops = append(out.NextHops, n)
		}
		for _, r := range b.Registrations() {
			out.Registrations = append(out.Registrations, api.Registration{
				Trunk: r.Trunk, Side: r.Side.String(), Server: r.Server.String(), Registered: r.Registered,
				Expires: unlessZero(r.Expires), Failed: r.Failed, Reason: r.Reason,
			})
		}
		return out
	}
}

// hopChanged tells subscribers of events that a next hop went down, or came up again.
func (d *daemon) hopChanged(trunk string, side media.Side, hop sip.NextHop, up bool) {
	event := "next_hop.down"
	if up {
		event = "next_hop.up"
	}
	d.rec.Tell(recorder.Event{Type: event, At: time.Now(), Data: map[string]string{"trunk": trunk, "side": side.String(), "next_hop": hop.String()}})
}

func unlessZero(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

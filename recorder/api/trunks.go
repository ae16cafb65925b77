package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// NextHop is one place where calls of a trunk go, and how it does.
type NextHop struct {
	Trunk       string     `json:"trunk"`
	Side        string     `json:"side" enum:"external,internal"`
	URI         string     `json:"uri"`
	Up          bool       `json:"up" doc:"Whether it gets calls."`
	Since       *time.Time `json:"since,omitempty" doc:"When it came up or went down; without it: never since the start."`
	Until       *time.Time `json:"until,omitempty" doc:"It asked for no calls until then, or is tried again then."`
	Requests    uint64     `json:"requests" doc:"Requests that began something and were sent to it."`
	Failed      uint64     `json:"failed" doc:"Those that it did not answer, answered with 503, or that could not be sent."`
	Pings       uint64     `json:"pings"`
	PingsFailed uint64     `json:"pings_failed"`
}

// Registration is the binding of a trunk at its carrier.
type Registration struct {
	Trunk      string     `json:"trunk"`
	Side       string     `json:"side" enum:"external,internal"`
	Server     string     `json:"server"`
	Registered bool       `json:"registered"`
	Expires    *time.Time `json:"expires,omitempty"`
	Failed     uint64     `json:"failed" doc:"Attempts that failed."`
	Reason     string     `json:"reason,omitempty" doc:"Why the last attempt failed."`
}

// Trunks is how the trunks do.
type Trunks struct {
	NextHops      []NextHop      `json:"next_hops" nullable:"false"`
	Registrations []Registration `json:"registrations" nullable:"false"`
}

type trunksAnswer struct {
	Body Trunks
}

func (s *Server) trunkRoute() {
	if s.cfg.Trunks == nil {
		return
	}
	huma.Register(s.api, operation("trunks", http.MethodGet, "/v1/trunks", "How next hops and registrations of the trunks do"),
		func(context.Context, *nothing) (*trunksAnswer, error) { return &trunksAnswer{s.cfg.Trunks()}, nil })
}

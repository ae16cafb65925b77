package main

import (
	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip/siprec/src"
)

// unsentTooMany says that a copy was not begun, as there were too many.
const unsentTooMany = "too_many"

// Copies implements recorder.Copier.
func (c *copier) Copies() []recorder.Copy {
	out := make([]recorder.Copy, 0, len(c.list))
	for k, f := range c.list {
		var a src.Account
		if f != nil {
			a = f.Account()
		} else {
			a = c.missed.account()
		}
		out = append(out, copyOf(c.plan.groups[k], a))
	}
	return out
}

// account is that of a copy that was not begun.
func (m *missed) account() src.Account {
	a := src.Account{WaitsMS: -1}
	for side := range a.Unsent {
		if m.ms > 0 {
			a.Unsent[side] = m.ms
			a.Spans = append(a.Spans, src.Span{Side: media.Side(side), FromMS: m.fromMS, ToMS: m.toMS, Unsent: unsentTooMany})
		}
	}
	return a
}

// copyOf is an account in the words of the manifest.
func copyOf(group []src.Server, a src.Account) recorder.Copy {
	c := recorder.Copy{SentMS: a.Sent, UnsentMS: a.Unsent, Spans: []recorder.CopySpan{}, Unlisted: a.More, ThroughMS: a.WaitsMS}
	for _, s := range group {
		c.Servers = append(c.Servers, s.URI)
	}
	for _, s := range a.Spans {
		c.Spans = append(c.Spans, recorder.CopySpan{Side: s.Side.String(), RealMS: s.FromMS, EndRealMS: s.ToMS, Server: s.Server, Unsent: s.Unsent})
	}
	return c
}

// Changes implements recorder.Copier.
func (c *copier) Changes() (n uint64) {
	c.each(func(f *src.Fork) { n += f.Changes() })
	if c.begun {
		n++
	}
	return n
}

// Settled implements recorder.Copier.
func (c *copier) Settled() bool {
	settled := true
	c.each(func(f *src.Fork) { settled = settled && f.Settled() })
	return settled
}

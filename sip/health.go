package sip

import (
	"slices"
	"time"
)

// Ping says how next hops are asked whether they are there (OPTIONS, RFC 3261
// section 11).
type Ping struct {
	Interval  time.Duration // 0: they are not asked
	Timeout   time.Duration // of one ping; 0: PingTimeout
	DownAfter int           // failures in a row; 0: HopDownAfter
	UpAfter   int           // answers in a row; 0: HopUpAfter
}

// What a Ping is when it does not say.
const (
	PingTimeout  = 4 * time.Second
	HopDownAfter = 3
	HopUpAfter   = 2
)

// HopRestMax bounds how long a next hop gets nothing because it said so.
const HopRestMax = 10 * time.Minute

// hopRest is how long a next hop that is not pinged gets nothing after it failed.
const hopRest = 30 * time.Second

// Health is what is known of a next hop. It reads no clock.
type Health struct {
	Down  bool      // it has failed, and not come back
	Since time.Time // of the last change; zero: none
	Until time.Time // until then it gets nothing, because it said so or is to be tried again later

	failed, answered int // in a row
}

// Usable says whether a next hop may get requests.
func (h *Health) Usable(now time.Time) bool { return !h.Down && !now.Before(h.Until) }

// Answered notes that a next hop is there. It returns whether it has come back.
func (h *Health) Answered(p Ping, now time.Time) (changed bool) {
	h.failed = 0
	if !h.Down {
		return false
	}
	if h.answered++; h.answered < orElse(p.UpAfter, HopUpAfter) {
		return false
	}
	h.Down, h.answered, h.Since, h.Until = false, 0, now, time.Time{}
	return true
}

// Failed notes that a next hop has not answered, or could not be reached. It
// returns whether it counts as down now. One that is not pinged is never down for
// longer than half a minute: nothing but a call would find out that it is back.
func (h *Health) Failed(p Ping, now time.Time) (changed bool) {
	h.answered = 0
	if h.Down {
		return false
	}
	if h.failed++; h.failed < orElse(p.DownAfter, HopDownAfter) {
		return false
	}
	h.failed = 0
	if p.Interval <= 0 {
		h.Until = later(h.Until, now.Add(hopRest))
		return false
	}
	h.Down, h.Since = true, now
	return true
}

// Rest notes that a next hop wants nothing for some time (Retry-After of a 503, RFC
// 3261 section 21.5.4), at most HopRestMax.
func (h *Health) Rest(d time.Duration, now time.Time) {
	h.Until = later(h.Until, now.Add(min(max(d, 0), HopRestMax)))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func orElse(n, otherwise int) int {
	if n <= 0 {
		return otherwise
	}
	return n
}

// Ranked puts next hops into the order in which they count: those of no priority
// have their place in the list, those of no weight have 1.
func Ranked(hops []NextHop) []NextHop {
	out := slices.Clone(hops)
	for i := range out {
		out[i].Priority = orElse(out[i].Priority, i+1)
		out[i].Weight = orElse(out[i].Weight, 1)
	}
	slices.SortStableFunc(out, func(a, b NextHop) int { return a.Priority - b.Priority })
	return out
}

// Choose orders ranked next hops for one request: the lowest priority first, and
// among equals by chance according to their weights (as RFC 2782 has it for SRV).
// Those that are not usable are left out, unless none is. random returns a number
// below n. hops is not changed, and returned itself when it is in order already.
func Choose(hops []NextHop, usable func(NextHop) bool, random func(n int) int) []NextHop {
	equal, bad := false, 0
	for i, h := range hops {
		equal = equal || i > 0 && h.Priority == hops[i-1].Priority
		if !usable(h) {
			bad++
		}
	}
	if !equal && (bad == 0 || bad == len(hops)) {
		return hops
	}
	out := slices.Clone(hops)
	if bad < len(hops) {
		out = slices.DeleteFunc(out, func(h NextHop) bool { return !usable(h) })
	}
	for i := range out {
		sum, end := 0, i
		for ; end < len(out) && out[end].Priority == out[i].Priority; end++ {
			sum += max(out[end].Weight, 1)
		}
		pick := random(sum)
		for j := i; j < end; j++ {
			if pick -= max(out[j].Weight, 1); pick < 0 {
				chosen := out[j]
				copy(out[i+1:j+1], out[i:j])
				out[i] = chosen
				break
			}
		}
	}
	return out
}

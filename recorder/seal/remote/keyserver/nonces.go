package keyserver

import (
	"sync"
	"time"
)

// noncesMax bounds the nonces of one window.
const noncesMax = 200_000

// nonces remembers the nonces of requests that are young enough to be accepted.
type nonces struct {
	mu         sync.Mutex // guards all
	young, old map[string]struct{}
	turned     time.Time
}

// What note found.
type freshness int

const (
	fresh freshness = iota
	replayed
	full
)

// note tells whether the nonce is new, and remembers it for two windows: a
// request may be one window too new, and is accepted until it is one too old.
func (n *nonces) note(nonce string, now time.Time, window time.Duration) freshness {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.young == nil || now.Sub(n.turned) >= 2*window {
		n.old, n.young, n.turned = n.young, map[string]struct{}{}, now
	}
	if _, ok := n.young[nonce]; ok {
		return replayed
	}
	if _, ok := n.old[nonce]; ok {
		return replayed
	}
	if len(n.young) >= noncesMax {
		return full
	}
	n.young[nonce] = struct{}{}
	return fresh
}

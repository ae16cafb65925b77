package sip

import (
	"encoding/hex"
	"hash/fnv"
	"math/rand/v2"
	"strconv"
)

// Reply answers a request without a transaction (RFC 3261 section 8.2.7): the
// same request is answered with the same tag. What is lost is asked for again.
func (a *Agent) Reply(req *Message, status int, reason string, extra ...Header) {
	res := ResponseTo(req, status, reason)
	if req.ToTag() == "" {
		h := fnv.New64a()
		_, _ = h.Write([]byte(req.CallID() + req.Get("Via"))) // a hash never fails
		res.Set("To", req.Get("To")+";tag="+hex.EncodeToString(h.Sum(nil)))
	}
	res.Headers = append(res.Headers, extra...)
	if err := a.Send(res, ReplyFlow(req), nil); err != nil {
		a.cfg.Log.Debug("cannot answer", "status", status, "to", req.Flow.Remote, "error", err)
	}
}

// RetryAfter spreads the repetitions of those that were refused.
func RetryAfter() Header {
	return Header{Name: "Retry-After", Value: strconv.Itoa(1 + rand.IntN(10))}
}

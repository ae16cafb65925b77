package src

import (
	"strings"
	"time"

	"github.com/trunktap/trunktap/sip"
)

const (
	answersMax   = 3 // to challenges, between two requests that a server takes
	redirectsMax = 3 // followed of one server of the list
)

// authorize gives a request the answers to the challenges of its server.
func (l *leg) authorize(m *sip.Message) {
	if l.server.Auth == nil || m.Method == sip.Cancel {
		return
	}
	for _, ch := range l.gained {
		_ = ch.Authorize(m, *l.server.Auth) // without it the request is challenged
	}
}

// challenged notes the challenge of a response; false when there is none that we can
// answer, or it was answered and that was refused.
func (l *leg) challenged(res *sip.Message) bool {
	if res.Status != 401 && res.Status != 407 || l.server.Auth == nil || l.answers >= answersMax {
		return false
	}
	ch := sip.ChallengeOf(res, l.server.Auth.Realm)
	if ch == nil {
		return false
	}
	l.answers++
	for i, old := range l.gained {
		if old.Proxy == ch.Proxy {
			l.gained[i] = ch
			return l.answers == 1 || ch.Stale()
		}
	}
	l.gained = append(l.gained, ch)
	return true
}

// again sends the INVITE again whose challenge was noted.
func (l *leg) again(initial bool, now time.Time) {
	l.version-- // of what was not taken
	m, flow, err := l.offer(sip.Invite, now)
	if err != nil {
		return
	}
	cl := l.send(m, flow, now)
	if !initial {
		l.changing = cl
		return
	}
	l.setup, l.giveUp = cl, now.Add(inviteWait)
}

// redirected calls where a server sends us; false when that leads nowhere. Our
// credentials are for the host that they were given for.
func (l *leg) redirected(res *sip.Message, now time.Time) bool {
	if res.Status >= 400 {
		return false
	}
	for _, v := range res.List("Contact") {
		a, err := sip.ParseAddress(v)
		if err != nil || l.redirects >= redirectsMax {
			continue
		}
		to, err := ParseServer(a.URI)
		if err != nil {
			continue
		}
		if strings.EqualFold(to.Hop.Host, l.server.Hop.Host) {
			to.Auth = l.server.Auth
		}
		l.redirects++
		l.server = to
		if l.invite(now) {
			return true
		}
	}
	return false
}

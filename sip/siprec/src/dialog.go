package src

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/dialog"
)

// offer makes an INVITE with the call as it is now.
func (l *leg) offer(method string, now time.Time) (*sip.Message, sip.Flow, error) {
	f := l.f
	parties, paused, _ := f.state()
	l.told, l.change = told{parties, paused}, time.Time{}
	l.version++
	if l.metaSince.IsZero() {
		l.metaSince = now
	}
	typ, content := body(f.description(l.version, paused), f.metadata(l.metaSince).Append(nil))
	m, flow, err := l.request(method)
	if err != nil {
		return nil, flow, err
	}
	m.Add("Require", "siprec")
	m.Add("Accept", "application/sdp, application/rs-metadata-request")
	m.Add("Allow", allowed)
	m.Add("Supported", "timer")
	if v := l.timer.says("uac"); v != "" {
		m.Add("Session-Expires", v)
	}
	m.Add("Content-Type", typ)
	m.Body = content
	return m, flow, nil
}

// request makes a request of the recording session.
func (l *leg) request(method string) (*sip.Message, sip.Flow, error) {
	f := l.f
	uri, routes, next := l.end.Route()
	flow := l.end.Flow
	if u, err := sip.ParseURI(next); err == nil && l.up {
		if ip, err := netip.ParseAddr(u.Host); err == nil && ip.Unmap() != flow.Remote.Addr() && flow.Network == "udp" {
			port := u.Port
			if port == 0 {
				port = 5060
			}
			flow.Remote = netip.AddrPortFrom(ip.Unmap(), uint16(port))
			l.meet(ip.Unmap())
		}
	}
	ours, flow, err := f.c.agent.Local(flow, f.c.cfg.Address)
	if err != nil {
		return nil, flow, fmt.Errorf("reach %s: %w", l.server.URI, err)
	}
	if method != sip.Ack {
		l.seq++
	}
	m := &sip.Message{Method: method, URI: uri}
	m.Add("Via", fmt.Sprintf("SIP/2.0/%s %s;rport;branch=%s", strings.ToUpper(flow.Network), ours, branchOf(f.id)))
	m.Add("Max-Forwards", "70")
	for _, r := range routes {
		m.Add("Route", r)
	}
	m.Add("From", fmt.Sprintf("<sip:recording@%s>;tag=%s", ours, l.tag))
	m.Add("To", l.to)
	m.Add("Call-ID", l.callID)
	m.Add("CSeq", fmt.Sprintf("%d %s", l.seq, method))
	m.Add("Contact", contact(ours, flow.Network))
	return m, flow, nil
}

// allowed are the methods that we take.
const allowed = "INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE, INFO"

// contact is our address with the feature tag of a client (RFC 7866 section 6.1.1).
func contact(ours netip.AddrPort, network string) string {
	param := ""
	if network != "udp" {
		param = ";transport=" + network
	}
	return fmt.Sprintf("<sip:recording@%s%s>;+sip.src", ours, param)
}

// send sends a request in a transaction; nil when that cannot be.
func (l *leg) send(m *sip.Message, flow sip.Flow, now time.Time) *dialog.Client {
	l.authorize(m)
	cl := dialog.NewClient(m, flow, now)
	if err := l.f.c.agent.Send(m, flow, func(error) { l.f.put(event{fail: cl}) }); err != nil {
		l.f.c.cfg.Log.Debug("cannot send", "server", l.server.URI, "error", err)
		return nil
	}
	l.clients = append(l.clients, cl)
	return cl
}

// takeRequest takes a request of the server.
func (l *leg) takeRequest(req *sip.Message, now time.Time) {
	sip.MarkSource(req)
	for _, s := range l.servers {
		if s.Matches(req) {
			if again := s.Receive(req, now); again != nil {
				_ = l.f.c.agent.Send(again, sip.ReplyFlow(req), nil) // asked for again by another repetition
			}
			return
		}
	}
	if req.Method == sip.Ack {
		l.takeACK(req)
		return
	}
	own := l.up && req.FromTag() == l.theirs && req.ToTag() == l.tag
	if len(l.servers) >= serversMax && !(own && req.Method == sip.Bye) {
		return // it may repeat it
	}
	s := dialog.NewServer(req)
	l.servers = append(l.servers, s)
	respond := func(status int, reason string, edit func(*sip.Message)) {
		res := sip.ResponseTo(req, status, reason)
		if edit != nil {
			edit(res)
		}
		s.Respond(res, now)
		_ = l.f.c.agent.Send(res, sip.ReplyFlow(req), nil) // repeated by the transaction or its sender
	}
	switch {
	case !own:
		respond(481, "Call/Transaction Does Not Exist", nil)
	case req.Method == sip.Bye:
		respond(200, "OK", nil)
		l.failed(errors.New("it has ended the session"), now)
	case req.Method == sip.Options:
		respond(200, "OK", nil)
	case req.Method == "INFO" || req.Method == sip.Update && len(req.Body) > 0 && !strings.HasPrefix(req.Get("Content-Type"), "application/sdp"):
		respond(200, "OK", nil)
		if strings.Contains(req.Get("Content-Type"), "rs-metadata-request") || strings.Contains(string(req.Body), "requestsnapshot") {
			l.change = now.Add(changeWait) // a snapshot is wanted (RFC 7866 section 9.2)
		}
	case l.changing != nil && (req.Method == sip.Invite || req.Method == sip.Update):
		respond(491, "Request Pending", nil)
	case req.Method == sip.Invite || req.Method == sip.Update:
		edit, err := l.changed(req, now)
		if err != nil {
			respond(488, "Not Acceptable Here", nil)
			return
		}
		respond(200, "OK", edit)
	default:
		respond(405, "Method Not Allowed", func(res *sip.Message) { res.Add("Allow", allowed) })
	}
}

// meet lets in the address that requests go to. The oldest of too many is left.
func (l *leg) meet(a netip.Addr) {
	if slices.Contains(l.met, a) {
		return
	}
	if len(l.met) >= metMax {
		l.f.c.leave(l.met[0])
		l.met = slices.Delete(l.met, 0, 1)
	}
	l.met = append(l.met, a)
	l.f.c.meet(a)
}

// dismiss ends what a server accepted after it had been given up, or besides
// what another accepted (RFC 3261 section 13.2.2.4).
func (l *leg) dismiss(res *sip.Message, flow sip.Flow, now time.Time) {
	for _, s := range l.stale {
		if s.callID == res.CallID() && s.theirs == res.ToTag() {
			_ = l.f.c.agent.Send(s.ack, s.flow, nil) // asked for again by the repetition of the 2xx
			return
		}
	}
	if len(l.stale) >= staleMax {
		return // nobody forks so widely; what is not acknowledged ends by itself
	}
	s := &leg{f: l.f, server: l.server, callID: res.CallID(), clients: l.clients, met: l.met, up: true}
	s.establish(res)
	s.end.Flow = flow
	if a, err := sip.ParseAddress(res.Get("From")); err == nil {
		s.tag, _ = a.Params.Get("tag")
	}
	s.seq, _ = res.CSeq()
	s.acknowledge(res)
	if s.ack == nil {
		return
	}
	s.hangUp(now)
	l.clients, l.met = s.clients, s.met
	l.stale = append(l.stale, stale{s.callID, s.theirs, s.ack, s.flow})
}

// establish takes the far end of a session out of the response that creates it.
func (l *leg) establish(res *sip.Message) {
	l.end = dialog.FromResponse(res)
	if l.end.Target == "" {
		l.end.Target = l.server.URI // a 2xx needs a Contact; nothing else is known
	}
	l.to, l.theirs = strings.Clone(res.Get("To")), strings.Clone(res.ToTag())
}

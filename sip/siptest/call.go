package siptest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ErrCancelled ends a call that was cancelled before it was answered.
var ErrCancelled = errors.New("call was cancelled")

// RejectedError is a final response other than 2xx.
type RejectedError struct{ Response *Message }

func (r *RejectedError) Error() string {
	return fmt.Sprintf("%d %s", r.Response.Code, r.Response.Reason)
}

// CallOptions says how an INVITE differs from the usual one.
type CallOptions struct {
	Headers  []Header // added to the INVITE
	Offer    Offer    // NoSDP makes it a late offer: the 200 offers, the ACK answers
	Reliable bool     // Supported: 100rel (RFC 3262)
	Play     Source   // what is spoken from the first packet on; nil: as Agent.Speak says
}

// HoldKind is how a call is put on hold.
type HoldKind string

// Kinds of hold.
const (
	HoldSendOnly HoldKind = "sendonly" // RFC 3264 section 8.4
	HoldInactive HoldKind = "inactive"
	HoldRecvOnly HoldKind = "recvonly"
	HoldZero     HoldKind = "zero" // c=0.0.0.0, RFC 2543
)

// Call is one dialog with its media. Its methods are safe for concurrent use;
// those that send a request wait for its final response, and a *RejectedError error
// is one other than 2xx.
type Call struct {
	agent    *Agent
	id       string
	localTag string
	media    *Media
	via      netip.AddrPort // where requests go when the dialog names no address
	done     chan struct{}  // closed by end
	answered chan struct{}  // closed by the 2xx
	rang     chan struct{}  // closed by the first provisional response

	mu            sync.Mutex
	err           error // why it ended
	ended         bool
	local, remote string // From and To of requests
	target        string // remote Contact
	routes        []string
	cseq          uint32
	version       uint64 // of our session description
	offer         Offer  // our last one
	remoteSDP     SDP
	invite        *Message // that made the call
	incoming      *server  // the INVITE, when it came to us and is not answered finally
	provisionals  []*Message
	pracked       map[string]bool // RSeq and tag of responses acknowledged
	acks          map[uint32]chan *Message
	prack         map[uint32]chan *Message
	reinviting    bool
	requests      []*Message
	arrived       chan struct{} // closed by the next request; nil when nobody waits
	hook          func(*Message) *Message
	ready         <-chan struct{} // closed when requests are answered; nil: at once
}

func (a *Agent) newCall(callID string, offer Offer) (*Call, error) {
	a.mu.Lock()
	port := a.mediaNext
	if port != 0 {
		a.mediaNext += 2
	}
	speak := a.speak
	a.mu.Unlock()
	media, err := newMedia(a.cfg, port)
	if err != nil {
		return nil, err
	}
	if speak != nil {
		media.Play(speak())
	}
	return &Call{
		agent: a, id: callID, localTag: token(6), media: media, offer: a.fill(offer),
		done: make(chan struct{}), answered: make(chan struct{}), rang: make(chan struct{}),
		acks: map[uint32]chan *Message{}, prack: map[uint32]chan *Message{}, pracked: map[string]bool{},
	}, nil
}

func (a *Agent) fill(o Offer) Offer {
	if o.Codecs == nil {
		o.Codecs = a.cfg.Codecs
	}
	return o
}

func (c *Call) key() string { return c.id + "\x00" + c.localTag }

// Call sends an INVITE for target to the address via and waits for the answer.
func (a *Agent) Call(ctx context.Context, target string, via netip.AddrPort, opts CallOptions) (*Call, error) {
	c, err := a.Start(ctx, target, via, opts)
	if err != nil {
		return nil, err
	}
	if err := c.Wait(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// Start sends an INVITE as Call does and returns at once.
func (a *Agent) Start(_ context.Context, target string, via netip.AddrPort, opts CallOptions) (*Call, error) {
	c, err := a.newCall(token(12)+"@"+a.Addr().Addr().String(), opts.Offer)
	if err != nil {
		return nil, err
	}
	if opts.Play != nil {
		c.media.Play(opts.Play)
	}
	c.via, c.target, c.cseq = via, target, 1
	c.local, c.remote = "<"+a.URI()+">;tag="+c.localTag, "<"+target+">"
	m := a.request("INVITE", target, c.id, 1)
	m.Add("From", c.local)
	m.Add("To", c.remote)
	m.Add("Contact", "<"+a.URI()+">")
	m.Add("Allow", "INVITE, ACK, BYE, CANCEL, OPTIONS, PRACK, UPDATE, INFO, REFER, NOTIFY, MESSAGE")
	if opts.Reliable {
		m.Add("Supported", "100rel")
	}
	m.Headers = append(m.Headers, opts.Headers...)
	c.describe(m, c.offer)
	c.invite = m
	if !a.track(c) {
		c.media.close()
		return nil, ErrClosed
	}
	a.spawn(c.inviteOut)
	return c, nil
}

// describe puts our session description into m. c.mu is held, or c is not shared yet.
func (c *Call) describe(m *Message, o Offer) {
	if o.NoSDP {
		return
	}
	o = o.secureOffer(c.media)
	c.version++
	m.Set("Content-Type", "application/sdp")
	m.Body = o.build(c.agent.cfg.Name, uint64(c.media.Local().Port()), c.version, c.media.Local())
}

func (c *Call) inviteOut() {
	final, err := c.agent.transact(c.agent.ctx, c.invite, c.via, c.provisional)
	if err != nil {
		c.end(err)
		return
	}
	if final.Code >= 300 {
		c.mu.Lock()
		c.provisionals = append(c.provisionals, final)
		c.mu.Unlock()
		c.end(&RejectedError{final})
		return
	}
	c.mu.Lock()
	c.dialog(final)
	offered := c.offer
	c.mu.Unlock()
	if err := c.acknowledge(c.invite, final, offered); err != nil {
		c.end(err)
		return
	}
	close(c.answered)
}

// dialog takes the dialog's state from a response to our INVITE (RFC 3261 section 12.1.2).
func (c *Call) dialog(r *Message) {
	c.remote = r.Get("To")
	if contact := r.Get("Contact"); contact != "" {
		c.target = URI(contact)
	}
	c.routes = slices.Clone(routesOf(r))
	slices.Reverse(c.routes)
}

func routesOf(m *Message) []string {
	var out []string
	for _, line := range m.Values("Record-Route") {
		for r := range strings.SplitSeq(line, ",") {
			out = append(out, strings.TrimSpace(r))
		}
	}
	return out
}

// provisional takes a 1xx response to our INVITE.
func (c *Call) provisional(r *Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.provisionals = append(c.provisionals, r)
	if len(c.provisionals) == 1 {
		close(c.rang)
	}
	if r.Code == 100 {
		return
	}
	c.dialog(r)
	rseq := r.Get("RSeq")
	once := rseq + " " + Param(r.Get("To"), "tag")
	if rseq != "" && !c.pracked[once] {
		c.pracked[once] = true
		n, method := c.invite.CSeq()
		m := c.newRequest("PRACK")
		m.Add("RAck", fmt.Sprintf("%s %d %s", rseq, n, method))
		to := c.nextHop()
		c.agent.spawn(func() { _, _ = c.agent.transact(c.agent.ctx, m, to, nil) }) // when it is lost, the peer repeats its response
	}
	if len(r.Body) > 0 && !c.offer.NoSDP {
		_ = c.negotiate(r.Body, c.offer) // the 200 says it again; what is unusable fails there
	}
}

// acknowledge takes the description of a 2xx and sends the ACK.
func (c *Call) acknowledge(invite, final *Message, offered Offer) error {
	c.mu.Lock()
	n, _ := invite.CSeq()
	ack := c.newRequestAs("ACK", n)
	var err error
	switch {
	case offered.NoSDP: // the 2xx offers
		offered.NoSDP = false
		var answer Offer
		if answer, err = c.answerOffer(final.Body, offered); err == nil {
			c.describe(ack, answer)
		}
	case len(final.Body) > 0:
		err = c.negotiate(final.Body, offered)
	}
	to := c.nextHop()
	c.mu.Unlock()
	raw, serr := c.agent.send(c.agent.ctx, ack, to)
	if serr == nil {
		c.agent.keepAck(final, raw, to)
	}
	return errors.Join(err, serr)
}

// negotiate starts or changes the media by our offer o and the peer's answer.
func (c *Call) negotiate(body []byte, o Offer) error {
	sdp, err := ParseSDP(body)
	if err != nil {
		return err
	}
	codec, ok := sdp.choose(o.Codecs)
	if !ok {
		return fmt.Errorf("no codec in common: payload types %v", sdp.Payloads)
	}
	if err := o.secured(c.media, sdp); err != nil {
		return err
	}
	c.remoteSDP = sdp
	local := o.direction()
	if o.Zero {
		local = Inactive // who holds by RFC 2543 neither wants media nor sends any
	}
	c.media.negotiated(codec, sdp, local)
	return nil
}

// answerOffer takes the peer's offer and returns our answer: the direction that
// both want, the first codec that both have.
func (c *Call) answerOffer(body []byte, wish Offer) (Offer, error) {
	sdp, err := ParseSDP(body)
	if err != nil {
		return Offer{}, err
	}
	codec, ok := sdp.choose(wish.Codecs)
	if !ok {
		return Offer{}, fmt.Errorf("no codec in common: payload types %v", sdp.Payloads)
	}
	answer := wish
	answer.Codecs = []Codec{codec}
	answer.Mux = wish.Mux && sdp.Mux
	want := wish.direction()
	answer.Direction = direction(want.sends() && sdp.Direction.receives(), want.receives() && sdp.Direction.sends())
	if answer, err = answer.secureAnswer(c.media, sdp); err != nil {
		return Offer{}, err
	}
	c.remoteSDP = sdp
	c.media.negotiated(codec, sdp, answer.Direction)
	return answer, nil
}

// newRequest begins a request in the dialog. c.mu is held.
func (c *Call) newRequest(method string) *Message {
	c.cseq++
	return c.newRequestAs(method, c.cseq)
}

func (c *Call) newRequestAs(method string, cseq uint32) *Message {
	m := c.agent.request(method, c.target, c.id, cseq)
	for _, r := range c.routes {
		m.Add("Route", r)
	}
	m.Add("From", c.local)
	m.Add("To", c.remote)
	m.Add("Contact", "<"+c.agent.URI()+">")
	return m
}

// nextHop is the address of the first route, else of the remote target (RFC
// 3261 section 12.2.1.1, loose routers alone).
func (c *Call) nextHop() netip.AddrPort {
	uri := c.target
	if len(c.routes) > 0 {
		uri = URI(c.routes[0])
	}
	addr, err := addressOf(uri)
	if err != nil {
		return c.via
	}
	return addr
}

// Wait returns when the call is answered (nil) or has ended before. When ctx
// ends first, the call is cancelled.
func (c *Call) Wait(ctx context.Context) error {
	select {
	case <-c.answered:
		return nil
	case <-c.done:
		return c.Err()
	case <-ctx.Done():
		c.agent.spawn(func() { _ = c.Cancel(c.agent.ctx) }) // the caller has its error
		return fmt.Errorf("wait for the answer: %w", context.Cause(ctx))
	}
}

// Ringing returns when the first provisional response came.
func (c *Call) Ringing(ctx context.Context) error {
	select {
	case <-c.rang:
		return nil
	case <-c.done:
		return c.Err()
	case <-ctx.Done():
		return fmt.Errorf("wait for ringing: %w", context.Cause(ctx))
	}
}

// Done is closed when the call has ended.
func (c *Call) Done() <-chan struct{} { return c.done }

// Err says why the call ended; nil while it goes on and after a BYE.
func (c *Call) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// ID is the Call-ID.
func (c *Call) ID() string { return c.id }

// Dialog names the dialog as the other side knows it, in the form of a Replaces
// header field (RFC 3891 section 6.1): to-tag is the other side's own tag.
func (c *Call) Dialog() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.id + ";to-tag=" + Param(c.remote, "tag") + ";from-tag=" + c.localTag
}

// Media is the audio of the call; it may be read after the call has ended.
func (c *Call) Media() *Media { return c.media }

// RemoteSDP is the last description of the other side.
func (c *Call) RemoteSDP() SDP {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.remoteSDP
}

// Responses are the responses to our INVITE but for the 2xx, in order.
func (c *Call) Responses() []*Message {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.provisionals)
}

// Requests are the requests received in the dialog, ACK and re-INVITE included.
func (c *Call) Requests() []*Message {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.requests)
}

// end finishes the call once.
func (c *Call) end(err error) {
	c.mu.Lock()
	if c.ended {
		c.mu.Unlock()
		return
	}
	c.ended, c.err = true, err
	c.mu.Unlock()
	close(c.done)
	c.agent.forget(c)
	c.media.halt()
	if !c.agent.spawn(func() { c.media.linger(c.agent.ctx) }) {
		c.media.close()
	}
}

// Cancel gives up a call that is not answered. RFC 3261 section 9.1 lets it go
// out after a provisional response only, so it waits for one.
func (c *Call) Cancel(ctx context.Context) error {
	if err := c.Ringing(ctx); err != nil {
		return err
	}
	n, _ := c.invite.CSeq()
	m := &Message{Method: "CANCEL", RequestURI: c.invite.RequestURI}
	m.Add("Via", c.invite.Get("Via"))
	m.Add("Max-Forwards", "70")
	m.Add("From", c.invite.Get("From"))
	m.Add("To", c.invite.Get("To"))
	m.Add("Call-ID", c.id)
	m.Add("CSeq", strconv.FormatUint(uint64(n), 10)+" CANCEL")
	r, err := c.agent.transact(ctx, m, c.via, nil)
	if err != nil {
		return err
	}
	return rejection(r)
}

func rejection(r *Message) error {
	if r.Code >= 300 {
		return &RejectedError{r}
	}
	return nil
}

// sleep waits for d; false when the call ends first.
func (c *Call) sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-c.done:
		return false
	}
}

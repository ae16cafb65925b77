package sdp

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/suppress"
)

// ErrNoOffer is returned for an answer that no offer waits for.
var ErrNoOffer = errors.New("answer without offer")

// Result is what a completed exchange changed.
type Result struct {
	Streams []media.Stream    // new or changed, in order of their ids
	Ended   []media.StreamID  // gone, in order
	Signals []suppress.Signal // hold.start and hold.end; Source "sdp", Party "external" or "internal"

	Others        []media.OtherMedia // what is agreed beside audio over RTP
	OthersChanged bool
}

// Negotiation is the offer/answer state of one call (RFC 3264, with the
// exchanges of RFC 6337): what was agreed for the audio of both sides, and who
// holds. One goroutine owns it.
//
// Only audio over RTP is recorded. A stream's id is 2 x index of its m= line +
// its side, so that it stays the same over renegotiations.
//
// A side holds when its own description says so for all audio that goes on:
// sendonly, inactive, or a zero address (RFC 2543). An answer that is inactive
// because the offer left nothing else does not make its side a holder, but a
// holder stays one until a description of its own says otherwise. Without
// any audio nothing changes. Holds are reported when they change, from the
// answer of the call on.
type Negotiation struct {
	*Dialog

	confirmed bool           // the call is answered
	streams   []media.Stream // in order of their ids
	others    []media.OtherMedia
	holding   [2]bool
}

// NewNegotiation returns the state before anything was said.
func NewNegotiation() *Negotiation {
	return &Negotiation{Dialog: &Dialog{}}
}

// Holding tells whether a side holds by what was agreed.
func (n *Negotiation) Holding(side media.Side) bool { return n.holding[side] }

// Offer records what a side offers, in INVITE, UPDATE, PRACK or a 2xx. A nil
// body is an INVITE without a description: the other side makes the offer,
// given to Offer or to Answer alike. An offer replaces an open one of the same
// side. Errors are those of Parse; the state stays then.
func (n *Negotiation) Offer(from media.Side, body []byte) error {
	if body == nil {
		n.offers[from], n.late[from], n.newest = nil, true, from
		return nil
	}
	d, err := Parse(body)
	if err != nil {
		return fmt.Errorf("offer of the %s side: %w", from, err)
	}
	n.OfferParsed(from, d)
	return nil
}

// OfferParsed is Offer for a body that was read already.
func (n *Negotiation) OfferParsed(from media.Side, d *Description) {
	if other := from.Other(); n.agreed != nil && n.offers[other] == n.agreed.Offer {
		n.offers[other] = nil // answered, or there could be no further offer (RFC 6337 section 2.2)
	}
	n.offers[from], n.newest = d, from
}

// Answer records a side's answer and returns what it changed; early says that
// the call is not answered, in whatever message it came. Early answers may follow each other (forks) and are superseded by the final one; before
// the call is answered they act at once, in a re-INVITE only when confirmed. A
// nil body changes nothing while early and is Confirm after it. An answer that
// repeats the one in force is fine; ErrNoOffer when nothing waits for it.
func (n *Negotiation) Answer(from media.Side, body []byte, at time.Time, early bool) (Result, error) {
	if body == nil {
		if early {
			return Result{}, nil
		}
		return n.Confirm(at), nil
	}
	answer, err := Parse(body)
	if err != nil {
		return Result{}, fmt.Errorf("answer of the %s side: %w", from, err)
	}
	return n.AnswerParsed(from, answer, at, early)
}

// AnswerParsed is Answer for a body that was read already.
func (n *Negotiation) AnswerParsed(from media.Side, answer *Description, at time.Time, early bool) (Result, error) {
	offer := n.offers[from.Other()]
	if offer == nil {
		return n.answerWithoutOffer(from, answer, at, early)
	}
	a := &Agreement{Offerer: from.Other(), Offer: offer, Answer: answer}
	if early && n.confirmed {
		n.tentative = a
		return Result{}, nil
	}
	if !early {
		n.close(from.Other())
	}
	return n.agree(a, at, !early), nil
}

// answerWithoutOffer sorts out what only looks like an answer: the offer that
// a side was asked for, and the repetition of what is agreed.
func (n *Negotiation) answerWithoutOffer(from media.Side, d *Description, at time.Time, early bool) (Result, error) {
	switch {
	case n.late[from.Other()]:
		n.OfferParsed(from, d)
		return Result{}, nil
	case n.agreed != nil && n.agreed.Offerer != from && n.agreed.Answer.body == d.body,
		n.agreed != nil && n.agreed.Offerer == from && !n.confirmed && n.offers[from] != nil:
		// The 200 that repeats a description after an UPDATE went the other way (RFC 6337 section 3.1).
		if early {
			return Result{}, nil
		}
		return n.Confirm(at), nil
	}
	return Result{}, fmt.Errorf("%w: of the %s side", ErrNoOffer, from)
}

// Confirm takes the 200 to an INVITE that carries no description because the
// answer came before, reliably (RFC 3262): what is agreed is final now.
func (n *Negotiation) Confirm(at time.Time) Result {
	a := n.agreed
	if n.tentative != nil {
		a = n.tentative
	}
	if a == nil || n.confirmed && n.tentative == nil {
		return Result{}
	}
	if n.offers[a.Offerer] == a.Offer {
		n.close(a.Offerer)
	}
	return n.agree(a, at, true)
}

// Reject drops the latest open offer, which was refused; what was agreed before
// it goes on (RFC 3264 section 4). Where offers crossed (491), use RejectFrom.
func (n *Negotiation) Reject() { n.RejectFrom(n.newest) }

// RejectFrom drops the open offer of that side, or its request for one, and what an
// early answer to it said.
func (n *Negotiation) RejectFrom(side media.Side) {
	if n.late[side] {
		n.close(side.Other())
	}
	n.close(side)
}

// RejectWithin drops the offer of that side which it made in an UPDATE or a PRACK. An
// INVITE that is still open within which it came goes on as if that had never been:
// its early answer stays, and so does its offer for the final one.
func (n *Negotiation) RejectWithin(side media.Side) {
	n.offers[side] = nil
	if n.newest == side {
		n.newest = side.Other()
	}
	a := n.tentative
	if a == nil && !n.confirmed {
		a = n.agreed
	}
	if a != nil {
		n.offers[a.Offerer], n.newest = a.Offer, a.Offerer
	}
}

// agree puts an agreement in force and finds what it changed.
func (n *Negotiation) agree(a *Agreement, at time.Time, final bool) Result {
	n.agreed, n.tentative = a, nil
	n.confirmed = n.confirmed || final
	var res Result
	now := a.streams(at, !n.confirmed)
	for _, s := range now {
		if i := streamAt(n.streams, s.ID); i < 0 || !sameStream(n.streams[i], s) {
			res.Streams = append(res.Streams, s)
		}
	}
	for _, s := range n.streams {
		if streamAt(now, s.ID) < 0 {
			res.Ended = append(res.Ended, s.ID)
		}
	}
	n.streams = now
	res.Others = a.others()
	res.OthersChanged = !slices.Equal(res.Others, n.others)
	n.others = res.Others
	if n.confirmed {
		res.Signals = n.holds(a, at)
	}
	return res
}

// streamAt returns the place of a stream, -1 when it is not there.
func streamAt(list []media.Stream, id media.StreamID) int {
	return slices.IndexFunc(list, func(s media.Stream) bool { return s.ID == id })
}

// sameStream compares all but the time.
func sameStream(a, b media.Stream) bool {
	return a.Side == b.Side && a.Sending == b.Sending && a.Early == b.Early && a.Source == b.Source &&
		a.Local == b.Local && a.Ptime == b.Ptime && a.Secure == b.Secure && slices.Equal(a.Formats, b.Formats)
}

// audio returns the pairs of audio descriptions that both sides accept.
func (a *Agreement) audio() [][2]*Media {
	var pairs [][2]*Media
	for i := range min(len(a.Offer.media), len(a.Answer.media)) {
		o, w := &a.Offer.media[i], &a.Answer.media[i]
		if o.Kind == "audio" && w.Kind == "audio" && o.rtp() && w.rtp() && !o.Rejected && !w.Rejected {
			pairs = append(pairs, [2]*Media{o, w})
		}
	}
	return pairs
}

func (m *Media) rtp() bool { return strings.Contains(strings.ToUpper(m.Proto), "RTP/") }

func (a *Agreement) streams(at time.Time, early bool) []media.Stream {
	pairs := a.audio()
	list := make([]media.Stream, 0, 2*len(pairs))
	for _, p := range pairs {
		offer, answer := p[0], p[1]
		for _, side := range [2]media.Side{media.External, media.Internal} {
			sender, receiver, formats := answer, offer, accepted(offer.Formats, answer.Formats)
			if side == a.Offerer {
				sender, receiver, formats = offer, answer, answer.Formats
			}
			s := media.Stream{
				ID: media.StreamID(offer.Index*2 + int(side)), Side: side, At: at, Early: early,
				Formats: withOwn(formats, sender.Formats),
				Sending: sends(sender) && receives(receiver),
				Source:  sender.addrPort(), Local: receiver.addrPort(),
				Ptime:  receiver.Ptime,
				Secure: offer.Secure && answer.Secure,
			}
			if s.Ptime == 0 {
				s.Ptime = sender.Ptime
			}
			list = append(list, s)
		}
	}
	return list
}

func sends(m *Media) bool { return m.Direction == SendRecv || m.Direction == SendOnly }

// receives: nothing may be sent to a zero address (RFC 3264 section 8.4).
func receives(m *Media) bool {
	return (m.Direction == SendRecv || m.Direction == RecvOnly) && !m.Zero
}

// addrPort is where media goes; invalid when it is not known.
func (m *Media) addrPort() netip.AddrPort {
	if !m.Addr.IsValid() || m.Zero {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(m.Addr, m.Port)
}

// withOwn adds, behind what was agreed, the sender's own types for events and
// comfort noise when the agreement has neither them nor their numbers. Many
// endpoints send the digits they announced though the other side did not name
// them; they are relayed, so they must be understood.
func withOwn(agreed, own []media.Format) []media.Format {
	list := slices.Clip(agreed)
	for _, f := range own {
		known := func(a media.Format) bool { return a.PayloadType == f.PayloadType || a.Name == f.Name }
		if (f.Name == "TELEPHONE-EVENT" || f.Name == "CN") && !slices.ContainsFunc(agreed, known) {
			list = append(list, f)
		}
	}
	return list
}

// accepted returns what the answerer may send: the offer's formats, under the
// offer's payload types (RFC 3264 section 5.1), whose codec the answer names.
// When none fits, the answer is faulty and all of the offer may come.
func accepted(offer, answer []media.Format) []media.Format {
	var list []media.Format
	for _, f := range offer {
		if slices.ContainsFunc(answer, func(a media.Format) bool { return sameCodec(f, a) }) {
			list = append(list, f)
		}
	}
	if len(list) == 0 {
		return offer
	}
	return list
}

func sameCodec(a, b media.Format) bool {
	if a.Name == "" || b.Name == "" {
		return a.PayloadType == b.PayloadType
	}
	return a.Name == b.Name && a.ClockRate == b.ClockRate && max(a.Channels, 1) == max(b.Channels, 1)
}

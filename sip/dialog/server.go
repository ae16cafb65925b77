package dialog

import (
	"strings"
	"time"

	"github.com/trunktap/trunktap/sip"
)

// Server is a server transaction (RFC 3261 section 17.2, RFC 6026), with the
// repetition of a 2xx to INVITE that section 13.3.1.4 leaves to its user.
type Server struct {
	Req *sip.Message

	via      sip.Via
	invite   bool
	reliable bool
	last     *sip.Message // last response; nil when it will not be sent again
	final    int          // status of the final response
	acked    bool
	interval time.Duration
	resend   time.Time // next repetition of last; zero: none
	ack      time.Time // until when the ACK must be there; zero: not waited for
	end      time.Time // when the transaction is forgotten; zero: not known yet
}

// NewServer begins the transaction of a request.
func NewServer(req *sip.Message) *Server {
	via, _ := req.TopVia() // Parse has seen to it
	return &Server{Req: req, via: via, invite: req.Method == sip.Invite, reliable: req.Flow.Reliable()}
}

// Matches says whether a request belongs to the transaction: a repetition, or
// the ACK of a final response that is no 2xx.
func (s *Server) Matches(req *sip.Message) bool {
	if req.Method != s.Req.Method && (req.Method != sip.Ack || !s.invite || s.Final() < 300) {
		return false // the ACK of a 2xx is a transaction of its own, whatever its branch
	}
	return s.sameBranch(req)
}

// Cancels says whether a CANCEL is meant for the transaction (RFC 3261 section 9.2).
func (s *Server) Cancels(cancel *sip.Message) bool { return s.invite && s.sameBranch(cancel) }

func (s *Server) sameBranch(req *sip.Message) bool {
	via, err := req.TopVia()
	if err != nil || !sameBranch(s.via, via) {
		return false
	}
	if strings.HasPrefix(via.Branch(), "z9hG4bK") {
		return true
	}
	// RFC 2543: a branch proves nothing.
	have, _ := s.Req.CSeq()
	seq, _ := req.CSeq()
	return have == seq && s.Req.CallID() == req.CallID() && s.Req.FromTag() == req.FromTag()
}

// Receive takes a request that Matches. The result is a response to send again, or nil.
func (s *Server) Receive(req *sip.Message, now time.Time) *sip.Message {
	if req.Method == sip.Ack {
		if s.Final() >= 300 && !s.acked {
			s.acked, s.resend, s.ack = true, time.Time{}, time.Time{}
			s.end = now.Add(s.linger(sip.T4)) // timer I
		}
		return nil
	}
	if s.invite && s.Final() >= 200 && s.Final() < 300 {
		return nil // RFC 6026: absorbed, the 2xx has a schedule of its own
	}
	return s.last
}

// Respond notes a response that is being sent.
func (s *Server) Respond(res *sip.Message, now time.Time) {
	s.last = res
	if res.Status < 200 {
		return
	}
	s.final = res.Status
	s.end = now.Add(sip.TransactionTimeout) // timers H, J and L
	switch {
	case s.invite && (res.Status < 300 || !s.reliable):
		s.interval = sip.T1
		s.resend = now.Add(s.interval)
		s.ack = s.end
	case s.invite:
		s.ack = s.end
	default:
		s.end = now.Add(s.linger(sip.TransactionTimeout))
	}
}

func (s *Server) linger(d time.Duration) time.Duration {
	if s.reliable {
		return 0
	}
	return d
}

// Acked notes the ACK of a 2xx, which has a branch of its own.
func (s *Server) Acked() {
	s.acked, s.resend, s.ack = true, time.Time{}, time.Time{}
	s.last = nil
}

// Due does what has become due: a response to send again, and whether the ACK
// has not come in time.
func (s *Server) Due(now time.Time) (again *sip.Message, noAck bool) {
	if !s.ack.IsZero() && !now.Before(s.ack) {
		s.resend, s.ack = time.Time{}, time.Time{}
		return nil, true
	}
	if s.resend.IsZero() || now.Before(s.resend) {
		return nil, false
	}
	s.interval = min(2*s.interval, sip.T2)
	s.resend = now.Add(s.interval)
	return s.last, false
}

// Deadline returns when Due or Done has news; zero: never.
func (s *Server) Deadline() time.Time {
	return Earliest(s.resend, Earliest(s.ack, s.end))
}

// Done says whether the transaction may be forgotten.
func (s *Server) Done(now time.Time) bool { return !s.end.IsZero() && !now.Before(s.end) }

// Final returns the status of the final response, 0 before it.
func (s *Server) Final() int { return s.final }

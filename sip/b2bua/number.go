package b2bua

import (
	"strconv"
	"strings"

	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/dialog"
)

// numbers are how far the CSeq numbers of a party's requests are ahead on the other
// leg, where requests of ours were put between them. Indexed by the sender.
type numbers struct {
	ahead  [2]uint32
	invite [2]uint32 // as it was for the latest INVITE, which ACK and RAck refer to
	refer  [2]uint32 // and for the latest REFER, which Event refers to
	moved  bool      // any of them is not 0
}

// insert makes room for a request of ours in the name of a party.
func (n *numbers) insert(by dialog.Party) {
	n.ahead[by]++
	n.moved = true
}

// begin takes over what was put before the first request of the caller.
func (n *numbers) begin(ahead uint32) {
	if ahead > 0 {
		n.ahead[dialog.Caller], n.invite[dialog.Caller], n.moved = ahead, ahead, true
	}
}

// apply numbers a request of a party for the other leg.
func (n *numbers) apply(by dialog.Party, m *sip.Message) {
	if !n.moved {
		return
	}
	by2 := n.ahead[by]
	switch m.Method {
	case sip.Invite:
		n.invite[by] = by2
	case sip.Ack:
		by2 = n.invite[by]
	case sip.Refer:
		n.refer[by] = by2
	case sip.Prack:
		addRAck(m, n.invite[by])
	case sip.Notify:
		subtractID(m, n.refer[by.Other()])
	}
	addCSeq(m, by2)
}

func addCSeq(m *sip.Message, n uint32) {
	if n == 0 {
		return
	}
	seq, method := m.CSeq()
	m.Set("CSeq", strconv.FormatUint(uint64(seq)+uint64(n), 10)+" "+method)
}

// addRAck moves the number of the INVITE in "response-num CSeq-num method" (RFC
// 3262 section 7.2).
func addRAck(m *sip.Message, n uint32) {
	f := strings.Fields(m.Get("RAck"))
	if len(f) != 3 || n == 0 {
		return
	}
	if seq, err := strconv.ParseUint(f[1], 10, 32); err == nil {
		m.Set("RAck", f[0]+" "+strconv.FormatUint(seq+uint64(n), 10)+" "+f[2])
	}
}

// subtractID moves the number of the REFER in "refer;id=…" back (RFC 3515 section
// 2.4.6).
func subtractID(m *sip.Message, n uint32) {
	v := m.Get("Event")
	kind, rest, _ := strings.Cut(v, ";")
	if n == 0 || !strings.EqualFold(strings.TrimSpace(kind), "refer") {
		return
	}
	params := strings.Split(rest, ";")
	for i, p := range params {
		name, value, _ := strings.Cut(p, "=")
		id, err := strconv.ParseUint(strings.TrimSpace(value), 10, 32)
		if strings.EqualFold(strings.TrimSpace(name), "id") && err == nil && id >= uint64(n) {
			params[i] = name + "=" + strconv.FormatUint(id-uint64(n), 10)
			m.Set("Event", kind+";"+strings.Join(params, ";"))
		}
	}
}

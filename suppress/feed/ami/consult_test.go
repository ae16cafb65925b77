package ami

import (
	"testing"
)

// TestConsultToggles: an agent who goes back to the caller still consults, and
// the caller's call is no consultation.
func TestConsultToggles(t *testing.T) {
	b := smallBench(t, func(c *Config) { c.Trunks = []string{"PJSIP/carrier-*"} })
	b.pbx.ids["PJSIP/carrier-b-00000004"] = "c2@x"
	b.talk()
	b.feed(event("Hold", agentName, 2, "Linkedid: 1.1"))
	b.feed(event("Newchannel", "PJSIP/alice-00000003", 3))
	b.feed(event("Newchannel", "PJSIP/carrier-b-00000004", 4, "Linkedid: 1.3"))
	b.feed(event("BridgeEnter", "PJSIP/alice-00000003", 3, "BridgeUniqueid: b2"))
	b.feed(event("BridgeEnter", "PJSIP/carrier-b-00000004", 4, "BridgeUniqueid: b2", "Linkedid: 1.3"))
	b.signals = nil
	b.feed(event("Hold", "PJSIP/alice-00000003", 3))
	b.feed(event("Unhold", agentName, 2, "Linkedid: 1.1"))
	b.want("c2@x hold.start alice", "c1@x hold.end alice")
	b.signals = nil
	b.feed(event("BridgeLeave", "PJSIP/alice-00000003", 3, "BridgeUniqueid: b2"))
	b.want("c2@x hold.end alice", "c2@x agent.leave alice", "c2@x consult.end alice external")
}

// TestMemberBehindLocal: the phone bears the name of the queue's member,
// whichever of the two is told first.
func TestMemberBehindLocal(t *testing.T) {
	connect := event("AgentConnect", trunkName, 1, "DestChannel: Local/2@q-00000005;1", "DestUniqueid: 1.5", "DestLinkedid: 1.1", "Queue: q",
		"Interface: Local/2@q/n", "MemberName: Jane")
	phone := event("BridgeEnter", agentName, 2, "BridgeUniqueid: b2", "Linkedid: 1.1")
	for name, order := range map[string][]string{"queue first": {connect, phone}, "phone first": {phone, connect}} {
		t.Run(name, func(t *testing.T) {
			b := smallBench(t, func(c *Config) { c.MemberNames = true })
			b.feed(event("Newchannel", trunkName, 1))
			b.feed(event("Newchannel", "Local/2@q-00000005;1", 5, "Linkedid: 1.1"))
			b.feed(event("Newchannel", "Local/2@q-00000005;2", 6, "Linkedid: 1.1"))
			b.feed(event("Newchannel", agentName, 2, "Linkedid: 1.1"))
			b.feed(event("BridgeEnter", "Local/2@q-00000005;2", 6, "BridgeUniqueid: b2", "Linkedid: 1.1"))
			for _, e := range order {
				b.feed(e)
			}
			b.feed(event("BridgeEnter", "Local/2@q-00000005;1", 5, "BridgeUniqueid: b1", "Linkedid: 1.1"))
			b.feed(event("BridgeEnter", trunkName, 1, "BridgeUniqueid: b1"))
			b.feed(event("Hangup", "Local/2@q-00000005;1", 5))
			b.want("c1@x agent.join Jane agent", "c1@x agent.leave Jane")
		})
	}
}

// TestLeaveOfAnotherBridge: a leave that comes after the next enter is not of
// that one.
func TestLeaveOfAnotherBridge(t *testing.T) {
	b := smallBench(t, nil)
	b.talk()
	b.signals = nil
	b.feed(event("BridgeLeave", agentName, 2, "BridgeUniqueid: b0", "Linkedid: 1.1"))
	b.want()
}

// TestAgentBehindTrunk: a queue gives the call to a mobile phone.
func TestAgentBehindTrunk(t *testing.T) {
	b := smallBench(t, func(c *Config) {
		c.Trunks, c.Users = []string{"PJSIP/carrier-*"}, map[string]string{"PJSIP/0170@carrier-b": "mo"}
	})
	mobile := "PJSIP/carrier-b-00000002"
	b.feed(event("Newchannel", trunkName, 1))
	b.feed(event("Newchannel", mobile, 2, "Linkedid: 1.1"))
	b.feed(event("AgentConnect", trunkName, 1, "DestChannel: "+mobile, "DestUniqueid: 1.2", "DestLinkedid: 1.1", "Queue: q", "Interface: PJSIP/0170@carrier-b"))
	b.feed(event("BridgeEnter", mobile, 2, "BridgeUniqueid: b1", "Linkedid: 1.1"))
	b.feed(event("BridgeEnter", trunkName, 1, "BridgeUniqueid: b1"))
	b.feed(event("BridgeLeave", mobile, 2, "BridgeUniqueid: b1", "Linkedid: 1.1"))
	b.feed(event("BridgeEnter", mobile, 2, "BridgeUniqueid: b1", "Linkedid: 1.1")) // fetched back
	b.feed(event("Hangup", mobile, 2, "Linkedid: 1.1"))
	b.want("c1@x agent.join mo agent", "c1@x agent.leave mo", "c1@x agent.join mo agent", "c1@x agent.leave mo")
}

package catalog

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/trunktap/trunktap/recorder"
)

// scaleTime is a span of time in which something happened.
func scaleTime(rng *rand.Rand, q recorder.Query, days int) recorder.Query {
	q.From = scaleEnd.Add(-time.Duration(1+rng.IntN(360)) * 24 * time.Hour)
	q.To = q.From.Add(time.Duration(days) * 24 * time.Hour)
	return q
}

func scaleAgent(rng *rand.Rand) string { return fmt.Sprintf("agent%04d", zipf(rng, scaleAgents)) }

// scaleKinds are the searches of TestScale, from everyday ones to nasty ones.
var scaleKinds = []scaleKind{
	{name: "newest", query: func(*rand.Rand) recorder.Query { return recorder.Query{} }},
	{name: "one day", query: func(rng *rand.Rand) recorder.Query { return scaleTime(rng, recorder.Query{}, 1) }},
	{name: "number, exactly", query: func(rng *rand.Rand) recorder.Query { return recorder.Query{NumberIs: scaleCaller(rng)} }},
	{name: "number, its beginning", query: func(rng *rand.Rand) recorder.Query { return recorder.Query{NumberPrefix: scaleCaller(rng)[:9]} }},
	{name: "number, last 6 digits", query: func(rng *rand.Rand) recorder.Query {
		n := scaleCaller(rng)
		return recorder.Query{NumberSuffix: n[len(n)-6:]}
	}},
	{name: "number, 5 digits inside", query: func(rng *rand.Rand) recorder.Query { return recorder.Query{Number: scaleCaller(rng)[4:9]} }},
	{name: "number, 4 digits inside", query: func(rng *rand.Rand) recorder.Query { return recorder.Query{Number: scaleCaller(rng)[5:9]} }},
	{name: "number, 3 digits inside", query: func(rng *rand.Rand) recorder.Query { return recorder.Query{Number: scaleCaller(rng)[6:9]} }},
	{name: "number, 2 digits, one day", query: func(rng *rand.Rand) recorder.Query {
		return scaleTime(rng, recorder.Query{Number: scaleCaller(rng)[6:8]}, 1)
	}},
	{name: "number that never called", query: func(rng *rand.Rand) recorder.Query {
		return recorder.Query{Number: fmt.Sprintf("777%06d", rng.IntN(1000000))}
	}},
	{name: "party", query: func(rng *rand.Rand) recorder.Query { return recorder.Query{Party: scaleCaller(rng)} }},
	{name: "common trunk, 20 pages", pages: 20, query: func(*rand.Rand) recorder.Query { return recorder.Query{Trunk: "carrier-a"} }},
	{name: "common trunk, oldest first", query: func(*rand.Rand) recorder.Query {
		return recorder.Query{Trunk: "carrier-a", Order: recorder.OrderOldest}
	}},
	{name: "trunk and week", query: func(rng *rand.Rand) recorder.Query { return scaleTime(rng, recorder.Query{Trunk: "carrier-c"}, 7) }},
	{name: "agent", query: func(rng *rand.Rand) recorder.Query { return recorder.Query{Agent: scaleAgent(rng)} }},
	{name: "agent, week, hold over 30s", query: func(rng *rand.Rand) recorder.Query {
		return scaleTime(rng, recorder.Query{Agent: scaleAgent(rng), Window: "hold", WindowMin: 30 * time.Second}, 7)
	}},
	{name: "user's consultations", query: func(rng *rand.Rand) recorder.Query {
		return recorder.Query{User: scaleAgent(rng), Kind: recorder.KindConsult}
	}},
	{name: "queue and language", query: func(rng *rand.Rand) recorder.Query {
		return recorder.Query{Queue: fmt.Sprintf("queue-%d", zipf(rng, scaleQueues)), Attrs: []string{"language=tr"}}
	}},
	{name: "customer", query: func(rng *rand.Rand) recorder.Query {
		return recorder.Query{Attrs: []string{"customer=" + strconv.Itoa(rng.IntN(scaleCustomers))}}
	}},
	{name: "window pause", query: func(*rand.Rand) recorder.Query { return recorder.Query{Window: "pause"} }},
	{name: "no window ivr, pause, gaps", query: func(*rand.Rand) recorder.Query {
		return recorder.Query{NoWindow: "ivr", Window: "pause", Gaps: recorder.GapsYes}
	}},
	{name: "not recorded", query: func(*rand.Rand) recorder.Query { return recorder.Query{Recorded: recorder.GapsNo} }},
	{name: "crashed", query: func(*rand.Rand) recorder.Query { return recorder.Query{EndCause: "crash"} }},
	{name: "MOS below 2", query: func(*rand.Rand) recorder.Query { return recorder.Query{MOSBelow: 2} }},
	{name: "loss above 24%", query: func(*rand.Rand) recorder.Query { return recorder.Query{LossAbove: 24} }},
	{name: "over an hour", query: func(*rand.Rand) recorder.Query { return recorder.Query{DurationMin: time.Hour} }},
	{name: "under 2 s", query: func(*rand.Rand) recorder.Query { return recorder.Query{DurationMax: 2 * time.Second} }},
	{name: "longest", pages: 5, query: func(*rand.Rand) recorder.Query { return recorder.Query{Order: recorder.OrderLongest} }},
	{name: "longest of an agent", query: func(rng *rand.Rand) recorder.Query {
		return recorder.Query{Agent: scaleAgent(rng), Order: recorder.OrderLongest}
	}},
	{name: "longest of a trunk", pages: 5, query: func(rng *rand.Rand) recorder.Query {
		return recorder.Query{Trunk: fmt.Sprintf("carrier-%c", 'a'+rng.IntN(scaleTrunks)), Order: recorder.OrderLongest}
	}},
	{name: "shortest with pause, trunk", query: func(*rand.Rand) recorder.Query {
		return recorder.Query{Trunk: "carrier-b", Window: "pause", Order: recorder.OrderShortest}
	}},
	{name: "longest of a day", query: func(rng *rand.Rand) recorder.Query {
		return scaleTime(rng, recorder.Query{Order: recorder.OrderLongest}, 1)
	}},
	{name: "text, a rare word", query: func(rng *rand.Rand) recorder.Query {
		return recorder.Query{Text: strconv.Itoa(rng.IntN(scaleCustomers))}
	}},
	{name: "text, common words", query: func(rng *rand.Rand) recorder.Query {
		return recorder.Query{Text: fmt.Sprintf("queue %d billing en", zipf(rng, scaleQueues))}
	}},
	{name: "text, agent01*", query: func(rng *rand.Rand) recorder.Query { return recorder.Query{Text: scaleAgent(rng)[:7] + "*"} }},
	{name: "Call-ID that is not there", query: func(rng *rand.Rand) recorder.Query {
		return recorder.Query{SIPCallID: fmt.Sprintf("%x@x", rng.Uint64())}
	}},
	{name: "conversation not there", query: func(rng *rand.Rand) recorder.Query {
		return recorder.Query{Conversation: fmt.Sprintf("%x", rng.Uint64())}
	}},
	{name: "nothing: rare and common", query: func(rng *rand.Rand) recorder.Query {
		return recorder.Query{Agent: scaleAgent(rng), Trunk: "carrier-z"}
	}},
	{name: "nothing: common and common", query: func(*rand.Rand) recorder.Query {
		return recorder.Query{Trunk: "carrier-a", Direction: "outbound", Kind: recorder.KindStation, Codec: "opus", Flow: "night", Attrs: []string{"language=tr", "campaign=c29"}, Window: "pause", Consent: "denied"}
	}},
	{name: "nothing: gaps none, loss, long", query: func(*rand.Rand) recorder.Query {
		return recorder.Query{Gaps: recorder.GapsNo, LossAbove: 24.99, DurationMin: 3 * time.Hour, Trunk: "carrier-a"}
	}},
	{name: "nothing: 2 halves that exclude", query: func(*rand.Rand) recorder.Query {
		return recorder.Query{Kind: recorder.KindTrunk, User: "agent0000"}
	}},
	{name: "nothing: excluding, all common", query: func(*rand.Rand) recorder.Query {
		return recorder.Query{Window: "ivr", WindowMax: time.Millisecond, Direction: "inbound"}
	}},
	{name: "total of a trunk", query: func(*rand.Rand) recorder.Query { return recorder.Query{Trunk: "carrier-d", Total: true} }},
}

package catalog

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/trunktap/trunktap/media/quality"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/suppress"
)

// Words that the rows and queries of TestAgree are made of, so that they meet.
var (
	someNumbers  = []string{"+4930123456", "+49301234567", "+4989123456", "+33123456789", "100", "agent_7", "+15551230000"}
	someTrunks   = []string{"a", "b", "Carrier C"}
	someQueues   = []string{"sales", "support-1", "Ümläut"}
	someReasons  = []string{"hold", "pause", "ivr"}
	someCodecs   = []string{"PCMA", "opus"}
	someDuration = []time.Duration{time.Second, 30 * time.Second, 10 * time.Minute, time.Hour}
)

func randomRow(t *rapid.T, i int) recorder.Row {
	pick := func(name string, all []string) string { return rapid.SampledFrom(all).Draw(t, name) }
	chance := func(name string) bool { return rapid.IntRange(0, 2).Draw(t, name) == 0 }
	dur := rapid.SampledFrom(someDuration).Draw(t, "duration").Milliseconds() + rapid.Int64Range(-1, 1).Draw(t, "more")
	at := epoch.Add(time.Duration(rapid.IntRange(0, 40).Draw(t, "at")) * time.Hour)
	m := recorder.Manifest{
		Version: 1, ID: fmt.Sprintf("r%d", i), Conversation: fmt.Sprintf("c%d", i/2), Kind: recorder.KindTrunk, Trunk: pick("trunk", someTrunks), Origin: at, RealMS: dur, AudioMS: dur,
		Call: recorder.Call{
			From: "sip:" + pick("from", someNumbers) + "@example.net", To: "sip:" + pick("to", someNumbers) + "@pbx", Start: at, Direction: pick("direction", []string{"inbound", "outbound"}),
			EndCause: "bye", SIPCallID: fmt.Sprintf("id%d", i%5),
		},
		Streams: []recorder.Stream{{Codec: pick("codec", someCodecs), Quality: &quality.Account{
			MOS: rapid.SampledFrom([]float64{0, 1.9, 2.5, 3.1, 4.2}).Draw(t, "mos"), LossPct: rapid.SampledFrom([]float64{0, 0.5, 5, 12}).Draw(t, "loss"),
		}}},
		Segments: []recorder.Segment{{N: 1, Bytes: rapid.Int64Range(0, 9000).Draw(t, "bytes")}},
	}
	if chance("station") {
		m.Kind, m.User = recorder.KindStation, pick("user", []string{"alice", "bob"})
	}
	for range rapid.IntRange(0, 2).Draw(t, "windows") {
		w := rapid.SampledFrom(someDuration).Draw(t, "window").Milliseconds()
		m.Windows = append(m.Windows, recorder.Window{Reason: pick("reason", someReasons), EndRealMS: w})
	}
	if chance("gap") {
		m.Gaps = []recorder.Gap{{DurationMS: rapid.SampledFrom([]int64{20, 1000, 61_000}).Draw(t, "gap length"), Cause: "loss"}}
	}
	if chance("empty") {
		m.AudioMS = 0
	}
	if chance("attrs") {
		m.Attrs = map[string]string{"customer": pick("customer", []string{"1", "12", "Müller & Co"}), "case": fmt.Sprint(i)}
	}
	if chance("signals") {
		m.Signals = []recorder.ManifestSignal{{Event: suppress.QueueStart, Queue: pick("queue", someQueues)}, {Event: suppress.AgentJoin, User: pick("agent", []string{"alice", "carol"})}}
	}
	return recorder.Row{Manifest: m, Prefix: m.ID, Node: pick("node", []string{"", "n1"}), ManifestBytes: 100}
}

// randomQuery restricts one to three fields.
func randomQuery(t *rapid.T) recorder.Query {
	var q recorder.Query
	choose := func(all ...string) string { return rapid.SampledFrom(all).Draw(t, "value") }
	span := func() time.Duration { return rapid.SampledFrom(someDuration).Draw(t, "span") }
	fields := []func(){
		func() { q.From = epoch.Add(time.Duration(rapid.IntRange(0, 40).Draw(t, "from")) * time.Hour) },
		func() { q.To = epoch.Add(time.Duration(rapid.IntRange(0, 40).Draw(t, "to")) * time.Hour) },
		func() { q.Number = choose("123", "3456", "+493", "1 234", "4567", "agent_", "100", "777") },
		func() { q.NumberPrefix = choose("+4930", "49", "1", "0033", "agent", "10") },
		func() { q.NumberSuffix = choose("456", "3456", "100", "0000") },
		func() { q.NumberIs = choose(append(slices.Clone(someNumbers), "49 30 123456", "0049/30.123456")...) },
		func() { q.Trunk = choose(someTrunks...) },
		func() { q.Queue = choose(someQueues...) },
		func() { q.Agent = choose("alice", "bob", "carol") },
		func() { q.User = choose("alice", "bob") },
		func() { q.Kind = recorder.Kind(choose("trunk", "station")) },
		func() { q.Direction = choose("inbound", "outbound") },
		func() { q.Codec = choose("pcma", "OPUS", "g722") },
		func() { q.Party = choose("sip:+4930123456@example.net", "+4930123456", "ALICE", "agent_7@pbx") },
		func() { q.Node = choose("n1", "n2") },
		func() { q.DurationMin = span() },
		func() { q.DurationMax = span() },
		func() {
			q.Attrs = []string{choose("customer", "customer=1", "customer=Müller & Co", "case=3", "none")}
		},
		func() { q.Recorded = choose("yes", "no") },
		func() { q.Gaps = choose("yes", "no") },
		func() { q.GapsMin = span() },
		func() { q.Window = choose(someReasons...) },
		func() { q.NoWindow = choose(someReasons...) },
		func() { q.WindowMin = span() },
		func() { q.WindowMax = span() },
		func() { q.MOSBelow = rapid.SampledFrom([]float64{2, 2.5, 3.5, 4.5}).Draw(t, "mos") },
		func() { q.LossAbove = rapid.SampledFrom([]float64{0.1, 0.5, 1, 5, 10}).Draw(t, "loss") },
		func() { q.SIPCallID = choose("id1", "id4", "id9") },
		func() { q.Conversation = choose("c1", "c2") },
		func() {
			q.Text = choose("alice", "customer müller", "sup* 1", "Ümläut", "1", "example pbx", "al* customer")
		},
	}
	for range rapid.IntRange(0, 3).Draw(t, "fields") {
		fields[rapid.IntRange(0, len(fields)-1).Draw(t, "field")]()
	}
	q.Order = rapid.SampledFrom([]string{"", recorder.OrderOldest, recorder.OrderLongest, recorder.OrderShortest}).Draw(t, "order")
	q.Limit = rapid.IntRange(1, 40).Draw(t, "limit")
	return q
}

// somePaces make few rows as hard to find as many are: they are taken in steps of
// one row or two, by each of the ways there are, and each step may be a page.
var somePaces = []pace{
	{budget: testBudget, firstStep: 2000, few: 10_000, fewApart: 500, lazyShare: 20, guessShare: 100, rowShare: 200, lazyPart: 0.02, expand: 128},
	{budget: testBudget, firstStep: 2, few: 0, guessShare: 1e9, rowShare: 1e9, lazyShare: 1e9, lazyPart: 1},
	{budget: 1, firstStep: 1, few: 0, lazyShare: 1e9, lazyPart: 1},
	{budget: 1, firstStep: 2, few: 3, fewApart: 3, lazyShare: -1, guessShare: 1, rowShare: 1, lazyPart: 0.3, expand: 2},
	{budget: 1, firstStep: 1, few: 0, lazyShare: -1, lazyPart: 0.3},
}

// TestAgree: random rows, changed and deleted, and random queries: either
// engine finds what a naive look at the manifests finds, in the order asked
// for, at any pace, and the account is the sum of what is there.
func TestAgree(t *testing.T) {
	eachEngine(t, func(t *testing.T, open func() *Catalog) {
		c := open()
		rapid.Check(t, func(rt *rapid.T) {
			for _, id := range pages(t, c, recorder.Query{}) { // left by a failure before
				if err := c.Delete(context.Background(), id); err != nil {
					rt.Fatal(err)
				}
			}
			rows := map[string]recorder.Row{}
			for i := range rapid.IntRange(1, 30).Draw(rt, "rows") {
				r := randomRow(rt, i)
				rows[r.Manifest.ID] = r
			}
			for i := range rapid.IntRange(0, 4).Draw(rt, "changes") { // of some of them
				r := randomRow(rt, i)
				mustSave(rt, c, rows)
				rows[r.Manifest.ID] = r
			}
			mustSave(rt, c, rows)
			var list []recorder.Row
			for _, r := range rows {
				list = append(list, r)
			}
			for range 8 {
				q := randomQuery(rt)
				if q.Check() != nil || len(q.NumberSuffix) > 0 && len(q.NumberSuffix) < 3 {
					continue
				}
				c.pace = rapid.SampledFrom(somePaces).Draw(rt, "pace")
				got := pages(t, c, q)
				if d := gocmp.Diff(sorted(naive(list, q)), sorted(got)); d != "" {
					rt.Fatalf("%+v (-want +got):\n%s", q, d)
				}
				checkOrder(t, list, q, got)
			}
			checkUsage(t, c)
			for id := range rows {
				if err := c.Delete(context.Background(), id); err != nil {
					rt.Fatal(err)
				}
			}
			if left, err := c.Usage(context.Background(), recorder.UsageQuery{}); err != nil || len(left) != 0 {
				rt.Fatalf("nothing is stored, the account says %+v, %v", left, err)
			}
		})
	})
}

func mustSave(t *rapid.T, c *Catalog, rows map[string]recorder.Row) {
	var list []recorder.Row
	for _, r := range rows {
		list = append(list, r)
	}
	if err := c.SaveAll(context.Background(), list); err != nil {
		t.Fatal(err)
	}
}

package catalog

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/trunktap/trunktap/media/quality"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/catalog/pgtest"
	"github.com/trunktap/trunktap/suppress"
)

// scaleUsage accounts for the rows that were put in without their accounts.
const scaleUsage = `INSERT INTO usage SELECT day, trunk, user_name, kind, store, node, count(*), sum(audio_ms), sum(bytes), sum(manifest_bytes), sum(other_bytes)
	FROM recordings GROUP BY 1, 2, 3, 4, 5, 6`

// What the recordings of TestScale are made of.
const (
	scaleTrunks    = 12
	scaleAgents    = 3000
	scaleQueues    = 40
	scaleCallers   = 3_000_000
	scaleCustomers = 1_000_000
	scaleCopies    = 10 // of what is generated: the same calls at other times, with identities of their own
	scaleSpan      = 365 * 24 * time.Hour / scaleCopies
)

var scaleEnd = time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC)

// zipf prefers low numbers.
func zipf(rng *rand.Rand, n int) int { return int(float64(n) * math.Pow(rng.Float64(), 2.5)) }

func scaleCaller(rng *rand.Rand) string {
	n := rng.IntN(scaleCallers)
	h := uint64(n) * 0x9E3779B97F4A7C15
	switch {
	case n%100 < 85:
		return fmt.Sprintf("+49%d%07d", []int{30, 40, 89, 221, 69, 711, 151, 160, 170, 176}[h%10], h/10%10_000_000)
	default:
		return fmt.Sprintf("+%d%010d", []int{1, 33, 44, 39, 41, 43}[h%6], h/7%10_000_000_000)
	}
}

func pick[T any](rng *rand.Rand, all ...T) T { return all[rng.IntN(len(all))] }

// scaleRow is a recording as a contact centre has them.
func scaleRow(rng *rand.Rand, at time.Time, id string) recorder.Row {
	agent, queue := zipf(rng, scaleAgents), zipf(rng, scaleQueues)
	dur := int64(1000 * min(math.Exp(5.2+1.0*rng.NormFloat64()), 4*3600))
	m := recorder.Manifest{
		Version: 1, ID: id, Conversation: id, Kind: recorder.KindTrunk, Trunk: fmt.Sprintf("carrier-%c", 'a'+zipf(rng, scaleTrunks)), Format: "ogg-opus",
		SampleRate: 8000, Origin: at, RealMS: dur, AudioMS: dur * 7 / 10, Suppressed: "cut",
		Call: recorder.Call{
			SIPCallID: fmt.Sprintf("%016x%016x@sbc.example.net", rng.Uint64(), rng.Uint64()), Direction: "inbound", From: "sip:" + scaleCaller(rng) + "@carrier.example.net",
			To: fmt.Sprintf("sip:+4930555%04d@pbx.example.net", zipf(rng, 3000)), Start: at.Add(-4 * time.Second), Answer: at,
			End: at.Add(time.Duration(dur) * time.Millisecond), EndCause: "bye",
		},
		Streams: []recorder.Stream{scaleStream(rng, 0), scaleStream(rng, 1)},
		Attrs:   map[string]string{"customer": strconv.Itoa(rng.IntN(scaleCustomers)), "campaign": fmt.Sprintf("c%d", zipf(rng, 30)), "language": pick(rng, "de", "de", "de", "en", "tr")},
		Signals: []recorder.ManifestSignal{
			{Event: suppress.IVRStart, Flow: pick(rng, "main", "main", "billing", "night")},
			{Event: suppress.QueueStart, Queue: fmt.Sprintf("queue-%d", queue)},
			{Event: suppress.AgentJoin, User: fmt.Sprintf("agent%04d", agent)},
		},
	}
	m.Segments = []recorder.Segment{{N: 1, File: "0001.seg", EndRealMS: dur, DurationMS: m.AudioMS, Bytes: m.AudioMS * 3, SHA256: fmt.Sprintf("%064x", rng.Uint64()), Parties: []string{m.Call.From, fmt.Sprintf("agent%04d", agent)}}}
	if rng.IntN(10) < 3 {
		m.Call.Direction = "outbound"
		m.Call.From, m.Call.To = m.Call.To, m.Call.From
	}
	switch n := rng.IntN(1000); {
	case n < 120:
		m.Kind, m.User = recorder.KindStation, fmt.Sprintf("agent%04d", agent)
	case n < 140:
		m.Kind, m.User = recorder.KindConsult, fmt.Sprintf("agent%04d", agent)
	case n < 143:
		m.Kind, m.User = recorder.KindAdhoc, fmt.Sprintf("agent%04d", agent)
	}
	scaleAccount(rng, &m)
	return recorder.Row{Manifest: m, Prefix: at.Format("2006/01/02/") + id, Node: pick(rng, "rec1", "rec2"), ManifestBytes: 2100}
}

func scaleStream(rng *rand.Rand, ch int) recorder.Stream {
	q := &quality.Account{MOS: 4.1 + 0.3*rng.Float64(), JitterMS: rng.Float64() * 5, PacketMS: 20}
	switch n := rng.IntN(1000); {
	case n < 5:
		q.MOS, q.LossPct = 1.5+1.5*rng.Float64(), 5+20*rng.Float64()
	case n < 30:
		q.MOS, q.LossPct = 3.2+0.6*rng.Float64(), 1+2*rng.Float64()
	}
	return recorder.Stream{Channel: ch, SSRC: rng.Uint32(), Codec: pick(rng, "PCMA", "PCMA", "PCMA", "PCMU", "G722", "opus"), Packets: 9000, Quality: q}
}

// scaleAccount adds windows, gaps and ends.
func scaleAccount(rng *rand.Rand, m *recorder.Manifest) {
	at := int64(0)
	window := func(percent int, reason string, most int64) {
		if rng.IntN(100) < percent && at+most < m.RealMS {
			d := 1000 + rng.Int64N(most)
			m.Windows = append(m.Windows, recorder.Window{Reason: reason, RealMS: at, EndRealMS: at + d, AudioMS: 0, Source: "sdp"})
			at += d
		}
	}
	window(60, "ivr", 30_000)
	window(50, "queue", 90_000)
	window(25, "hold", 60_000)
	window(6, "pause", 40_000)
	switch n := rng.IntN(1000); {
	case n < 5:
		m.Windows, m.AudioMS, m.Segments, m.Consent = append(m.Windows, recorder.Window{Reason: "consent", EndRealMS: m.RealMS}), 0, nil, "denied"
	case n < 35:
		m.Gaps = []recorder.Gap{{RealMS: 5, DurationMS: 20 + rng.Int64N(4000), Cause: pick(rng, "loss", "loss", "late", "absent")}}
	case n < 40:
		m.Call.EndCause = pick(rng, "timeout", "crash", "media_silence")
	}
}

// generate makes rows in order of time and gives them away in batches. Their
// manifests are of a pool, because packing ten million takes an hour.
func generate(t *testing.T, n, batch int, save func([]row) error) {
	rng := rand.New(rand.NewPCG(7, 7))
	var pool [][]byte
	for i := range 500 {
		r := scaleRow(rng, scaleEnd, fmt.Sprintf("20261122t200000z-%016x", i))
		js, err := json.Marshal(r.Manifest)
		if err != nil {
			t.Fatal(err)
		}
		b, err := pack(js)
		if err != nil {
			t.Fatal(err)
		}
		pool = append(pool, b)
	}
	t.Logf("a manifest is packed into %d bytes", len(pool[0]))
	step := (scaleSpan - 2*time.Minute) / time.Duration(n)
	rows := make([]row, 0, batch)
	began := time.Now()
	for i := range n {
		at := scaleEnd.Add(-time.Duration(n-i) * step).Add(time.Duration(rng.Int64N(int64(time.Minute))))
		r := scaleRow(rng, at, at.Format("20060102t150405z-")+fmt.Sprintf("%016x", rng.Uint64()))
		rows = append(rows, scaleEncode(&r, pool[i%len(pool)]))
		if len(rows) == batch || i == n-1 {
			if err := save(rows); err != nil {
				t.Fatal(err)
			}
			rows = rows[:0]
		}
		if i > 0 && i%500_000 == 0 {
			t.Logf("%d rows, %v", i, time.Since(began).Round(time.Second))
		}
	}
}

// scaleEncode is encodeRow with a packed manifest that is at hand.
func scaleEncode(r *recorder.Row, packed []byte) row {
	m := &r.Manifest
	sum := measure(m)
	windows, _ := json.Marshal(sum.windows) // a map of numbers
	p := numberPlan{}
	out := row{
		Key: micros(m.Origin), ID: m.ID, OriginNS: nanos(m.Origin), Prefix: r.Prefix, FromNumber: p.numberOf(m.Call.From), ToNumber: p.numberOf(m.Call.To),
		RealMS: m.RealMS, AudioMS: m.AudioMS, SuppressedMS: sum.suppressedMS, GapMS: sum.gapMS, MOS: sum.mos, Loss: sum.loss, Windows: string(windows),
		usageKey: usageKey{Day: m.Origin.Format(time.DateOnly), Trunk: m.Trunk, User: m.User, Kind: string(m.Kind), Node: r.Node}, manifest: packed,
		ManifestBytes: r.ManifestBytes, Bytes: m.AudioMS * 3,
	}
	out.Terms.terms = termsOf(r, sum, out.FromNumber, out.ToNumber)
	return out
}

// scaleHours are the terms of the hours of a key, in SQL.
func scaleHours(key string) string {
	var list []string
	for level := range hourLevels {
		list = append(list, fmt.Sprintf("'3%d' || to_hex(((%s) / 3600000000 + %d) / %d)", level, key, hourZero, 1<<(3*level)))
	}
	return "ARRAY[" + strings.Join(list, ", ") + "]"
}

// loadPostgres copies rows into tables without indexes, and makes these at the end.
func loadPostgres(t *testing.T, pg *pgtest.Cluster, c *Catalog, database string, rows int) {
	ctx := context.Background()
	mustSQL := func(text string) {
		t.Helper()
		began := time.Now()
		if _, err := pg.SQL(database, text); err != nil {
			t.Fatal(err)
		}
		t.Logf("%.40s: %v", text, time.Since(began).Round(time.Second))
	}
	mustSQL("DROP INDEX recordings_terms; DROP INDEX recordings_duration; ALTER TABLE recordings DROP CONSTRAINT recordings_pkey; ALTER TABLE recordings DROP CONSTRAINT recordings_id_key; ALTER TABLE manifests DROP CONSTRAINT manifests_pkey")
	cfg, err := pgx.ParseConfig(pg.URL(database))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	last := int64(0)
	generate(t, rows/scaleCopies, 20_000, func(rows []row) error {
		var a, b strings.Builder
		rows = lastOfEach(rows)
		for i := range rows {
			r := &rows[i]
			r.Key = max(r.Key, last+1)
			last = r.Key
			r.ID = "0" + r.ID
			fmt.Fprintf(&a, "%d\t%s\t%d\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%g\t%g\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\n", r.Key, r.ID, r.OriginNS, r.Prefix, r.FromNumber, r.ToNumber,
				r.RealMS, r.AudioMS, r.SuppressedMS, r.GapMS, r.MOS, r.Loss, r.Windows, strings.Join(slices.Concat(r.Terms.short, r.Terms.other, timeTerms(r.Key)), " "),
				r.Day, r.Trunk, r.User, r.Kind, r.Store, r.Node, r.Bytes, r.ManifestBytes, r.OtherBytes, r.Spooled)
			fmt.Fprintf(&b, "%d\t\\\\x%x\n", r.Key, r.manifest)
		}
		for table, r := range map[string]io.Reader{"recordings": strings.NewReader(a.String()), "manifests": strings.NewReader(b.String())} {
			if _, err := conn.PgConn().CopyFrom(ctx, r, "COPY "+table+" FROM STDIN"); err != nil {
				return err
			}
		}
		return nil
	})
	span := scaleSpan.Microseconds()
	for i := 1; i < scaleCopies; i++ {
		shift := int64(i)*span + int64(i)
		mustSQL(fmt.Sprintf(`INSERT INTO recordings SELECT key - %[1]d, %[2]d || substr(id, 2), origin_ns - %[1]d * 1000, prefix, from_number, to_number, real_ms, audio_ms, suppressed_ms, gap_ms, mos, loss, windows, ts_delete(terms, %[4]s) || array_to_tsvector(%[5]s),
			to_char(to_timestamp((key - %[1]d) / 1000000) AT TIME ZONE 'UTC', 'YYYY-MM-DD'), trunk, user_name, kind, store, node, bytes, manifest_bytes, other_bytes, spooled FROM recordings WHERE key > %[3]d;
			INSERT INTO manifests SELECT key - %[1]d, manifest FROM manifests WHERE key > %[3]d`, shift, i, scaleEnd.UnixMicro()-span+90_000_000, scaleHours("key"), scaleHours(fmt.Sprintf("key - %d", shift))))
	}
	for _, s := range []string{
		scaleUsage, "ALTER TABLE recordings ADD PRIMARY KEY (key)", "ALTER TABLE recordings ADD UNIQUE (id)", "ALTER TABLE manifests ADD PRIMARY KEY (key)",
		"CREATE INDEX recordings_duration ON recordings (real_ms, key)", "CREATE INDEX recordings_terms ON recordings USING gin (terms) WITH (fastupdate = off)",
		"VACUUM ANALYZE recordings", "VACUUM ANALYZE manifests", "CHECKPOINT",
	} {
		mustSQL(s)
	}
}

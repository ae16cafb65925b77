package siprec

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

const plain = `<?xml version="1.0" encoding="UTF-8"?>
<recording xmlns="urn:ietf:params:xml:ns:recording:1" xmlns:v="urn:example:v">
 <datamode>complete</datamode>
 <group group_id="Zm9vYmFyYmF6cXV4eHl6MQ=="><associate-time>2026-01-02T03:04:05Z</associate-time></group>
 <session session_id="c2Vzc2lvbi1vbmUtMTIzNA==">
  <sipSessionID>ab30317f1a784dc48ff824d0d3715d86;remote=47755a9de7794ba387653f2099600ef2</sipSessionID>
  <reason protocol="SIP">moved</reason>
  <group-ref>Zm9vYmFyYmF6cXV4eHl6MQ==</group-ref>
  <start-time>2026-01-02T03:04:05.250Z</start-time>
 </session>
 <participant participant_id="cGFydHktb25lLTEyMzQ1Ng==">
  <nameID aor="sip:4420@pbx.example"><name xml:lang="en">Ann</name><name xml:lang="it">Anna</name></nameID>
  <nameID aor="tel:+4930123"/>
  <v:skill level="3"><v:queue>billing</v:queue></v:skill>
 </participant>
 <participant participant_id="cGFydHktdHdvLTEyMzQ1Ng=="><nameID aor="sip:+4989555@carrier.example"/></participant>
 <stream stream_id="c3RyZWFtLW9uZS0xMjM0NQ==" session_id="c2Vzc2lvbi1vbmUtMTIzNA=="><label>96</label></stream>
 <stream stream_id="c3RyZWFtLXR3by0xMjM0NQ==" session_id="c2Vzc2lvbi1vbmUtMTIzNA=="><label>97</label><content-type>audio</content-type></stream>
 <sessionrecordingassoc session_id="c2Vzc2lvbi1vbmUtMTIzNA=="><associate-time>2026-01-02T03:04:05Z</associate-time></sessionrecordingassoc>
 <participantsessionassoc participant_id="cGFydHktb25lLTEyMzQ1Ng==" session_id="c2Vzc2lvbi1vbmUtMTIzNA==">
  <associate-time>2026-01-02T03:04:05Z</associate-time><param pname="role" pval="agent"/></participantsessionassoc>
 <participantstreamassoc participant_id="cGFydHktb25lLTEyMzQ1Ng==">
  <send>c3RyZWFtLW9uZS0xMjM0NQ==</send><recv>c3RyZWFtLXR3by0xMjM0NQ==</recv></participantstreamassoc>
 <participantstreamassoc participant_id="cGFydHktdHdvLTEyMzQ1Ng==">
  <send>c3RyZWFtLXR3by0xMjM0NQ==</send><recv>c3RyZWFtLW9uZS0xMjM0NQ==</recv></participantstreamassoc>
 <v:ucid>00011</v:ucid>
</recording>`

func parse(t *testing.T, text string) *Metadata {
	t.Helper()
	m, err := Parse([]byte(text))
	if err != nil {
		t.Fatalf("Parse: %v", err)
	}
	return m
}

func TestParseComplete(t *testing.T) {
	m := parse(t, plain)
	if m.Mode != Complete || len(m.Faults) != 0 {
		t.Fatalf("mode %q, faults %v", m.Mode, m.Faults)
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	ses := m.Sessions[0]
	if len(ses.SIPSessionIDs) != 1 || ses.GroupRef != m.Groups[0].ID || !ses.Start.Equal(at.Add(250*time.Millisecond)) ||
		!slices.Equal(ses.Reasons, []Reason{{"SIP", "moved"}}) {
		t.Errorf("session %+v", ses)
	}
	ann := m.Participants[0]
	want := []NameID{{"sip:4420@pbx.example", "Ann", "en"}, {"sip:4420@pbx.example", "Anna", "it"}, {"tel:+4930123", "", ""}}
	if d := cmp.Diff(want, ann.Names); d != "" {
		t.Error(d)
	}
	if q, ok := ann.Value("queue"); !ok || q != "billing" || !strings.HasPrefix(ann.Extensions[0].XML, `<v:skill level="3">`) {
		t.Errorf("extension %+v", ann.Extensions)
	}
	if p := m.Memberships[0]; p.Params[0] != (Value{"role", "agent"}) || !p.Associate.Equal(at) || p.Left() {
		t.Errorf("membership %+v", p)
	}
	s, ok := m.Labelled("97")
	if senders := m.Senders(s.ID); !ok || len(senders) != 1 || senders[0].AOR() != "sip:+4989555@carrier.example" {
		t.Errorf("senders of 97: %+v", senders)
	}
	if len(m.Extensions) != 1 || m.Extensions[0].Values[0] != (Value{"ucid", "00011"}) {
		t.Errorf("extensions %+v", m.Extensions)
	}
}

// The forms that clients write which read drafts: all tell of two participants who
// send one stream each.
func TestParseDialects(t *testing.T) {
	docs := map[string]string{
		"draft, ids and sends inside the participant, no version of the namespace": `<recording xmlns='urn:ietf:params:xml:ns:recording'>
<dataMode>complete</dataMode><session id="urn:uuid:6a1f3c4e-0000-4000-8000-000000000001"><start-time>2026-01-02T03:04:05</start-time></session>
<participant id="urn:uuid:6a1f3c4e-0000-4000-8000-00000000000a" session="urn:uuid:6a1f3c4e-0000-4000-8000-000000000001">
<aor>sip:a@x.example</aor><name>A</name><send>urn:uuid:6a1f3c4e-0000-4000-8000-0000000000aa</send><start-time>2026-01-02T03:04:05</start-time></participant>
<participant id="urn:uuid:6a1f3c4e-0000-4000-8000-00000000000b" session="urn:uuid:6a1f3c4e-0000-4000-8000-000000000001">
<nameID aor="sip:b@x.example"><name>B</name></nameID><send>urn:uuid:6a1f3c4e-0000-4000-8000-0000000000bb</send><associate-time>2026-01-02T03:04:05</associate-time></participant>
<stream id="urn:uuid:6a1f3c4e-0000-4000-8000-0000000000aa" session="urn:uuid:6a1f3c4e-0000-4000-8000-000000000001"><label>1</label><mode>separate</mode></stream>
<stream id="urn:uuid:6a1f3c4e-0000-4000-8000-0000000000bb" session="urn:uuid:6a1f3c4e-0000-4000-8000-000000000001"><label>2</label><mode>separate</mode></stream></recording>`,
		"prefixed, no data mode, mixed id encodings": `<ns1:recording xmlns:ns1="urn:ietf:params:xml:ns:recording:1">
<ns1:participant participant_id="p1"><ns1:nameID><ns1:aor>sip:a@x.example</ns1:aor><ns1:name>A</ns1:name></ns1:nameID></ns1:participant>
<ns1:participant participant_id="p2"><ns1:nameID aor="sip:b@x.example"/></ns1:participant>
<ns1:stream stream_id="{6A1F3C4E-0000-4000-8000-0000000000AA}"><ns1:label>1</ns1:label></ns1:stream><ns1:stream stream_id="s2" label="2"/>
<ns1:participantstreamassoc participant_id="p1"><ns1:send>ah88TgAAQACAAAAAAAAAqg==</ns1:send></ns1:participantstreamassoc>
<ns1:participantstreamassoc participant_id="p2"><ns1:send> s2 </ns1:send><ns1:send></ns1:send></ns1:participantstreamassoc></ns1:recording>`,
		"camel case, undeclared prefix, unclosed element, ampersand": `<recording_metadata xmlns="urn:ietf:params:xml:ns:siprec"><DataMode>Complete</DataMode>
<participant participantId="p1"><nameId aor="sip:a@x.example"><name>A & C</name></nameId><w:x>1</w:x></participant>
<participant participantId="p2"><nameId aor="sip:b@x.example"/></participant>
<stream streamId="s1"><label>1</label></stream><stream streamId="s2"><label>2</label></stream>
<participantStreamAssoc participantId="p1"><send>s1</send></participantStreamAssoc>
<participantStreamAssoc participantId="p2"><send>s2</send></participantStreamAssoc><other><b></other></recording_metadata>`,
	}
	for name, doc := range docs {
		t.Run(name, func(t *testing.T) {
			m := parse(t, "\r\n  "+doc+"\r\n--boundary--")
			for label, aor := range map[string]string{"1": "sip:a@x.example", "2": "sip:b@x.example"} {
				s, ok := m.Labelled(label)
				if senders := m.Senders(s.ID); !ok || len(senders) != 1 || senders[0].AOR() != aor {
					t.Errorf("label %s: %+v of %+v", label, senders, m)
				}
			}
		})
	}
}

func TestParseEncodings(t *testing.T) {
	text := strings.Replace(plain, `>Ann<`, ">Änn<", 1)
	wide := func(order func(uint16) []byte, bom bool) []byte {
		units := utf16.Encode([]rune(strings.Replace(text, "UTF-8", "UTF-16", 1)))
		if bom {
			units = append([]uint16{0xFEFF}, units...)
		}
		var out []byte
		for _, u := range units {
			out = append(out, order(u)...)
		}
		return out
	}
	big := func(u uint16) []byte { return []byte{byte(u >> 8), byte(u)} }
	little := func(u uint16) []byte { return []byte{byte(u), byte(u >> 8)} }
	for name, doc := range map[string][]byte{
		"UTF-8":                  []byte(text),
		"UTF-8 with mark":        append([]byte{0xEF, 0xBB, 0xBF}, text...),
		"UTF-16 big, mark":       wide(big, true),
		"UTF-16 little, mark":    wide(little, true),
		"UTF-16 big, no mark":    wide(big, false),
		"UTF-16 little, no mark": wide(little, false),
		"ISO 8859-1":             []byte(strings.Replace(strings.Replace(text, "UTF-8", "ISO-8859-1", 1), "Ä", "\xc4", 1)),
		"unknown name":           []byte(strings.Replace(text, "UTF-8", "X-KLINGON", 1)),
	} {
		m, err := Parse(doc)
		if err != nil || len(m.Participants) != 2 || m.Participants[0].Name() != "Änn" || len(m.Faults) != 0 {
			t.Errorf("%s: %v, %+v", name, err, m)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		doc  string
		want error
	}{
		"nothing":          {"", ErrNotMetadata},
		"another document": {`<presence xmlns="urn:ietf:params:xml:ns:pidf"/>`, ErrNotMetadata},
		"text":             {"IAM,\r\nGCI,9103", ErrNotMetadata},
		"entities":         {`<!DOCTYPE r [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><recording>&b;</recording>`, ErrEntities},
		"too long":         {"<recording>" + strings.Repeat(" ", MetadataBytesMax) + "</recording>", ErrTooLarge},
		"too deep":         {"<recording>" + strings.Repeat("<a>", metadataDepthMax), ErrTooLarge},
		"too many":         {"<recording>" + strings.Repeat("<a/>", metadataNodesMax), ErrTooLarge},
	} {
		if _, err := Parse([]byte(c.doc)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// Whatever is left out is said, and what was whole before it is kept.
func TestParseKeepsWhatIsWhole(t *testing.T) {
	cut := parse(t, plain[:strings.Index(plain, "<sessionrecordingassoc")])
	if len(cut.Streams) != 2 || len(cut.Faults) != 1 || !strings.Contains(cut.Faults[0], "breaks off") {
		t.Errorf("%+v", cut)
	}
	m := parse(t, `<recording><datamode>sometimes</datamode><participant/><session session_id="s"><start-time>yesterday</start-time></session>`+
		strings.Repeat(`<stream stream_id="x"/>`, metadataItemsMax+9)+`</recording>`)
	if len(m.Streams) != metadataItemsMax || len(m.Faults) < 4 || len(m.Faults) > metadataFaultsMax {
		t.Errorf("%d streams, faults %q", len(m.Streams), m.Faults)
	}
	for _, f := range m.Faults {
		if strings.Contains(f, "yesterday") || strings.Contains(f, "sometimes") {
			t.Errorf("a fault with a value: %q", f)
		}
	}
}

func TestSnapshotRequest(t *testing.T) {
	want := SnapshotRequest{Reason: "restarted < twice", Lang: "en"}
	m := parse(t, string(AppendSnapshotRequest(nil, want)))
	if m.SnapshotRequest == nil || *m.SnapshotRequest != want {
		t.Fatalf("%+v", m.SnapshotRequest)
	}
	in := parse(t, `<recording xmlns="urn:ietf:params:xml:ns:recording:1"><requestsnapshot/></recording>`)
	if in.SnapshotRequest == nil {
		t.Fatal("inside a recording it is not found")
	}
}

func TestMergePartial(t *testing.T) {
	var none Metadata
	m, missing := none.Merge(parse(t, plain))
	if len(missing) != 0 {
		t.Fatalf("missing %v", missing)
	}
	join := `<recording><datamode>partial</datamode>
<participant participant_id="p3"><nameID aor="sip:c@x.example"/></participant>
<participantsessionassoc participant_id="p3" session_id="c2Vzc2lvbi1vbmUtMTIzNA=="><associate-time>2026-01-02T03:05:00Z</associate-time></participantsessionassoc>
<stream stream_id="s3"><label>98</label></stream><participantstreamassoc participant_id="p3"><send>s3</send></participantstreamassoc></recording>`
	m, missing = m.Merge(parse(t, join))
	if len(missing) != 0 || len(m.Participants) != 3 || len(m.Senders("s3")) != 1 {
		t.Fatalf("after the join: missing %v, %+v", missing, m)
	}
	hold := `<recording><datamode>partial</datamode><participantstreamassoc participant_id="cGFydHktb25lLTEyMzQ1Ng==">
<recv>c3RyZWFtLXR3by0xMjM0NQ==</recv></participantstreamassoc>
<participantstreamassoc participant_id="cGFydHktdHdvLTEyMzQ1Ng=="><send>c3RyZWFtLXR3by0xMjM0NQ==</send>
<disassociate-time>2026-01-02T03:06:00Z</disassociate-time></participantstreamassoc></recording>`
	held, _ := m.Merge(parse(t, hold))
	for _, id := range []string{"c3RyZWFtLW9uZS0xMjM0NQ==", "c3RyZWFtLXR3by0xMjM0NQ=="} {
		if len(held.Senders(id)) != 0 || len(m.Senders(id)) != 1 {
			t.Errorf("stream %s: %v after, %v in the snapshot before", id, held.Senders(id), m.Senders(id))
		}
	}
	leave := `<recording><datamode>partial</datamode><participantsessionassoc participant_id="p3" session_id="c2Vzc2lvbi1vbmUtMTIzNA==">
<disassociate-time>2026-01-02T03:07:00Z</disassociate-time></participantsessionassoc></recording>`
	left, _ := held.Merge(parse(t, leave))
	if !left.Left("p3") || held.Left("p3") || len(left.Senders("s3")) != 0 {
		t.Errorf("left: %+v", left.Memberships)
	}
	back, _ := left.Merge(parse(t, join))
	if back.Left("p3") || len(back.Senders("s3")) != 1 {
		t.Errorf("came back: %+v", back.Memberships)
	}
	_, missing = none.Merge(parse(t, hold))
	if len(missing) != 3 || !strings.HasPrefix(missing[0], "participant ") {
		t.Errorf("a partial document alone misses %v", missing)
	}
}

func TestMergeWithoutMode(t *testing.T) {
	known := parse(t, plain)
	bare := parse(t, `<recording><participant participant_id="cGFydHktb25lLTEyMzQ1Ng=="><nameID aor="sip:4421@pbx.example"/></participant></recording>`)
	m, _ := known.Merge(bare)
	if len(m.Participants) != 2 || m.Participants[0].AOR() != "sip:4421@pbx.example" || len(m.Streams) != 2 {
		t.Errorf("%+v", m)
	}
	full := parse(t, strings.Replace(plain, "<datamode>complete</datamode>", "", 1))
	full.Participants = full.Participants[:1]
	if m, _ = known.Merge(full); len(m.Participants) != 1 {
		t.Errorf("%d participants after a whole document without data mode", len(m.Participants))
	}
}

func TestSameID(t *testing.T) {
	uuid := "6a1f3c4e-0000-4000-8000-0000000000aa"
	for _, s := range []string{"urn:uuid:" + uuid, "{" + strings.ToUpper(uuid) + "}", strings.ReplaceAll(uuid, "-", ""), "ah88TgAAQACAAAAAAAAAqg==", "ah88TgAAQACAAAAAAAAAqg", " " + uuid} {
		if !SameID(uuid, s) {
			t.Errorf("%q is not %q", s, uuid)
		}
	}
	if SameID("a", "A") || SameID(uuid, strings.Replace(uuid, "aa", "ab", 1)) {
		t.Error("different ids are the same")
	}
}

// genMetadata draws documents in their canonical form.
func genMetadata(t *rapid.T) *Metadata {
	word := rapid.StringMatching(`[a-z][a-zA-Z0-9<>&"' äß+:@.-]{0,12}[a-z]`)
	id := rapid.StringMatching(`[a-z0-9]{4}`)
	when := func(name string) time.Time {
		return time.Unix(rapid.Int64Range(1, 4e9).Draw(t, name), rapid.Int64Range(0, 999).Draw(t, name)*1e6).UTC()
	}
	m := &Metadata{Mode: rapid.SampledFrom([]DataMode{Complete, Partial}).Draw(t, "mode")}
	for range rapid.IntRange(0, 3).Draw(t, "sessions") {
		m.Sessions = append(m.Sessions, Session{ID: id.Draw(t, "id"), SIPSessionIDs: []string{word.Draw(t, "sid")}, Start: when("start"), GroupRef: id.Draw(t, "group")})
	}
	for range rapid.IntRange(0, 3).Draw(t, "participants") {
		p := Participant{ID: id.Draw(t, "id"), Names: []NameID{{AOR: word.Draw(t, "aor"), Name: word.Draw(t, "name"), Lang: "en"}}}
		m.Participants = append(m.Participants, p)
		m.Memberships = append(m.Memberships, ParticipantSession{Participant: p.ID, Session: id.Draw(t, "session"), Associate: when("from"), Params: []Value{{"a", word.Draw(t, "param")}}})
		m.Flows = append(m.Flows, ParticipantStream{Participant: p.ID, Send: []string{id.Draw(t, "send")}, Recv: []string{id.Draw(t, "recv")}, Disassociate: when("to")})
	}
	for range rapid.IntRange(0, 3).Draw(t, "streams") {
		m.Streams = append(m.Streams, Stream{ID: id.Draw(t, "id"), Session: id.Draw(t, "session"), Label: word.Draw(t, "label"), Mixed: rapid.Bool().Draw(t, "mixed")})
	}
	if rapid.Bool().Draw(t, "extended") {
		m.Extensions = []Extension{{Name: "x", XML: `<v:x xmlns:v="urn:v">1</v:x>`, Values: []Value{{"x", "1"}}}}
		m.Prefixes = []Prefix{{"v", "urn:v"}}
	}
	return m
}

func TestWriteIsRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := genMetadata(t)
		text := want.Append(nil)
		got, err := Parse(text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("%s\n%s", d, text)
		}
	})
}

// A partial document applied twice is applied once; a complete one brings exactly
// what it has.
func TestMergeProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var none Metadata
		first, update := genMetadata(t), genMetadata(t)
		known, _ := none.Merge(first)
		before := string(known.Append(nil))
		once, _ := known.Merge(update)
		twice, _ := once.Merge(update)
		if string(known.Append(nil)) != before {
			t.Fatal("Merge changed the snapshot it was given")
		}
		once.Extensions, twice.Extensions = nil, nil // those of the whole recording add up
		if a, b := once.Append(nil), twice.Append(nil); string(a) != string(b) {
			t.Fatalf("once %s\ntwice %s", a, b)
		}
		if update.Mode == Complete && len(once.Participants) != len(update.Participants) {
			t.Fatal("something else than the complete document is left")
		}
	})
}

func TestFixtures(t *testing.T) {
	dir := filepath.FromSlash("../../../shared/fixtures/public/siprec")
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) == 0 {
		t.Skip("no SIPREC fixtures in ../shared/fixtures/public/siprec")
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		i := strings.Index(string(text), "<?xml")
		if i < 0 {
			continue
		}
		m, err := Parse(text[i:])
		if err != nil || len(m.Participants) == 0 || len(m.Streams) == 0 || len(m.Faults) != 0 {
			t.Errorf("%s: %v, %+v", filepath.Base(f), err, m)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(plain), []byte(`<recording><datamode>partial</datamode></recording>`))
	f.Add([]byte("\xff\xfe<\x00r\x00"), []byte(`<recording><participant id="a" session="b"><send>c</send><associate-time>x</associate-time></participant>`))
	f.Add([]byte(`<a:recording><b></recording>`), []byte(`<requestsnapshot><requestreason>x`))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		first, err := Parse(a)
		if err != nil {
			return
		}
		if len(first.Faults) > metadataFaultsMax {
			t.Fatalf("%d faults", len(first.Faults))
		}
		again, err := Parse(first.Append(nil))
		if err == nil && len(again.Participants) > len(first.Participants) {
			t.Fatalf("writing made participants: %+v, %+v", first, again)
		}
		if err != nil && !errors.Is(err, ErrTooLarge) {
			t.Fatalf("what was written cannot be read: %v\n%s", err, first.Append(nil))
		}
		if second, err := Parse(b); err == nil {
			next, _ := first.Merge(second)
			next.Append(nil)
		}
	})
}

package siptest

import "strings"

// Tones of the parties of all dialects, in Hz: what is heard shows who it is.
const (
	ExternalTone = 440.0
	InternalTone = 1000.0
)

// Dialect is the way in which one kind of recording client tells of a call between
// sip:+4930901820@carrier.example, who is external, and sip:4711@pbx.example. The
// messages are our own, in the shape of that client's.
type Dialect struct {
	Name    string
	Dialogs []DialectDialog
	Mixed   bool     // one stream carries both parties
	Source  []string // what the source's configuration must say, as lines of YAML
	Kept    bool     // something of its metadata is no RFC 7865 and is kept verbatim
	SideBy  string   // how the sides are found
}

// DialectDialog is one INVITE. Bodies hold {ip}, {port1}, {port2}; see
// SRCDialog.Expand.
type DialectDialog struct {
	From        string // "" for one that names the client alone
	Headers     []Header
	ContentType string
	Body        string
	Tones       []float64 // by stream
}

// Paused returns the body with all streams inactive.
func (d DialectDialog) Paused() string {
	return strings.NewReplacer("a=sendonly", "a=inactive", "a=sendrecv", "a=inactive").Replace(d.Body)
}

const internalDomain = `internal_domains: [pbx.example]`

// Dialects are those that the tests of the server speak.
func Dialects() []Dialect {
	return []Dialect{
		oracle(), audiocodes(), cube(), builtInBridge(), ribbon(), metaswitch(), broadworks(), webex(), avaya(), netsapiens(), opensips(),
	}
}

var siprecHeaders = []Header{{"Require", "siprec"}, {"Accept", "application/sdp, application/rs-metadata, application/rs-metadata-request"}}

// crlf makes the lines of a text those of the wire.
func crlf(text string) string {
	return strings.ReplaceAll(strings.TrimPrefix(text, "\n"), "\n", "\r\n")
}

// mixed builds a multipart body; each part is its header lines, an empty line and
// its content.
func mixed(boundary string, parts ...string) string {
	var b strings.Builder
	for _, p := range parts {
		b.WriteString("--" + boundary + "\r\n" + crlf(p) + "\r\n")
	}
	b.WriteString("--" + boundary + "--\r\n")
	return b.String()
}

// twoStreams is a description with two streams and their labels.
func twoStreams(origin, first, second, more string) string {
	return `
v=0
o=` + origin + ` 7421 1 IN IP4 {ip}
s=-
c=IN IP4 {ip}
t=0 0
m=audio {port1} RTP/AVP 0 101
a=rtpmap:0 PCMU/8000
a=rtpmap:101 telephone-event/8000
a=label:` + first + more + `
a=sendonly
m=audio {port2} RTP/AVP 0 101
a=rtpmap:0 PCMU/8000
a=rtpmap:101 telephone-event/8000
a=label:` + second + more + `
a=sendonly
`
}

func part(header, content string) string {
	return strings.TrimPrefix(header, "\n") + "\n\n" + strings.TrimPrefix(content, "\n")
}

const (
	sdpHeader      = "Content-Type: application/sdp"
	metadataHeader = "Content-Type: application/rs-metadata+xml\nContent-Disposition: recording-session"
)

// oracle: the namespace without a version, ids as attributes "id", sends inside the
// participant, who called in an extension. The callee comes first here.
func oracle() Dialect {
	xml := `
<?xml version='1.0' encoding='UTF-8'?>
<recording xmlns='urn:ietf:params:xml:ns:recording'>
	<datamode>complete</datamode>
	<session id="q1dPZ0h2Q0uXn2l7mJk0XA==">
		<associate-time>2026-03-01T12:00:00</associate-time>
		<extensiondata xmlns:apkt="http://acmepacket.com/siprec/extensiondata">
			<apkt:ucid>00FA080012AB34CD;encoding=hex</apkt:ucid>
		</extensiondata>
	</session>
	<participant id="b3duZWRCeU5vYm9keTAwMg==" session="q1dPZ0h2Q0uXn2l7mJk0XA==">
		<nameID aor="sip:4711@10.9.8.7"><name>4711</name></nameID>
		<send>c3RyZWFtb2ZjYWxsZWUwMg==</send>
		<associate-time>2026-03-01T12:00:00</associate-time>
		<extensiondata xmlns:apkt="http://acmepacket.com/siprec/extensiondata"><apkt:callingParty>false</apkt:callingParty></extensiondata>
	</participant>
	<participant id="b3duZWRCeU5vYm9keTAwMQ==" session="q1dPZ0h2Q0uXn2l7mJk0XA==">
		<nameID aor="sip:49309018@10.9.8.6"><name>49309018</name></nameID>
		<send>c3RyZWFtb2ZjYWxsZXIwMQ==</send>
		<associate-time>2026-03-01T12:00:00</associate-time>
		<extensiondata xmlns:apkt="http://acmepacket.com/siprec/extensiondata"><apkt:callingParty>true</apkt:callingParty></extensiondata>
	</participant>
	<stream id="c3RyZWFtb2ZjYWxsZWUwMg==" session="q1dPZ0h2Q0uXn2l7mJk0XA=="><label>16777301</label><mode>separate</mode></stream>
	<stream id="c3RyZWFtb2ZjYWxsZXIwMQ==" session="q1dPZ0h2Q0uXn2l7mJk0XA=="><label>16777302</label><mode>separate</mode></stream>
</recording>
`
	return Dialect{
		Name: "Oracle", Kept: true, SideBy: "caller", Source: []string{"caller: external"},
		Dialogs: []DialectDialog{{
			Headers: siprecHeaders, ContentType: "multipart/mixed; boundary=unique-boundary-1",
			Body:  mixed("unique-boundary-1", part(sdpHeader, twoStreams("-", "16777301", "16777302", "\na=maxptime:150")), part(metadataHeader, xml)),
			Tones: []float64{InternalTone, ExternalTone},
		}},
	}
}

// rfc is a document of RFC 7865 as most clients write it; flows says whether it
// associates participants with streams.
func rfc(mode string, first, second, label1, label2 string, flows bool, more string) string {
	doc := `
<?xml version="1.0" encoding="UTF-8"?>
<recording xmlns="urn:ietf:params:xml:ns:recording:1">
  <` + mode + `>complete</` + mode + `>
  <session session_id="c2Vzc2lvbi1vZi10aGUtcw=="><sipSessionID>a0b1c2d3e4f5061728394a5b6c7d8e9f;remote=9f8e7d6c5b4a39281706f5e4d3c2b1a0</sipSessionID><start-time>2026-03-01T12:00:00Z</start-time></session>
  <participant participant_id="cGFydGljaXBhbnQtb25lLQ=="><nameID aor="` + first + `"><name xml:lang="en">one</name></nameID></participant>
  <participantsessionassoc participant_id="cGFydGljaXBhbnQtb25lLQ==" session_id="c2Vzc2lvbi1vZi10aGUtcw=="><associate-time>2026-03-01T12:00:00Z</associate-time></participantsessionassoc>
  <stream stream_id="c3RyZWFtLW51bWJlci1vbg==" session_id="c2Vzc2lvbi1vZi10aGUtcw=="><label>` + label1 + `</label></stream>
  <participant participant_id="cGFydGljaXBhbnQtdHdvLQ=="><nameID aor="` + second + `"/></participant>
  <participantsessionassoc participant_id="cGFydGljaXBhbnQtdHdvLQ==" session_id="c2Vzc2lvbi1vZi10aGUtcw=="><associate-time>2026-03-01T12:00:00Z</associate-time></participantsessionassoc>
  <stream stream_id="c3RyZWFtLW51bWJlci10dw==" session_id="c2Vzc2lvbi1vZi10aGUtcw=="><label>` + label2 + `</label></stream>
`
	if flows {
		doc += `  <participantstreamassoc participant_id="cGFydGljaXBhbnQtb25lLQ=="><send>c3RyZWFtLW51bWJlci1vbg==</send><recv>c3RyZWFtLW51bWJlci10dw==</recv></participantstreamassoc>
  <participantstreamassoc participant_id="cGFydGljaXBhbnQtdHdvLQ=="><send>c3RyZWFtLW51bWJlci10dw==</send><recv>c3RyZWFtLW51bWJlci1vbg==</recv></participantstreamassoc>
`
	}
	return doc + more + "</recording>\n"
}

const (
	outsider = "sip:+4930901820@carrier.example"
	insider  = "sip:4711@pbx.example"
)

// audiocodes: RFC 7865 with dataMode, the metadata before the description, an own
// element about the call.
func audiocodes() Dialect {
	xml := rfc("dataMode", outsider, insider, "1", "2", true, `  <ac:AvayaUCID xmlns:ac="http://abc.example/siprec">FA080012AB34CD</ac:AvayaUCID>
`)
	return Dialect{
		Name: "AudioCodes", Kept: true, SideBy: "domain", Source: []string{internalDomain},
		Dialogs: []DialectDialog{{
			Headers: siprecHeaders, ContentType: `multipart/mixed;boundary=boundary_ac1f42`,
			Body:  mixed("boundary_ac1f42", part(metadataHeader+"\nContent-Length: 17", xml), part(sdpHeader, twoStreams("AudiocodesGW", "1", "2", "\na=ptime:20"))),
			Tones: []float64{ExternalTone, InternalTone},
		}},
	}
}

// cube: dispositions with handling, a part of GTD behind, the agent first.
func cube() Dialect {
	return Dialect{
		Name: "Cisco CUBE", Kept: true, SideBy: "domain", Source: []string{internalDomain},
		Dialogs: []DialectDialog{{
			Headers: append([]Header{{"Cisco-Guid", "2433903876-1462113767-2314194175-1455675991"}, {"Session-ID", "a0b1c2d3e4f5061728394a5b6c7d8e9f;remote=00000000000000000000000000000000"}}, siprecHeaders...),
			// the boundary is given in quotes
			ContentType: `multipart/mixed;boundary="uniqueBoundary"`,
			Body: mixed("uniqueBoundary", part("Content-Disposition: session;handling=required\n"+sdpHeader, twoStreams("CiscoSystemsSIP-GW-UserAgent", "1", "2", "\nc=IN IP4 {ip}\na=ptime:20")),
				part("Content-Disposition: recording-session\nContent-Type: application/rs-metadata+xml", rfc("datamode", insider, outsider, "1", "2", true, "")),
				part("Content-Disposition: signal;handling=optional\nContent-Type: application/gtd", "IAM,\nGCI,91036128574411e789f9d0ff56c3c658\n")),
			Tones: []float64{InternalTone, ExternalTone},
		}},
	}
}

// builtInBridge: no SIPREC at all. The phone forks each end of its call in a dialog
// of its own, joined by a reference in From.
func builtInBridge() Dialect {
	from := func(end string) string {
		return `<sip:4711@cucm.example;` + end + `;x-refci=31839801;x-nearendclusterid=A;x-nearenddevice=SEP00070E111111;x-nearendaddr=4711;` +
			`x-farendrefci=31839800;x-farendclusterid=A;x-farenddevice=Trunk-1;x-farendaddr=+4930901820;x-sessionid=774b8c2e>`
	}
	one := crlf(`
v=0
o=CiscoSystemsCCM-SIP 2828060 1 IN IP4 {ip}
s=SIP Call
c=IN IP4 {ip}
t=0 0
m=audio {port1} RTP/AVP 0
a=rtpmap:0 PCMU/8000
a=sendonly
`)
	near := DialectDialog{From: from("x-nearend"), ContentType: "application/sdp", Body: one, Tones: []float64{InternalTone}}
	far := DialectDialog{From: from("x-farend"), ContentType: "application/sdp", Body: one, Tones: []float64{ExternalTone}}
	return Dialect{Name: "Cisco BiB", SideBy: "half", Dialogs: []DialectDialog{far, near}}
}

// ribbon: prefixed elements, sendrecv, several names.
func ribbon() Dialect {
	xml := rfc("datamode", outsider, insider, "101", "102", true, "")
	for _, name := range []string{"recording", "datamode", "session", "participantsessionassoc", "participantstreamassoc", "participant", "stream", "nameID", "name", "label", "send", "recv", "associate-time", "start-time", "sipSessionID"} {
		xml = strings.ReplaceAll(xml, "<"+name+">", "<ns1:"+name+">")
		xml = strings.ReplaceAll(xml, "<"+name+" ", "<ns1:"+name+" ")
		xml = strings.ReplaceAll(xml, "</"+name+">", "</ns1:"+name+">")
	}
	xml = strings.Replace(xml, "xmlns=", "xmlns:ns1=", 1)
	sdp := strings.ReplaceAll(twoStreams("Sonus_UAC", "101", "102", "\na=maxptime:20"), "sendonly", "sendrecv")
	return Dialect{
		Name: "Ribbon", SideBy: "domain", Source: []string{internalDomain},
		Dialogs: []DialectDialog{{
			Headers: siprecHeaders, ContentType: "multipart/mixed;boundary=sonus-content-delim",
			Body:  mixed("sonus-content-delim", part(sdpHeader+"\nContent-Disposition: session; handling=required", sdp), part(metadataHeader, xml)),
			Tones: []float64{ExternalTone, InternalTone},
		}},
	}
}

// metaswitch: UUIDs as URNs, associations before the objects, no data mode.
func metaswitch() Dialect {
	xml := `
<?xml version="1.0"?>
<recording xmlns="urn:ietf:params:xml:ns:recording:1">
 <participantstreamassoc participant_id="urn:uuid:11111111-aaaa-4bbb-8ccc-000000000001"><send>urn:uuid:22222222-aaaa-4bbb-8ccc-000000000001</send></participantstreamassoc>
 <participantstreamassoc participant_id="urn:uuid:11111111-aaaa-4bbb-8ccc-000000000002"><send>urn:uuid:22222222-aaaa-4bbb-8ccc-000000000002</send></participantstreamassoc>
 <session session_id="urn:uuid:33333333-aaaa-4bbb-8ccc-000000000001"/>
 <stream stream_id="22222222-AAAA-4BBB-8CCC-000000000001"><label>2</label></stream>
 <stream stream_id="22222222-AAAA-4BBB-8CCC-000000000002"><label>1</label></stream>
 <participant participant_id="11111111-aaaa-4bbb-8ccc-000000000001"><nameID aor="tel:4711"/></participant>
 <participant participant_id="11111111-aaaa-4bbb-8ccc-000000000002"><nameID aor="tel:+4930901820"/></participant>
</recording>
`
	return Dialect{
		Name: "Metaswitch", SideBy: "number",
		Dialogs: []DialectDialog{{
			Headers: siprecHeaders, ContentType: "Multipart/Mixed; Boundary=msw-7d",
			Body:  mixed("msw-7d", part("content-type:application/sdp", twoStreams("MSX", "1", "2", "")), part("CONTENT-TYPE: application/rs-metadata\ncontent-disposition: recording-session", xml)),
			Tones: []float64{ExternalTone, InternalTone},
		}},
	}
}

// broadworks: one mixed stream, metadata of an own form, of which little is
// understood.
func broadworks() Dialect {
	xml := `
<recording_metadata xmlns="urn:ietf:params:xml:ns:siprec"><dataMode>complete</dataMode><recordingRole>SRC</recordingRole><recordingType>selective</recordingType>
<participant id="p-1"><nameID aor="sip:4711@pbx.example"/></participant><participant id="p-2"><nameID aor="sip:+4930901820@carrier.example;user=phone"/></participant>
<stream id="s-1"><label>1</label><mode>mixed</mode></stream><extTrackingID>1142208:1</extTrackingID><serviceProviderID>Demo</serviceProviderID></recording_metadata>
`
	sdp := `
v=0
o=BroadWorks 170535024 1 IN IP4 {ip}
s=-
c=IN IP4 {ip}
t=0 0
m=audio {port1} RTP/AVP 8 101 0
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:101 telephone-event/8000
a=ptime:20
a=sendonly
a=label:1
`
	return Dialect{
		Name: "BroadWorks", Mixed: true, Kept: true, SideBy: "rule",
		Dialogs: []DialectDialog{{
			Headers: siprecHeaders, ContentType: "multipart/mixed;boundary=UniqueBroadWorksBoundary",
			Body:  mixed("UniqueBroadWorksBoundary", part("Content-Type:application/rs-metadata+xml\nContent-Disposition:recording-session\nContent-Length:9999", xml), part(sdpHeader+"\nContent-Length: 3", sdp)),
			Tones: []float64{ExternalTone},
		}},
	}
}

// webex: RFC 7865 with extensions in the session and the participants' associations.
func webex() Dialect {
	xml := rfc("datamode", outsider, insider, "10", "20", true, "")
	xml = strings.Replace(xml, "</sipSessionID>", `</sipSessionID><bw:extTrackingID xmlns:bw="http://schema.broadsoft.com/siprec">9b1f:2</bw:extTrackingID>`, 1)
	return Dialect{
		Name: "Webex", Kept: true, SideBy: "domain", Source: []string{internalDomain},
		Dialogs: []DialectDialog{{
			Headers: siprecHeaders, ContentType: "multipart/mixed;boundary=foobar",
			Body:  mixed("foobar", part(sdpHeader, twoStreams("-", "10", "20", "\na=ptime:20")), part(metadataHeader, xml)),
			Tones: []float64{ExternalTone, InternalTone},
		}},
	}
}

// avaya: an empty line before the first boundary, ids that are no UUIDs, metadata
// twice.
func avaya() Dialect {
	xml := strings.NewReplacer("c2Vzc2lvbi1vZi10aGUtcw==", "00FA0800705D4C5DCAAC41", "cGFydGljaXBhbnQtb25lLQ==", "9a2de728ba0bc348db1e", "cGFydGljaXBhbnQtdHdvLQ==", "abcdef12345678901234",
		"c3RyZWFtLW51bWJlci1vbg==", "e6988909e02ca808ec0a", "c3RyZWFtLW51bWJlci10dw==", "261ddd3615629f108092").Replace(rfc("dataMode", insider, outsider, "10", "20", true, ""))
	return Dialect{
		Name: "Avaya", SideBy: "domain", Source: []string{internalDomain},
		Dialogs: []DialectDialog{{
			Headers: append([]Header{{"User-to-User", "00FA0800705D4C5DCAAC41;encoding=hex"}}, siprecHeaders...), ContentType: "multipart/mixed;boundary=asbce",
			Body:  "\r\n" + mixed("asbce", part(sdpHeader, twoStreams("-", "10", "20", "")), part(metadataHeader, xml), part(metadataHeader, xml)),
			Tones: []float64{InternalTone, ExternalTone},
		}},
	}
}

// netsapiens: metadata as text/plain, no labels in the description.
func netsapiens() Dialect {
	sdp := strings.NewReplacer("a=label:1\n", "", "a=label:2\n", "").Replace(twoStreams("NetSapiens", "1", "2", ""))
	return Dialect{
		Name: "NetSapiens", SideBy: "domain", Source: []string{internalDomain},
		Dialogs: []DialectDialog{{
			Headers: []Header{{"Supported", "siprec"}}, ContentType: "multipart/mixed;boundary=ns",
			Body:  mixed("ns", part(sdpHeader, sdp), part("Content-Type: text/plain", rfc("datamode", insider, outsider, "1", "2", true, ""))),
			Tones: []float64{InternalTone, ExternalTone},
		}},
	}
}

// opensips: participants that nothing associates with streams, a name with more
// than a name in it, no t= line and c= of 0.0.0.0 in o= alone.
func opensips() Dialect {
	sdp := strings.NewReplacer("t=0 0\n", "", "o=- 7421 1 IN IP4 {ip}", "o=- 1516628962 0 IN IP4 0.0.0.0").Replace(twoStreams("-", "1", "2", "\na=maxptime:150"))
	xml := strings.Replace(rfc("datamode", outsider, insider, "1", "2", false, ""), ">one<", ">test_user;lang=en-US;id=22<", 1)
	return Dialect{
		Name: "OpenSIPS", SideBy: "domain, paired by order", Source: []string{internalDomain},
		Dialogs: []DialectDialog{{
			Headers: siprecHeaders, ContentType: "multipart/mixed;boundary=OSS-unique-boundary-42",
			Body:  mixed("OSS-unique-boundary-42", part(sdpHeader, sdp), part(metadataHeader, xml)),
			Tones: []float64{ExternalTone, InternalTone},
		}},
	}
}

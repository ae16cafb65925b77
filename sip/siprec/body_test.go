package siprec

import (
	"encoding/base64"
	"strings"
	"testing"
)

const (
	testSDP = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\n"
	testXML = `<recording xmlns="urn:ietf:params:xml:ns:recording:1"><datamode>complete</datamode></recording>`
)

func TestSplit(t *testing.T) {
	parts := func(list ...string) string { return "--b\r\n" + strings.Join(list, "\r\n--b\r\n") + "\r\n--b--\r\n" }
	sdp, xml := "Content-Type: application/sdp\r\n\r\n"+testSDP, "Content-Type: application/rs-metadata+xml\r\n\r\n"+testXML
	for name, c := range map[string]struct {
		typ, body        string
		sdp              bool
		metadata, others int
	}{
		"in order":               {typ: "multipart/mixed;boundary=b", body: parts(sdp, xml), sdp: true, metadata: 1},
		"the other way round":    {typ: "multipart/mixed; boundary=\"b\"", body: parts(xml, sdp), sdp: true, metadata: 1},
		"twice":                  {typ: "multipart/mixed;boundary=b", body: parts(xml, sdp, xml, sdp), sdp: true, metadata: 1},
		"two documents":          {typ: "multipart/mixed;boundary=b", body: parts(xml, sdp, strings.Replace(xml, "complete", "partial", 1)), sdp: true, metadata: 2},
		"another boundary":       {typ: "multipart/mixed;boundary=c", body: parts(sdp, xml), sdp: true, metadata: 1},
		"no boundary":            {typ: "multipart/mixed", body: "\r\n" + parts(sdp, xml), sdp: true, metadata: 1},
		"another type":           {typ: "application/sdp", body: parts(sdp, xml), sdp: true, metadata: 1},
		"no type":                {body: parts(sdp, xml), sdp: true, metadata: 1},
		"no end":                 {typ: "multipart/mixed;boundary=b", body: strings.TrimSuffix(parts(sdp, xml), "\r\n--b--\r\n"), sdp: true, metadata: 1},
		"line feeds alone":       {typ: "multipart/mixed;boundary=b", body: strings.ReplaceAll(parts(sdp, xml), "\r", ""), sdp: true, metadata: 1},
		"text/plain":             {typ: "multipart/mixed;boundary=b", body: parts(strings.Replace(sdp, "application/sdp", "text/plain", 1), strings.Replace(xml, "application/rs-metadata+xml", "text/plain", 1)), sdp: true, metadata: 1},
		"no header fields":       {typ: "multipart/mixed;boundary=b", body: parts("\r\n"+testSDP, testXML), sdp: true, metadata: 1},
		"wrong lengths":          {typ: "multipart/mixed;boundary=b", body: parts("Content-Length: 1\r\n"+sdp, "content-LENGTH: 99999\r\n"+xml), sdp: true, metadata: 1},
		"a part in base64":       {typ: "multipart/mixed;boundary=b", body: parts(sdp, "Content-Transfer-Encoding: base64\r\nContent-Type: application/rs-metadata+xml\r\n\r\n"+base64.StdEncoding.EncodeToString([]byte(testXML))), sdp: true, metadata: 1},
		"nested":                 {typ: "multipart/mixed;boundary=b", body: parts("Content-Type: multipart/alternative;boundary=in\r\n\r\n--in\r\n"+sdp+"\r\n--in--", xml), sdp: true, metadata: 1},
		"a third part":           {typ: "multipart/mixed;boundary=b", body: parts(sdp, xml, "Content-Type: application/gtd\r\n\r\nIAM,"), sdp: true, metadata: 1, others: 1},
		"description alone":      {typ: "application/sdp", body: testSDP, sdp: true},
		"metadata alone":         {typ: "application/rs-metadata", body: testXML, metadata: 1},
		"metadata of no type":    {body: "\xef\xbb\xbf" + testXML, metadata: 1},
		"metadata that is none":  {typ: "application/rs-metadata+xml", body: "garbage", metadata: 1},
		"nothing":                {},
		"a delimiter and no end": {typ: "multipart/mixed;boundary=b", body: "--b"},
	} {
		t.Run(name, func(t *testing.T) {
			got := split(c.typ, []byte(c.body))
			if (got.sdp != nil) != c.sdp || len(got.metadata) != c.metadata || len(got.others) != c.others {
				t.Fatalf("description %q, %d documents, %d others", got.sdp, len(got.metadata), len(got.others))
			}
			if c.sdp && strings.TrimSpace(strings.ReplaceAll(string(got.sdp), "\r", "")) != strings.TrimSpace(strings.ReplaceAll(testSDP, "\r", "")) {
				t.Errorf("description %q", got.sdp)
			}
		})
	}
}

func FuzzSplit(f *testing.F) {
	f.Add("multipart/mixed;boundary=b", []byte("--b\r\nContent-Type: application/sdp\r\n\r\n"+testSDP+"\r\n--b\r\n\r\n"+testXML+"\r\n--b--"))
	f.Add("", []byte("--\r\n--\r\n"))
	f.Add("multipart/x;boundary=\"", []byte("--a\n--a\n--a--"))
	f.Add("multipart/mixed;\x8aboundary=b", []byte("--b\r\n")) // its lower case is longer
	f.Fuzz(func(t *testing.T, typ string, body []byte) {
		c := split(typ, body)
		if len(c.metadata)+len(c.others) > partsMax*partsMax*partsMax+1 {
			t.Fatalf("%d parts", len(c.metadata)+len(c.others))
		}
	})
}

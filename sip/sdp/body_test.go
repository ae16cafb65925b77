package sdp

import (
	"bytes"
	"strconv"
	"strings"
	"testing"
)

const mixed = "preamble\r\n--b 1\r\nContent-Type: application/isup;version=x\r\n\r\n\x01\x02\r\n--b 1x\r\n\x00\r\n" +
	"--b 1 \r\nContent-Disposition: session\r\nContent-type: Application/SDP \r\nContent-Length: 5\r\n\r\nv=0\r\n\r\n--b 1\r\n\r\nrest\r\n--b 1--\r\nepilogue"

func TestSplitBody(t *testing.T) {
	for _, c := range []struct {
		name, contentType, body string
		sdp, replaced           string // with "v=1 new"
		ok                      bool
	}{
		{"plain", "application/sdp", "v=0\r\n", "v=0\r\n", "v=1 new", true},
		{"plain with parameters", "Application/SDP; charset=utf-8", "v=0\r\n", "v=0\r\n", "v=1 new", true},
		{"other", "text/plain", "v=0\r\n", "", "", false},
		{"no type", "", "v=0\r\n", "", "", false},
		{"no type that can be read", ";;", "v=0\r\n", "", "", false},
		{
			"mixed", `multipart/mixed;boundary="b 1"`, mixed, "v=0\r\n",
			strings.Replace(strings.Replace(mixed, "Length: 5", "Length: 7", 1), "\r\n\r\nv=0\r\n\r\n", "\r\n\r\nv=1 new\r\n", 1), true,
		},
		{"no boundary", "multipart/mixed", mixed, "", "", false},
		{"other boundary", "multipart/mixed;boundary=c", mixed, "", "", false},
		{"boundary too long", "multipart/mixed;boundary=" + strings.Repeat("b", 71), mixed, "", "", false},
		{"bare line feeds, no end", "multipart/mixed;boundary=b", "--b\nc: application/sdp\n\nv=0\n", "v=0\n", "--b\nc: application/sdp\n\nv=1 new", true},
		{"bare line feeds", "multipart/mixed;boundary=b", "--b\nc: application/sdp\n\nv=0\n\n--b--", "v=0\n", "--b\nc: application/sdp\n\nv=1 new\n--b--", true},
		{
			"the first of two", "multipart/related;boundary=b", "--b\r\nc: application/sdp\r\n\r\nv=0\r\n--b\r\nc:application/sdp\r\n\r\nv=2\r\n--b--\r\n", "v=0",
			"--b\r\nc: application/sdp\r\n\r\nv=1 new\r\n--b\r\nc:application/sdp\r\n\r\nv=2\r\n--b--\r\n", true,
		},
		{
			"binary", "multipart/mixed;boundary=b", "--b\r\nc: application/sdp\r\nContent-Transfer-Encoding: binary\r\nContent-Length: many\r\n\r\nv=0\r\n--b--", "v=0",
			"--b\r\nc: application/sdp\r\nContent-Transfer-Encoding: binary\r\nContent-Length: many\r\n\r\nv=1 new\r\n--b--", true,
		},
		{
			"nested", "multipart/mixed;boundary=b", "--b\r\nc: application/isup\r\n\r\n\x01\r\n--b\r\nc: multipart/alternative;boundary=i\r\n\r\n--i\r\nc: text/plain\r\n\r\nx\r\n--i\r\nc: application/sdp\r\n\r\nv=0\r\n--i--\r\n--b--", "v=0",
			"--b\r\nc: application/isup\r\n\r\n\x01\r\n--b\r\nc: multipart/alternative;boundary=i\r\n\r\n--i\r\nc: text/plain\r\n\r\nx\r\n--i\r\nc: application/sdp\r\n\r\nv=1 new\r\n--i--\r\n--b--", true,
		},
		{
			"for early media, then the session's", "multipart/mixed;boundary=b", "--b\r\nc: application/sdp\r\nContent-Disposition: early-session\r\n\r\nv=2\r\n--b\r\nc: application/sdp\r\nContent-Disposition: session;handling=required\r\n\r\nv=0\r\n--b--", "v=0",
			"--b\r\nc: application/sdp\r\nContent-Disposition: early-session\r\n\r\nv=2\r\n--b\r\nc: application/sdp\r\nContent-Disposition: session;handling=required\r\n\r\nv=1 new\r\n--b--", true,
		},
		{"compressed part", "multipart/mixed;boundary=b", "--b\r\nc: application/sdp\r\nContent-Encoding: gzip\r\n\r\nv=0\r\n--b--", "", "", false},
		{"nested too deep", "multipart/mixed;boundary=b", strings.Repeat("--b\r\nc: multipart/mixed;boundary=b\r\n\r\n", 50) + "--b\r\nc: text/plain\r\n\r\n", "", "", false},
		{"base64", "multipart/mixed;boundary=b", "--b\r\nc: application/sdp\r\nContent-Transfer-Encoding: base64\r\n\r\ndj0w\r\n--b--", "", "", false},
		{"after the end", "multipart/mixed;boundary=b", "--b--\r\n--b\r\nc: application/sdp\r\n\r\nv=0\r\n--b--", "", "", false},
		{"only a header", "multipart/mixed;boundary=b", "--b\r\nc: application/sdp", "", "", false},
		{"only a delimiter", "multipart/mixed;boundary=b", "--b", "", "", false},
		{"too large", "multipart/mixed;boundary=b", "--b\r\nc: application/sdp\r\n\r\n" + strings.Repeat("v", multipartBytesMax), "", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			sdp, replace, ok := SplitBody(c.contentType, []byte(c.body))
			if ok != c.ok || string(sdp) != c.sdp {
				t.Fatalf("%q, %v", sdp, ok)
			}
			if !ok {
				return
			}
			if got := string(replace([]byte("v=1 new"))); got != c.replaced {
				t.Errorf("replaced:\n%q, want\n%q", got, c.replaced)
			}
		})
	}
}

func FuzzSplitBody(f *testing.F) {
	f.Add(`multipart/mixed;boundary="b 1"`, []byte(mixed))
	f.Add("multipart/mixed;boundary=b", []byte("--b\nc: application/sdp\nl: 3\n\nv=0\n--b--"))
	f.Add("multipart/mixed;boundary=b", []byte("--b\r\nc: application/sdp\r\nContent-Length:\r\n\r\n\r\n--b"))
	f.Add("application/sdp", []byte("v=0"))
	f.Add("multipart/mixed;boundary=b", []byte("--b\r\nc: multipart/x;boundary=i\r\n\r\n--i\r\nc: application/sdp\r\n\r\nv=0\r\n--i--\r\n--b--"))
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		was := bytes.Clone(body)
		sdp, replace, ok := SplitBody(contentType, body)
		if !ok {
			return
		}
		if got := replace([]byte("v=1 new")); !bytes.Contains(got, []byte("v=1 new")) || len(got) < 7 {
			t.Fatalf("%q is not in %q", "v=1 new", got)
		}
		same := replace(sdp)
		if !bytes.Equal(body, was) {
			t.Fatal("the body was changed")
		}
		// A Content-Length that lied is corrected; anything else comes back.
		if len(same) != len(body) && !bytes.Contains(same, []byte(strconv.Itoa(len(sdp)))) || len(same) == len(body) && !bytes.Contains(same, sdp) {
			t.Fatalf("%q became %q", body, same)
		}
	})
}
